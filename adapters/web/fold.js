/* The fold: what the events of a penstock session add up to. Needs no network and no page.
 *
 *   const fold = new Fold("my-session");
 *   fold.apply(event, cursor);   // "applied", "duplicate", "foreign", "ephemeral" or "gap"
 *   fold.messages, fold.generation, fold.queue, fold.approvals, fold.metadata
 *
 * It keeps the same rules as the server's own, and what it holds is what the server's snapshot says at the same
 * cursor: `Fold` and `Transcript` here are engine/reducer/state.py and transcript.py there. Change them together.
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

/** Those of the named fields that are there. */
function pick(from, ...names) {
  return Object.fromEntries(names.filter((name) => from[name] !== undefined).map((name) => [name, from[name]]));
}

const CONTENT = ["text", "arguments", "value", "is_error"]; // of a block, as its end may replace it

/** The messages: in order, by id; which of their events fit what is known.
 *
 * Compaction leaves missing offsets: only while a message is open, and one of those that were open must then come
 * whole, as `message.snapshot`, before it closes. `unexplained` keeps account of that.
 */
class Transcript {
  constructor(changed) {
    this.changed = changed;
    this.clear();
  }

  clear() {
    for (const message of this.messages ?? []) this.changed.add(message.message_id);
    this.messages = [];
    this.byId = new Map();
    this.open = new Set(); // ids
    this.whole = new Set(); // ids of messages that came whole: no block event of theirs will follow
    this.unexplained = []; // for every jump of the offset, the ids of the messages that may be the reason
  }

  load(messages) {
    this.clear();
    for (const message of structuredClone(messages)) this.#add(message);
  }

  #add(message) {
    this.messages.push(message);
    this.byId.set(message.message_id, message);
    if (message.status === "open") this.open.add(message.message_id);
    this.changed.add(message.message_id);
  }

  /** The next event's offset jumps; false where no open message can be the reason. */
  noteJump() {
    const candidates = new Set([...this.open].filter((id) => !this.whole.has(id)));
    if (candidates.size) this.unexplained.push(candidates);
    return candidates.size > 0;
  }

  /** A message comes into being here or in `takeWhole`, never by a delta. */
  openMessage(event, data) {
    if (this.byId.has(event.message_id)) return "gap";
    const stamp = pick(event, "message_id", "generation_id", "turn", "job_id");
    this.#add({ ...stamp, ...pick(data, "role", "parent_message_id", "metadata"), status: "open", blocks: [] });
    return "applied";
  }

  closeMessage(event, data) {
    const id = event.message_id;
    const message = this.byId.get(id);
    if (!this.open.has(id) || message.blocks.some((block) => block.open)) return "gap";
    if (this.unexplained.some((candidates) => candidates.size === 1 && candidates.has(id))) return "gap";
    for (const candidates of this.unexplained) candidates.delete(id);
    Object.assign(message, pick(data, "status", "finish_reason", "usage"));
    this.open.delete(id);
    this.changed.add(id);
    return "applied";
  }

  /** A new message, or the whole content of a known one and its watermark; it must cover all that is known. */
  takeWhole(event, data) {
    const id = event.message_id;
    const message = this.byId.get(id);
    const names = ["kind", "seq", ...CONTENT, "tool_call_id", "name"];
    const blocks = structuredClone(data.blocks).map((block) => pick(block, ...names));
    if (!message) {
      const stamp = pick(event, "message_id", "generation_id", "turn", "job_id");
      this.#add({ ...stamp, ...pick(data, "role", "status", "parent_message_id", "metadata"), blocks });
      this.whole.add(id);
      return "applied";
    }
    if (message.blocks.some((known, index) => !(blocks[index]?.seq >= known.seq))) return "gap";
    message.blocks = blocks;
    this.whole.add(id);
    if (!this.open.has(id)) message.status = data.status; // an open one stays so until message.closed
    this.unexplained = this.unexplained.filter((candidates) => !candidates.has(id));
    this.changed.add(id);
    return "applied";
  }

  retract(event) {
    const id = event.message_id;
    if (!this.byId.has(id) || this.open.has(id)) return "gap";
    this.messages = this.messages.filter((message) => message.message_id !== id);
    this.byId.delete(id);
    this.whole.delete(id);
    this.changed.add(id);
    return "applied";
  }

  foldBlock(event, data) {
    const { message_id: id, block_index: index, seq } = event;
    const message = this.byId.get(id);
    const block = message?.blocks[index];
    if (!message || index === undefined || seq === undefined) return "gap";
    if (block && seq <= block.seq) return "duplicate";
    if (!this.open.has(id) || this.whole.has(id)) return "gap";
    if (event.type === "block.opened") {
      if (index !== message.blocks.length || seq !== 0) return "gap";
      message.blocks.push({ ...pick(data, "kind", "tool_call_id", "name"), seq: 0, open: true });
    } else {
      if (!block?.open || seq !== block.seq + 1) return "gap";
      if (event.type === "block.delta") add(block, data);
      else {
        delete block.open;
        Object.assign(block, pick(data, ...CONTENT));
      }
      block.seq = seq;
    }
    this.changed.add(id);
    return "applied";
  }
}

