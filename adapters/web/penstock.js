/* Follow one penstock session from a page: read its event stream, fold it, resume where it broke off.
 *
 *   const session = new Session("my-session", { onChange(fold) { render(fold.messages); } });
 *   await session.create();
 *   session.follow();
 *   await session.start({ text: "Hello" });
 *
 * Three layers, each usable alone: `FrameParser` (bytes of an SSE stream to frames), `Fold` (events to the
 * state of the session; in fold.js) and `Session` (the connection and the commands).
 */

import { Fold, makeCursor, parseCursor } from "./fold.js";

export { Fold, makeCursor, parseCursor };

/** Splits a server-sent event stream into frames `{id, event, data, retry}`; each field only if it was there. */
export class FrameParser {
  #decoder = new TextDecoder(); // one for the whole stream: a character may be cut between two reads
  #rest = "";

  /** The frames that are complete with these bytes; what is incomplete is kept for the next call. */
  push(bytes) {
    this.#rest += this.#decoder.decode(bytes, { stream: true });
    const pieces = this.#rest.split("\n\n");
    this.#rest = pieces.pop();
    return pieces.map(parseFrame).filter((frame) => frame !== null);
  }
}

function parseFrame(text) {
  const frame = {};
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue; // a comment, such as the heartbeat, or a line without a value
    const name = line.slice(0, colon);
    const value = line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") frame.data = "data" in frame ? `${frame.data}\n${value}` : value;
    else if (name === "id" || name === "event") frame[name] = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) frame.retry = Number(value);
  }
  return Object.keys(frame).length ? frame : null;
}

/** A refusal by the server: `code` is for programs, `message` for people. */
export class Problem extends Error {
  constructor(problem) {
    super(problem.detail ?? problem.title ?? "the server refused this");
    this.code = problem.code ?? "INTERNAL";
    this.status = problem.status;
    this.retryable = problem.retryable ?? false;
  }

  static async of(response) {
    const body = await response.json().catch(() => ({})); // a proxy's page, say, is no problem document
    return new Problem({ title: `the server answered ${response.status}`, status: response.status, ...body });
  }
}

/** The connection broke or was cut; told apart from a fault in a handler, which must not pass for one. */
class Lost extends Error {}

function lost(cause) {
  throw new Lost("the connection is gone", { cause });
}

const SILENCE = 45_000; // three heartbeats of 15 s; a line that is silent longer is dead
const FIRST_PAUSE = 500; // before the first attempt to reconnect, unless the server said another
const LONGEST_PAUSE = 10_000;

/** One session on a penstock server: its stream, kept alive, and its commands.
 *
 * Handlers, all optional: `onChange(fold)` after the state changed; `onEvent(event, cursor, verdict)` for each
 * event; `onControl(name, data)` for each control frame; `onConnection(state, detail)` with the states
 * `connecting`, `replaying`, `live`, `waiting` (reconnects by itself), `ended` and `refused` (both for good).
 */
export class Session {
  #handlers;
  #base;
  #abort = null;
  #wake = null;
  #following = false;
  #resync = false;
  #pause = FIRST_PAUSE;
  #nextPause = null;

  constructor(sessionId, { base = "", snapshot = false, ...handlers } = {}) {
    this.sessionId = sessionId;
    this.fold = new Fold(sessionId);
    this.cursor = null; // the last place the stream told: where it resumes
    this.#base = new URL(`${base}v1/sessions/${encodeURIComponent(sessionId)}`, document.baseURI).href;
    this.#resync = snapshot;
    this.#handlers = handlers;
  }

  create() {
    return this.#request("PUT", "", {});
  }

  /** Start a generation. With a `key`, a start that is repeated gets the first answer and starts nothing. */
  start(body, key) {
    return this.#request("POST", "/generations", body, key === undefined ? {} : { "Idempotency-Key": key });
  }

  stop(body = {}) {
    return this.#request("POST", "/stop", body);
  }

  /** Let a paused queue go on. */
  queueNext() {
    return this.#request("POST", "/queue/next", {});
  }

  /** Take a waiting generation out of the queue. */
  dequeue(generationId) {
    return this.#request("DELETE", `/queue/${generationId}`);
  }

  /** Send an input into a live generation: `{kind, …}`. */
  input(generationId, body) {
    return this.#request("POST", `/generations/${generationId}/inputs`, body);
  }

  retract(messageId, body = {}) {
    return this.#request("POST", `/messages/${messageId}/retract`, body);
  }

