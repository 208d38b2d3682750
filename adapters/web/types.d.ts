/* The types that the JavaScript imports by name: events, the state, options, bodies and answers. Classes and functions
 * have theirs where they are written. `python -m tests.e2e.declarations` puts both into penstock.d.ts.
 */
import type { Problem } from "./asking.js";

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
