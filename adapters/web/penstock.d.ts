/* The types of penstock.js. Written by `python -m tests.e2e.declarations`, from the JavaScript and types.d.ts. */

export type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };
export type JsonObject = { readonly [name: string]: Json };

/** One fact of a session's log; without an `offset` it is ephemeral. The protocol's README tells of all types. */
export interface PenstockEvent {
  readonly type: string;
  readonly session_id: string;
  /** From 1, in the session's log. */
  readonly offset?: number;
  /** RFC 3339, UTC. */
  readonly time: string;
  readonly generation_id?: string;
  readonly turn?: number;
  readonly job_id?: string;
  readonly message_id?: string;
  readonly block_index?: number;
  /** Dense from 0 in each block. */
  readonly seq?: number;
  readonly data: JsonObject;
}

export interface Block {
  /** `text`, `reasoning`, `tool_call`, `tool_result`, `data`, `image`, `file`, `source`. */
  readonly kind: string;
  /** The last one folded. */
  readonly seq: number;
  /** More may come. */
  readonly open?: boolean;
  readonly text?: string;
  /** Of a tool call: text while it streams, then the value. */
  readonly arguments?: Json;
  readonly value?: Json;
  readonly tool_call_id?: string;
  readonly name?: string;
  readonly is_error?: boolean;
  /** Of an image or a file, as its sender says: `image/png`. */
  readonly media_type?: string;
  /** An image, a file or a source is one of the session's files, or stands at `url`. */
  readonly file_id?: string;
  /** http or https. */
  readonly url?: string;
  readonly filename?: string;
  /** Of a source. */
  readonly title?: string;
}

export interface Message {
  readonly message_id: string;
  /** `assistant`, `user`, `tool`, `system`. */
  readonly role: string;
  /** `open`, `complete`, `cancelled`, `failed`. */
  readonly status: string;
  /** By their index. */
  readonly blocks: readonly Block[];
  readonly parent_message_id?: string;
  readonly metadata?: JsonObject;
  readonly generation_id?: string;
  readonly turn?: number;
  readonly job_id?: string;
  readonly finish_reason?: string;
  readonly usage?: JsonObject;
  /** When it began; older servers do not tell. */
  readonly time?: string;
  /** When it ended, if it did not come whole. */
  readonly closed?: string;
  /** Who posted it. */
  readonly author?: string;
  /** The message that was cut off, and that this one goes on with. */
  readonly continues?: string;
  /** Which one it is of a message that was regenerated, or edited and sent again. */
  readonly version?: Version;
  /** Those that are resolved and whose events bear its id: of its tool calls, or asked for behind it. */
  readonly approvals?: readonly Resolved[];
}

/** Which of `count` versions of one message it is, from 1. */
export interface Version {
  /** The id of the first one; it names them all. */
  readonly of: string;
  readonly index: number;
  readonly count: number;
}

/** How an approval was resolved. */
export interface Resolved {
  readonly approval_id: string;
  readonly approved: boolean;
  readonly tool_call_id?: string;
  /** What was asked for. */
  readonly name?: string;
  /** If they were changed. */
  readonly arguments?: Json;
  readonly reason?: string;
  readonly by?: string;
}

/** Where in the log something stands, and when it was written. */
export interface Moment {
  readonly cursor: string;
  readonly time: string;
}

/** Where a generation stands, and how it ended. */
export interface GenerationInfo {
  readonly generation_id: string;
  readonly state: "queued" | "live" | "cancelling" | "finished";
  /** Once it has started. */
  readonly turn?: number;
  /** Once it has finished. */
  readonly outcome?: string;
  readonly code?: string;
  /** Why it did not complete. */
  readonly message?: string;
  /** Whether the same may go well later, as far as is known. */
  readonly retryable?: boolean;
  /** With `partial: true` where it did not complete. */
  readonly usage?: JsonObject;
  /** Who started it. */
  readonly author?: string;
  readonly started?: Moment;
  readonly finished?: Moment;
  /** It has written no message. */
  readonly silent?: boolean;
  /** Then: the message that it stands behind. */
  readonly behind?: string;
  /** Then, where it answers anew: what its message would be. */
  readonly version?: Version;
}

