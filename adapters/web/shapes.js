/* What events, snapshots and the state look like, and whether something that came looks like that.
 *
 * Nothing may be folded in that lacks a part of its stamp, or of what its type must say. The server is as strict:
 * `STAMPS` and `SAID` say what engine/events.py and the fold there ask for. Fields and types that are not known here
 * are let through; later versions add some.
 */

/** @import { PenstockEvent } from "./types.js" */

/** @typedef {(value: unknown) => boolean} Check */

/** @type {Check} */
const text = (value) => typeof value === "string";
/** @type {Check} */
const flag = (value) => typeof value === "boolean";
/** @type {Check} */
const count = (value) => Number.isSafeInteger(value) && Number(value) >= 0;
/** @type {Check} */
const object = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
/** @type {Check} */
const json = (value) => value !== null;
/** @type {Check} */
const blocks = (value) => Array.isArray(value) && value.every((block) => wrong(block, BLOCK) === null);

/** @typedef {readonly {name: string, optional: boolean, check: Check}[]} Shape */

/**
 * Names with a `?` may be absent; null is nothing that a field may be.
 *
 * @param {{[name: string]: Check}} fields
 * @returns {Shape}
 */
function shape(fields) {
  return Object.entries(fields).map(([name, check]) => {
    const optional = name.endsWith("?");
    return { name: optional ? name.slice(0, -1) : name, optional, check };
  });
}

/** What a block's opening says. @type {{[name: string]: Check}} */
const HEAD = {
  kind: text,
  "tool_call_id?": text,
  "name?": text,
  "media_type?": text,
  "file_id?": text,
  "url?": text,
  "filename?": text,
  "title?": text,
};

const BLOCK = shape({ ...HEAD, seq: count, "text?": text, "arguments?": json, "value?": json, "is_error?": flag });

const STAMP = shape({
  type: text,
  session_id: text,
  time: text,
  data: object,
  "offset?": (value) => count(value) && value !== 0,
  "generation_id?": text,
  "turn?": count,
  "job_id?": text,
  "message_id?": text,
  "block_index?": count,
  "seq?": count,
});

/** What events of the known types of a family must bear, beside what all do. @type {readonly (readonly [string, Shape])[]} */
const STAMPS = [
  ["block.", shape({ message_id: text, block_index: count, seq: count })],
  ["message.", shape({ message_id: text })],
  ["generation.started", shape({ turn: count })],
  ["generation.", shape({ generation_id: text })],
  ["input.accepted", shape({ generation_id: text })],
];

/** @type {{[type: string]: {[name: string]: Check}}} */
const DATA = {
  "session.created": { metadata: object },
  "session.updated": { metadata: object },
  "session.forked": { source_session_id: text, source_cursor: text, metadata: object },
  "session.reset": { "reason?": text },
  "generation.queued": {
    producer: text,
    policy: text,
    position: count,
    "metadata?": object,
    "text?": text,
    "author?": text,
  },
  "queue.paused": { "reason?": text },
  "queue.resumed": { "reason?": text },
  "generation.started": {
    producer: text,
    policy: text,
    "supersedes?": text,
    "metadata?": object,
    "author?": text,
    "continues?": text,
    "version?": (value) => wrong(value, VERSION) === null,
  },
  "generation.status": { status: text, "detail?": json },
  "generation.cancelling": { reason: text, "by?": text, "author?": text },
  "generation.finished": {
    outcome: text,
    "code?": text,
    "message?": text,
    "superseded_by?": text,
    "cleanup?": text,
    "usage?": object,
    "retryable?": flag,
    "author?": text,
  },
  "message.opened": {
    role: text,
    "parent_message_id?": text,
    "metadata?": object,
    "continues?": text,
    "version?": (value) => wrong(value, VERSION) === null,
  },
  "message.closed": { status: text, "finish_reason?": text, "usage?": object },
  "message.snapshot": {
    role: text,
    status: text,
    blocks,
    "parent_message_id?": text,
    "metadata?": object,
    "finish_reason?": text,
    "usage?": object,
    "author?": text,
    "continues?": text,
    "generation?": (value) => wrong(value, FORKED) === null,
    "silent?": (value) => wrong(value, FORKED) === null,
    "version?": (value) => wrong(value, VERSION) === null,
  },
  "message.retracted": { "reason?": text },
  "block.opened": HEAD,
  "block.delta": { "text?": text, "arguments?": text, "value?": json },
  "block.closed": { "text?": text, "arguments?": json, "value?": json, "is_error?": flag },
  "approval.requested": {
    approval_id: text,
    "tool_call_id?": text,
    "name?": text,
    "arguments?": json,
    "expires_at?": text,
  },
  "approval.resolved": {
    approval_id: text,
    approved: flag,
    "reason?": text,
    "arguments?": json,
    "by?": text,
    "tool_call_id?": text,
  },
  "input.accepted": { input_id: text, kind: text },
  "input.applied": { input_id: text },
  "input.returned": { input_id: text },
  "presence.changed": { actor_id: text, device_id: text, "name?": text, "status?": text },
};

