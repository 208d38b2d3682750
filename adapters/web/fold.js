/* The fold: what the events of a penstock session add up to. Needs no network and no page.
 *
 *   const fold = new Fold("my-session");
 *   fold.apply(event, cursor);   // what became of it: see `Verdict`
 *   fold.view()                  // the state: immutable, and the same object until something changes
 *
 * It keeps the same rules as the server's own, and what it holds is what the server's snapshot says at the same
 * cursor: `Fold` and `Transcript` here are engine/reducer/state.py and transcript.py there. Change them together;
 * tests/vectors and a property test hold them to each other.
 */

import { badSnapshot, unfit } from "./shapes.js";

/**
 * @import { Approval, Block, End, Generation, GenerationInfo, JsonObject, Message, PenstockEvent, Present, Queue,
 *   ServerSnapshot, State, Verdict } from "./types.js"
 */

const CURSOR = /^([A-Za-z0-9]{1,32})-([0-9]{16})$/;

/**
 * The epoch and offset in a cursor's text, or null if it is none.
 *
 * @param {unknown} text
 * @returns {{epoch: string, offset: number} | null}
 */
export function parseCursor(text) {
  const match = typeof text === "string" ? CURSOR.exec(text) : null;
  return match && { epoch: match[1], offset: Number(match[2]) };
}

/**
 * The text of a cursor: the place behind the event at this offset.
 *
 * @param {string} epoch
 * @param {number} offset
 * @returns {string}
 */
export function makeCursor(epoch, offset) {
  return `${epoch}-${String(offset).padStart(16, "0")}`;
}

/**
 * Those of the named fields that are there.
 *
 * @param {any} from
 * @param {...string} names
 * @returns {any}
 */
function pick(from, ...names) {
  return Object.fromEntries(names.filter((name) => from[name] !== undefined).map((name) => [name, from[name]]));
}

/**
 * The value, and all that is in it, made unchangeable.
 *
 * @template T
 * @param {T} value
 * @returns {T}
 */
function freeze(value) {
  if (value !== null && typeof value === "object" && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const inner of Object.values(value)) freeze(inner);
  }
  return value;
}

/**
 * The new value, unchangeable; or the known one, if that is the same.
 *
 * @template T
 * @param {T} known
 * @param {T} value
 * @returns {T}
 */
function kept(known, value) {
  return JSON.stringify(known) === JSON.stringify(value) ? known : freeze(value);
}

/** How a generation ended, as its last event and a snapshot say it. */
const END = ["outcome", "code", "message", "retryable", "usage"];

/** So many that ended and wrote no message are kept: as many as the server keeps. */
const SILENT_KEPT = 32;

// What a block's opening says of it, which stays.
const HEAD = ["kind", "tool_call_id", "name", "media_type", "file_id", "url", "filename", "title"];

const CONTENT = ["text", "arguments", "value", "is_error"]; // of a block, as its end may replace it

/** A message while it grows; what a reader gets of it is `view()`, kept until it changes. */
class Growing {
  /**
   * @param {any} head everything but the blocks
   * @param {any[]} blocks
   */
  constructor(head, blocks) {
    this.head = head;
    this.blocks = blocks;
    /** @type {(Block | null)[]} */
    this.shown = blocks.map(() => null);
    /** @type {Message | null} */
    this.kept = null;
  }

  get id() {
    return this.head.message_id;
  }

  get open() {
    return this.head.status === "open";
  }

  /** @param {number} [index] of the block that changed, if only that did */
  changed(index) {
    this.kept = null;
    if (index !== undefined) this.shown[index] = null;
  }

  /** @param {any[]} blocks */
  replace(blocks) {
    this.blocks = blocks;
    this.shown = blocks.map(() => null);
    this.kept = null;
  }

  /** @returns {Message} */
  view() {
    const blocks = () => this.blocks.map((block, index) => (this.shown[index] ??= freeze({ ...block })));
    return (this.kept ??= freeze(/** @type {Message} */ ({ ...this.head, blocks: blocks() })));
  }
}

/**
 * The messages: in order, by id; which of their events fit what is known.
 *
 * Compaction leaves missing offsets: only while a message is open, and one of those that were open must then come
 * whole, as `message.snapshot`, before it closes. `unexplained` keeps account of that.
 */