/** Taken in by the live generation, neither applied nor returned yet. */
export interface Input {
  readonly input_id: string;
  readonly kind: string;
  readonly content?: JsonObject;
}

/** The live generation. */
export interface Generation {
  readonly generation_id: string;
  readonly turn: number;
  readonly state: "live" | "cancelling";
  readonly producer: string;
  readonly job_id?: string;
  /** The last one that its producer told: `thinking`, `working`, or its own word. */
  readonly status?: string;
  readonly metadata?: JsonObject;
  readonly inputs?: readonly Input[];
}

/** A generation that waits. */
export interface QueueItem {
  readonly generation_id: string;
  readonly producer: string;
  readonly policy: string;
  readonly job_id?: string;
  readonly metadata?: JsonObject;
  readonly text?: string;
  /** Who started it. */
  readonly author?: string;
}

export interface Queue {
  readonly paused: boolean;
  readonly items: readonly QueueItem[];
}

/** An approval that was asked for and is not resolved yet. */
export interface Approval {
  readonly approval_id: string;
  readonly generation_id?: string;
  readonly message_id?: string;
  readonly tool_call_id?: string;
  readonly name?: string;
  readonly arguments?: Json;
  readonly expires_at?: string;
}

export interface Present {
  readonly actor_id: string;
  readonly device_id: string;
  readonly name?: string;
  readonly status?: string;
}

/** The entry, or with no device all of the actor's, that a request was about. */
export interface PresenceAnswer {
  readonly session_id: string;
  readonly actor_id: string;
  readonly device_id?: string;
}

/** How a generation ended. */
export interface End {
  /** `completed`, `superseded`, `stopped`, `failed`, `stalled`, `expired`, `lost`, … */
  readonly outcome: string;
  readonly code?: string;
  readonly message?: string;
  readonly superseded_by?: string;
  readonly cleanup?: string;
  readonly usage?: JsonObject;
  readonly retryable?: boolean;
  /** Who stopped it. */
  readonly author?: string;
}

/** The state of a session; nothing in it ever changes. */
export interface State {
  readonly session_id: string;
  /** The place in the log that this is the state at; null before anything is known. */
  readonly cursor: string | null;
  /** In order. */
  readonly messages: readonly Message[];
  /** The live one. */
  readonly generation: Generation | null;
  /** The oldest first: those that wrote the messages, the last that started, the newest that ended and wrote none. */
  readonly generations: readonly GenerationInfo[];
  /** The starts that wait. */
  readonly queue: Queue;
  /** Those that are open. */
  readonly approvals: readonly Approval[];
  readonly metadata: JsonObject;
  /** There are older messages that are not here: `older` fetches them. */
  readonly more: boolean;
  /** By generation id, as far as they were seen, or a snapshot told of them. */
  readonly ends: Readonly<Record<string, End>>;
  /** Who is here, in order of arrival; no part of the log. */
  readonly presence: readonly Present[];
}

/** A snapshot as the server gives it. */
export interface ServerSnapshot {
  readonly session_id: string;
  readonly cursor: string;
  readonly messages: readonly Message[];
  readonly generation?: Generation;
  /** Older servers do not tell. */
  readonly generations?: readonly GenerationInfo[];
  readonly queue: Queue;
  readonly approvals: readonly Approval[];
  readonly metadata: JsonObject;
  /** Older messages were left out: those before the message `next`. */
  readonly more: boolean;
  readonly next?: string;
}

/**
 * What became of an event:
 *
 * - `applied`: it is part of the state now
 * - `duplicate`: it was there already, by its offset or by its seq in the block; no content changed
 * - `foreign`: it belongs to another session; nothing changed
 * - `ephemeral`: it has no place in the log; nothing changed but who is here, if it told of that
 * - `gap`: it does not follow from what is known; nothing changed, load a snapshot
 * - `invalid`: it lacks a part of its stamp, or of what its type must say; nothing changed
 */
export type Verdict = "applied" | "duplicate" | "foreign" | "ephemeral" | "gap" | "invalid";

/** A frame of an event stream; each field only if it was there. */
export interface SseFrame {
  id?: string;
  event?: string;
  data?: string;
  retry?: number;
}

