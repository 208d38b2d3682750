/* The inline part of Markdown: a run of text as a tree of nodes. Pure; makes no elements and trusts nothing.
 *
 *   parse("say *this*", 0)  →  { kept: [{kind: "text", …}], rest: [{kind: "em", nodes: […]}], safe: 4 }
 *
 * A text is read in two steps, by CommonMark's rules. `Scanner` makes tokens: text, what names its own end (code, links,
 * addresses), and the runs of marks between them. `pair` finds the runs that belong together as emphasis.
 *
 * Answers come piece by piece, so each parse also says from where the next one may begin: what lies before `safe` is
 * read the same way whatever follows. A mark that opens something and finds no end within `REACH` is plain text: that
 * keeps the part which is read again small. The work for a whole answer is in proportion to its length: ends of code are
 * looked up in lists that are made once, and no other search goes further than `REACH`.
 */

const REACH = 1000; // characters; no emphasis, no code and no link is longer
const SPECIAL = /[\\&`*_~![\]<\n]|https?:\/\//gi;
const RUN = /`+|\*+|_+|~+/y;
const BACKTICKS = /`+/g;
const LETTER = /[\p{L}\p{N}]/u;
const PUNCTUATION = /[\p{P}\p{S}]/u;
// Words that have no space between them; also half a pair of surrogates, which may be anything.
const UNSPACED = /[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Hangul}\p{Cs}]/u;
const ESCAPE = /\\([!-/:-@[-`{-~])|&(?:#(\d{1,7})|#x([\da-f]{1,6})|([a-z][a-z\d]{1,31}));/iy;
const ESCAPES = new RegExp(ESCAPE, "gi");
const AUTOLINK = /<([a-z][a-z\d+.-]{1,31}:[^\s<>]*)>/iy;
const MAIL = /<([\w.!#$%&'*+/=?^`{|}~-]+@[a-z\d][a-z\d.-]*)>/iy;
const BARE = /^https?:\/\/(?:[^\s<>"`\]]|\](?!\())+/i;
const BLANK = /[ \t\n]*/y;
const IN_ANGLES = /<(?:[^<>\\\n]|\\[^\n])*>/y;
const TITLE = /"(?:[^"\\]|\\[^])*"|'(?:[^'\\]|\\[^])*'|\((?:[^()\\]|\\[^])*\)/y;
const LINKED = new Set(["http:", "https:", "mailto:"]);
const SENTENCE = ".,:;!?*_~']"; // what stands behind an address is the sentence's, not the address's

/** Characters by their names in HTML: those that are written in answers. There are two thousand. */
const NAMED = new Map(
  `amp& lt< gt> quot" apos' nbsp\u00a0 copy© reg® trade™ deg° microµ sect§ middot· bull• hellip… ndash– mdash— lsquo‘
  rsquo’ ldquo“ rdquo” laquo« raquo» cent¢ pound£ yen¥ euro€ times× divide÷ plusmn± minus− ne≠ le≤ ge≥ asymp≈ infin∞
  larr← uarr↑ rarr→ darr↓ harr↔ rArr⇒ check✓ frac12½ frac14¼ frac34¾ sup2² sup3³`
    .split(/[ \n]+/)
    .map((each) => [each.slice(0, -1), each.at(-1)]),
);

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

/** The text with its escapes (`\*`, `&lt;`, `&#42;`) as what they stand for. */
export function unescaped(text) {
  return text.replace(ESCAPES, meant);
}

function meant(written, mark, decimal, hexadecimal, name) {
  if (mark) return mark;
  if (name) return NAMED.get(name) ?? written;
  const code = decimal ? parseInt(decimal, 10) : parseInt(hexadecimal, 16);
  return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : "\ufffd";
}

/**
 * The nodes of a text from a safe place on: those that stay as they are whatever follows, which end at `safe`, and the
 * rest, which is to be read again when there is more.
 *
 * @param {string} text
 * @param {number} from
 * @returns {{kept: Node[], rest: Node[], safe: number}}
 */
export function parse(text, from) {
  const scanner = new Scanner(text, from);
  const tokens = scanner.scan();
  const { nodes, openers } = pair(tokens);
  const end = tokens.at(-1)?.kind === "run" ? tokens.at(-1).at : text.length; // that run may become longer
  const open = openers.find(({ at }) => at + REACH > end);
  const limit = Math.min(scanner.limit, open?.at ?? Infinity);
  const last = nodes.findLastIndex(({ safe }) => safe <= limit);
  const [kept, rest] = [nodes.slice(0, last + 1), nodes.slice(last + 1)].map(joined);
  return { kept, rest, safe: nodes[last]?.safe ?? from };
}

/** Text as tokens: nodes, and the runs of marks that may be emphasis. */
class Scanner {
  limit = Infinity; // where the first mark stands that later text may still give another meaning
  #text;
  #from;
  #tokens = [];
  #brackets = []; // those that are open: {at, image, index of its token}
  #spent = 0; // so many of them hold a link already, and no link is in a link
  #ticks = null; // where the runs of backticks begin, the last one first, by their length

  constructor(text, from) {
    this.#text = text;
    this.#from = from;
  }

  scan() {
    let at = this.#from;
    while (at < this.#text.length) at = this.#next(at);
    const open = this.#brackets.find((each) => each.at + REACH > at);
    if (open) this.#wait(open.at);
    return this.#tokens;
  }

  /** Read what stands here; gives where it ends. */
  #next(at) {
    const end = this.#found(SPECIAL, at)?.index ?? this.#text.length;
    if (end > at) {
      const text = this.#text.slice(at, end);
      const behind = text.lastIndexOf(" ") + 1;
      if (!behind) return this.#plain(at, text);
      this.#tokens.push({ kind: "text", text: text.slice(0, behind), safe: at + behind });
      return at + behind;
    }
    switch (this.#text[at]) {
      case "\n":
        return this.#break(at + 1);
      case "\\":
        return this.#text[at + 1] === "\n" ? this.#break(at + 2) : this.#escape(at);
      case "&":
        return this.#escape(at);
      case "`":
        return this.#code(at);
      case "*":
      case "_":
      case "~":
        return this.#marks(at);
      case "!":
        return this.#text[at + 1] === "[" ? this.#open(at, "![") : this.#plain(at, "!");
      case "[":
        return this.#open(at, "[");
      case "]":
        return this.#close(at);
      case "<":
        return this.#autolink(at);
      default: // an address
        return this.#bare(at);
    }
  }

  /** What the pattern finds from here on, or null. */
  #found(pattern, at) {
    pattern.lastIndex = at;
    return pattern.exec(this.#text);
  }

  #plain(at, written, text = written) {
    this.#tokens.push({ kind: "text", text });
    return at + written.length;
  }

  #wait(at) {
    this.limit = Math.min(this.limit, at);
  }

  #break(end) {
    this.#tokens.push({ kind: "break", safe: end });
    return end;
  }

  #escape(at) {
    const escape = this.#found(ESCAPE, at);
    return escape ? this.#plain(at, escape[0], meant(...escape)) : this.#plain(at, this.#text[at]);
  }

  #code(at) {
    const [ticks] = this.#found(RUN, at);
    const begin = at + ticks.length;
    this.#ticks ??= this.#backticks();
    const starts = this.#ticks.get(ticks.length) ?? [];
    while (starts.at(-1) < begin) starts.pop();
    const end = starts.at(-1) ?? Infinity;
    if (end >= at + REACH) {
      if (begin + REACH > this.#text.length) this.#wait(at);
      return this.#plain(at, ticks);
    }
    const inside = this.#text.slice(begin, end).replace(/\n/g, " ");
    const padded = inside.startsWith(" ") && inside.endsWith(" ") && /[^ ]/.test(inside);
    this.#tokens.push({ kind: "code", text: padded ? inside.slice(1, -1) : inside });
    return end + ticks.length;
  }

  #backticks() {
    const runs = new Map();
    BACKTICKS.lastIndex = this.#from;
    for (let found; (found = BACKTICKS.exec(this.#text)); ) {
      const { length } = found[0];
      if (!runs.has(length)) runs.set(length, []);
      runs.get(length).push(found.index);
    }
    for (const starts of runs.values()) starts.reverse();
    return runs;
  }

  #marks(at) {
    const [marks] = this.#found(RUN, at);
    const { length } = marks;
    const char = marks[0];
    if (char === "~" && length !== 2) return this.#plain(at, marks);
    const before = side(this.#text[at - 1]);
    const after = side(this.#text[at + length]);
    let opens = after !== "space" && !(after === "mark" && before === "letter");
    let closes = before !== "space" && !(before === "mark" && after === "letter");
    if (char === "_") {
      const both = opens && closes; // inside a word
      opens &&= !both || before === "mark";
      closes &&= !both || after === "mark";
    }
    this.#tokens.push({ kind: "run", at, char, length, opens, closes });
    return at + length;
  }

  #open(at, text) {
    this.#brackets.push({ at, image: text === "![", index: this.#tokens.length });
    return this.#plain(at, text);
  }

  /** `[text](address)`; an image becomes a link to it: nothing is loaded from anywhere. */
  #close(at) {
    const bracket = this.#brackets.pop();
    const depth = this.#brackets.length;
    const spent = depth < this.#spent && !bracket?.image;
    this.#spent = Math.min(this.#spent, depth);
    if (!bracket || spent || at - bracket.at >= REACH) return this.#plain(at, "]");
    const target = addressed(this.#text.slice(at + 1, at + 1 + REACH));
    if (!target) {
      const within = this.#text[at + 1] === "(" ? REACH : 0;
      if (at + 1 + within >= this.#text.length) this.#wait(bracket.at);
      return this.#plain(at, "]");
    }
    const href = safeAddress(unescaped(target.address));
    if (href === null) {
      for (let index = bracket.index; index < this.#tokens.length; index += 1) this.#tokens[index].safe = undefined;
      return this.#plain(at, this.#text.slice(at, at + 1 + target.length)); // as it is written, marks and all
    }
    const inside = this.#tokens.splice(bracket.index).slice(1);
    if (bracket.image) {
      const text = textOf(pair(inside).nodes) || "image";
      this.#tokens.push({ kind: "image", href, nodes: [{ kind: "text", text }] });
    } else {
      const { nodes } = pair(inside.map((each) => (each.href ? { kind: "text", text: textOf(each.nodes) } : each)));
      this.#tokens.push({ kind: "link", href, nodes: joined(nodes) });
      this.#spent = depth;
    }
    return at + 1 + target.length;
  }

  #autolink(at) {
    const address = this.#found(AUTOLINK, at);
    const [written, text] = address ?? this.#found(MAIL, at) ?? ["<"];
    return this.#link(at, written, text, text ? safeAddress(address ? text : `mailto:${text}`) : null);
  }

  /** An address that stands bare in the text, up to the next white space and without the sentence's own marks. */
  #bare(at) {
    const text = this.#text.slice(at, at + REACH);
    const inWord = at > 0 && LETTER.test(this.#text[at - 1]);
    const [address] = (inWord ? null : BARE.exec(text)) ?? [""];
    const outside = address.includes("(") ? SENTENCE : `${SENTENCE})`;
    let end = address.length;
    while (end > 0 && outside.includes(address[end - 1])) end -= 1;
    const found = address.slice(0, end);
    const href = safeAddress(found);
    return this.#link(at, href === null ? text.slice(0, 4) : found, found, href);
  }

  #link(at, written, text, href) {
    if (href === null) return this.#plain(at, written);
    this.#tokens.push({ kind: "link", href, nodes: [{ kind: "text", text }] });
    return at + written.length;
  }
}