class Transcript {
  constructor() {
    /** @type {Growing[]} */
    this.inOrder = [];
    /** @type {Map<string, Growing>} */
    this.byId = new Map();
    /** @type {Set<string>} ids */
    this.open = new Set();
    /** @type {Set<string>} ids of messages that came whole: no block event of theirs will follow */
    this.whole = new Set();
    /** @type {Set<string>[]} for every jump of the offset, the ids of the messages that may be the reason */
    this.unexplained = [];
    /** @type {readonly Message[] | null} */
    this.kept = null;
  }

  /** @returns {readonly Message[]} */
  view() {
    return (this.kept ??= Object.freeze(this.inOrder.map((message) => message.view())));
  }

  /** The last message's id. */
  get newest() {
    return this.inOrder.at(-1)?.id;
  }

  /**
   * Put messages of an older page where they belong: those that are here already, too, for an open one may stand before
   * the others. Those that are older still stay in front.
   *
   * @param {Growing[]} messages in order
   * @param {string | null} next the message that they are before
   */
  prepend(messages, next) {
    const older = messages.map((message) => this.byId.get(message.id) ?? message);
    const ids = new Set(older.map(({ id }) => id));
    const at = Math.max(0, this.inOrder.findIndex(({ id }) => id === next));
    const left = (/** @type {Growing[]} */ those) => those.filter(({ id }) => !ids.has(id));
    this.inOrder = [...left(this.inOrder.slice(0, at)), ...older, ...left(this.inOrder.slice(at))];
    for (const message of older) this.byId.set(message.id, message);
    this.kept = null;
  }

  /**
   * The message behind this one.
   *
   * @param {string} id
   */
  behind(id) {
    return this.inOrder[this.inOrder.findIndex((message) => message.id === id) + 1]?.id ?? null;
  }

  /** @param {Growing} message */
  add(message) {
    this.inOrder.push(message);
    this.byId.set(message.id, message);
    if (message.open) this.open.add(message.id);
    this.kept = null;
  }