/**
 * The token to show; a function is asked before each request and each connection. After a refusal it is asked once more,
 * with `refused` set: what it gave before is not good any more.
 */
export type Token = string | ((asked: { refused: boolean }) => string | Promise<string>);

/** Where the server is and who asks. */
export interface Place {
  /** The server's root; without one that of the page. */
  url?: string | URL;
  token?: Token;
  /** Others than the platform's. */
  fetch?: typeof globalThis.fetch;
  WebSocket?: typeof globalThis.WebSocket;
}

export interface Abortable {
  signal?: AbortSignal;
}

/**
 * How the session is followed at the moment:
 *
 * - `idle`: nobody has asked for it, or it was closed
 * - `connecting`, `replaying`, `live`: a connection is being made, catches up, has caught up
 * - `waiting`: the connection is gone, and the next attempt comes at `until` (milliseconds, as `Date.now()`);
 *   `problem` says why, where it was not ended in order
 * - `ended`: the session is gone, for `reason`; nothing will follow
 * - `refused`: the server will not have it, for `problem`; the same would be refused again
 */
export interface Connection {
  readonly state: "idle" | "connecting" | "replaying" | "live" | "waiting" | "ended" | "refused";
  /** How many connections were tried, all in all. */
  readonly attempts: number;
  readonly until?: number;
  readonly reason?: string;
  readonly problem?: Problem;
}

/** The state of a session and of the connection. */
export interface Snapshot extends State {
  readonly connection: Connection;
}

/** What a session can tell beside its snapshots; for logs, counters and inspectors. */
export interface Hooks {
  /** Each event that came, and what became of it. */
  onEvent?(event: PenstockEvent, cursor: string | null, verdict: Verdict): void;
  /** Each control frame; `bad-frame` for what is none. */
  onControl?(name: string, data: any): void;
  /** Each change of the connection. */
  onConnection?(connection: Connection): void;
}

export interface Following {
  /**
   * How events come; `sse` unless given. A browser opens at most six HTTP/1.1 connections to a server: a page with many
   * sessions is better off with `websocket`.
   */
  over?: "sse" | "websocket";
  /** Begin with the state, not with the log's first event; true unless given. */
  snapshot?: boolean;
  /** Messages that the state begins with, at most, the newest; as many as a page may have unless given. */
  limit?: number;
  /** Milliseconds after which a silent connection is dead; 7 s unless given. The server is asked for signs of life. */
  silence?: number;
}

export interface StartBody {
  producer?: string;
  text?: string;
  /** In place of `text`: the user's message, with more than words in it. */
  message?: { blocks: Json[]; message_id?: string; metadata?: JsonObject };
  input?: Json;
  policy?: "supersede" | "rollback" | "queue" | "latest" | "reject" | "join";
  replaces?: string;
  job_id?: string;
  /** Made here unless given. */
  generation_id?: string;
  on_last_disconnect?: "continue" | number;
  /** Seconds that it may write nothing; null: for ever. */
  idle_limit?: number | null;
  /** The message that was cut off, and is to be gone on with. */
  continues?: string;
  metadata?: JsonObject;
}

/** What became of a start: it runs (`turn`), or waits (`position`). */
export interface Started {
  session_id: string;
  generation_id: string;
  cursor: string;
  turn?: number;
  position?: number;
  message_id?: string;
  superseded?: { generation_id: string; cleanup: string; seconds: number };
}

export interface StopBody {
  generation_id?: string;
  reason?: string;
  queue?: "pause" | "continue" | "clear";
}

export interface Stopped {
  session_id: string;
  generation_id?: string;
  state: "stopped" | "stopping" | "already_done" | "nothing_active" | "pending";
}

export interface MessageBody {
  role?: string;
  text?: string;
  blocks?: Json[];
  /** Made here unless given. */
  message_id?: string;
  metadata?: JsonObject;
}

/** Versions of a message, the oldest first. */
export interface Versions {
  session_id: string;
  message_id: string;
  versions: Message[];
  /** There are others behind the last one. */
  more: boolean;
}

/** A version stands in the transcript; `message_ids` are its messages, in order, from the version itself on. */
export interface Restored {
  session_id: string;
  message_id: string;
  message_ids: string[];
  cursor: string;
}

