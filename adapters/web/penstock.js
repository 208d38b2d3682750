/* Follow penstock sessions from a page: one module, no dependencies.
 *
 *   import { Client } from "./penstock.js";
 *
 *   const session = new Client({ token: () => freshToken() }).session("my-session");
 *   session.subscribe(() => render(session.getSnapshot()));   // or useSyncExternalStore(session.subscribe, session.getSnapshot)
 *   await session.create();
 *   session.follow({ signal });
 *   await session.start({ text: "Hello" });
 *
 * The parts stand in files of their own, each usable alone: fold.js (events to the state of a session), lines.js (one
 * connection), asking.js (requests and refusals), listing.js (the list of sessions), shapes.js (what a whole event is). For editors there is penstock.d.ts;
 * it is made from the comments here and there, and from types.d.ts.
 */

import { Backoff, Bearer, GOOD, newId, pause, Problem, query, Wire } from "./asking.js";
import { Fold, makeCursor, parseCursor } from "./fold.js";
import { FrameParser, openSocket, openStream, SILENCE, SLOWEST } from "./lines.js";
import { Listing } from "./listing.js";

const LARGEST_PAGE = 1000; // messages that a server gives at once

// Refusals that say of a session which was followed that it has ended.
const ENDS = new Map([["SESSION_DELETED", "deleted"], ["CORRUPT_SESSION", "corrupt"]]);

export { Fold, FrameParser, Listing, makeCursor, newId, parseCursor, Problem };

/** @import { Frame } from "./lines.js" */
/**
 * @import { Abortable, Connection, Following, GenerationInfo, Hooks, InputBody, Json, JsonObject, KeptFile, Listed,
 *   MessageBody, PenstockEvent, Place, PresenceAnswer, Producers, Restored, ServerSnapshot, Snapshot, StartBody,
 *   Started, State, StopBody, Stopped, Versions } from "./types.js"
 */

/** A penstock server, as one subject. */
export class Client {
  #wire;

  /** @param {Place} [place] without a URL the server that the page comes from */
  constructor(place = {}) {
    this.#wire = new Wire(place);
  }

