/* How a penstock server is asked: where it is, who asks, what a refusal is, and how long to wait before asking again. */

/** @import { Place } from "./types.js" */

const FIRST_PAUSE = 250; // milliseconds; below what a person notices
const LONGEST_PAUSE = 10_000; // what a person in front of a page accepts to wait after the server is back
const LONGEST_RETRY_AFTER = 300_000; // what a server may ask for; more is a mistake in a header
const REQUEST_TIMEOUT = 30_000; // a start may wait for the old one's clean-up (2 s) and for a commit (10 s at most)
const ATTEMPT = 6_000; // until an answer begins to what is safe to repeat, or goes on: a dead line says nothing of it
const FILE_TIMEOUT = 300_000; // a file may have some megabytes, and a phone's line a hundred kilobytes a second
const SLOW = 32; // bytes in a millisecond: a line that takes so few of a large body, or of a file, is not dead for that
const PATIENCE = 40_000; // what is safe to repeat is repeated for so long: the server restarts, the network changes
const CONNECTIONS = 6; // that a browser keeps to a server
const SHAKE = 1_500; // a connection that brings nothing for so long is not waited for: another one is made

/** @type {Map<string, Promise<unknown>>} servers whose connections are being tried, by their origins */
const shaken = new Map();

/**
 * A refusal by the server, or that there was no answer (`UNREACHABLE`), or one that is none (`BAD_ANSWER`).
 * `code` is for programs, `message` for people.
 */
export class Problem extends Error {
  /** For programs. @readonly */
  code;
  /** Of HTTP, where there was one. @readonly */
  status;
  /** The same may go well later. @readonly */
  retryable;
  /** Milliseconds that the server asks us to wait, at least. @readonly */
  retryAfter;
  /** It may have been carried out all the same: an answer is missing, to this request or to the same one before. */
  uncertain;

  /**
   * `retry_after` is the server's own word, in seconds, as it stands in a frame.
   *
   * @param {{code?: string, detail?: string, title?: string, status?: number, retryable?: boolean, retryAfter?: number,
   *   retry_after?: unknown, cause?: unknown}} problem
   */
  constructor({ code, detail, title, status, retryable, retryAfter, retry_after: seconds, cause }) {
    super(detail ?? title ?? "the server refused this", { cause });
    this.name = "Problem";
    this.code = code ?? "BAD_ANSWER";
    this.status = status;
    this.retryable = retryable ?? false;
    this.retryAfter = retryAfter || asked(seconds);
    const lost = this.code === "BAD_ANSWER" && status !== undefined && status >= 500; // by a proxy, perhaps behind it
    this.uncertain = lost || this.code === "UNREACHABLE" || this.code === "TIMEOUT";
  }

  /**
   * What this answer says. Never a text decides, only the code, or without one the status: of a proxy's page, say.
   *
   * @internal
   * @param {Response} response
   * @returns {Promise<Problem>}
   */
  static async of(response) {
    const { status } = response;
    const retryAfter = asked(Number(response.headers.get("Retry-After") ?? 0));
    const body = await response.json().catch(() => null);
    if (typeof body?.code === "string") return new Problem({ ...body, status, retryAfter });
    const retryable = [408, 425, 429].includes(status) || status >= 500;
    return new Problem({ title: `the server answered ${status}`, status, retryable, retryAfter });
  }
}

/**
 * Seconds that a server asks for, as milliseconds; 0 for what is no such number.
 *
 * @param {unknown} seconds
 * @returns {number}
 */
function asked(seconds) {
  return typeof seconds === "number" && seconds > 0 ? Math.min(seconds * 1000, LONGEST_RETRY_AFTER) : 0;
}

/**
 * No answer came, or it broke off. It may come the next time.
 *
 * @internal
 * @param {string} detail
 * @param {unknown} [cause]
 * @returns {Problem}
 */
export function unreachable(detail, cause) {
  return new Problem({ code: "UNREACHABLE", detail, retryable: true, cause });
}

/**
 * How long to wait: each pause a random part of a ceiling that doubles, so that many who were cut do not return at once.
 *
 * @internal
 */
export class Backoff {
  #failures = 0;

