/* How a penstock server is asked: where it is, who asks, what a refusal is, and how long to wait before asking again. */

/** @import { Place } from "./types.js" */

const FIRST_PAUSE = 250; // milliseconds; below what a person notices
const LONGEST_PAUSE = 10_000; // what a person in front of a page accepts to wait after the server is back
const LONGEST_RETRY_AFTER = 300_000; // what a server may ask for; more is a mistake in a header
const REQUEST_TIMEOUT = 30_000; // a start may wait for the old one's clean-up (2 s) and for a commit (10 s at most)
const PATIENCE = 10_000; // a command that is safe to repeat is repeated for so long: the server is being restarted

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
   * The pause after one more failure, in milliseconds; not less than the server asked for.
   *
   * @param {number} [atLeast]
   * @returns {number}
   */
  next(atLeast = 0) {
    const ceiling = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** Math.min(this.#failures, 30));
    this.#failures += 1;
    return Math.max(Math.min(atLeast, LONGEST_RETRY_AFTER), ceiling * Math.random());
  }

  /** It went well. */
  reset() {
    this.#failures = 0;
  }
}

/** A connection that lasted for so long was a good one, even if nothing was said on it. @internal */
export const GOOD = LONGEST_PAUSE;

/**
 * Wait, or until the signal is aborted.
 *
 * @internal
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", done);
  });
}

/**
 * @typedef {object} Asked
 * @property {string} method
 * @property {string} path behind `/v1`
 * @property {unknown} [body] JSON
 * @property {Record<string, string>} [headers]
 * @property {boolean} [repeatable] it is carried out once however often it comes
 * @property {AbortSignal} [signal]
 */

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
   * @param {boolean} refused
   * @returns {Promise<string | null>}
   */
  async token(refused) {
    const { token } = this.place;
    if (typeof token !== "function") return token ?? null;
    try {
      return await token({ refused });
    } catch (cause) {
      throw new Problem({ code: "NO_TOKEN", detail: "there is no token", retryable: true, cause });
    }
  }

  /**
   * One request's answer; refusals are raised.
   *
   * @param {string | URL} url
   * @param {RequestInit & {headers?: Record<string, string>}} options
   * @param {boolean} refused the last token was
   * @returns {Promise<Response>}
   */
  async open(url, options, refused) {
    const token = await this.token(refused);
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
    let refused = false;
    for (;;) {
      try {
        return await this.#once(asked, signal, refused);
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        if (error.code === "UNAUTHENTICATED" && this.renews && !refused) {
          refused = true; // before anything was done: once more, with another token
          continue;
        }
        const wait = backoff.next(error.retryAfter);
        if (!repeatable || !error.retryable || Date.now() + wait > givenUp) throw error;
        await pause(wait, signal);
        signal.throwIfAborted();
      }
    }
  }

  /**
   * @param {Asked} asked
   * @param {AbortSignal} signal
   * @param {boolean} refused
   */
  async #once({ method, path, body, headers }, signal, refused) {
    const request = new AbortController();
    const leave = () => request.abort(signal.reason);
    const late = () => request.abort(unreachable("no answer came in time"));
    const limit = setTimeout(late, REQUEST_TIMEOUT);
    if (signal.aborted) leave();
    signal.addEventListener("abort", leave);
    try {
      const response = await this.open(
        this.at(path),
        {
          method,
          headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
          body: body === undefined ? undefined : JSON.stringify(body),
          signal: request.signal,
        },
        refused,
      );
      if (response.status === 204) return null;
      return await response.json().catch((cause) => {
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