  /**
   * @param {Growing} message
   * @param {number} [index] of the block that changed, if only that did
   */
  #changed(message, index) {
    message.changed(index);
    this.kept = null;
  }

  /** The next event's offset jumps; false where no open message can be the reason. */
  noteJump() {
    const candidates = new Set([...this.open].filter((id) => !this.whole.has(id)));
    if (candidates.size) this.unexplained.push(candidates);
    return candidates.size > 0;
  }

  /**
   * A message comes into being here or in `takeWhole`, never by a delta.
   *
   * @param {PenstockEvent} event
   * @param {any} data
   * @returns {Verdict}
   */
  openMessage(event, data) {
    if (this.byId.has(/** @type {string} */ (event.message_id))) return "gap";
    const stamp = pick(event, "message_id", "generation_id", "turn", "job_id", "time");
    const said = pick(data, "role", "parent_message_id", "metadata", "continues", "version");
    this.add(new Growing({ ...stamp, ...said, status: "open" }, []));
    return "applied";
  }

  /**
   * @param {PenstockEvent} event
   * @param {any} data
   * @returns {Verdict}
   */
  closeMessage(event, data) {
    const id = /** @type {string} */ (event.message_id);
    const message = this.byId.get(id);
    if (!message?.open || message.head.generation_id !== event.generation_id) return "gap";
    if (message.blocks.some((block) => block.open)) return "gap";
    if (this.unexplained.some((candidates) => candidates.size === 1 && candidates.has(id))) return "gap";
    for (const candidates of this.unexplained) candidates.delete(id);
    Object.assign(message.head, pick(data, "status", "finish_reason", "usage"), { closed: event.time });
    this.open.delete(id);
    this.#changed(message);
    return "applied";
  }

  /**
   * A new message, or the whole content of a known one and its watermark; it must cover all that is known.
   *
   * @param {PenstockEvent} event
   * @param {any} data
   * @returns {Verdict}
   */
  takeWhole(event, data) {
    const id = /** @type {string} */ (event.message_id);
    const message = this.byId.get(id);
    const names = ["seq", ...HEAD, ...CONTENT];
    const blocks = data.blocks.map((/** @type {any} */ block) => pick(block, ...names));
    // In a fork, and restored, it bears no generation's stamp, but says whose it was.
    const of = event.generation_id === undefined && data.generation ? data.generation : event;
    if (!message) {
      const stamp = { ...pick(event, "message_id", "job_id", "time"), ...pick(of, "generation_id", "turn") };
      const said = pick(data, "role", "status", "parent_message_id", "metadata", "finish_reason", "usage");
      this.add(new Growing({ ...stamp, ...said, ...pick(data, "author", "continues", "version") }, blocks));
      this.whole.add(id);
      return "applied";
    }
    if (message.head.generation_id !== of.generation_id) return "gap";
    if (message.blocks.some((known, index) => !(blocks[index]?.seq >= known.seq))) return "gap";
    this.whole.add(id);
    this.unexplained = this.unexplained.filter((candidates) => !candidates.has(id));
    const status = message.open ? "open" : data.status; // an open one stays so until message.closed
    const known = message.blocks.map((block) => pick(block, ...names, "open"));
    if (status === message.head.status && JSON.stringify(known) === JSON.stringify(blocks)) return "applied"; // as it was
    message.replace(blocks);
    message.head.status = status;
    this.#changed(message);
    return "applied";
  }

  /**
   * @param {PenstockEvent} event
   * @returns {Verdict}
   */
  retract(event) {
    const id = /** @type {string} */ (event.message_id);
    const message = this.byId.get(id);
    if (!message || message.open) return "gap";
    this.inOrder.splice(this.inOrder.indexOf(message), 1);
    this.byId.delete(id);
    this.whole.delete(id);
    this.kept = null;
    return "applied";
  }

  /**
   * An approval is resolved; that stays with the message which the event is stamped with. One that is not here is passed
   * over.
   *
   * @param {PenstockEvent} event
   * @param {any} data
   * @param {string | undefined} name what it was for
   */
  resolve(event, data, name) {
    const message = this.byId.get(event.message_id ?? "");
    if (!message) return;
    const said = pick(data, "approval_id", "approved", "tool_call_id", "arguments", "reason", "by");
    const resolved = name === undefined ? said : { ...said, name };
    message.head.approvals = [...(message.head.approvals ?? []), resolved];
    this.#changed(message);
  }

  /**
   * @param {PenstockEvent} event
   * @param {any} data
   * @returns {Verdict}
   */
  foldBlock(event, data) {
    const { message_id: id = "", block_index: index = 0, seq = 0 } = event;
    const message = this.byId.get(id);
    if (!message || message.head.generation_id !== event.generation_id) return "gap";
    const block = message.blocks[index];
    if (block && seq <= block.seq) return "duplicate";
    if (!message.open || this.whole.has(id)) return "gap";
    if (event.type === "block.opened") {
      if (index !== message.blocks.length || seq !== 0) return "gap";
      message.blocks.push({ ...pick(data, ...HEAD), seq: 0, open: true });
    } else {
      if (!block?.open || seq !== block.seq + 1) return "gap";
      if (event.type === "block.delta") add(block, data);
      else {
        delete block.open;
        Object.assign(block, pick(data, ...CONTENT));
      }
      block.seq = seq;
    }
    this.#changed(message, index);
    return "applied";
  }
}

/**
 * @param {any} block
 * @param {any} data
 */
function add(block, data) {
  if (data.text !== undefined) block.text = (block.text ?? "") + data.text;
  if (data.arguments !== undefined) block.arguments = (block.arguments ?? "") + data.arguments;
  if (data.value !== undefined) block.value = data.value;
}

/**
 * The offset of a generation's first event; 0 of one that came with a fork.
 *
 * @param {GenerationInfo} generation
 */
function begin({ started, finished }) {
  return parseCursor((started ?? finished)?.cursor)?.offset ?? 0;
}

/**
 * Which of two began first; those that came with a fork are before all others, by their turns.
 *
 * @param {GenerationInfo} one
 * @param {GenerationInfo} other
 */
function byBegin(one, other) {
  return begin(one) - begin(other) || (one.turn ?? 0) - (other.turn ?? 0);
}