/** The producers that a server runs. */
export interface Producers {
  producers: ProducerInfo[];
  /** The name of the one that a start without a name gets. */
  default?: string;
}

export interface ProducerInfo {
  name: string;
  description?: string;
  /** A JSON schema of the `input` that it takes. */
  input_schema?: JsonObject;
}

/** A file that the session keeps. */
export interface KeptFile {
  session_id: string;
  file_id: string;
  media_type: string;
  /** Bytes. */
  size: number;
  /** Without what deceives; absent where nothing of it was left. */
  filename?: string;
}

export interface InputBody {
  kind: string;
  /** Made here unless given. */
  input_id?: string;
  [name: string]: Json | undefined;
}

/** A session as the list tells of it. */
export interface Listed {
  session_id: string;
  cursor: string;
  metadata: JsonObject;
  /** Of its first event; this and what follows older servers do not tell. */
  created?: string;
  /** When something was done in it last: a turn begun or ended, a message posted, an approval asked for. */
  updated?: string;
  /** `metadata.title`, else how the first message of a user begins. */
  title?: string;
  /** A generation is live. */
  running?: boolean;
  /** How many are open. */
  approvals?: number;
  /** How the last message of a user or an assistant begins. */
  last?: { role: string; text: string };
  generation?: { generation_id: string };
  /** What is stored of it cannot be read: all that can be done with it is to delete it. */
  corrupt?: true;
}

/** The list as it is known, and the connection that tells of it; nothing in it ever changes. */
export interface Listings {
  /** The last active first. */
  readonly sessions: readonly Listed[];
  /** There are others that are not here: `older` fetches a page of them. */
  readonly more: boolean;
  readonly connection: Connection;
}

/**
 * A refusal by the server, or that there was no answer (`UNREACHABLE`), or one that is none (`BAD_ANSWER`).
 * `code` is for programs, `message` for people.
 */
export declare class Problem extends Error {
    /** For programs. @readonly */
    readonly code: string;
    /** Of HTTP, where there was one. @readonly */
    readonly status: number | undefined;
    /** The same may go well later. @readonly */
    readonly retryable: boolean;
    /** Milliseconds that the server asks us to wait, at least. @readonly */
    readonly retryAfter: number;
    /** It may have been carried out all the same: an answer is missing, to this request or to the same one before. */
    uncertain: boolean;
    /**
     * `retry_after` is the server's own word, in seconds, as it stands in a frame.
     *
     * @param {{code?: string, detail?: string, title?: string, status?: number, retryable?: boolean, retryAfter?: number,
     *   retry_after?: unknown, cause?: unknown}} problem
     */
    constructor({ code, detail, title, status, retryable, retryAfter, retry_after: seconds, cause }: {
        code?: string;
        detail?: string;
        title?: string;
        status?: number;
        retryable?: boolean;
        retryAfter?: number;
        retry_after?: unknown;
        cause?: unknown;
    });
}

/**
 * A new id for a generation, a message, an input: a random UUID. `crypto.randomUUID` is there on secure pages only.
 *
 * @returns {string}
 */
export declare function newId(): string;

/**
 * The epoch and offset in a cursor's text, or null if it is none.
 *
 * @param {unknown} text
 * @returns {{epoch: string, offset: number} | null}
 */
export declare function parseCursor(text: unknown): {
    epoch: string;
    offset: number;
} | null;

/**
 * The text of a cursor: the place behind the event at this offset.
 *
 * @param {string} epoch
 * @param {number} offset
 * @returns {string}
 */
export declare function makeCursor(epoch: string, offset: number): string;