  /**
   * The pause after one more failure, in milliseconds; not less than the server asked for. What was `spent` waiting for
   * an answer was a pause as well.
   *
   * @param {number} [atLeast]
   * @param {number} [spent]
   * @returns {number}
   */
  next(atLeast = 0, spent = 0) {
    const ceiling = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** Math.min(this.#failures, 30));
    this.#failures += 1;
    return Math.max(Math.min(atLeast, LONGEST_RETRY_AFTER), ceiling * Math.random() - spent, 0);
  }

  /** It went well. */
  reset() {
    this.#failures = 0;
  }
}

/** A connection that lasted for so long was a good one, even if nothing was said on it. @internal */
export const GOOD = LONGEST_PAUSE;

/**
 * Until the signal, call the listener when there is a network again, or somebody looks at the page again: it may have
 * slept, and the network be another one.
 *
 * @internal
 * @param {() => void} listener
 * @param {AbortSignal} signal
 */
export function onReturn(listener, signal) {
  const { document } = globalThis;
  const seen = () => {
    if (document.visibilityState === "visible") listener();
  };
  globalThis.addEventListener?.("online", listener, { signal });
  globalThis.addEventListener?.("pageshow", listener, { signal });
  document?.addEventListener("visibilitychange", seen, { signal });
}

/**
 * Wait, or until the signal is aborted. Where there is a network again, or the page is looked at again, there is nothing
 * to wait for but what the server asked for, `atLeast`.
 *
 * @internal
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @param {number} [atLeast]
 * @returns {Promise<void>}
 */
export function pause(milliseconds, signal, atLeast = 0) {
  return new Promise((resolve) => {
    const begun = Date.now();
    const over = new AbortController();
    const done = () => {
      clearTimeout(timer);
      over.abort();
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    if (signal.aborted) return done();
    signal.addEventListener("abort", done, { signal: over.signal });
    onReturn(() => {
      if (Date.now() - begun >= atLeast) done();
    }, over.signal);
  });
}

/**
 * @typedef {object} Asked
 * @property {string} method
 * @property {string} path behind `/v1`
 * @property {unknown} [body] JSON
 * @property {Blob} [file] in place of a body: it is sent as it is
 * @property {boolean} [bytes] the answer is a file, too
 * @property {Record<string, string>} [headers]
 * @property {boolean} [repeatable] it is carried out once however often it comes
 * @property {AbortSignal} [signal]
 */

/** The last token that each function told, whoever asked. @type {WeakMap<Function, string | null>} */
const given = new WeakMap();

/** Those that are asked for another one just now. @type {WeakMap<Function, Promise<string | null>>} */
const renewing = new WeakMap();

/**
 * Another token than the one that was refused, asked for once for all whose line began with that.
 *
 * @param {(asked: {refused: boolean}) => string | null | Promise<string | null>} token
 * @returns {Promise<string | null>}
 */
async function renewed(token) {
  const asked = renewing.get(token) ?? Promise.resolve(token({ refused: true }));
  renewing.set(token, asked);
  try {
    return await asked;
  } finally {
    renewing.delete(token);
  }
}

/** What one who asks has shown the server, for `Wire.token`. @internal */
export class Bearer {
  /** @type {string | null | undefined} */
  token = undefined; // the last one
  refused = false; // that was
}

/** Where the server is and who asks it. @internal */
export class Wire {

  /** @param {Place} place */
  constructor({ url, token, fetch, WebSocket = globalThis.WebSocket } = {}) {
    const root = new URL(url ?? ".", globalThis.document?.baseURI ?? globalThis.location?.href);
    root.search = root.hash = "";
    if (!root.pathname.endsWith("/")) root.pathname += "/";
    this.place = { url: root, token, fetch, WebSocket }; // found once: the page's own address may change
  }

  /** Whether another token may be had than the one that was refused. */
  get renews() {
    return typeof this.place.token === "function";
  }

  /**
   * @param {string} path behind `/v1`
   * @returns {URL}
   */
  at(path) {
    return new URL(`v1${path}`, this.place.url);
  }

  /**
   * The token now, or null. Fails with a `Problem` that may be repeated where the function that should tell it fails.
   *
   * The function hears of a refusal once: lines that began with the same token are all refused, at once or later, and
   * the first has had it tell another.
   *
   * @param {Bearer} bearer
   * @returns {Promise<string | null>}
   */
  async token(bearer) {
    const { token } = this.place;
    if (typeof token !== "function") return token ?? null;
    try {
      const again = bearer.refused && bearer.token === given.get(token);
      bearer.token = await (again ? renewed(token) : token({ refused: false }));
      given.set(token, bearer.token);
      return bearer.token;
    } catch (cause) {
      throw new Problem({ code: "NO_TOKEN", detail: "there is no token", retryable: true, cause });
    }
  }

  /**
   * A line was dead, and so may be the connections that the browser keeps ready: requests would take one after the other,
   * and wait on each. A small request on all of them has those closed that bring no answer, whoever else fetches here.
   * What is asked meanwhile waits for that.
   */
  shake() {
    const { origin } = this.place.url;
    if (shaken.has(origin)) return;
    const url = new URL("healthz", this.place.url);
    const signal = AbortSignal.timeout(SHAKE);
    const one = () => globalThis.fetch(url, { cache: "no-store", mode: "no-cors", signal }).catch(() => null);
    const all = Promise.all(Array.from({ length: CONNECTIONS }, one));
    shaken.set(origin, all.then(() => shaken.delete(origin)));
  }

  /**
   * One request's answer; refusals are raised.
   *
   * @param {string | URL} url
   * @param {RequestInit & {headers?: Record<string, string>}} options
   * @param {Bearer} bearer
   * @returns {Promise<Response>}
   */
  async open(url, options, bearer) {
    await shaken.get(this.place.url.origin);
    const token = await this.token(bearer);
    const headers = token === null ? options.headers : { ...options.headers, Authorization: `Bearer ${token}` };
    const fetch = this.place.fetch ?? globalThis.fetch;
    const response = await fetch(url, { cache: "no-store", ...options, headers }).catch((cause) => {
      options.signal?.throwIfAborted();
      throw unreachable("the server does not answer", cause);
    });
    if (!response.ok) throw await Problem.of(response);
    return response;
  }

  /**
   * Carry out a command. Its answer, or null where that has no content. What is repeatable is repeated for a while if
   * no answer comes, or one that says it may go well later.
   *
   * @param {Asked} asked
   * @returns {Promise<any>}
   */
  async ask(asked) {
    const { signal = new AbortController().signal, repeatable = false } = asked;
    const backoff = new Backoff();
    const givenUp = Date.now() + PATIENCE;
    const bearer = new Bearer();
    let uncertain = false;
    for (;;) {
      const begun = Date.now();
      try {
        return await this.#once(asked, signal, bearer);
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        uncertain ||= error.uncertain;
        // Who may ask is judged first, all else behind the key: what was carried out would have had its answer.
        const judged = !error.retryable && error.status !== 401 && error.status !== 403;
        error.uncertain = uncertain && !judged;
        if (error.code === "UNAUTHENTICATED" && this.renews && !bearer.refused) {
          bearer.refused = true; // before anything was done: once more, with another token
          continue;
        }
        const wait = backoff.next(error.retryAfter, Date.now() - begun);
        if (!repeatable || !error.retryable || Date.now() + wait > givenUp) throw error;
        await pause(wait, signal, error.retryAfter);
        signal.throwIfAborted();
      }
    }
  }

  /**
   * @param {Asked} asked
   * @param {AbortSignal} signal
   * @param {Bearer} bearer
   */
  async #once({ method, path, body, file, bytes, headers, repeatable }, signal, bearer) {
    const request = new AbortController();
    const leave = () => request.abort(signal.reason);
    const late = () => {
      request.abort(unreachable("no answer came in time"));
      this.shake();
    };
    const text = body === undefined ? undefined : JSON.stringify(body);
    const type = file ? file.type || "application/octet-stream" : text && "application/json";
    const whole = file ? FILE_TIMEOUT : REQUEST_TIMEOUT;
    const attempt = ATTEMPT + (file?.size ?? text?.length ?? 0) / SLOW;
    let limit = setTimeout(late, repeatable ? Math.min(attempt, whole) : whole);
    const heard = () => {
      clearTimeout(limit);
      limit = setTimeout(late, ATTEMPT); // for the next piece of the answer, on a line that may be slow
    };
    if (signal.aborted) leave();
    signal.addEventListener("abort", leave);
    try {
      const response = await this.open(
        this.at(path),
        {
          method,
          headers: type === undefined ? headers : { "Content-Type": type, ...headers },
          body: file ?? text,
          signal: request.signal,
        },
        bearer,
      );
      heard();
      if (response.status === 204) return null;
      const read = bodyOf(response, heard).then(async (told) => (bytes ? told : JSON.parse(await told.text())));
      return await read.catch((cause) => {
        request.signal.throwIfAborted();
        throw unreachable("the answer broke off", cause);
      });
    } finally {
      clearTimeout(limit);
      signal.removeEventListener("abort", leave);
    }
  }
}

/**
 * What is answered.
 *
 * @param {Response} response
 * @param {() => void} heard called with each piece of it
 * @returns {Promise<Blob>}
 */
async function bodyOf(response, heard) {
  const reader = response.body?.getReader();
  const pieces = [];
  for (let read = await reader?.read(); read && !read.done; read = await reader?.read()) {
    heard();
    pieces.push(read.value);
  }
  return new Blob(pieces, { type: response.headers.get("Content-Type") ?? "" });
}

/**
 * What is asked for, as it stands in a URL.
 *
 * @internal
 * @param {{[name: string]: string | number | undefined}} fields
 * @returns {string}
 */
export function query(fields) {
  const given = Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)]]));
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

/**
 * A new id for a generation, a message, an input: a random UUID. `crypto.randomUUID` is there on secure pages only.
 *
 * @returns {string}
 */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