/** @param {Message} message */
function growing({ blocks, ...head }) {
  return new Growing(head, blocks.map((block) => ({ ...block })));
}

/** The state of one session, folded from its events. Events and snapshots that are given to it become its own: frozen. */
export class Fold {
  /** @readonly */
  sessionId;
  /** @type {string | null} */
  #epoch = null;
  #offset = 0;
  #turn = 0;
  /** @type {JsonObject} */
  #metadata = freeze({});
  /** @type {Generation | null} */
  #generation = null;
  /** @type {Queue} */
  #queue = freeze({ paused: false, items: [] });
  /** @type {readonly Approval[]} */
  #approvals = freeze([]);
  #more = false;
  /** @type {string | null} */
  #next = null;
  #olderSeenAt = 0;
  /** @type {Readonly<Record<string, End>>} */
  #ends = freeze({});
  /** @type {Map<string, GenerationInfo>} those that may be told of, by their ids; `#told` says which are */
  #generations = new Map();
  /** @type {string | null} the id of the last one that started */
  #last = null;
  /** @type {readonly GenerationInfo[]} */
  #told = freeze([]);
  #toldAnew = false; // they are to be gone through before they are told of
  /** @type {readonly Present[]} */
  #presence = freeze([]);
  #transcript = new Transcript();
  /** @type {State | null} */
  #view = null;

  /** @param {string} sessionId */
  constructor(sessionId) {
    this.sessionId = sessionId;
  }

  /**
   * Begin anew, with nothing: in the life of the session that this epoch names.
   *
   * @param {string | null} epoch
   */
  reset(epoch) {
    if (this.#epoch !== null && epoch !== this.#epoch) this.#presence = freeze([]); // of another life of the session
    this.#epoch = epoch;
    this.#offset = 0;
    this.#turn = 0;
    this.#metadata = freeze({});
    this.#generation = null;
    this.#queue = freeze({ paused: false, items: [] });
    this.#approvals = freeze([]);
    this.#older(false, null);
    this.#olderSeenAt = 0;
    this.#ends = freeze({});
    this.#forgetGenerations();
    this.#transcript = new Transcript();
    this.#view = null;
  }

  /** The life of the session that this is a state of; null before anything is known. */
  get epoch() {
    return this.#epoch;
  }

  /** Of the last event; 0 before the first. */
  get offset() {
    return this.#offset;
  }

  /** The last one given; 0 before the first. */
  get turn() {
    return this.#turn;
  }

  get metadata() {
    return this.#metadata;
  }

  /** The live one. */
  get generation() {
    return this.#generation;
  }

  /** The starts that wait. */
  get queue() {
    return this.#queue;
  }

  /** Those that are open. */
  get approvals() {
    return this.#approvals;
  }

  /** A snapshot left older messages out, which are not here yet. */
  get more() {
    return this.#more;
  }

  /** The message that those are before; null where none are missing. */
  get next() {
    return this.#next;
  }

  /** The offset at which those that came in pages were read. */
  get olderSeenAt() {
    return this.#olderSeenAt;
  }

  /** The end of each generation whose end was seen, by its id. */
  get ends() {
    return this.#ends;
  }

  /**
   * The oldest first: those that wrote the messages here, the last one that started, and the newest that ended and wrote
   * none.
   */
  get generations() {
    if (this.#toldAnew) this.#goThroughGenerations();
    return this.#told;
  }

  /** Who is here, in order of arrival. */
  get presence() {
    return this.#presence;
  }

  /** @returns {readonly Message[]} */
  get messages() {
    return this.#transcript.view();
  }

  /** @returns {string | null} */
  get cursor() {
    return this.#epoch === null ? null : makeCursor(this.#epoch, this.#offset);
  }

  /**
   * @param {string} messageId
   * @returns {Message | undefined}
   */
  message(messageId) {
    return this.#transcript.byId.get(messageId)?.view();
  }

  /**
   * The state now: unchangeable, and the same object, in all its parts, as long as nothing in it has changed.
   *
   * @returns {State}
   */
  view() {
    return (this.#view ??= Object.freeze({
      session_id: this.sessionId,
      cursor: this.cursor,
      messages: this.messages,
      generation: this.#generation,
      generations: this.generations,
      queue: this.#queue,
      approvals: this.#approvals,
      metadata: this.#metadata,
      more: this.#more,
      ends: this.#ends,
      presence: this.#presence,
    }));
  }