/** The state of one session, folded from its events. Events and snapshots that are given to it become its own: frozen. */
export declare class Fold {
    /** @readonly */
    readonly sessionId: string;
    /** @param {string} sessionId */
    constructor(sessionId: string);
    /**
     * Begin anew, with nothing: in the life of the session that this epoch names.
     *
     * @param {string | null} epoch
     */
    reset(epoch: string | null): void;
    /** The life of the session that this is a state of; null before anything is known. */
    get epoch(): string | null;
    /** Of the last event; 0 before the first. */
    get offset(): number;
    /** The last one given; 0 before the first. */
    get turn(): number;
    get metadata(): JsonObject;
    /** The live one. */
    get generation(): Generation | null;
    /** The starts that wait. */
    get queue(): Queue;
    /** Those that are open. */
    get approvals(): readonly Approval[];
    /** A snapshot left older messages out, which are not here yet. */
    get more(): boolean;
    /** The message that those are before; null where none are missing. */
    get next(): string | null;
    /** The offset at which those that came in pages were read. */
    get olderSeenAt(): number;
    /** The end of each generation whose end was seen, by its id. */
    get ends(): Readonly<Record<string, End>>;
    /**
     * The oldest first: those that wrote the messages here, the last one that started, and the newest that ended and wrote
     * none.
     */
    get generations(): readonly GenerationInfo[];
    /** Who is here, in order of arrival. */
    get presence(): readonly Present[];
    /** @returns {readonly Message[]} */
    get messages(): readonly Message[];
    /** @returns {string | null} */
    get cursor(): string | null;
    /**
     * @param {string} messageId
     * @returns {Message | undefined}
     */
    message(messageId: string): Message | undefined;
    /**
     * The state now: unchangeable, and the same object, in all its parts, as long as nothing in it has changed.
     *
     * @returns {State}
     */
    view(): State;
    /**
     * Start over from a snapshot, as `GET /v1/sessions/{id}` and the stream's `snapshot` frame give it.
     *
     * @param {ServerSnapshot} snapshot
     * @returns {"applied" | "foreign" | "invalid"}
     */
    load(snapshot: ServerSnapshot): "applied" | "foreign" | "invalid";
    /**
     * Take in a page of the messages that a snapshot left out: those before `next`. It may be of a later moment.
     *
     * @param {ServerSnapshot} page
     * @returns {"applied" | "foreign" | "invalid"}
     */
    prepend(page: ServerSnapshot): "applied" | "foreign" | "invalid";
    /**
     * Take the whole list of who is here, as the stream's `presence` frame and `GET …/presence` give it.
     *
     * @param {readonly Present[]} present
     */
    loadPresence(present: readonly Present[]): void;
    /**
     * Fold in one event; `cursor` is what it came with, its place in a life of the session. Without one it is taken for
     * an event of the life that is known.
     *
     * @param {PenstockEvent} event
     * @param {string | null} [cursor]
     * @returns {Verdict}
     */
    apply(event: PenstockEvent, cursor?: string | null): Verdict;
}

/** Splits a server-sent event stream into frames; each field only if it was there. */
export declare class FrameParser {
    /**
     * The frames that are complete with these bytes; what is incomplete is kept for the next call.
     *
     * @param {Uint8Array} bytes
     * @returns {SseFrame[]}
     */
    push(bytes: Uint8Array): SseFrame[];
}

export declare class Listing {
    /** @param {Place & {over?: "sse" | "websocket", limit?: number}} [options] `limit`: sessions that it begins with */
    constructor({ over, limit, ...place }?: Place & {
        over?: "sse" | "websocket";
        limit?: number;
    });
    /**
     * Call the listener after each change. Gives a function that ends it.
     *
     * @readonly
     * @param {() => void} listener
     * @returns {() => void}
     */
    readonly subscribe: (listener: () => void) => () => void;
    /**
     * The list now. Unchangeable; the same object until something in it changes.
     *
     * @readonly
     * @returns {Listings}
     */
    readonly getSnapshot: () => Listings;
    /** How it is followed. */
    get over(): "sse" | "websocket";
    /**
     * Keep the list up to date until the signal, or a refusal; reconnects by itself.
     *
     * @param {Abortable} [options]
     * @returns {Promise<Connection>} how it ended
     */
    follow({ signal }?: Abortable): Promise<Connection>;
    /**
     * Fetch a page of those that were active before the ones that are here. Whether there are more then.
     *
     * @param {{limit?: number} & Abortable} [options]
     * @returns {Promise<boolean>}
     */
    older({ limit, signal }?: {
        limit?: number;
    } & Abortable): Promise<boolean>;
}

