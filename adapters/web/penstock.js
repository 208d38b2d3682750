/* Follow one penstock session from a page: read its event stream, fold it, resume where it broke off.
 *
 *   const session = new Session("my-session", { onChange(fold) { render(fold.messages); } });
 *   await session.create();
 *   session.follow();
 *   await session.start({ text: "Hello" });
 *
 * Three layers, each usable alone: `FrameParser` (bytes of an SSE stream to frames), `Fold` (events to the
 * state of the session; needs no network) and `Session` (the connection and the commands).
 */

const CURSOR = /^([A-Za-z0-9]{1,32})-([0-9]{16})$/;

/** The epoch and offset in a cursor's text, or null if it is none. */
export function parseCursor(text) {
  const match = CURSOR.exec(text ?? "");
  return match && { epoch: match[1], offset: Number(match[2]) };
}

/** The text of a cursor: the place behind the event at this offset. */
export function makeCursor(epoch, offset) {
  return `${epoch}-${String(offset).padStart(16, "0")}`;
}

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

/** The state of one session, folded from its events.
 *
 * `apply` says what became of an event:
 *   "applied"    it changed the state
 *   "duplicate"  it was there already, by its offset or by its seq in the block; nothing changed
 *   "foreign"    it belongs to another session; nothing changed
 *   "ephemeral"  it has no place in the log; nothing changed
 *   "gap"        something before it is missing; nothing changed, load a snapshot
 * A message comes into being by `message.opened` or `message.snapshot` alone, never by a delta.
 */
export class Fold {
  constructor(sessionId) {
    this.sessionId = sessionId;
    this.changed = new Set(); // ids of messages that changed since the reader cleared it
    this.reset(null);
  }

  reset(epoch) {
    this.epoch = epoch;
    this.offset = 0;
    this.metadata = {};
    this.more = false; // a snapshot left older messages out
    this.ends = new Map(); // generation id to the data of its end, as far as it was seen
    this.#clear();
  }