function add(block, data) {
  if (data.text !== undefined) block.text = (block.text ?? "") + data.text;
  if (data.arguments !== undefined) block.arguments = (block.arguments ?? "") + data.arguments;
  if (data.value !== undefined) block.value = data.value;
}

/** The state of one session, folded from its events.
 *
 * `apply` says what became of an event:
 *   "applied"    it is part of the state now
 *   "duplicate"  it was there already, by its offset or by its seq in the block; nothing changed
 *   "foreign"    it belongs to another session; nothing changed
 *   "ephemeral"  it has no place in the log; nothing changed
 *   "gap"        something before it is missing; nothing changed, load a snapshot
 */
export class Fold {
  #transcript;

  constructor(sessionId) {
    this.sessionId = sessionId;
    this.changed = new Set(); // ids of messages that changed since the reader cleared it
    this.#transcript = new Transcript(this.changed);
    this.reset(null);
  }

  reset(epoch) {
    this.epoch = epoch;
    this.offset = 0;
    this.turn = 0; // the last one given
    this.metadata = {};
    this.generation = null; // the live one
    this.queue = { paused: false, items: [] };
    this.approvals = [];
    this.more = false; // a snapshot left older messages out
    this.ends = new Map(); // generation id to the data of its end, as far as it was seen
    this.#transcript.clear();
  }

  get messages() {
    return this.#transcript.messages;
  }

  get cursor() {
    return this.epoch === null ? null : makeCursor(this.epoch, this.offset);
  }

  message(messageId) {
    return this.#transcript.byId.get(messageId);
  }