/** A penstock server, as one subject. */
export declare class Client {
    /** @param {Place} [place] without a URL the server that the page comes from */
    constructor(place?: Place);
    /**
     * A session, whether it exists or not. Each call makes another one, with a state of its own.
     *
     * @param {string} sessionId
     * @param {Following & Hooks} [options]
     * @returns {Session}
     */
    session(sessionId: string, options?: Following & Hooks): Session;
    /**
     * A page of the sessions that live, by id, or the last active first; `next` is the next page's `after`.
     *
     * @param {{limit?: number, after?: string, order?: "id" | "updated"} & Abortable} [options]
     * @returns {Promise<{sessions: Listed[], next?: string}>}
     */
    sessions({ limit, after, order, signal }?: {
        limit?: number;
        after?: string;
        order?: "id" | "updated";
    } & Abortable): Promise<{
        sessions: Listed[];
        next?: string;
    }>;
    /**
     * The list of the sessions that one may read, as a store that is kept up to date while it is followed. Each call makes
     * another one.
     *
     * @param {{over?: "sse" | "websocket", limit?: number}} [options] `limit`: sessions that it begins with, 100 unless given
     * @returns {Listing}
     */
    list(options?: {
        over?: "sse" | "websocket";
        limit?: number;
    }): Listing;
    /**
     * The producers that the server runs, by name, and which of them a start without a name gets.
     *
     * @param {Abortable} [options]
     * @returns {Promise<Producers>}
     */
    producers({ signal }?: Abortable): Promise<Producers>;
    /**
     * A ticket for those who cannot send headers, an `EventSource` say: a part of the token's rights to put into a URL.
     *
     * @param {{sessions: string[], scopes: string[], ttl?: number}} body
     * @param {Abortable} [options]
     * @returns {Promise<{ticket: string, expires_at: string}>}
     */
    ticket(body: {
        sessions: string[];
        scopes: string[];
        ttl?: number;
    }, { signal }?: Abortable): Promise<{
        ticket: string;
        expires_at: string;
    }>;
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
export declare class Session {
    /** @readonly */
    readonly sessionId: string;
    /**
     * @param {string} sessionId
     * @param {Place & Following & Hooks} [options]
     */
    constructor(sessionId: string, { url, token, fetch, WebSocket, over, snapshot, limit, silence, ...hooks }?: Place & Following & Hooks);
    /**
     * Call the listener after each change, once for all that came together. Gives a function that ends it.
     *
     * @readonly
     * @param {() => void} listener
     * @returns {() => void}
     */
    readonly subscribe: (listener: () => void) => () => void;
    /**
     * The state now. Unchangeable; the same object, in all its parts, until something in it changes.
     *
     * @readonly
     * @returns {Snapshot}
     */
    readonly getSnapshot: () => Snapshot;
    /**
     * Keep the state up to date until the session's end, a refusal, `close`, or the signal; reconnects by itself. One
     * resume is under way at a time: called again meanwhile, it gives the same promise.
     *
     * @param {Abortable} [options]
     * @returns {Promise<Connection>} how it ended
     */
    follow({ signal }?: Abortable): Promise<Connection>;
    /** Stop following. The session and a running answer go on without us. */
    close(): void;
    /**
     * Cut the connection; it comes back by itself after so many milliseconds.
     *
     * @param {number} [milliseconds]
     */
    drop(milliseconds?: number): void;
    /**
     * Fetch a page of the messages before those that are here: at most `limit`, as many as there may be without it. Whether
     * there are more then. While a page is on its way it gives the same promise. Where the state has to begin anew
     * meanwhile, it is that of the newest messages again.
     *
     * @param {{limit?: number} & Abortable} [options]
     * @returns {Promise<boolean>}
     */
    older({ limit, signal }?: {
        limit?: number;
    } & Abortable): Promise<boolean>;
    /**
     * Events before an offset, as they stand in the log; the store is not touched. At most so many, in their order; none
     * where there are none. What was compacted is told as it is now.
     *
     * @param {{before: number, limit?: number} & Abortable} asked
     * @returns {Promise<PenstockEvent[]>}
     */
    history({ before, limit, signal }: {
        before: number;
        limit?: number;
    } & Abortable): Promise<PenstockEvent[]>;
    /**
     * Make the session, if there is none.
     *
     * @param {{metadata?: JsonObject}} [body]
     * @param {Abortable} [options]
     * @returns {Promise<{session_id: string, cursor: string, created: boolean}>}
     */
    create(body?: {
        metadata?: JsonObject;
    }, options?: Abortable): Promise<{
        session_id: string;
        cursor: string;
        created: boolean;
    }>;
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
    start(body?: StartBody, { key, signal }?: {
        key?: string;
    } & Abortable): Promise<Started>;
    /**
     * Stop what runs, or the generation that is named. Without a name it also stops starts of ours that the server has
     * not answered yet, whether they have reached it or not. What is known to run is stopped by its name: asked for again, it
     * stops nothing that was started behind it.
     *
     * @param {StopBody} [body]
     * @param {Abortable} [options]
     * @returns {Promise<Stopped>}
     */
    stop(body?: StopBody, options?: Abortable): Promise<Stopped>;
    /**
     * Post a message; without a role the user's.
     *
     * @param {MessageBody} body
     * @param {Abortable} [options]
     * @returns {Promise<{session_id: string, message_id: string, cursor: string}>}
     */
    post(body: MessageBody, options?: Abortable): Promise<{
        session_id: string;
        message_id: string;
        cursor: string;
    }>;
    /**
     * Keep a file with the session, for blocks of kind `image`, `file` and `source` to name. Sent again, with the same
     * content, type and name, it is the same file.
     *
     * @param {Blob} file its `type` is what it is said to be
     * @param {{filename?: string} & Abortable} [options] a `File` brings its name
     * @returns {Promise<KeptFile>}
     */
    keepFile(file: Blob, { filename, signal }?: {
        filename?: string;
    } & Abortable): Promise<KeptFile>;
    /**
     * One of the session's files, as it was sent. Its `type` is that of a picture that may be shown, or says nothing.
     *
     * @param {string} fileId
     * @param {Abortable} [options]
     * @returns {Promise<Blob>}
     */
    readFile(fileId: string, { signal }?: Abortable): Promise<Blob>;
    /**
     * Send an input into a live generation.
     *
     * @param {string} generationId
     * @param {InputBody} body
     * @param {Abortable} [options]
     * @returns {Promise<{session_id: string, generation_id: string, input_id: string}>}
     */
    input(generationId: string, body: InputBody, options?: Abortable): Promise<{
        session_id: string;
        generation_id: string;
        input_id: string;
    }>;
    /**
     * Answer an approval that is open: yes, perhaps with other arguments.
     *
     * @param {string} approvalId
     * @param {{reason?: string, arguments?: Json} & Abortable} [options]
     * @returns {Promise<{session_id: string, generation_id: string, input_id: string}>}
     */
    approve(approvalId: string, { signal, ...body }?: {
        reason?: string;
        arguments?: Json;
    } & Abortable): Promise<{
        session_id: string;
        generation_id: string;
        input_id: string;
    }>;
    /**
     * Answer an approval that is open: no.
     *
     * @param {string} approvalId
     * @param {{reason?: string} & Abortable} [options]
     * @returns {Promise<{session_id: string, generation_id: string, input_id: string}>}
     */
    refuse(approvalId: string, { signal, ...body }?: {
        reason?: string;
    } & Abortable): Promise<{
        session_id: string;
        generation_id: string;
        input_id: string;
    }>;
    /**
     * Take a message out of the transcript, with `and_after` all that follow it too.
     *
     * @param {string} messageId
     * @param {{and_after?: boolean}} [body]
     * @param {Abortable} [options]
     * @returns {Promise<{session_id: string, message_id: string, cursor: string}>}
     */
    retract(messageId: string, body?: {
        and_after?: boolean;
    }, options?: Abortable): Promise<{
        session_id: string;
        message_id: string;
        cursor: string;
    }>;
    /**
     * The versions of a message that was regenerated, or edited and sent again, the oldest first: those behind the number
     * `after`. The id is that of any of them.
     *
     * @param {string} messageId
     * @param {{after?: number, limit?: number} & Abortable} [options]
     * @returns {Promise<Versions>}
     */
    versions(messageId: string, { after, limit, signal }?: {
        after?: number;
        limit?: number;
    } & Abortable): Promise<Versions>;
    /**
     * Bring back a version of a message with all that followed it, in place of what stands there now.
     *
     * @param {string} messageId
     * @param {{key?: string} & Abortable} [options]
     * @returns {Promise<Restored>}
     */
    restore(messageId: string, { key, signal }?: {
        key?: string;
    } & Abortable): Promise<Restored>;
    /**
     * Let a paused queue go on.
     *
     * @param {Abortable} [options]
     * @returns {Promise<{session_id: string, cursor: string, generation_id?: string}>}
     */
    queueNext(options?: Abortable): Promise<{
        session_id: string;
        cursor: string;
        generation_id?: string;
    }>;
    /**
     * Take a waiting generation out of the queue.
     *
     * @param {string} generationId
     * @param {Abortable} [options]
     * @returns {Promise<{session_id: string, generation_id: string} | null>} null from an older server
     */
    dequeue(generationId: string, options?: Abortable): Promise<{
        session_id: string;
        generation_id: string;
    } | null>;
    /**
     * Be here for a minute, as an actor on a device. Say it again to stay.
     *
     * @param {string} actorId
     * @param {string} deviceId
     * @param {{name?: string, status?: string}} [body]
     * @param {Abortable} [options]
     * @returns {Promise<PresenceAnswer | null>} null from an older server
     */
    putPresence(actorId: string, deviceId: string, body?: {
        name?: string;
        status?: string;
    }, options?: Abortable): Promise<PresenceAnswer | null>;
    /**
     * Be gone: on one device, or without one on all of the actor's.
     *
     * @param {string} actorId
     * @param {string} [deviceId]
     * @param {Abortable} [options]
     * @returns {Promise<PresenceAnswer | null>} null from an older server
     */
    dropPresence(actorId: string, deviceId?: string, options?: Abortable): Promise<PresenceAnswer | null>;
    /**
     * Merge into the session's metadata (RFC 7396): null removes a member.
     *
     * @param {JsonObject} metadata
     * @param {Abortable} [options]
     * @returns {Promise<{session_id: string, cursor: string, metadata: JsonObject}>}
     */
    update(metadata: JsonObject, options?: Abortable): Promise<{
        session_id: string;
        cursor: string;
        metadata: JsonObject;
    }>;
    /**
     * End what is live and what waits, and begin again with an empty transcript.
     *
     * @param {{reason?: string}} [body]
     * @param {Abortable} [options]
     * @returns {Promise<{session_id: string, cursor: string}>}
     */
    reset(body?: {
        reason?: string;
    }, options?: Abortable): Promise<{
        session_id: string;
        cursor: string;
    }>;
    /**
     * Make a new session that begins with this one's messages, or with those up to `at`: a cursor, or a message's id.
     *
     * @param {{session_id?: string, at?: string, metadata?: JsonObject}} [body]
     * @param {Abortable} [options]
     * @returns {Promise<{session_id: string, cursor: string}>}
     */
    fork(body?: {
        session_id?: string;
        at?: string;
        metadata?: JsonObject;
    }, options?: Abortable): Promise<{
        session_id: string;
        cursor: string;
    }>;
    /**
     * Delete the session, with all that it holds.
     *
     * @param {Abortable} [options]
     * @returns {Promise<{session_id: string} | null>} null from an older server
     */
    delete(options?: Abortable): Promise<{
        session_id: string;
    } | null>;
    /**
     * Where a generation stands, and how it ended.
     *
     * @param {string} generationId
     * @param {Abortable} [options]
     * @returns {Promise<GenerationInfo & {session_id: string}>}
     */
    generation(generationId: string, options?: Abortable): Promise<GenerationInfo & {
        session_id: string;
    }>;
    /**
     * The server's snapshot now; the store is not touched.
     *
     * @param {{limit?: number, before?: string} & Abortable} [options]
     * @returns {Promise<ServerSnapshot>}
     */
    fetchSnapshot({ limit, before, signal }?: {
        limit?: number;
        before?: string;
    } & Abortable): Promise<ServerSnapshot>;
}