  /**
   * A session, whether it exists or not. Each call makes another one, with a state of its own.
   *
   * @param {string} sessionId
   * @param {Following & Hooks} [options]
   * @returns {Session}
   */
  session(sessionId, options = {}) {
    return new Session(sessionId, { ...options, ...this.#wire.place });
  }

  /**
   * A page of the sessions that live, by id, or the last active first; `next` is the next page's `after`.
   *
   * @param {{limit?: number, after?: string, order?: "id" | "updated"} & Abortable} [options]
   * @returns {Promise<{sessions: Listed[], next?: string}>}
   */
  sessions({ limit, after, order, signal } = {}) {
    return this.#wire.ask({ method: "GET", path: `/sessions${query({ order, limit, after })}`, repeatable: true, signal });
  }

  /**
   * The list of the sessions that one may read, as a store that is kept up to date while it is followed. Each call makes
   * another one.
   *
   * @param {{over?: "sse" | "websocket", limit?: number}} [options] `limit`: sessions that it begins with, 100 unless given
   * @returns {Listing}
   */
  list(options = {}) {
    return new Listing({ ...options, ...this.#wire.place });
  }

  /**
   * The producers that the server runs, by name, and which of them a start without a name gets.
   *
   * @param {Abortable} [options]
   * @returns {Promise<Producers>}
   */
  producers({ signal } = {}) {
    return this.#wire.ask({ method: "GET", path: "/producers", repeatable: true, signal });
  }

  /**
   * A ticket for those who cannot send headers, an `EventSource` say: a part of the token's rights to put into a URL.
   *
   * @param {{sessions: string[], scopes: string[], ttl?: number}} body
   * @param {Abortable} [options]
   * @returns {Promise<{ticket: string, expires_at: string}>}
   */
  ticket(body, { signal } = {}) {
    return this.#wire.ask({ method: "POST", path: "/tickets", body, repeatable: true, signal });
  }
}

const GRACE = 2_000; // milliseconds that a start's own answer, which says more, may come behind the stream's

/** A start that is not answered yet. */
class Unsettled {
  giveUp = new AbortController();
  /** @type {Started | null} what the stream says of it */
  started = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #grace;

  /** @param {boolean} atOnce it does not wait in the queue */
  constructor(atOnce) {
    this.atOnce = atOnce;
  }

  /**
   * The stream has it: its answer is not waited for much longer.
   *
   * @param {Started} started
   */
  seen(started) {
    if (this.started !== null) return;
    this.started = started;
    this.#grace = setTimeout(() => this.giveUp.abort(), GRACE);
  }

  settle() {
    clearTimeout(this.#grace);
  }
}

/** What is known of one connection. */
class Line {
  controller = new AbortController();
  connected = false;
  live = false; // it has caught up
  expired = false; // our token is
  later = 0; // milliseconds that the server asks us to wait
}

/**
 * One session: a store of its state, kept up to date while it is followed, and its commands.
 *
 * A command that the server carries out once however often it comes is repeated for up to 40 seconds while there is no
 * answer: the reads, `create`, `start`, `stop`, `post`, `input` and the like, whose ids are made here unless given. The
 * others are sent once. A refusal is raised as a `Problem`.
 *
 * The state begins with the newest messages; `older` fetches those before, while there is `more`.
 */
export class Session {
  /** @readonly */
  sessionId;
  #wire;
  #hooks;
  #open;
  #silence;
  #fold;
  /** @type {Set<() => void>} */
  #listeners = new Set();
  /** @type {Snapshot | null} */
  #snapshot = null;
  /** @type {State | null} what of the fold stands in the snapshot */
  #viewed = null;
  /** @type {Snapshot | null} the last one that listeners were told of */
  #told = null;
  /** @type {Connection} */
  #connection = Object.freeze({ state: "idle", attempts: 0 });
  /** @type {Promise<Connection> | null} */
  #following = null;
  #leaving = new AbortController(); // the whole following
  /** @type {AbortController | null} the connection, or the wait for the next one */
  #line = null;
  /** @type {number | null} what `drop` asked for */
  #dropped = null;
  #resync;
  #limit;
  #attempts = 0;
  #slow = 0; // lines in a row that brought nothing, and might have with more time
  #retractedAt = 0; // the offset of the last retraction
  /** @type {Promise<boolean> | null} */
  #paging = null;
  /** @type {Map<string, Unsettled>} by generation id */
  #unsettled = new Map();

  /**
   * @param {string} sessionId
   * @param {Place & Following & Hooks} [options]
   */
  constructor(sessionId, { url, token, fetch, WebSocket, over, snapshot, limit, silence, ...hooks } = {}) {
    this.sessionId = sessionId;
    this.#wire = new Wire({ url, token, fetch, WebSocket });
    this.#open = over === "websocket" ? openSocket : openStream;
    this.#silence = silence ?? SILENCE;
    this.#resync = snapshot ?? true;
    this.#limit = limit;
    this.#hooks = hooks;
    this.#fold = new Fold(sessionId);
  }

  // --- the store. Both are functions of their own, so that they can be handed on: to `useSyncExternalStore`, say.

  /**
   * Call the listener after each change, once for all that came together. Gives a function that ends it.
   *
   * @readonly
   * @param {() => void} listener
   * @returns {() => void}
   */
  subscribe = (listener) => {
    const entry = () => listener(); // the same function may listen twice
    this.#listeners.add(entry);
    return () => void this.#listeners.delete(entry);
  };

  /**
   * The state now. Unchangeable; the same object, in all its parts, until something in it changes.
   *
   * @readonly
   * @returns {Snapshot}
   */
  getSnapshot = () => {
    const view = this.#fold.view();
    if (this.#snapshot === null || this.#viewed !== view || this.#snapshot.connection !== this.#connection) {
      this.#viewed = view;
      this.#snapshot = Object.freeze({ ...view, connection: this.#connection });
    }
    return this.#snapshot;
  };

  /** Tell the listeners, if there is something new. */
  #tell() {
    const now = this.getSnapshot();
    if (now === this.#told) return;
    this.#told = now;
    for (const listener of [...this.#listeners]) this.#safely(listener);
  }

  /**
   * A fault in somebody else's code is theirs: it is reported as any uncaught one, and the session goes on.
   *
   * @param {() => void} call
   */
  #safely(call) {
    try {
      call();
    } catch (error) {
      reportError(error);
    }
  }

  /** @param {Omit<Connection, "attempts">} connection */
  #turn(connection) {
    const told = Object.freeze({ ...connection, attempts: this.#attempts });
    this.#connection = told;
    this.#safely(() => this.#hooks.onConnection?.(told));
  }

  // --- following

  /**
   * Keep the state up to date until the session's end, a refusal, `close`, or the signal; reconnects by itself. One
   * resume is under way at a time: called again meanwhile, it gives the same promise.
   *
   * @param {Abortable} [options]
   * @returns {Promise<Connection>} how it ended
   */
  follow({ signal } = {}) {
    if (this.#following === null || this.#leaving.signal.aborted) {
      const before = this.#following;
      const leaving = new AbortController();
      const following = Promise.resolve(before)
        .then(() => this.#follow(leaving.signal))
        .finally(() => {
          leaving.abort();
          if (this.#following === following) this.#following = null;
        });
      this.#leaving = leaving;
      this.#following = following;
    }
    const leaving = this.#leaving;
    if (signal?.aborted) leaving.abort();
    else signal?.addEventListener("abort", () => leaving.abort(), { once: true, signal: leaving.signal });
    return this.#following;
  }

  /** Stop following. The session and a running answer go on without us. */
  close() {
    this.#leaving.abort();
  }

  /**
   * Cut the connection; it comes back by itself after so many milliseconds.
   *
   * @param {number} [milliseconds]
   */
  drop(milliseconds = 0) {
    if (this.#line === null || this.#connection.state === "waiting") return;
    this.#dropped = milliseconds;
    this.#line.abort();
  }

  /**
   * @param {AbortSignal} leaving
   * @returns {Promise<Connection>}
   */
  async #follow(leaving) {
    const backoff = new Backoff();
    const leave = () => this.#line?.abort();
    leaving.addEventListener("abort", leave);
    const bearer = new Bearer();
    let once = false; // there was a connection
    try {
      while (!leaving.aborted) {
        const begun = Date.now();
        const place = this.#fold.cursor;
        const line = new Line();
        /** @type {Problem | undefined} */
        let problem;
        try {
          const end = await this.#read(line, bearer);
          if (end !== null) return this.#finish({ state: "ended", reason: end });
        } catch (error) {
          if (!(error instanceof Problem)) throw error;
          problem = error;
        }
        if (leaving.aborted) break;
        once ||= line.connected;
        const reason = once && problem ? ENDS.get(problem.code) : undefined;
        if (reason !== undefined) return this.#finish({ state: "ended", reason });
        if (problem?.code === "UNAUTHENTICATED" && this.#wire.renews && !(bearer.refused && !line.connected)) {
          bearer.refused = true; // once more with another token; if that is refused too, so are we
        } else if (problem && !problem.retryable) return this.#finish({ state: "refused", problem });
        else bearer.refused = line.expired;
        // Only what brings us on makes the next pause short again: a server that takes connections and cuts them, or
        // sends what cannot be read, is not asked in a tight loop.
        if (this.#fold.cursor !== place || (line.connected && Date.now() - begun >= GOOD)) backoff.reset();
        const slow = line.connected && !line.live && this.#fold.cursor === place;
        this.#slow = slow ? Math.min(this.#slow + 1, SLOWEST) : 0;
        const atLeast = Math.max(line.later, problem?.retryAfter ?? 0);
        const asked = this.#dropped ?? backoff.next(atLeast, line.connected ? 0 : Date.now() - begun);
        this.#dropped = null;
        this.#line = new AbortController();
        this.#turn({ state: "waiting", until: Date.now() + asked, ...(problem && { problem }) });
        this.#tell();
        await pause(asked, this.#line.signal, atLeast);
      }
      return this.#finish({ state: "idle" });
    } finally {
      leaving.removeEventListener("abort", leave);
      this.#line = null;
    }
  }

  /** @param {Omit<Connection, "attempts">} connection */
  #finish(connection) {
    this.#turn(connection);
    const last = this.#connection;
    this.#tell();
    return last;
  }

  /**
   * One connection's life. The reason of the session's end, or null where it may be taken up again.
   *
   * @param {Line} line
   * @param {Bearer} bearer
   * @returns {Promise<string | null>}
   */
  async #read(line, bearer) {
    this.#line = line.controller;
    const { signal } = line.controller;
    this.#attempts += 1;
    this.#turn({ state: "connecting" });
    this.#tell();
    const lines = this.#open(this.#wire, {
      sessionId: this.sessionId,
      after: this.#fold.cursor,
      snapshot: this.#resync,
      limit: this.#limit,
      bearer,
      silence: this.#silence * 2 ** this.#slow,
      signal,
    });
    for await (const frames of lines) {
      line.connected = true;
      let end = null;
      for (const frame of frames) {
        if (signal.aborted || end !== null) break; // somebody has left, or what came does not fit: the rest is nobody's
        end = this.#take(frame, line);
      }
      this.#tell();
      if (end !== null) return end;
      if (signal.aborted) return null;
    }
    return null;
  }

  /**
   * Take in one frame; the reason if it is the session's end.
   *
   * @param {Frame} frame
   * @param {Line} line
   * @returns {string | null}
   */
  #take(frame, line) {
    switch (frame.kind) {
      case "opened":
        this.#turn({ state: "replaying" });
        if (!this.#resync && this.#fold.epoch === null) this.#begin(frame.cursor, line);
        return null;
      case "event": {
        const verdict = this.#fold.apply(frame.event, frame.cursor);
        if (verdict === "applied") this.#note(frame.event);
        this.#safely(() => this.#hooks.onEvent?.(frame.event, frame.cursor, verdict));
        if (verdict === "gap" || (verdict === "invalid" && frame.cursor !== null)) this.#startOver(line);
        return null;
      }
      case "control":
        return this.#control(frame.name, frame.data, line);
      case "later":
        line.later = frame.milliseconds;
        return null;
      case "bad":
        this.#bad(frame.reason, line);
        return null;
    }
  }

  /**
   * What an event that was folded in means for what is under way here.
   *
   * @param {PenstockEvent} event
   */
  #note({ type, generation_id: id = "", turn, offset = 0, data }) {
    if (type === "message.retracted") this.#retractedAt = offset;
    else if (type === "generation.started") this.#seen(id, { turn });
    else if (type === "generation.queued") this.#seen(id, { position: Number(data.position) });
  }

  /**
   * The stream has a start of somebody's.
   *
   * @param {string} id of the generation
   * @param {{turn?: number, position?: number}} as
   */
  #seen(id, as) {
    const cursor = this.#fold.cursor ?? "";
    this.#unsettled.get(id)?.seen({ session_id: this.sessionId, generation_id: id, cursor, ...as });
  }

  /**
   * @param {string} reason
   * @param {Line} line
   */
  #bad(reason, line) {
    this.#safely(() => this.#hooks.onControl?.("bad-frame", { reason }));
    this.#startOver(line);
  }

  /**
   * @param {string} name
   * @param {any} data
   * @param {Line} line
   * @returns {string | null}
   */
  #control(name, data, line) {
    this.#safely(() => this.#hooks.onControl?.(name, data));
    switch (name) {
      case "snapshot": {
        const verdict = this.#fold.load(data);
        if (verdict !== "applied") {
          this.#bad(`a snapshot that is ${verdict}`, line);
          return null;
        }
        this.#resync = false;
        this.#retractedAt = 0;
        const { generation, queue } = this.#fold;
        if (generation !== null) this.#seen(generation.generation_id, { turn: generation.turn });
        queue.items.forEach(({ generation_id: id }, index) => this.#seen(id, { position: index + 1 }));
        return null;
      }
      case "caught-up":
        if (data?.cursor !== this.#fold.cursor) this.#bad("the replay ended elsewhere than its last event", line);
        else {
          line.live = true;
          this.#turn({ state: "live" });
        }
        return null;
      case "presence":
        if (Array.isArray(data?.presence)) this.#fold.loadPresence(data.presence);
        return null;
      case "gap":
        if (data?.from !== this.#fold.cursor) this.#begin(data?.from, line);
        return null;
      case "end":
        return String(data?.reason);
      case "drain":
        line.expired = data?.reason === "token-expired";
        if (line.expired) line.later = 0; // the server is well, only our token is not
        return null;
    }
    return null; // "degraded" needs no step, and of what is newer nothing is known
  }

  /**
   * What follows begins here. Where that is not the start, what lies before it is missing.
   *
   * @param {unknown} cursor
   * @param {Line} line
   */
  #begin(cursor, line) {
    const from = parseCursor(cursor);
    if (from?.offset === 0) this.#fold.reset(from.epoch);
    else this.#startOver(line);
  }

  /**
   * What we hold does not fit what came: take the whole state anew, on a new connection.
   *
   * @param {Line} line
   */
  #startOver(line) {
    this.#resync = true;
    line.controller.abort();
  }

  /**
   * Fetch a page of the messages before those that are here: at most `limit`, as many as there may be without it. Whether
   * there are more then. While a page is on its way it gives the same promise. Where the state has to begin anew
   * meanwhile, it is that of the newest messages again.
   *
   * @param {{limit?: number} & Abortable} [options]
   * @returns {Promise<boolean>}
   */
  older({ limit = LARGEST_PAGE, signal } = {}) {
    this.#paging ??= this.#fetchOlder(limit, signal).finally(() => {
      this.#paging = null;
    });
    return this.#paging;
  }

  /**
   * @param {number} limit
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<boolean>}
   */
  async #fetchOlder(limit, signal) {
    for (let before = this.#fold.next; before !== null; before = this.#fold.next) {
      let page;
      try {
        page = await this.fetchSnapshot({ limit, before, signal });
      } catch (error) {
        if (!(error instanceof Problem) || error.code !== "MESSAGE_NOT_FOUND") throw error;
      }
      if (this.#fold.next !== before) continue; // it began anew, or that message went meanwhile
      const offset = parseCursor(page?.cursor)?.offset ?? Infinity;
      if (offset < this.#retractedAt) continue; // the message that was retracted may be in it
      const verdict = page && this.#fold.prepend(page);
      if (verdict === "applied") {
        this.#tell();
        break;
      }
      // the one that they are before was retracted, or this is no page of the life that is known
      this.#resync = true;
      if (this.#connection.state !== "waiting") this.#line?.abort();
      if (verdict === undefined) break;
      throw new Problem({ detail: `a page that is ${verdict}`, retryable: true });
    }
    return this.#fold.more;
  }

  /**
   * Events before an offset, as they stand in the log; the store is not touched. At most so many, in their order; none
   * where there are none. What was compacted is told as it is now.
   *
   * @param {{before: number, limit?: number} & Abortable} asked
   * @returns {Promise<PenstockEvent[]>}
   */
  async history({ before, limit = 500, signal }) {
    const leaving = new AbortController();
    const leave = () => leaving.abort();
    if (signal?.aborted) leave();
    signal?.addEventListener("abort", leave);
    const epoch = this.#fold.epoch ?? "";
    /** @type {PenstockEvent[]} */
    const events = [];
    try {
      // where some were compacted, offsets are missing: further back, then
      for (let from = before - 1, step = limit; from > 0 && !events.length && !leaving.signal.aborted; step *= 4) {
        from = Math.max(0, from - step);
        const after = from ? makeCursor(epoch, from) : null;
        const place = { sessionId: this.sessionId, after, snapshot: false, bearer: new Bearer(), silence: this.#silence };
        const lines = openStream(this.#wire, { ...place, signal: leaving.signal });
        reading: for await (const frames of lines) {
          for (const frame of frames) {
            if (frame.kind === "control" && frame.name === "caught-up") break reading;
            if (frame.kind !== "event" || frame.event.offset === undefined) continue;
            if (frame.event.offset >= before) break reading;
            events.push(frame.event);
          }
        }
      }
      signal?.throwIfAborted();
      return events.slice(-limit);
    } finally {
      signal?.removeEventListener("abort", leave);
      leave();
    }
  }

  // --- commands

  /**
   * @param {string} method
   * @param {string} path
   * @param {object} [body]
   * @param {{repeatable?: boolean, headers?: Record<string, string>, file?: Blob, bytes?: boolean} & Abortable} [options]
   */
  #ask(method, path, body, options = {}) {
    return this.#wire.ask({ method, path: `/sessions/${encodeURIComponent(this.sessionId)}${path}`, body, ...options });
  }

  /**
   * Make the session, if there is none.
   *
   * @param {{metadata?: JsonObject}} [body]
   * @param {Abortable} [options]
   * @returns {Promise<{session_id: string, cursor: string, created: boolean}>}
   */
  create(body = {}, options = {}) {
    return this.#ask("PUT", "", body, { ...options, repeatable: true });
  }

  /**
   * Start a generation. It is repeated under its key (the generation's id, unless there is another one) while there is no
   * answer, and runs once. An answer that stays away is made up for by the session's stream, if it is followed. `stop`
   * ends the waiting: a start of which nothing is known is given up, and fails as an aborted one does. Where it fails with
   * a `Problem` that is `uncertain`, the same start again, with the same `generation_id`, is still the same. With a `key` no
   * id is made here: the same start again under that key is the same, and neither the stream nor `stop` knows it before its
   * answer.
   *
   * @param {StartBody} [body]
   * @param {{key?: string} & Abortable} [options]
   * @returns {Promise<Started>}
   */
  async start(body = {}, { key, signal } = {}) {
    const whole = body.generation_id || body.policy === "join" || key !== undefined;
    const made = whole ? body : { generation_id: newId(), ...body };
    const id = made.generation_id ?? "";
    // one that waits in the queue is no answer that a stop is meant for
    const unsettled = new Unsettled(id !== "" && body.policy !== "queue" && body.policy !== "latest");
    const { giveUp } = unsettled;
    const leave = () => giveUp.abort(signal?.reason);
    if (signal?.aborted) leave();
    signal?.addEventListener("abort", leave);
    this.#unsettled.set(id, unsettled);
    try {
      const headers = { "Idempotency-Key": key ?? (id || newId()) };
      return await this.#ask("POST", "/generations", made, { headers, repeatable: true, signal: giveUp.signal });
    } catch (error) {
      if (unsettled.started === null || signal?.aborted) throw error;
      return unsettled.started; // it has come, and its answer has not
    } finally {
      unsettled.settle();
      signal?.removeEventListener("abort", leave);
      this.#unsettled.delete(id);
    }
  }

  /**
   * Stop what runs, or the generation that is named. Without a name it also stops starts of ours that the server has
   * not answered yet, whether they have reached it or not. What is known to run is stopped by its name: asked for again, it
   * stops nothing that was started behind it.
   *
   * @param {StopBody} [body]
   * @param {Abortable} [options]
   * @returns {Promise<Stopped>}
   */
  async stop(body = {}, options = {}) {
    const asked = { ...options, repeatable: true };
    if (body.generation_id !== undefined) return this.#ask("POST", "/stop", body, asked);
    const unsettled = [...this.#unsettled].filter(([, { atOnce }]) => atOnce);
    const reason = new DOMException("it was stopped before it began", "AbortError");
    for (const [, { giveUp }] of unsettled) giveUp.abort(reason);
    const followed = this.#following !== null && this.#fold.cursor !== null;
    const live = followed ? this.#fold.generation?.generation_id : undefined;
    const ids = new Set([live, ...unsettled.map(([id]) => id)]);
    if (followed && ids.size > 1) ids.delete(undefined);
    let answer;
    for (const id of ids) {
      const also = await this.#ask("POST", "/stop", { ...body, generation_id: id }, asked);
      if (answer === undefined || ["nothing_active", "already_done"].includes(answer.state)) answer = also;
    }
    return answer;
  }

  /**
   * Post a message; without a role the user's.
   *
   * @param {MessageBody} body
   * @param {Abortable} [options]
   * @returns {Promise<{session_id: string, message_id: string, cursor: string}>}
   */
  post(body, options = {}) {
    return this.#ask("POST", "/messages", { message_id: newId(), ...body }, { ...options, repeatable: true });
  }

  /**
   * Keep a file with the session, for blocks of kind `image`, `file` and `source` to name. Sent again, with the same
   * content, type and name, it is the same file.
   *
   * @param {Blob} file its `type` is what it is said to be
   * @param {{filename?: string} & Abortable} [options] a `File` brings its name
   * @returns {Promise<KeptFile>}
   */
  keepFile(file, { filename = /** @type {any} */ (file).name, signal } = {}) {
    return this.#ask("POST", `/files${query({ filename })}`, undefined, { file, signal, repeatable: true });
  }

  /**
   * One of the session's files, as it was sent. Its `type` is that of a picture that may be shown, or says nothing.
   *
   * @param {string} fileId
   * @param {Abortable} [options]
   * @returns {Promise<Blob>}
   */
  readFile(fileId, { signal } = {}) {
    const path = `/files/${encodeURIComponent(fileId)}`;
    return this.#ask("GET", path, undefined, { bytes: true, signal, repeatable: true });
  }

  /**
   * Send an input into a live generation.
   *
   * @param {string} generationId
   * @param {InputBody} body
   * @param {Abortable} [options]
   * @returns {Promise<{session_id: string, generation_id: string, input_id: string}>}
   */
  input(generationId, body, options = {}) {
    const path = `/generations/${encodeURIComponent(generationId)}/inputs`;
    return this.#ask("POST", path, { input_id: newId(), ...body }, { ...options, repeatable: true });
  }

  /**
   * Answer an approval that is open: yes, perhaps with other arguments.
   *
   * @param {string} approvalId
   * @param {{reason?: string, arguments?: Json} & Abortable} [options]
   * @returns {Promise<{session_id: string, generation_id: string, input_id: string}>}
   */
  approve(approvalId, { signal, ...body } = {}) {
    return this.#answer(approvalId, { ...body, approved: true }, signal);
  }

  /**
   * Answer an approval that is open: no.
   *
   * @param {string} approvalId
   * @param {{reason?: string} & Abortable} [options]
   * @returns {Promise<{session_id: string, generation_id: string, input_id: string}>}
   */
  refuse(approvalId, { signal, ...body } = {}) {
    return this.#answer(approvalId, { ...body, approved: false }, signal);
  }

  /**
   * @param {string} approvalId
   * @param {{approved: boolean, reason?: string, arguments?: Json}} body
   * @param {AbortSignal | undefined} signal
   */
  async #answer(approvalId, body, signal) {
    const open = this.#fold.approvals.find((approval) => approval.approval_id === approvalId);
    if (open?.generation_id === undefined) {
      throw new Problem({ code: "APPROVAL_NOT_FOUND", detail: "no approval of this id is open" });
    }
    return this.input(open.generation_id, { kind: "approval", approval_id: approvalId, ...body }, { signal });
  }

  /**
   * Take a message out of the transcript, with `and_after` all that follow it too.
   *
   * @param {string} messageId
   * @param {{and_after?: boolean}} [body]
   * @param {Abortable} [options]
   * @returns {Promise<{session_id: string, message_id: string, cursor: string}>}
   */
  retract(messageId, body = {}, options = {}) {
    return this.#ask("POST", `/messages/${encodeURIComponent(messageId)}/retract`, body, options);
  }

  /**
   * The versions of a message that was regenerated, or edited and sent again, the oldest first: those behind the number
   * `after`. The id is that of any of them.
   *
   * @param {string} messageId
   * @param {{after?: number, limit?: number} & Abortable} [options]
   * @returns {Promise<Versions>}
   */
  versions(messageId, { after, limit, signal } = {}) {
    const path = `/messages/${encodeURIComponent(messageId)}/versions${query({ after, limit })}`;
    return this.#ask("GET", path, undefined, { repeatable: true, signal });
  }

  /**
   * Bring back a version of a message with all that followed it, in place of what stands there now.
   *
   * @param {string} messageId
   * @param {{key?: string} & Abortable} [options]
   * @returns {Promise<Restored>}
   */
  restore(messageId, { key = newId(), signal } = {}) {
    const path = `/messages/${encodeURIComponent(messageId)}/restore`;
    return this.#ask("POST", path, {}, { headers: { "Idempotency-Key": key }, repeatable: true, signal });
  }

  /**
   * Let a paused queue go on.
   *
   * @param {Abortable} [options]
   * @returns {Promise<{session_id: string, cursor: string, generation_id?: string}>}
   */
  queueNext(options = {}) {
    return this.#ask("POST", "/queue/next", {}, options);
  }

  /**
   * Take a waiting generation out of the queue.
   *
   * @param {string} generationId
   * @param {Abortable} [options]
   * @returns {Promise<{session_id: string, generation_id: string} | null>} null from an older server
   */
  dequeue(generationId, options = {}) {
    return this.#ask("DELETE", `/queue/${encodeURIComponent(generationId)}`, undefined, options);
  }

  /**
   * Be here for a minute, as an actor on a device. Say it again to stay.
   *
   * @param {string} actorId
   * @param {string} deviceId
   * @param {{name?: string, status?: string}} [body]
   * @param {Abortable} [options]
   * @returns {Promise<PresenceAnswer | null>} null from an older server
   */
  putPresence(actorId, deviceId, body = {}, options = {}) {
    return this.#ask("PUT", presencePath(actorId, deviceId), body, { ...options, repeatable: true });
  }

  /**
   * Be gone: on one device, or without one on all of the actor's.
   *
   * @param {string} actorId
   * @param {string} [deviceId]
   * @param {Abortable} [options]
   * @returns {Promise<PresenceAnswer | null>} null from an older server
   */
  dropPresence(actorId, deviceId, options = {}) {
    return this.#ask("DELETE", presencePath(actorId, deviceId), undefined, { ...options, repeatable: true });
  }

  /**
   * Merge into the session's metadata (RFC 7396): null removes a member.
   *
   * @param {JsonObject} metadata
   * @param {Abortable} [options]
   * @returns {Promise<{session_id: string, cursor: string, metadata: JsonObject}>}
   */
  update(metadata, options = {}) {
    return this.#ask("PATCH", "", { metadata }, { ...options, repeatable: true });
  }

  /**
   * End what is live and what waits, and begin again with an empty transcript.
   *
   * @param {{reason?: string}} [body]
   * @param {Abortable} [options]
   * @returns {Promise<{session_id: string, cursor: string}>}
   */
  reset(body = {}, options = {}) {
    return this.#ask("POST", "/reset", body, options);
  }

  /**
   * Make a new session that begins with this one's messages, or with those up to `at`: a cursor, or a message's id.
   *
   * @param {{session_id?: string, at?: string, metadata?: JsonObject}} [body]
   * @param {Abortable} [options]
   * @returns {Promise<{session_id: string, cursor: string}>}
   */
  fork(body = {}, options = {}) {
    return this.#ask("POST", "/fork", body, options);
  }

  /**
   * Delete the session, with all that it holds.
   *
   * @param {Abortable} [options]
   * @returns {Promise<{session_id: string} | null>} null from an older server
   */
  delete(options = {}) {
    return this.#ask("DELETE", "", undefined, options);
  }

  /**
   * Where a generation stands, and how it ended.
   *
   * @param {string} generationId
   * @param {Abortable} [options]
   * @returns {Promise<GenerationInfo & {session_id: string}>}
   */
  generation(generationId, options = {}) {
    const path = `/generations/${encodeURIComponent(generationId)}`;
    return this.#ask("GET", path, undefined, { ...options, repeatable: true });
  }

  /**
   * The server's snapshot now; the store is not touched.
   *
   * @param {{limit?: number, before?: string} & Abortable} [options]
   * @returns {Promise<ServerSnapshot>}
   */
  fetchSnapshot({ limit, before, signal } = {}) {
    return this.#ask("GET", query({ limit, before }), undefined, { repeatable: true, signal });
  }
}

/**
 * @param {...(string | undefined)} ids
 * @returns {string}
 */
function presencePath(...ids) {
  return ["/presence", ...ids.flatMap((id) => (id === undefined ? [] : [encodeURIComponent(id)]))].join("/");
}