/** The `(address "title")` that the text begins with: the address as it is written, and the length of all. Or null. */
function addressed(text) {
  if (text[0] !== "(") return null;
  const found = (pattern, at) => {
    pattern.lastIndex = at;
    return pattern.exec(text)?.[0].length ?? 0;
  };
  const begin = 1 + found(BLANK, 1);
  const angles = found(IN_ANGLES, begin);
  if (text[begin] === "<" && !angles) return null;
  const end = angles ? begin + angles : addressEnd(text, begin);
  const blank = found(BLANK, end);
  const title = blank && found(TITLE, end + blank);
  const last = end + blank + (title && title + found(BLANK, end + blank + title));
  if (text[last] !== ")") return null;
  return { address: angles ? text.slice(begin + 1, end - 1) : text.slice(begin, end), length: last + 1 };
}

/** Where an address that begins here ends: before white space, or a bracket that was not opened in it. */
function addressEnd(text, begin) {
  let open = 0;
  let end = begin;
  for (; end < text.length; end += 1) {
    const char = text[end];
    if (char === "\\") end += 1;
    else if (char === "(") open += 1;
    else if (char === ")") open -= 1;
    if (open < 0 || /[ \t\n]/.test(char)) break;
  }
  return Math.min(end, text.length);
}

/** What stands beside a run of marks, as far as it tells whether the run may open or close something. */
function side(char) {
  if (char === undefined || /\s/.test(char)) return "space";
  if (PUNCTUATION.test(char)) return "mark";
  return UNSPACED.test(char) ? "unspaced" : "letter";
}