  /** Start over from a snapshot, as `GET /v1/sessions/{id}` and the stream's `snapshot` frame give it. */
  load(snapshot) {
    if (snapshot.session_id !== this.sessionId) return "foreign";
    const at = parseCursor(snapshot.cursor);
    this.reset(at.epoch);
    this.offset = at.offset;
    this.turn = snapshot.generation?.turn ?? 0;
    this.generation = structuredClone(snapshot.generation ?? null);
    this.queue = structuredClone(snapshot.queue);
    this.approvals = structuredClone(snapshot.approvals);
    this.metadata = structuredClone(snapshot.metadata);
    this.more = snapshot.more;
    this.#transcript.load(snapshot.messages);
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
    const jumps = event.offset > this.offset + 1;
    if (jumps && !this.#transcript.noteJump()) return "gap";
    const verdict = this.#fold(event, event.data);
    if (verdict !== "gap") this.offset = event.offset;
    else if (jumps) this.#transcript.unexplained.pop();
    return verdict;
  }

  #fold(event, data) {
    const id = event.generation_id;
    const live = this.generation?.generation_id === id ? this.generation : null;
    switch (event.type) {
      case "block.opened":
      case "block.delta":
      case "block.closed":
        return this.#transcript.foldBlock(event, data);
      case "message.opened":
        return id !== undefined && !live ? "gap" : this.#transcript.openMessage(event, data);
      case "message.closed":
        return this.#transcript.closeMessage(event, data);
      case "message.snapshot":
        return this.#transcript.takeWhole(event, data);
      case "message.retracted":
        // of a message that a snapshot left out there is nothing to retract
        if (this.more && !this.message(event.message_id)) return "applied";
        return this.#transcript.retract(event);
      case "session.created":
      case "session.updated":
      case "session.forked":
        this.metadata = data.metadata;
        return "applied";
      case "session.reset":
        return this.#resetSession();
      case "generation.queued":
        return this.#enqueue(event, data);
      case "queue.paused":
      case "queue.resumed":
        this.queue.paused = event.type === "queue.paused";
        return "applied";
      case "generation.started":
        return this.#start(event, data);
      case "generation.status":
      case "generation.cancelling":
        if (!live) return "gap";
        if (event.type === "generation.status") live.status = data.status;
        else {
          live.state = "cancelling";
          this.#touch(id);
        }
        return "applied";
      case "generation.finished":
        return this.#finish(id, data);
      case "approval.requested":
        if (id !== undefined && !live) return "gap";
        if (this.approvals.some((approval) => approval.approval_id === data.approval_id)) return "gap";
        this.approvals.push({
          ...pick(event, "generation_id", "message_id"),
          ...pick(data, "approval_id", "tool_call_id", "name", "arguments", "expires_at"),
        });
        return "applied";
      case "approval.resolved":
        return this.#takeOut(this, "approvals", "approval_id", data.approval_id);
      case "input.accepted":
        return this.#acceptInput(live, data);
      case "input.applied":
      case "input.returned":
        return this.generation ? this.#takeOut(this.generation, "inputs", "input_id", data.input_id) : "gap";
    }
    return "applied"; // of the application, or of a type that this version does not know: moves the offset only
  }

  #takeOut(holder, list, name, id) {
    const left = (holder[list] ?? []).filter((item) => item[name] !== id);
    if (left.length === (holder[list] ?? []).length) return "gap";
    holder[list] = left;
    if (holder === this.generation && !left.length) delete holder[list]; // as a snapshot has it
    return "applied";
  }

  #resetSession() {
    if (this.generation) return "gap";
    this.#transcript.clear();
    this.approvals = [];
    this.queue.items = [];
    return "applied";
  }

  #waits(id) {
    return this.queue.items.some((item) => item.generation_id === id);
  }

  #enqueue(event, data) {
    const id = event.generation_id;
    if (this.#waits(id) || this.generation?.generation_id === id) return "gap";
    this.queue.items.push({
      ...pick(event, "generation_id", "job_id"),
      ...pick(data, "producer", "policy", "metadata", "text"),
    });
    return "applied";
  }

  #start(event, data) {
    if (this.generation || !(event.turn > this.turn)) return "gap";
    this.queue.items = this.queue.items.filter((item) => item.generation_id !== event.generation_id);
    this.turn = event.turn;
    this.generation = {
      ...pick(event, "generation_id", "turn", "job_id"),
      ...pick(data, "producer", "metadata"),
      state: "live",
    };
    return "applied";
  }

  #finish(id, data) {
    if (this.generation?.generation_id === id) {
      const left = [...this.#transcript.open].some((open) => this.message(open).generation_id === id);
      const asked = this.approvals.some((approval) => approval.generation_id === id);
      if (left || asked || this.generation.inputs?.length) return "gap";
      this.generation = null;
    } else if (!this.#waits(id)) return "gap";
    this.queue.items = this.queue.items.filter((item) => item.generation_id !== id);
    this.ends.set(id, data);
    this.#touch(id);
    return "applied";
  }

  #acceptInput(live, data) {
    if (!live || live.inputs?.some((input) => input.input_id === data.input_id)) return "gap";
    const { input_id, kind, ...content } = data;
    const input = Object.keys(content).length ? { input_id, kind, content } : { input_id, kind };
    live.inputs = [...(live.inputs ?? []), input];
    return "applied";
  }

  /** What is shown of a generation's messages depends on where it stands. */
  #touch(id) {
    for (const message of this.messages) if (message.generation_id === id) this.changed.add(message.message_id);
  }
}
