/* The list of sessions, the last active first: a store of it, kept up to date while it is followed.
 *
 * A session that is told of anew takes the place of what was known of it. Where the stream cannot be resumed the list
 * begins again with its first page.
 */

import { Backoff, Bearer, GOOD, pause, Problem, query, Wire } from "./asking.js";
import { openSocket, openStream, SILENCE, SLOWEST } from "./lines.js";

/** @import { Frame } from "./lines.js" */
/** @import { Abortable, Connection, Listed, Listings, Place } from "./types.js" */

const TRIES = 2; // connections on a WebSocket before the event stream is taken: something on the way knows no WebSocket

/**
 * @param {Listed} one
 * @param {Listed} other
 * @returns {number}
 */
function order(one, other) {
  const [a, b] = [one.updated ?? "", other.updated ?? ""];
  if (a !== b) return a > b ? -1 : 1;
  return one.session_id < other.session_id ? -1 : 1;
}

export class Listing {
  #wire;
  #over;
  #limit;
  /** @type {Map<string, Listed>} */
  #known = new Map();
  /** @type {Set<string>} those that were deleted; a page of older ones may not know yet */
  #gone = new Set();
  /** @type {string | undefined} where the next page begins */
  #next;
  /** @type {string | null} */
  #cursor = null;
  /** @type {Connection} */
  #connection = Object.freeze({ state: "idle", attempts: 0 });
  /** @type {Listings | null} */
  #snapshot = null;
  /** @type {Set<() => void>} */
  #listeners = new Set();
  #attempts = 0;
  #slow = 0; // lines in a row that brought no page, and might have with more time
  #stood = false; // there was a connection

  /** @param {Place & {over?: "sse" | "websocket", limit?: number}} [options] `limit`: sessions that it begins with */
  constructor({ over = "sse", limit, ...place } = {}) {
    this.#wire = new Wire(place);
    this.#over = over;
    this.#limit = limit;
  }

  /**
   * Call the listener after each change. Gives a function that ends it.
   *
   * @readonly
   * @param {() => void} listener
   * @returns {() => void}
   */
  subscribe = (listener) => {
    const entry = () => listener();
    this.#listeners.add(entry);
    return () => void this.#listeners.delete(entry);
  };

  /**
   * The list now. Unchangeable; the same object until something in it changes.
   *
   * @readonly
   * @returns {Listings}
   */
  getSnapshot = () =>
    (this.#snapshot ??= Object.freeze({
      sessions: Object.freeze([...this.#known.values()].sort(order)),
      more: this.#next !== undefined,
      connection: this.#connection,
    }));

  #tell() {
    this.#snapshot = null;
    for (const listener of [...this.#listeners]) {
      try {
        listener();
      } catch (error) {
        reportError(error); // a fault in somebody else's code is theirs
      }
    }
  }

  /** @param {Omit<Connection, "attempts">} connection */
  #turn(connection) {
    this.#connection = Object.freeze({ ...connection, attempts: this.#attempts });
    this.#tell();
    return this.#connection;
  }

  /** How it is followed. */
  get over() {
    return this.#over;
  }

  /**
   * Keep the list up to date until the signal, or a refusal; reconnects by itself.
   *
   * @param {Abortable} [options]
   * @returns {Promise<Connection>} how it ended
   */
  async follow({ signal = new AbortController().signal } = {}) {
    const backoff = new Backoff();
    const bearer = new Bearer();
    while (!signal.aborted) {
      const begun = Date.now();
      const line = { connected: false, live: false, expired: false, later: 0 };
      /** @type {Problem | undefined} */
      let problem;
      try {
        await this.#read(line, bearer, signal);
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        problem = error;
      }
      if (signal.aborted) break;
      this.#stood ||= line.connected;
      if (!this.#stood && this.#attempts >= TRIES) this.#over = "sse";
      if (problem?.code === "UNAUTHENTICATED" && this.#wire.renews && !(bearer.refused && !line.connected)) bearer.refused = true;
      else if (problem && !problem.retryable) return this.#turn({ state: "refused", problem });
      else bearer.refused = line.expired;
      if (line.connected && Date.now() - begun >= GOOD) backoff.reset();
      this.#slow = line.connected && !line.live ? Math.min(this.#slow + 1, SLOWEST) : 0;
      const atLeast = Math.max(line.later, problem?.retryAfter ?? 0);
      const asked = backoff.next(atLeast, line.connected ? 0 : Date.now() - begun);
      this.#turn({ state: "waiting", until: Date.now() + asked, ...(problem && { problem }) });
      await pause(asked, signal, atLeast);
    }
    return this.#turn({ state: "idle" });
  }

  /**
   * One connection's life.
   *
   * @param {{connected: boolean, live: boolean, expired: boolean, later: number}} line what becomes known of it
   * @param {Bearer} bearer
   * @param {AbortSignal} signal
   */
  async #read(line, bearer, signal) {
    this.#attempts += 1;
    this.#turn({ state: "connecting" });
    const open = this.#over === "websocket" ? openSocket : openStream;
    const silence = SILENCE * 2 ** this.#slow;
    const asks = { sessionId: null, after: this.#cursor, snapshot: false, limit: this.#limit, bearer, silence, signal };
    for await (const frames of open(this.#wire, asks)) {
      line.connected = true;
      let over = false;
      for (const frame of frames) {
        if (frame.kind === "later") line.later = frame.milliseconds;
        else if (frame.kind === "control") over ||= this.#take(frame, line);
        else over ||= frame.kind === "bad"; // what it told would be missing
      }
      this.#tell();
      if (over) return;
    }
  }

  /**
   * Take in one frame. Whether nothing more comes on this connection, which may stand all the same.
   *
   * @param {Frame & {kind: "control"}} frame
   * @param {{live: boolean, expired: boolean, later: number}} line
   * @returns {boolean}
   */
  #take({ name, data, cursor }, line) {
    if (name === "sessions") {
      this.#known = new Map(data.sessions.map((/** @type {Listed} */ each) => [each.session_id, Object.freeze(each)]));
      this.#gone.clear();
      this.#next = data.next;
    } else if (name === "session") {
      this.#known.set(data.session_id, Object.freeze(data));
      this.#gone.delete(data.session_id);
    } else if (name === "session-gone") {
      this.#known.delete(data.session_id);
      this.#gone.add(data.session_id);
    } else if (name === "caught-up") {
      line.live = true;
      this.#turn({ state: "live" });
    } else if (name === "drain") {
      line.expired = data?.reason === "token-expired";
      if (line.expired) line.later = 0; // the server is well, only our token is not
    }
    if (cursor && name !== "gap") this.#cursor = cursor; // behind a gap only the page says where we are
    return name === "drain" || name === "degraded";
  }

  /**
   * Fetch a page of those that were active before the ones that are here. Whether there are more then.
   *
   * @param {{limit?: number} & Abortable} [options]
   * @returns {Promise<boolean>}
   */
  async older({ limit, signal } = {}) {
    const after = this.#next;
    if (after === undefined) return false;
    const path = `/sessions${query({ order: "updated", limit, after })}`;
    const page = await this.#wire.ask({ method: "GET", path, repeatable: true, signal });
    if (this.#next !== after) return this.#next !== undefined; // it began anew meanwhile
    for (const each of page.sessions) {
      const { session_id: id } = each;
      if (!this.#known.has(id) && !this.#gone.has(id)) this.#known.set(id, Object.freeze(each));
    }
    this.#next = page.next;
    this.#tell();
    return page.next !== undefined;
  }
}