/** Tokens as nodes, and the runs that are still open: each run closes what the nearest one that fits has opened. */
function pair(tokens) {
  const nodes = [];
  const openers = []; // {at, char, length, left: how many of its marks, opens, closes, index of its node}
  for (const token of tokens) {
    if (token.kind !== "run") {
      nodes.push(token);
      continue;
    }
    const { at, char } = token;
    let left = token.length;
    for (let index = token.closes ? openers.length - 1 : -1; left && index >= 0; index -= 1) {
      const opener = openers[index];
      if (opener.at + REACH <= at) break;
      while (left && opener.left && fits(opener, token)) {
        const taken = Math.min(2, left, opener.left);
        left -= taken;
        opener.left -= taken;
        const inside = nodes.splice(opener.index + 1);
        nodes[opener.index] = { kind: "text", text: char.repeat(opener.left) };
        nodes.push({ kind: char === "~" ? "del" : taken === 2 ? "strong" : "em", nodes: joined(inside) });
        openers.length = opener.left ? index + 1 : index;
      }
    }
    if (left && token.opens) openers.push({ ...token, left, index: nodes.length });
    if (left) nodes.push({ kind: "text", text: char.repeat(left) });
  }
  return { nodes, openers };
}

/** CommonMark's rule for runs that could open and close: `*a**b*` is one emphasis. */
function fits(opener, closer) {
  if (opener.char !== closer.char) return false;
  if (!opener.closes && !closer.opens) return true;
  return (opener.length + closer.length) % 3 !== 0 || (opener.length % 3 === 0 && closer.length % 3 === 0);
}

/** Nodes with text that stands beside text in one. */
function joined(nodes) {
  const found = [];
  for (const node of nodes) {
    const { kind, text } = node;
    if (kind !== "text") found.push(node);
    else if (found.at(-1)?.kind === "text") found.at(-1).text += text;
    else if (text) found.push({ kind, text });
  }
  return found;
}

function textOf(nodes) {
  return nodes.map(({ kind, text, nodes }) => (kind === "break" ? " " : text ?? textOf(nodes))).join("");
}