  /** Merge into the session's metadata (RFC 7396). */
  update(metadata) {
    return this.#request("PATCH", "", { metadata });
  }

  reset(body = {}) {
    return this.#request("POST", "/reset", body);
  }

  fork(body = {}) {
    return this.#request("POST", "/fork", body);
  }

  async #request(method, path, body, headers = {}) {
    const response = await fetch(this.#base + path, {
      method,
      headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (!response.ok) throw await Problem.of(response);
    return response.status === 204 ? null : response.json();
  }

  /** Read the stream until `close`, the session's end or a refusal; reconnects by itself. */
  async follow() {
    if (this.#following) return;
    this.#following = true;
    while (this.#following) {
      try {
        await this.#read();
      } catch (error) {
        if (error instanceof Problem && !error.retryable) {
          this.#finish("refused", error);
          return;
        }
        if (!(error instanceof Problem || error instanceof Lost)) throw error;
      }
      if (this.#following) await this.#wait();
    }
  }

  /** Cut the connection; it comes back by itself after `pause` milliseconds. */
  drop(pause = 0) {
    this.#nextPause = pause;
    this.#abort?.abort();
  }

  /** Stop following. The session and a running answer go on without us. */
  close() {
    this.#following = false;
    this.#abort?.abort();
    this.#wake?.();
  }

  #finish(state, detail) {
    this.#following = false;
    this.#handlers.onConnection?.(state, detail);
  }

  async #wait() {
    const pause = this.#nextPause ?? this.#pause * (0.5 + Math.random() / 2);
    if (this.#nextPause === null) this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
    this.#nextPause = null;
    this.#handlers.onConnection?.("waiting", { pause, cursor: this.cursor });
    await new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, pause);
    });
  }

  async #read() {
    this.#handlers.onConnection?.("connecting");
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    const headers = { Accept: "text/event-stream" };
    if (!this.#resync && this.cursor !== null) headers["Last-Event-ID"] = this.cursor;
    const url = `${this.#base}/events${this.#resync ? "?snapshot=true" : ""}`;
    const response = await fetch(url, { headers, signal, cache: "no-store" }).catch(lost);
    if (!response.ok) throw await Problem.of(response);
    this.#handlers.onConnection?.("replaying");
    const reader = response.body.getReader();
    const parser = new FrameParser();
    let silence;
    try {
      for (;;) {
        silence = setTimeout(() => this.drop(), SILENCE);
        const { done, value } = await reader.read().catch(lost);
        clearTimeout(silence);
        if (done) return;
        for (const frame of parser.push(value)) this.#take(frame);
        if (signal.aborted) return;
        this.#handlers.onChange?.(this.fold);
      }
    } finally {
      clearTimeout(silence);
      this.#abort.abort(); // whatever ended the loop, the line is given back
    }
  }

  #take(frame) {
    if (frame.retry !== undefined) this.#pause = frame.retry;
    if (frame.data === undefined || this.#abort.signal.aborted) {
      if (frame.id !== undefined && !this.#abort.signal.aborted) this.cursor = frame.id;
      return;
    }
    let data;
    try {
      data = JSON.parse(frame.data);
    } catch (error) {
      this.#handlers.onControl?.("bad-frame", { reason: error.message });
      this.#startOver();
      return;
    }
    if (frame.event) this.#control(frame.event, data);
    else this.#event(data, frame.id);
    if (frame.id !== undefined && !this.#resync) this.cursor = frame.id;
  }

  #event(event, cursor) {
    const verdict = this.fold.apply(event, cursor);
    this.#handlers.onEvent?.(event, cursor, verdict);
    if (verdict === "gap") this.#startOver();
  }

  #control(name, data) {
    this.#handlers.onControl?.(name, data);
    if (name === "snapshot") {
      this.fold.load(data);
      this.#resync = false;
    } else if (name === "caught-up") {
      this.#pause = FIRST_PAUSE;
      this.#handlers.onConnection?.("live");
    } else if (name === "gap") {
      const from = parseCursor(data.from);
      if (from?.offset === 0) this.fold.reset(from.epoch);
      else if (data.from !== this.fold.cursor) this.#startOver();
    } else if (name === "end") {
      this.#finish("ended", data);
      this.#abort.abort();
    }
    // "drain" and "degraded" need no step: the stream ends and is taken up again, or goes on
  }

  /** What we hold does not fit what came: take the whole state anew, on a new connection. */
  #startOver() {
    this.#resync = true;
    this.drop();
  }
}
