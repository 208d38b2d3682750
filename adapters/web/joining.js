/* A message that was cut off and the one that goes on with it, as one. */

const TEXTS = new Set(["text", "reasoning"]);

/** The blocks of both; the text goes on where it ended, for it may have ended within a word, or within code. */
function blocks(before, after) {
  const last = before.findLastIndex(({ kind }) => kind === "text");
  const first = after.find(({ kind }) => kind === "text");
  if (last < 0 || !first) return [...before, ...after];
  const whole = { ...first, text: (before[last].text ?? "") + (first.text ?? "") };
  return [...before.with(last, whole), ...after.filter((block) => block !== first)];
}

/** Joins messages; what is made of the same ones is the same object. */
export class Joining {
  #made = new Map(); // by the first one's id: {parts, whole}

  /** @returns {{message: object, parts: object[]}[]} in their order */
  join(messages) {
    const joined = [];
    for (const message of messages) {
      const before = joined.at(-1)?.parts;
      const goesOn = before && message.continues !== undefined && message.continues === before.at(-1).message_id;
      if (goesOn && before.at(-1).blocks.every(({ kind }) => TEXTS.has(kind))) before.push(message);
      else joined.push({ message, parts: [message] });
    }
    const made = new Map();
    for (const each of joined) {
      if (each.parts.length === 1) continue;
      const [{ message_id: id }] = each.parts;
      const known = this.#made.get(id);
      const same = known?.parts.length === each.parts.length && known.parts.every((part, index) => part === each.parts[index]);
      const whole = same ? known.whole : this.#whole(each.parts);
      made.set(id, { parts: each.parts, whole });
      each.message = whole;
    }
    this.#made = made;
    return joined;
  }

  #whole(parts) {
    const all = parts.map((part) => part.blocks).reduce(blocks);
    const last = parts.at(-1);
    const { message_id, version } = parts[0];
    return { ...last, message_id, version, last_message_id: last.message_id, blocks: all };
  }
}