  #clear() {
    for (const message of this.messages ?? []) this.changed.add(message.message_id);
    this.messages = [];
    this.generation = null; // the live one
    this.queue = { paused: false, items: [] };
    this.approvals = [];
  }

  get cursor() {
    return this.epoch === null ? null : makeCursor(this.epoch, this.offset);
  }

  message(messageId) {
    return this.messages.find((message) => message.message_id === messageId);
  }

  /** Start over from a snapshot, as `GET /v1/sessions/{id}` and the stream's `snapshot` frame give it. */
  load(snapshot) {
    if (snapshot.session_id !== this.sessionId) return "foreign";
    const at = parseCursor(snapshot.cursor);
    this.reset(at.epoch);
    this.offset = at.offset;
    this.messages = structuredClone(snapshot.messages);
    this.generation = structuredClone(snapshot.generation ?? null);
    this.queue = structuredClone(snapshot.queue ?? this.queue);
    this.approvals = structuredClone(snapshot.approvals ?? []);
    this.metadata = structuredClone(snapshot.metadata ?? {});
    this.more = snapshot.more ?? false;
    for (const message of this.messages) this.changed.add(message.message_id);
    return "applied";
  }

  /** Fold in one event; `cursor` is the id it came with. */
  apply(event, cursor) {
    if (event.session_id !== this.sessionId) return "foreign";
    if (event.offset === undefined) return "ephemeral";
    const epoch = parseCursor(cursor)?.epoch ?? this.epoch;
    if (epoch !== this.epoch) {
      if (event.offset !== 1) return "gap"; // another life of the session, and not from its start
      this.reset(epoch);
    }
    if (event.offset <= this.offset) return "duplicate";
    const verdict = this.#fold(event, event.data);
    if (verdict !== "gap") this.offset = event.offset;
    return verdict;
  }

  #fold(event, data) {
    const id = event.generation_id;
    switch (event.type) {
      case "session.created":
      case "session.updated":
      case "session.forked":
        this.metadata = data.metadata ?? {};
        break;
      case "session.reset":
        this.#clear();
        break;
      case "generation.queued":
        this.queue.items.push({
          ...pick(event, "generation_id", "job_id"),
          ...pick(data, "producer", "policy", "metadata", "text"),
        });
        break;
      case "queue.paused":
      case "queue.resumed":
        this.queue.paused = event.type === "queue.paused";
        break;
      case "generation.started":
        this.#dequeue(id);
        this.generation = {
          ...pick(event, "generation_id", "turn", "job_id"),
          ...pick(data, "producer", "metadata"),
          state: "live",
        };
        break;
      case "generation.status":
        if (this.generation?.generation_id === id) this.generation.status = data.status;
        break;
      case "generation.cancelling":
        if (this.generation?.generation_id === id) this.generation.state = "cancelling";
        this.#touch(id);
        break;
      case "generation.finished":
        this.#dequeue(id);
        this.ends.set(id, data);
        this.#touch(id);
        if (this.generation?.generation_id === id) this.generation = null;
        break;
      case "approval.requested":
        this.approvals.push({ ...pick(event, "generation_id", "message_id"), ...data });
        break;
      case "approval.resolved":
        this.approvals = this.approvals.filter((approval) => approval.approval_id !== data.approval_id);
        break;
      case "message.opened":
        if (!this.message(event.message_id)) {
          this.messages.push({ ...stamp(event), status: "open", blocks: [], ...data });
        }
        this.changed.add(event.message_id);
        break;
      case "message.snapshot": {
        const known = this.message(event.message_id);
        if (known) Object.assign(known, structuredClone(data));
        else this.messages.push({ ...stamp(event), ...structuredClone(data) });
        this.changed.add(event.message_id);
        break;
      }
      case "message.closed": {
        const message = this.message(event.message_id);
        if (!message) return "gap";
        Object.assign(message, data);
        this.changed.add(event.message_id);
        break;
      }
      case "message.retracted":
        this.messages = this.messages.filter((message) => message.message_id !== event.message_id);
        this.changed.add(event.message_id);
        break;
      case "block.opened":
      case "block.delta":
      case "block.closed":
        return this.#foldBlock(event, data);
    }
    return "applied"; // a type this version does not know changes nothing, and is no fault
  }

  #touch(generationId) {
    for (const message of this.messages) {
      if (message.generation_id === generationId) this.changed.add(message.message_id);
    }
  }

  #dequeue(generationId) {
    this.queue.items = this.queue.items.filter((item) => item.generation_id !== generationId);
  }

  #foldBlock(event, data) {
    const message = this.message(event.message_id);
    if (!message || event.block_index > message.blocks.length) return "gap";
    const block = message.blocks[event.block_index];
    const expected = block ? block.seq + 1 : 0;
    if (event.seq < expected) return "duplicate";
    if (event.seq > expected) return "gap";
    this.changed.add(event.message_id);
    if (!block) {
      message.blocks.push({ seq: 0, open: true, ...data });
      return "applied";
    }
    block.seq = event.seq;
    if (event.type === "block.closed") {
      delete block.open;
      Object.assign(block, data);
      return "applied";
    }
    if ("text" in data) block.text = (block.text ?? "") + data.text;
    if ("arguments" in data) block.arguments = (block.arguments ?? "") + data.arguments;
    if ("value" in data) block.value = data.value;
    return "applied";
  }
}

function pick(from, ...names) {
  return Object.fromEntries(names.filter((name) => name in from).map((name) => [name, from[name]]));
}

function stamp(event) {
  return pick(event, "message_id", "generation_id", "turn", "job_id");
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

  start(body) {
    return this.#request("POST", "/generations", body);
  }

  stop(body = {}) {
    return this.#request("POST", "/stop", body);
  }

  async #request(method, path, body) {
    const response = await fetch(this.#base + path, {
      method,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw await Problem.of(response);
    return response.json();
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