  /**
   * Start over from a snapshot, as `GET /v1/sessions/{id}` and the stream's `snapshot` frame give it.
   *
   * @param {ServerSnapshot} snapshot
   * @returns {"applied" | "foreign" | "invalid"}
   */
  load(snapshot) {
    if (badSnapshot(snapshot)) return "invalid";
    const at = parseCursor(snapshot.cursor);
    if (at === null) return "invalid";
    if (snapshot.session_id !== this.sessionId) return "foreign";
    const ends = at.epoch === this.#epoch ? this.#ends : {}; // a snapshot does not tell of all of them
    freeze(snapshot);
    this.reset(at.epoch);
    this.#offset = at.offset;
    this.#turn = snapshot.generation?.turn ?? 0;
    this.#generation = snapshot.generation ?? null;
    this.#queue = snapshot.queue;
    this.#approvals = snapshot.approvals;
    this.#metadata = snapshot.metadata;
    this.#older(snapshot.more, snapshot.next ?? snapshot.messages[0]?.message_id ?? null);
    for (const message of snapshot.messages) this.#transcript.add(growing(message));
    const { generation, generations = [] } = snapshot;
    this.#takeGenerations(generations, ends);
    if (generation && !this.#generations.has(generation.generation_id)) {
      // A server that is older than this tells of no others.
      this.#note(pick(generation, "generation_id", "turn", "state"));
    }
    this.#last = generation?.generation_id ?? generations.filter(({ started }) => started).at(-1)?.generation_id ?? null;
    return "applied";
  }

  /**
   * Take in a page of the messages that a snapshot left out: those before `next`. It may be of a later moment.
   *
   * @param {ServerSnapshot} page
   * @returns {"applied" | "foreign" | "invalid"}
   */
  prepend(page) {
    if (badSnapshot(page)) return "invalid";
    const at = parseCursor(page.cursor);
    if (at === null) return "invalid";
    if (page.session_id !== this.sessionId || at.epoch !== this.#epoch) return "foreign";
    freeze(page);
    this.#transcript.prepend(page.messages.map(growing), this.#next);
    // What began behind what is known here is told by its events.
    const older = (page.generations ?? []).filter((generation) => begin(generation) <= this.#offset);
    this.#takeGenerations(older.filter(({ generation_id: id }) => !this.#generations.has(id)), this.#ends);
    this.#olderSeenAt = Math.max(this.#olderSeenAt, at.offset);
    this.#older(page.more, page.next ?? page.messages[0]?.message_id ?? null);
    this.#view = null;
    return "applied";
  }

  #forgetGenerations() {
    this.#generations = new Map();
    this.#last = null;
    this.#told = kept(this.#told, /** @type {GenerationInfo[]} */ ([]));
    this.#toldAnew = false;
  }

  /**
   * Take in those of a snapshot, and how they ended, as far as that is not known better.
   *
   * @param {readonly GenerationInfo[]} generations
   * @param {Readonly<Record<string, End>>} ends
   */
  #takeGenerations(generations, ends) {
    /** @type {Record<string, End>} */
    const told = {};
    for (const generation of generations) {
      this.#note(generation);
      if (generation.outcome !== undefined) told[generation.generation_id] = pick(generation, ...END);
    }
    this.#ends = freeze({ ...told, ...ends });
  }

