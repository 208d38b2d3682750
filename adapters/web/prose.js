/* Markdown as elements, while it grows. Text only ever becomes text: there is no way from an answer to markup.
 *
 *   const prose = new Prose(element);
 *   prose.update("# Hel");  prose.update("# Hello\n\nthere");   // only what is new is drawn
 */

import { split } from "./blocks.js";
import { copy, deceives, grow, icon, iconButton, make, plain, tell } from "./dom.js";
import { Highlighted } from "./highlight.js";
import { parse } from "./inline.js";

const DEEPEST = 8; // quotes and lists in each other; what lies deeper is shown as it is

/** A run of inline text in an element. What can not change any more stays; behind it is drawn anew what may. */
class Run {
  #element;
  #text = "";
  #safe = 0; // up to here it is drawn for good
  #tail = []; // the nodes behind that

  constructor(element) {
    this.#element = element;
  }

  update(text) {
    if (text === this.#text) return;
    if (!text.startsWith(this.#text)) {
      this.#element.replaceChildren();
      this.#tail = [];
      this.#safe = 0;
    }
    this.#text = text;
    for (const node of this.#tail) node.remove();
    const { kept, rest, safe } = parse(text, this.#safe);
    this.#safe = safe;
    const last = this.#element.lastChild;
    if (kept[0]?.kind === "text" && last?.nodeType === Node.TEXT_NODE) last.appendData(kept.shift().text);
    this.#tail = rest.map(draw);
    this.#element.append(...kept.map(draw), ...this.#tail);
  }
}

function draw(node) {
  const inside = () => node.nodes.map(draw);
  switch (node.kind) {
    case "text":
      return document.createTextNode(node.text);
    case "break":
      return make("br");
    case "code":
      return make("code", { text: node.text });
    case "link":
      return anchor(node.href, ...inside());
    case "image":
      return anchor(node.href, icon("link"), ...inside());
    default: // strong, em, del
      return make(node.kind, {}, ...inside());
  }
}

function anchor(href, ...children) {
  return make("a", { href, target: "_blank", rel: "noopener noreferrer nofollow", title: plain(href) }, ...children);
}

/** How each kind of block is drawn: gives its element, and a function that takes the block as it is now. */
const DRAWN = {
  paragraph() {
    const element = make("p");
    const run = new Run(element);
    return { element, update: ({ text }) => run.update(text) };
  },
  heading({ level }) {
    const element = make(`h${Math.min(6, level + 2)}`, { data: { level } }); // below the page's own
    const run = new Run(element);
    return { element, update: ({ text }) => run.update(text) };
  },
  rule() {
    return { element: make("hr"), update: () => {} };
  },
  code() {
    const node = document.createTextNode("");
    const colours = new Highlighted(node);
    const language = make("span");
    const button = iconButton("copy", "Copy this code", () => copy(node.data, button));
    const lines = make("pre", { tabindex: "0" }, make("code", {}, node));
    const told = "Characters in it are not seen, or turn the direction of what stands around them";
    const warning = make("span", { class: "deceives", text: "hidden characters", title: told });
    const element = make("figure", { class: "code" }, make("figcaption", {}, language, button), lines);
    const update = (block) => {
      const goesOn = block.text.startsWith(node.data);
      if (!goesOn) warning.remove();
      if (deceives(goesOn ? block.text.slice(node.length) : block.text)) language.after(warning);
      grow(node, block.text);
      tell(language, plain(block.language));
      colours.update(block);
    };
    return { element, update };
  },
  quote(_, depth) {
    const element = make("blockquote");
    const prose = new Prose(element, depth + 1);
    return { element, update: ({ text }) => prose.update(text) };
  },
  list({ ordered, first }, depth) {
    const element = make(ordered ? "ol" : "ul", { start: ordered && first !== 1 ? String(first) : null });
    const items = [];
    const update = (block) => {
      while (items.length > block.items.length) items.pop().element.remove();
      block.items.forEach((text, index) => {
        if (!items[index]) {
          const item = make("li");
          items.push({ element: item, prose: new Prose(item, depth + 1) });
          element.append(item);
        }
        items[index].prose.update(text);
      });
    };
    return { element, update };
  },
  table() {
    const body = make("tbody");
    const head = make("thead");
    const element = make("div", { class: "table", tabindex: "0" }, make("table", {}, head, body));
    const rows = [];
    const update = ({ rows: told, align }) => {
      while (rows.length > told.length) rows.pop().element.remove();
      told.forEach((cells, index) => {
        if (!rows[index]) {
          const element = make("tr");
          (index ? body : head).append(element);
          rows.push({ element, runs: [] });
        }
        const { element: row, runs } = rows[index];
        while (runs.length > cells.length) {
          runs.pop();
          row.lastChild.remove();
        }
        cells.forEach((text, column) => {
          if (!runs[column]) {
            const cell = make(index ? "td" : "th", { data: { align: align[column] } });
            row.append(cell);
            runs.push(new Run(cell));
          }
          runs[column].update(text);
        });
      });
    };
    return { element, update };
  },
};

/** What must be the same for a block to be drawn on in the element that it has. */
function sort({ kind, level, ordered, first, align }) {
  return [kind, level, ordered, first, align?.join()].join(" ");
}

/** A text in an element, as Markdown. */
export class Prose {
  #root;
  #depth;
  #source = "";
  #drawn = []; // {start, sort, element, update}
  #settled = 0; // how many of them stay as they are, whatever comes

  constructor(root, depth = 0) {
    this.#root = root;
    this.#depth = depth;
  }

  update(written) {
    const source = written.replace(/\r\n?/g, "\n");
    if (source === this.#source) return;
    if (!source.startsWith(this.#source)) {
      this.#cut(0);
      this.#settled = 0;
    }
    this.#source = source;
    const first = this.#settled;
    const from = this.#drawn[first]?.start ?? 0;
    const blocks = this.#depth > DEEPEST ? [{ kind: "paragraph", start: 0, text: source }] : split(source.slice(from));
    blocks.forEach((block, index) => this.#draw(block, first + index, from + block.start));
    this.#cut(first + blocks.length);
    this.#settle(source);
  }

  #draw(block, index, start) {
    const known = this.#drawn[index];
    if (known?.sort === sort(block)) {
      known.start = start;
      known.update(block);
      return;
    }
    this.#cut(index);
    const { element, update } = DRAWN[block.kind](block, this.#depth);
    update(block);
    this.#root.append(element);
    this.#drawn.push({ start, sort: sort(block), element, update });
  }

  #cut(length) {
    for (const { element } of this.#drawn.splice(length)) element.remove();
  }

  /** What comes can change the last block; and while a line is not whole, what it and the one before it are taken for. */
  #settle(source) {
    const lines = source.lastIndexOf("\n", source.lastIndexOf("\n") - 1) + 1;
    let index = this.#drawn.length - 1;
    while (index > 0 && this.#drawn[index].start >= lines) index -= 1;
    this.#settled = Math.max(0, index);
  }
}