const VERSION = shape({ of: text, index: count, count });
const MOMENT = shape({ cursor: (value) => text(value) && /^[A-Za-z0-9]{1,32}-[0-9]{16}$/.test(String(value)), time: text });
const FORKED = shape({
  generation_id: text,
  turn: count,
  outcome: text,
  "code?": text,
  "message?": text,
  "started?": (value) => wrong(value, MOMENT) === null,
  "finished?": (value) => wrong(value, MOMENT) === null,
  "retryable?": flag,
  "usage?": object,
  "author?": text,
});

/** What the data of each type must be. */
const SAID = new Map(Object.entries(DATA).map(([type, fields]) => [type, shape(fields)]));

const LIVE = shape({ generation_id: text, turn: count, state: text });
const INFO = shape({
  generation_id: text,
  state: text,
  "started?": (value) => wrong(value, MOMENT) === null,
  "finished?": (value) => wrong(value, MOMENT) === null,
});
const QUEUE = shape({ paused: flag, items: Array.isArray });
const MESSAGE = shape({ message_id: text, role: text, status: text, blocks });
const SNAPSHOT = shape({
  session_id: text,
  cursor: text,
  messages: (value) => Array.isArray(value) && value.every((message) => wrong(message, MESSAGE) === null),
  "generation?": (value) => wrong(value, LIVE) === null,
  queue: (value) => wrong(value, QUEUE) === null,
  approvals: Array.isArray,
  "generations?": (value) => Array.isArray(value) && value.every((each) => wrong(each, INFO) === null),
  metadata: object,
  more: flag,
  "next?": text,
});

/**
 * The name of the first field that is not as it must be, or null.
 *
 * @param {unknown} value
 * @param {Shape} expected
 * @returns {string | null}
 */
function wrong(value, expected) {
  if (!object(value)) return "(all of it)";
  const fields = /** @type {{[name: string]: unknown}} */ (value);
  for (const { name, optional, check } of expected) {
    const field = fields[name];
    if (field === undefined ? !optional : !check(field)) return name;
  }
  return null;
}

/**
 * The name of the first field by which this is no whole event, or null if it is one.
 *
 * @internal
 * @param {unknown} event
 * @returns {string | null}
 */
export function unfit(event) {
  const name = wrong(event, STAMP);
  if (name !== null) return name;
  const { type, data } = /** @type {PenstockEvent} */ (event);
  const expected = SAID.get(type);
  if (expected === undefined) return null; // of a type that is not known here
  for (const [family, stamp] of STAMPS) {
    const missing = type.startsWith(family) ? wrong(event, stamp) : null;
    if (missing !== null) return missing;
  }
  const said = wrong(data, expected);
  return said === null ? null : `data.${said}`;
}

/**
 * The name of the first field by which this is no snapshot, or null if it is one.
 *
 * @internal
 * @param {unknown} snapshot
 * @returns {string | null}
 */
export function badSnapshot(snapshot) {
  return wrong(snapshot, SNAPSHOT);
}