  /** @param {GenerationInfo} generation as it is from here on */
  #note(generation) {
    this.#generations.set(generation.generation_id, freeze(generation));
    this.#toldAnew = true;
  }

  /** Which of them are told of, and in which order; the others are not needed any more. */
  #goThroughGenerations() {
    this.#toldAnew = false;
    const all = [...this.#generations.values()].sort(byBegin);
    const silent = all.filter(({ silent, state }) => silent && state === "finished").slice(-SILENT_KEPT);
    const ids = new Set(this.#transcript.inOrder.map(({ head }) => head.generation_id));
    for (const generation of silent) ids.add(generation.generation_id);
    ids.add(this.#last);
    const told = [...ids].flatMap((id) => this.#generations.get(id) ?? []);
    told.sort(byBegin);
    this.#generations = new Map(told.map((generation) => [generation.generation_id, generation]));
    this.#told = kept(this.#told, told);
  }

  /**
   * @param {boolean} more
   * @param {string | null} next
   */
  #older(more, next) {
    this.#more = more;
    this.#next = more ? next : null;
  }

  /**
   * Take the whole list of who is here, as the stream's `presence` frame and `GET …/presence` give it.
   *
   * @param {readonly Present[]} present
   */
  loadPresence(present) {
    const known = this.#presence;
    this.#presence = kept(known, [...present]);
    if (this.#presence !== known) this.#view = null;
  }

  /** @param {any} data */
  #changePresence(data) {
    const { actor_id: actor, device_id: device } = data;
    const here = [...this.#presence];
    const at = here.findIndex((known) => known.actor_id === actor && known.device_id === device);
    const present = pick(data, "actor_id", "device_id", "name", "status");
    if (data.status === "gone") {
      if (at < 0) return;
      here.splice(at, 1);
    } else if (at < 0) here.push(present);
    else here[at] = present;
    this.#presence = freeze(here);
    this.#view = null;
  }

  /**
   * Fold in one event; `cursor` is what it came with, its place in a life of the session. Without one it is taken for
   * an event of the life that is known.
   *
   * @param {PenstockEvent} event
   * @param {string | null} [cursor]
   * @returns {Verdict}
   */
  apply(event, cursor) {
    if (unfit(event) !== null) return "invalid";
    if (event.session_id !== this.sessionId) return "foreign";
    if (event.offset === undefined) {
      if (event.type === "presence.changed") this.#changePresence(event.data);
      return "ephemeral";
    }
    const at = parseCursor(cursor);
    if (at !== null && at.offset !== event.offset) return "invalid";
    const epoch = at?.epoch ?? this.#epoch;
    if (epoch !== this.#epoch) {
      if (event.offset !== 1) return "gap"; // another life of the session, and not from its start
      this.reset(epoch);
    }
    if (event.offset <= this.#offset) return "duplicate";
    const jumps = event.offset > this.#offset + 1;
    if (jumps && !this.#transcript.noteJump()) return "gap";
    freeze(event);
    const verdict = this.#fold(event, event.data);
    if (verdict !== "gap") {
      this.#offset = event.offset;
      this.#view = null;
    } else if (jumps) this.#transcript.unexplained.pop();
    return verdict;
  }

  /**
   * @param {PenstockEvent} event
   * @param {any} data
   * @returns {Verdict}
   */
  #fold(event, data) {
    const id = event.generation_id;
    const live = this.#generation?.generation_id === id ? this.#generation : null;
    switch (event.type) {
      case "block.opened":
      case "block.delta":
      case "block.closed":
        return this.#transcript.foldBlock(event, data);
      case "message.opened":
        return id !== undefined && !live ? "gap" : this.#openMessage(event, data);
      case "message.closed":
        return this.#transcript.closeMessage(event, data);
      case "message.snapshot":
        return this.#takeWhole(event, data);
      case "message.retracted":
        return this.#retract(event);
      case "session.created":
      case "session.updated":
      case "session.forked":
        this.#metadata = kept(this.#metadata, data.metadata);
        return "applied";
      case "session.reset":
        return this.#resetSession();
      case "generation.queued":
        return this.#enqueue(event, data);
      case "queue.paused":
      case "queue.resumed":
        this.#queue = kept(this.#queue, { ...this.#queue, paused: event.type === "queue.paused" });
        return "applied";
      case "generation.started":
        return this.#start(event, data);
      case "generation.status":
      case "generation.cancelling":
        if (!live) return "gap";
        if (event.type === "generation.status") this.#generation = kept(live, { ...live, status: data.status });
        else {
          this.#generation = kept(live, { ...live, state: /** @type {const} */ ("cancelling") });
          this.#change(live.generation_id, { state: "cancelling" });
        }
        return "applied";
      case "generation.finished":
        return this.#finish(event, data);
      case "approval.requested":
        if (id !== undefined && !live) return "gap";
        if (this.#approvals.some((approval) => approval.approval_id === data.approval_id)) return "gap";
        this.#approvals = freeze([
          ...this.#approvals,
          {
            ...pick(event, "generation_id", "message_id"),
            ...pick(data, "approval_id", "tool_call_id", "name", "arguments", "expires_at"),
          },
        ]);
        return "applied";
      case "approval.resolved":
        return this.#resolve(event, data);
      case "input.accepted":
        return this.#acceptInput(live, data);
      case "input.applied":
      case "input.returned":
        return this.#settleInput(data.input_id);
    }
    return "applied"; // of the application, or of a type that this version does not know: moves the offset only
  }

  /**
   * @param {PenstockEvent} event
   * @param {any} data
   * @returns {Verdict}
   */
  #resolve(event, data) {
    const asked = this.#approvals.find((approval) => approval.approval_id === data.approval_id);
    if (!asked) return "gap";
    this.#approvals = freeze(this.#approvals.filter((approval) => approval !== asked));
    this.#transcript.resolve(event, data, asked.name);
    return "applied";
  }

  /**
   * @param {PenstockEvent} event
   * @param {any} data
   * @returns {Verdict}
   */
  #openMessage(event, data) {
    const verdict = this.#transcript.openMessage(event, data);
    if (verdict === "applied" && event.generation_id === this.#last) this.#speak();
    return verdict;
  }

  /**
   * One that was carried over tells how the generation ended that wrote it, and one behind it that wrote none.
   *
   * @param {PenstockEvent} event
   * @param {any} data
   * @returns {Verdict}
   */
  #takeWhole(event, data) {
    const isNew = !this.#transcript.byId.has(event.message_id ?? "");
    const verdict = this.#transcript.takeWhole(event, data);
    if (verdict !== "applied" || !isNew) return verdict;
    if (event.generation_id === this.#last) this.#speak();
    const names = ["generation_id", "turn", ...END, "author", "started", "finished"];
    const { generation, silent } = data;
    if (generation && event.generation_id === undefined && !this.#generations.has(generation.generation_id)) {
      this.#takeGenerations([{ ...pick(generation, ...names), state: "finished" }], this.#ends);
    }
    if (silent) {
      const stands = { state: "finished", silent: true, behind: event.message_id };
      this.#takeGenerations([{ ...pick(silent, ...names), ...stands }], this.#ends);
    }
    return verdict;
  }

  /**
   * @param {string} id
   * @param {Partial<GenerationInfo>} change
   */
  #change(id, change) {
    const known = this.#generations.get(id);
    if (known) this.#note({ ...known, ...change });
  }

  /** The last one stands behind no message any more: it has written one of its own, or that one is gone. */
  #speak() {
    const known = this.#last === null ? undefined : this.#generations.get(this.#last);
    if (!known?.silent) return;
    const { silent, behind, version, ...rest } = known;
    this.#note(rest);
  }

  /**
   * @param {PenstockEvent} event
   * @returns {Verdict}
   */
  #retract(event) {
    const id = event.message_id ?? "";
    if (!this.#transcript.byId.has(id) && (this.#more || (event.offset ?? 0) <= this.#olderSeenAt)) {
      this.#leaveGenerations(id);
      return "applied"; // it was left out, or gone when it would have been read
    }
    const following = id === this.#next ? this.#transcript.behind(id) : this.#next;
    const verdict = this.#transcript.retract(event);
    if (verdict === "applied") {
      this.#next = following;
      this.#leaveGenerations(id);
    }
    return verdict;
  }

  /**
   * A message is gone, and with it those that stood behind it; the last one stands nowhere, then.
   *
   * @param {string} messageId
   */
  #leaveGenerations(messageId) {
    const stood = [...this.#generations.values()].filter(({ behind }) => behind === messageId);
    if (stood.length && this.#toldAnew) this.#goThroughGenerations(); // none that is kept no longer comes in their place
    this.#toldAnew = true; // it may have been the only one of its generation
    for (const { generation_id: id } of stood) {
      if (id === this.#last) this.#speak();
      else this.#generations.delete(id);
    }
  }

  /** @returns {Verdict} */
  #resetSession() {
    if (this.#generation) return "gap";
    if (this.#transcript.inOrder.length) this.#transcript = new Transcript();
    this.#older(false, null);
    this.#forgetGenerations();
    this.#approvals = kept(this.#approvals, []);
    this.#queue = kept(this.#queue, { ...this.#queue, items: [] });
    return "applied";
  }

  /** @param {string | undefined} id */
  #waits(id) {
    return this.#queue.items.some((item) => item.generation_id === id);
  }

  /** @param {string | undefined} id */
  #leaveQueue(id) {
    if (!this.#waits(id)) return;
    this.#queue = freeze({ ...this.#queue, items: this.#queue.items.filter((item) => item.generation_id !== id) });
  }

  /**
   * @param {PenstockEvent} event
   * @param {any} data
   * @returns {Verdict}
   */
  #enqueue(event, data) {
    const id = event.generation_id;
    if (this.#waits(id) || this.#generation?.generation_id === id) return "gap";
    const item = { ...pick(event, "generation_id", "job_id"), ...pick(data, "producer", "policy", "metadata", "text", "author") };
    this.#queue = freeze({ ...this.#queue, items: [...this.#queue.items, item] });
    return "applied";
  }

  /**
   * @param {PenstockEvent} event
   * @param {any} data
   * @returns {Verdict}
   */
  #start(event, data) {
    const turn = /** @type {number} */ (event.turn);
    if (this.#generation || turn <= this.#turn) return "gap";
    this.#leaveQueue(event.generation_id);
    this.#turn = turn;
    this.#generation = freeze({
      ...pick(event, "generation_id", "turn", "job_id"),
      ...pick(data, "producer", "metadata"),
      state: "live",
    });
    const begun = { ...pick(event, "generation_id", "turn"), state: "live", ...pick(data, "author") };
    this.#note({ ...begun, started: this.#moment(event), ...this.#silence(), ...pick(data, "version") });
    this.#last = /** @type {string} */ (event.generation_id);
    return "applied";
  }

  /**
   * @param {PenstockEvent} event
   * @returns {{cursor: string, time: string}}
   */
  #moment({ offset, time }) {
    return { cursor: makeCursor(this.#epoch ?? "", offset ?? 0), time };
  }

  /** What is said of a generation that has written no message: behind which one it stands. */
  #silence() {
    const behind = this.#transcript.newest;
    return behind === undefined ? { silent: true } : { silent: true, behind };
  }

  /**
   * @param {PenstockEvent} event
   * @param {any} data
   * @returns {Verdict}
   */
  #finish(event, data) {
    const id = /** @type {string} */ (event.generation_id);
    const end = { state: /** @type {const} */ ("finished"), ...pick(data, ...END), finished: this.#moment(event) };
    if (this.#generation?.generation_id === id) {
      const { byId, open } = this.#transcript;
      const left = [...open].some((message) => byId.get(message)?.head.generation_id === id);
      const asked = this.#approvals.some((approval) => approval.generation_id === id);
      if (left || asked || this.#generation.inputs?.length) return "gap";
      this.#generation = null;
      this.#change(id, end);
    } else {
      const waited = this.#queue.items.find((item) => item.generation_id === id);
      if (!waited) return "gap";
      this.#note({ generation_id: id, ...pick(waited, "author"), ...end, ...this.#silence() });
    }
    this.#leaveQueue(id);
    this.#ends = freeze({ ...this.#ends, [id]: data });
    return "applied";
  }

  /**
   * @param {Generation | null} live
   * @param {any} data
   * @returns {Verdict}
   */
  #acceptInput(live, data) {
    if (!live || live.inputs?.some((input) => input.input_id === data.input_id)) return "gap";
    const { input_id, kind, ...content } = data;
    const input = Object.keys(content).length ? { input_id, kind, content } : { input_id, kind };
    this.#generation = freeze({ ...live, inputs: [...(live.inputs ?? []), input] });
    return "applied";
  }

  /**
   * @param {string} id
   * @returns {Verdict}
   */
  #settleInput(id) {
    if (!this.#generation) return "gap";
    const { inputs = [], ...rest } = this.#generation;
    const left = inputs.filter((input) => input.input_id !== id);
    if (left.length === inputs.length) return "gap";
    this.#generation = freeze(left.length ? { ...rest, inputs: left } : rest); // as a snapshot has it
    return "applied";
  }
}
