/* One connection that tells of a session, or of the list of them, as server-sent events or on a WebSocket: frames, until
 * it breaks.
 *
 * Both forms become the same frames. A connection that is silent for too long is dead, whatever TCP says. Who reconnects,
 * and what the frames mean, is penstock.js's, and listing.js's for the list.
 */

import { onReturn, Problem, unreachable } from "./asking.js";
import { makeCursor, parseCursor } from "./fold.js";

/** @import { Bearer, Wire } from "./asking.js" */
/** @import { SseFrame } from "./types.js" */

/**
 * How long a connection may be silent, in milliseconds: half of it is for the server to say something, half for an answer
 * to come on a line that is merely bad. With the time for another connection a person waits ten seconds at most.
 *
 * @internal
 */
export const SILENCE = 7_000;

/** Doublings of the silence that a line may keep: a snapshot, or a page of the list, is one message on a WebSocket. @internal */
export const SLOWEST = 2;

const LONGEST_HEARTBEAT = 3600; // that a server may be asked for, in seconds
const HIDDEN = 6; // times as long a page that nobody looks at waits before it asks: when it is looked at, it asks at once

/**
 * What a connection tells:
 *
 * - `opened`: it stands; what follows begins behind this place
 * - `event`: as it came, unchecked; `cursor` is null where it has no place in the log
 * - `control`: `snapshot`, `caught-up`, `gap`, `presence`, `degraded`, `end`, `drain`; of the list `sessions`, `session`,
 *   `session-gone`, each with the `cursor` behind it
 * - `later`: come back after so many milliseconds, not before
 * - `bad`: what came cannot be read
 *
 * @typedef {{kind: "opened", cursor: string} | {kind: "event", event: any, cursor: string | null}
 *   | {kind: "control", name: string, data: any, cursor?: string | null} | {kind: "later", milliseconds: number}
 *   | {kind: "bad", reason: string}} Frame
 */

/**
 * What a connection is asked for.
 *
 * @typedef {object} Asks
 * @property {string | null} sessionId null is the list
 * @property {string | null} after the cursor behind which to begin; null is the start
 * @property {boolean} snapshot begin with the state instead
 * @property {number} [limit] of the state's messages, of the list's first page
 * @property {Bearer} bearer
 * @property {number} silence milliseconds
 * @property {AbortSignal} signal leaves the connection; the frames then just end
 */

/** Whether a line lives: silent for half of what it may be, it is asked; silent for as long behind that, it is dead. */
class Pulse {
  #half;
  #question;
  #dead;
  #asked = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {number} silence milliseconds
   * @param {() => void} question asks for a sign of life
   * @param {() => void} dead
   */
  constructor(silence, question, dead) {
    this.#half = silence / 2;
    this.#question = question;
    this.#dead = dead;
    this.heard();
  }

  heard() {
    this.stop();
    this.#asked = false;
    const hidden = globalThis.document?.visibilityState === "hidden";
    this.#timer = setTimeout(() => this.ask(), this.#half * (hidden ? HIDDEN : 1));
  }

