/* The inline part of Markdown: a run of text as a tree of nodes. Pure; makes no elements and trusts nothing.
 *
 *   parse("say *this*", 0)  →  { nodes: [{kind: "text", …}, {kind: "em", nodes: […]}], safe: 4 }
 *
 * Answers come piece by piece, so each parse also says from where the next one may begin: what lies before `safe` is
 * read the same way whatever follows. A mark that opens something and finds no end within `REACH` is plain text: that
 * keeps the part which is read again small. The work for a whole answer is in proportion to its length: ends of code and
 * of brackets are looked up in lists that are made once, and no other search goes further than `REACH`.
 */

const REACH = 1000; // characters; no emphasis and no link is longer
const DEEPEST = 6;
const SPECIAL = /[\\`*_~[!<h\n]/;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const URL_START = /^https?:\/\/[^\s<>]/i;
const LINKED = new Set(["http:", "https:", "mailto:"]);
const SENTENCE = ".,:;!?*_~']"; // what stands behind an address is the sentence's, not the address's

/** @typedef {{kind: string, text?: string, nodes?: Node[], href?: string}} Node */

/** The address, if a page may link to it: absolute, and of a kind that runs nothing. Else null. */
export function safeAddress(text) {
  try {
    const url = new URL(text); // without a base: what is relative would lead into this server
    return LINKED.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/**
 * @param {string} text
 * @param {number} [from]
 * @param {number} [to]
 * @returns {{nodes: Node[], safe: number}}
 */
export function parse(text, from = 0, to = text.length) {
  const reader = new Reader(text, from, to);
  const nodes = reader.read(from, to, 0);
  return { nodes, safe: Math.max(from, reader.safe) };
}

class Reader {
  safe = 0; // behind white space, and before the first mark that may still find its end
  #waits = false; // there was such a mark
  #looked = new Map(); // by the sort of mark: up to where there is none that closes
  #runs = null; // where runs of backticks begin, by their length
  #closes = null; // where each bracket is closed, by where it is opened
  #stop = -1; // where the last address in angle brackets that was looked at ends
  #seen = 0; // up to here that was looked for

  constructor(text, from, end) {
    this.text = text;
    this.from = from;
    this.end = end;
  }

  read(from, to, depth) {
    const nodes = [];
    let plain = "";
    const flush = () => {
      if (plain) nodes.push({ kind: "text", text: plain });
      plain = "";
    };
    let at = from;
    while (at < to) {
      const char = this.text[at];
      if (!SPECIAL.test(char)) {
        plain += char;
        at += 1;
        if (depth === 0 && !this.#waits && (char === " " || char === "\t")) this.safe = at;
        continue;
      }
      const found = this.#special(char, at, to, depth);
      if (!found) {
        plain += char;
        at += 1;
      } else {
        if (found.node.kind === "text") plain += found.node.text;
        else {
          flush();
          nodes.push(found.node);
        }
        at = found.end;
      }
      if (depth === 0 && !this.#waits && char === "\n") this.safe = at;
    }
    flush();
    return nodes;
  }

  #special(char, at, to, depth) {
    switch (char) {
      case "\n":
        return { node: { kind: "break" }, end: at + 1 };
      case "\\":
        if (at + 1 < to && PUNCTUATION.test(this.text[at + 1])) {
          return { node: { kind: "text", text: this.text[at + 1] }, end: at + 2 };
        }
        if (at + 1 === this.end) this.#wait(at + 2);
        return null;
      case "`":
        return this.#code(at, to);
      case "*":
      case "_":
      case "~":
        return depth < DEEPEST ? this.#marked(char, at, to, depth) : null;
      case "!":
        return this.text[at + 1] === "[" ? this.#link(at, at + 1, to, depth) : null;
      case "[":
        return depth < DEEPEST ? this.#link(at, at, to, depth) : null;
      case "<":
        return this.#autolink(at, to);
      default: // h
        return this.#bare(at, to);
    }
  }

  /** What begins here has no end yet, but may get one up to `until`. */
  #wait(until) {
    if (until > this.end) this.#waits = true;
    return null;
  }

  /** How many times the character stands here in a row; past `REACH` it does not matter. */
  #run(at, to) {
    const limit = Math.min(to, at + REACH);
    let end = at;
    while (end < limit && this.text[end] === this.text[at]) end += 1;
    return end - at;
  }

  /** Where the run of backticks stands that ends the code which begins here, or -1. */
  #codeEnd(at, length, to) {
    this.#runs ??= this.#backticks();
    const starts = this.#runs.get(length) ?? [];
    let [low, high] = [0, starts.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (starts[middle] < at + length) low = middle + 1;
      else high = middle;
    }
    const end = starts[low] ?? this.end;
    if (end < Math.min(to, at + REACH)) return end;
    this.#wait(at + REACH);
    return -1;
  }

  #backticks() {
    const runs = new Map();
    for (let at = this.text.indexOf("`", this.from); at >= 0 && at < this.end; at = this.text.indexOf("`", at)) {
      const start = at;
      while (at < this.end && this.text[at] === "`") at += 1;
      if (!runs.has(at - start)) runs.set(at - start, []);
      runs.get(at - start).push(start);
    }
    return runs;
  }

  #code(at, to) {
    const length = this.#run(at, to);
    const end = this.#codeEnd(at, length, to);
    if (end < 0) return { node: { kind: "text", text: "`".repeat(length) }, end: at + length };
    const inside = this.text.slice(at + length, end).replace(/\n/g, " ");
    const padded = inside.startsWith(" ") && inside.endsWith(" ") && /[^ ]/.test(inside);
    const text = padded ? inside.slice(1, -1) : inside;
    return { node: { kind: "code", text }, end: end + length };
  }

  #marked(char, at, to, depth) {
    const length = at + 1 < to && this.text[at + 1] === char ? 2 : 1;
    if (char === "~" && length < 2) return null;
    const after = this.text[at + length];
    if (after === undefined || at + length >= to) return this.#wait(at + length + 1);
    if (/\s/.test(after)) return null;
    if (char === "_" && at > 0 && /[\p{L}\p{N}]/u.test(this.text[at - 1])) return null;
    const sort = `${char}${length} ${to}`;
    const from = Math.max(at + length, this.#looked.get(sort) ?? 0);
    const end = this.#closing(char, length, from, Math.min(to, at + length + REACH), to, sort);
    if (end < 0) {
      this.#wait(at + length + REACH);
      return { node: { kind: "text", text: char.repeat(length) }, end: at + length };
    }
    const kind = char === "~" ? "del" : length === 2 ? "strong" : "em";
    return { node: { kind, nodes: this.read(at + length, end, depth + 1) }, end: end + length };
  }

  /** Where the run of marks stands that ends what a run of the same length began; code and escapes are passed over. */
  #closing(char, length, from, limit, to, sort) {
    let at = from;
    for (; at < limit; at += 1) {
      const here = this.text[at];
      if (here === "\\") at += 1;
      else if (here === "`") {
        const run = this.#run(at, to);
        const end = this.#codeEnd(at, run, to);
        at = (end < 0 ? at : end) + run - 1;
      } else if (here === char) {
        const run = this.#run(at, to);
        const next = this.text[at + run];
        const closes = !/\s/.test(this.text[at - 1]) && !(char === "_" && next && /[\p{L}\p{N}]/u.test(next));
        if (closes && (run === length || run === 3)) return at + run - length;
        at += run - 1;
      }
    }
    this.#looked.set(sort, at);
    return -1;
  }

  /** `[text](address)`; an image becomes a link to it: nothing is loaded from anywhere. */
  #link(at, bracket, to, depth) {
    const close = this.#bracket(bracket);
    if (close >= Math.min(to, bracket + REACH)) return this.#wait(bracket + REACH);
    if (close + 1 >= this.end) return this.#wait(close + 2);
    if (this.text[close + 1] !== "(") return null;
    const limit = Math.min(to, close + REACH);
    let end = close + 2;
    let open = 1;
    for (; end < limit; end += 1) {
      if (this.text[end] === "(") open += 1;
      if (this.text[end] === ")") open -= 1;
      if (open === 0 || this.text[end] === "\n") break;
    }
    if (end >= limit) return this.#wait(close + REACH);
    if (open !== 0) return null;
    const address = this.text.slice(close + 2, end).trim();
    const bare = address.replace(/\s(?:"[^"]*"|'[^']*')$/, "").trimEnd(); // without a title
    const href = safeAddress(bare.replace(/^<(.*)>$/, "$1"));
    if (href === null) return { node: { kind: "text", text: this.text.slice(at, end + 1) }, end: end + 1 };
    const image = bracket !== at;
    const inside = image
      ? [{ kind: "text", text: this.text.slice(bracket + 1, close) || "image" }]
      : this.read(bracket + 1, close, DEEPEST); // no link in a link
    return { node: { kind: image ? "image" : "link", href, nodes: inside }, end: end + 1 };
  }

  /** Where the bracket that opens here is closed; behind all text if it is not. */
  #bracket(from) {
    this.#closes ??= this.#brackets();
    return this.#closes.get(from) ?? Infinity;
  }

  #brackets() {
    const closes = new Map();
    const open = [];
    for (let at = this.from; at < this.end; at += 1) {
      const char = this.text[at];
      if (char === "\\") at += 1;
      else if (char === "[") open.push(at);
      else if (char === "]" && open.length) closes.set(open.pop(), at);
    }
    return closes;
  }

  #autolink(at, to) {
    const end = this.#stopBehind(at, Math.min(to, at + REACH));
    if (end < 0) return this.#wait(at + REACH);
    const address = this.text.slice(at + 1, end);
    const href = this.text[end] === ">" ? safeAddress(address) : null;
    return href && { node: { kind: "link", href, nodes: [{ kind: "text", text: address }] }, end: end + 1 };
  }

  /** The first `>` or white space behind `at`, or -1. Marks come in their order, so each character is seen once. */
  #stopBehind(at, limit) {
    if (this.#stop < at) {
      let end = Math.max(at, this.#seen);
      while (end < limit && !/[>\s]/.test(this.text[end])) end += 1;
      this.#seen = end;
      if (end >= limit) return -1;
      this.#stop = end;
    }
    return this.#stop < limit ? this.#stop : -1;
  }

  /** An address that stands bare in the text, up to the next white space and without the sentence's own marks. */
  #bare(at, to) {
    if (at > 0 && /[\p{L}\p{N}]/u.test(this.text[at - 1])) return null;
    const rest = this.text.slice(at, Math.min(to, at + REACH));
    if (!URL_START.test(rest)) return null;
    const [address] = /^[^\s<>"`]+/.exec(rest);
    const outside = address.includes("(") ? SENTENCE : `${SENTENCE})`;
    let end = address.length;
    while (end > 0 && outside.includes(address[end - 1])) end -= 1;
    const found = address.slice(0, end);
    const href = safeAddress(found);
    return href && { node: { kind: "link", href, nodes: [{ kind: "text", text: found }] }, end: at + found.length };
  }
}
