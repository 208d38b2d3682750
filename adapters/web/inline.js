/* The inline part of Markdown: a run of text as a tree of nodes. Pure; makes no elements and trusts nothing.
 *
 *   parse("say *this*", 0)  →  { nodes: [{kind: "text", …}, {kind: "em", nodes: […]}], safe: 4 }
 *
 * Answers come piece by piece, so each parse also says from where the next one may begin: what lies before `safe` is
 * read the same way whatever follows. A mark that opens something and finds no end within `REACH` is plain text: that
 * keeps the part which is read again small, and the work for a whole answer in proportion to its length.
 */

const REACH = 1000; // characters; no emphasis and no link is longer
const DEEPEST = 6;
const SPECIAL = /[\\`*_~[!<h\n]/;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const URL_START = /^https?:\/\/[^\s<>]/i;
const LINKED = new Set(["http:", "https:", "mailto:"]);

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
  const reader = new Reader(text, to);
  const nodes = reader.read(from, to, 0);
  return { nodes, safe: Math.max(from, reader.safe) };
}

class Reader {
  safe = 0; // behind white space, and before the first mark that may still find its end
  #waits = false; // there was such a mark
  #unclosed = new Set(); // marks of which none stands up to the end any more

  constructor(text, end) {
    this.text = text;
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

  #run(at, to) {
    let end = at;
    while (end < to && this.text[end] === this.text[at]) end += 1;
    return end - at;
  }

  /** Where the run of backticks stands that ends the code which begins here, or -1. */
  #codeEnd(at, length, to) {
    const limit = Math.min(to, at + REACH);
    for (let end = at + length; end < limit; end += 1) {
      if (this.text[end] !== "`") continue;
      const closing = this.#run(end, to);
      if (closing === length) return end;
      end += closing - 1;
    }
    this.#wait(at + REACH);
    return -1;
  }

  #code(at, to) {
    const length = this.#run(at, to);
    const end = this.#codeEnd(at, length, to);
    if (end < 0) return { node: { kind: "text", text: "`".repeat(length) }, end: at + length };
    const inside = this.text.slice(at + length, end).replace(/\n/g, " ");
    const text = /^ .*[^ ].* $/.test(inside) ? inside.slice(1, -1) : inside;
    return { node: { kind: "code", text }, end: end + length };
  }

  #marked(char, at, to, depth) {
    const run = this.#run(at, to);
    if (char === "~" && run < 2) return null;
    const length = Math.min(run, 2);
    const after = this.text[at + length];
    if (after === undefined || at + length >= to) return this.#wait(at + length + 1);
    if (/\s/.test(after)) return null;
    if (char === "_" && at > 0 && /[\p{L}\p{N}]/u.test(this.text[at - 1])) return null;
    const sort = `${char}${length} ${to}`;
    const end = this.#unclosed.has(sort) ? -1 : this.#closing(char, length, at + length, to);
    if (end < 0) {
      if (at + length + REACH > to) this.#unclosed.add(sort); // there is none up to the end: nor for those that follow
      this.#wait(at + length + REACH);
      return { node: { kind: "text", text: char.repeat(length) }, end: at + length };
    }
    const kind = char === "~" ? "del" : length === 2 ? "strong" : "em";
    return { node: { kind, nodes: this.read(at + length, end, depth + 1) }, end: end + length };
  }

  /** Where the run of marks stands that ends what a run of the same length began; code and escapes are passed over. */
  #closing(char, length, from, to) {
    const limit = Math.min(to, from + REACH);
    for (let at = from; at < limit; at += 1) {
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
    return -1;
  }

  /** `[text](address)`; an image becomes a link to it: nothing is loaded from anywhere. */
  #link(at, bracket, to, depth) {
    const close = this.#bracket(bracket, to);
    if (close < 0) return this.#wait(bracket + REACH);
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
    const href = safeAddress(address.replace(/\s+(?:"[^"]*"|'[^']*')$/, "").replace(/^<(.*)>$/, "$1"));
    if (href === null) return { node: { kind: "text", text: this.text.slice(at, end + 1) }, end: end + 1 };
    const image = bracket !== at;
    const inside = image
      ? [{ kind: "text", text: this.text.slice(bracket + 1, close) || "image" }]
      : this.read(bracket + 1, close, DEEPEST); // no link in a link
    return { node: { kind: image ? "image" : "link", href, nodes: inside }, end: end + 1 };
  }

  #bracket(from, to) {
    const limit = Math.min(to, from + REACH);
    let open = 0;
    for (let at = from; at < limit; at += 1) {
      if (this.text[at] === "\\") at += 1;
      else if (this.text[at] === "[") open += 1;
      else if (this.text[at] === "]" && --open === 0) return at;
    }
    return -1;
  }

  #autolink(at, to) {
    const end = this.text.slice(at, Math.min(to, at + REACH)).search(/[>\s]/);
    if (end < 0) return this.#wait(at + REACH);
    const address = this.text.slice(at + 1, at + end);
    const href = this.text[at + end] === ">" ? safeAddress(address) : null;
    return href && { node: { kind: "link", href, nodes: [{ kind: "text", text: address }] }, end: at + end + 1 };
  }

  /** An address that stands bare in the text, up to the next white space and without the sentence's own marks. */
  #bare(at, to) {
    if (at > 0 && /[\p{L}\p{N}]/u.test(this.text[at - 1])) return null;
    const rest = this.text.slice(at, Math.min(to, at + REACH));
    if (!URL_START.test(rest)) return null;
    let found = /^[^\s<>"`]+/.exec(rest)[0].replace(/[.,:;!?*_~'\]]+$/, "");
    while (found.endsWith(")") && !found.includes("(")) found = found.slice(0, -1);
    const href = safeAddress(found);
    return href && { node: { kind: "link", href, nodes: [{ kind: "text", text: found }] }, end: at + found.length };
  }
}