  ask() {
    if (this.#asked) return;
    this.stop();
    this.#asked = true;
    this.#timer = setTimeout(this.#dead, this.#half);
    this.#question();
  }

  stop() {
    clearTimeout(this.#timer);
  }
}

/** Splits a server-sent event stream into frames; each field only if it was there. */
export class FrameParser {
  #decoder = new TextDecoder(); // one for the whole stream: a character may be cut between two reads
  #line = ""; // what there is of the line that is being read
  /** @type {SseFrame} */
  #frame = {};
  #returned = false; // the last character was a CR: an LF behind it belongs to it

  /**
   * The frames that are complete with these bytes; what is incomplete is kept for the next call.
   *
   * @param {Uint8Array} bytes
   * @returns {SseFrame[]}
   */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (!text) return [];
    if (this.#returned && text.startsWith("\n")) text = text.slice(1);
    this.#returned = text.endsWith("\r");
    const lines = text.split(/\r\n|\n|\r/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop() ?? "";
    /** @type {SseFrame[]} */
    const frames = [];
    for (const line of lines) {
      if (line) this.#field(line);
      else {
        if (Object.keys(this.#frame).length) frames.push(this.#frame);
        this.#frame = {};
      }
    }
    return frames;
  }

  /** @param {string} line */
  #field(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment, such as the heartbeat
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    const frame = this.#frame;
    if (name === "data") frame.data = frame.data === undefined ? value : `${frame.data}\n${value}`;
    else if (name === "id" || name === "event") frame[name] = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) frame.retry = Number(value);
  }
}

/**
 * @param {SseFrame} frame
 * @returns {Frame[]}
 */
function fromStream({ id, event, data, retry }) {
  /** @type {Frame[]} */
  const frames = retry === undefined ? [] : [{ kind: "later", milliseconds: retry }];
  if (data === undefined) return id === undefined ? frames : [...frames, { kind: "opened", cursor: id }];
  let value;
  try {
    value = JSON.parse(data);
  } catch (error) {
    return [...frames, { kind: "bad", reason: String(error) }];
  }
  if (event) frames.push({ kind: "control", name: event, data: value, cursor: id ?? null });
  else if (value?.offset !== undefined && id === undefined) frames.push({ kind: "bad", reason: "an event has no id" });
  else frames.push({ kind: "event", event: value, cursor: id ?? null });
  return frames;
}

/**
 * Follow a session, or the list, as server-sent events, read by `fetch`: that takes headers, and `EventSource` does not.
 *
 * @internal
 * @param {Wire} wire
 * @param {Asks} asks
 * @returns {AsyncGenerator<Frame[], void, void>}
 */
export async function* openStream(wire, { sessionId, after, snapshot, limit, bearer, silence, signal }) {
  const line = new AbortController();
  const leave = () => line.abort();
  if (signal.aborted) return;
  signal.addEventListener("abort", leave);
  const dead = () => {
    leave();
    wire.shake();
  };
  const pulse = new Pulse(silence, () => {}, dead); // a stream is asked once, when it is opened
  onReturn(() => pulse.ask(), line.signal);
  /** @type {(cause: unknown) => never} */
  const broken = (cause) => {
    if (cause instanceof Problem) throw cause;
    throw unreachable(line.signal.aborted ? "the line was silent for too long" : "the line broke", cause);
  };
  try {
    /** @type {Record<string, string>} */
    const headers = { Accept: "text/event-stream" };
    if (!snapshot && after !== null) headers["Last-Event-ID"] = after;
    const asked = new URLSearchParams();
    if (snapshot) asked.set("snapshot", "true");
    if ((snapshot || sessionId === null) && limit !== undefined) asked.set("limit", String(limit));
    asked.set("heartbeat", String(Math.min(Math.max(1, Math.floor(silence / 2000)), LONGEST_HEARTBEAT)));
    const url = wire.at(`${sessionId === null ? "" : `/sessions/${encodeURIComponent(sessionId)}`}/events?${asked}`);
    const response = await wire.open(url, { headers, signal: line.signal }, bearer).catch(broken);
    const form = response.headers.get("Content-Type")?.split(";")[0];
    if (form !== "text/event-stream" || response.body === null) {
      throw new Problem({ detail: `what answers sends ${form ?? "nothing"}`, status: 200, retryable: true });
    }
    const reader = response.body.getReader();
    const parser = new FrameParser();
    for (;;) {
      pulse.heard();
      const { done, value } = await reader.read().catch(broken);
      if (done) return;
      const frames = parser.push(value).flatMap(fromStream);
      if (frames.length) yield frames;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    pulse.stop();
    signal.removeEventListener("abort", leave);
    line.abort(); // whatever ended it, the line is given back
  }
}

const SUBSCRIBED = 1; // the id of our request

/**
 * Follow a session, or the list, on a WebSocket of its own. A browser shows nobody the server's pings, so we ask for an answer.
 *
 * @internal
 * @param {Wire} wire
 * @param {Asks} asks
 * @returns {AsyncGenerator<Frame[], void, void>}
 */
export async function* openSocket(wire, { sessionId, after, snapshot, limit, bearer, silence, signal }) {
  const token = await wire.token(bearer);
  if (signal.aborted) return;
  const url = wire.at("/ws");
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const socket = new wire.place.WebSocket(url, "penstock.v1");
  /** @type {Frame[]} */
  let frames = [];
  /** @type {Problem | null} */
  let over = null;
  let wake = () => {};
  const end = (/** @type {Problem} */ problem) => {
    over ??= problem;
    wake();
  };
  const leave = () => end(unreachable("it was left"));
  const tell = (/** @type {object} */ frame) => socket.send(JSON.stringify(frame));
  const ask = () => {
    if (socket.readyState === socket.OPEN) tell({ op: "ping" });
  };
  const dead = () => {
    end(unreachable("the line was silent for too long"));
    wire.shake();
  };
  const pulse = new Pulse(silence, ask, dead);
  const left = new AbortController();
  onReturn(() => pulse.ask(), left.signal);
  signal.addEventListener("abort", leave);
  socket.onopen = () => {
    pulse.heard();
    if (token !== null) tell({ op: "auth", token });
    const place = snapshot ? { snapshot: true, limit } : after === null ? {} : { after };
    if (sessionId === null) tell({ op: "watch", id: SUBSCRIBED, limit, ...place });
    else tell({ op: "subscribe", id: SUBSCRIBED, session_id: sessionId, ...place });
  };
  socket.onmessage = ({ data }) => {
    pulse.heard();
    const read = fromSocket(data, sessionId);
    if (read instanceof Problem) end(read);
    else frames.push(...read);
    wake();
  };
  socket.onclose = ({ code }) => end(closed(code));
  try {
    for (;;) {
      while (!frames.length && !over) {
        await new Promise((resolve) => {
          wake = () => resolve(undefined);
        });
      }
      if (signal.aborted) return;
      const told = frames;
      frames = [];
      if (told.length) yield told;
      else if (over) throw over;
    }
  } finally {
    pulse.stop();
    left.abort();
    signal.removeEventListener("abort", leave);
    socket.onopen = socket.onmessage = socket.onclose = null; // what still comes is nobody's
    socket.close();
  }
}

/**
 * @param {unknown} data
 * @param {string | null} sessionId
 * @returns {Frame[] | Problem}
 */
function fromSocket(data, sessionId) {
  let frame;
  try {
    frame = JSON.parse(/** @type {string} */ (data));
  } catch (error) {
    return [{ kind: "bad", reason: String(error) }];
  }
  switch (frame?.op) {
    case "reply":
      return frame.id === SUBSCRIBED ? [{ kind: "opened", cursor: frame.result?.cursor }] : [];
    case "error":
      return new Problem(frame.error ?? {});
    case "events": {
      const at = parseCursor(frame.cursor);
      if (at === null || !Array.isArray(frame.events)) return [{ kind: "bad", reason: "events that are none" }];
      return frame.events.map((/** @type {any} */ event) => {
        const cursor = event?.offset === undefined ? null : makeCursor(at.epoch, event.offset);
        return { kind: /** @type {const} */ ("event"), event, cursor };
      });
    }
    case undefined:
      return [{ kind: "bad", reason: "a frame without op" }];
    default: {
      const { op: name, list_cursor: cursor = null, ...said } = frame;
      if (sessionId !== null && said.session_id !== undefined && said.session_id !== sessionId) {
        return [{ kind: "bad", reason: `${name} of another session` }];
      }
      return [{ kind: "control", name, data: said, cursor }];
    }
  }
}

/**
 * Why a socket was closed, by its code.
 *
 * @param {number} code
 * @returns {Problem}
 */
function closed(code) {
  const detail = `the socket was closed (${code})`;
  if (code === 4401) return new Problem({ code: "UNAUTHENTICATED", detail, status: 401 });
  if (code === 4403) return new Problem({ code: "FORBIDDEN", detail, status: 403 });
  return unreachable(detail);
}
