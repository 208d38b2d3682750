/* Code in colours: strings, comments, numbers, words. It knows families of languages, not languages. Nothing of the text is
 * touched: ranges of it are named to the browser, and the style sheet colours them. */

const LONGEST = 50_000; // characters that are looked at
const SWEPT = 5_000; // ranges, behind which those are let go whose code is not on the page any more

// What is not ended reaches to the end of the text.
const C = String.raw`//[^\n]*|/\*[^]*?(?:\*/|$)`;
const HASH = String.raw`#[^\n]*`;
const DASH = String.raw`--[^\n]*`;
const MARKUP = String.raw`<!--[^]*?(?:-->|$)`;
const FAMILIES = [
  [C, "c cpp c++ h cs csharp java js javascript jsx mjs ts typescript tsx go rust rs kotlin kt swift scala dart php json jsonc css scss less proto zig"],
  [HASH, "py python rb ruby sh bash zsh shell console yaml yml toml r perl pl make makefile dockerfile ini conf elixir ex nix tcl graphql"],
  [DASH, "sql lua haskell hs elm ada vhdl"],
  [MARKUP, "html xml svg vue"],
];
const COMMENTS = new Map(FAMILIES.flatMap(([comment, names]) => names.split(" ").map((name) => [name, comment])));

const WORDS =
  "abstract and any as assert async await base begin break case catch class const continue debugger def default defer del do done elif else " +
  "elsif end enum esac except export extends extern false False fi final finally fn for from fun func function global go goto if " +
  "impl implements import in inner insert instanceof interface into is join lambda let local loop match mod module mut namespace new nil None " +
  "nonlocal not null of on or override package pass private protected public pub raise require return self select set sizeof " +
  "static struct super switch table template then this throw throws trait true True try type typedef typeof undefined union " +
  "unless until update use using val values var virtual void volatile when where while with yield";
const STRING = String.raw`"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:[^"\\\n]|\\[^])*"|'(?:[^'\\\n]|\\[^])*'|` + "`(?:[^`\\\\]|\\\\[^])*(?:`|$)";
const NUMBER = String.raw`\b(?:0[xbo][\da-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\w*`;
const WORD = `\\b(?:${WORDS.replaceAll(" ", "|")}|${WORDS.toUpperCase().replaceAll(" ", "|")})\\b`;

function named(kind) {
  if (!CSS.highlights.has(kind)) CSS.highlights.set(kind, new Highlight());
  return CSS.highlights.get(kind);
}

/** A block of code that may grow; each line is coloured when it is whole. */
export class Highlighted {
  #node;
  #language = null;
  #from = 0; // what lies before it keeps its colours
  #ranges = [];

  constructor(node) {
    this.#node = node;
  }

  update({ language, text, open }) {
    if (language !== this.#language || text.length < this.#from) this.#clear(language);
    const comment = COMMENTS.get(language.toLowerCase());
    if (comment === undefined || !globalThis.CSS?.highlights || this.#from >= LONGEST) return; // older browsers know no ranges
    const end = open ? text.lastIndexOf("\n") + 1 : text.length;
    if (end <= this.#from) return;
    const tokens = new RegExp(`(?<comment>${comment})|(?<string>${STRING})|(?<number>${NUMBER})|(?<word>${WORD})`, "g");
    tokens.lastIndex = this.#from;
    this.#from = end;
    for (let found; (found = tokens.exec(text)) && found.index < end; ) {
      if (open && tokens.lastIndex === text.length) {
        this.#from = found.index; // it may go on
        return;
      }
      const [kind] = Object.entries(found.groups).find(([, token]) => token !== undefined);
      this.#colour(`code-${kind}`, found.index, tokens.lastIndex);
      this.#from = Math.max(end, tokens.lastIndex);
    }
  }

  #colour(kind, startOffset, endOffset) {
    const range = new StaticRange({ startContainer: this.#node, startOffset, endContainer: this.#node, endOffset });
    this.#ranges.push([kind, range]);
    named(kind).add(range);
    if (named(kind).size % SWEPT === 0) for (const each of named(kind)) if (!each.startContainer.isConnected) named(kind).delete(each);
  }

  #clear(language) {
    for (const [kind, range] of this.#ranges) named(kind).delete(range);
    this.#ranges = [];
    this.#from = 0;
    this.#language = language;
  }
}
