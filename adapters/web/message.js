/* One message as an element: its blocks, and what can be done with it. */

import { LONG, Named, NAMING, unseen } from "./attachments.js";
import { copy, exact, grow, icon, iconButton, make, plain, tell } from "./dom.js";
import { ended, WORDLESS } from "./endings.js";
import { Prose } from "./prose.js";
import { Switcher } from "./versions.js";

function pretty(value) {
  return exact(typeof value === "string" ? value : JSON.stringify(value, null, 2));
}

/** A text without any form. */
class Plain {
  element = make("div", { class: "block", dir: "auto", data: { kind: "text" } });
  #node = document.createTextNode("");

  constructor() {
    this.element.append(this.#node);
  }

  update({ text = "" }) {
    grow(this.#node, text);
  }
}

/** A text as Markdown. */
class Formed {
  element = make("div", { class: "block prose", dir: "auto", data: { kind: "text" } });
  #prose = new Prose(this.element);

  update({ text = "" }) {
    this.#prose.update(text);
  }
}

/** Something folded: its inside is drawn only while it is open. */
class Folded {
  #inside = make("div", { class: "inside", dir: "auto" });
  #draw = () => {};

  constructor(kind, drawing) {
    this.title = make("span", { class: "title" });
    this.state = make("span", { class: "state" });
    const summary = make("summary", {}, icon(drawing), this.title, this.state);
    this.element = make("details", { class: "block fold", data: { kind }, on: { toggle: () => this.#shown() } }, summary, this.#inside);
  }

  /** What is inside: `draw` is called with the element for it, now or when it is opened, and with each change. */
  show(draw) {
    this.#draw = draw;
    this.#shown();
  }

  #shown() {
    if (this.element.open) this.#draw(this.#inside);
  }
}

class Reasoning extends Folded {
  #prose = null;

  constructor() {
    super("reasoning", "thought");
  }

  update({ text = "", open }) {
    this.element.dataset.open = open ?? false;
    tell(this.title, open ? "Thinking" : "Thoughts");
    tell(this.state, open ? plain(text.slice(-90).replace(/^[\udc00-\udfff]/, "").replace(/\s+/g, " ")).trim() : "");
    this.show((inside) => (this.#prose ??= new Prose(inside)).update(text));
  }
}

class ToolCall extends Folded {
  constructor() {
    super("tool_call", "tool");
  }

  update(block, { results, approvals, live, message }) {
    const result = results.get(callKey(message, block));
    const waits = live && approvals.some((approval) => approval.tool_call_id === block.tool_call_id);
    let state = "ended";
    if (result && !result.open) state = result.is_error ? "failed" : "done";
    else if (waits) state = "asks";
    else if (block.open) state = "writing";
    else if (live) state = "running";
    this.element.dataset.state = state;
    tell(this.title, exact(block.name ?? "tool"));
    tell(this.state, { ended: "no result", failed: "failed", done: "done", asks: "needs a yes", writing: "…", running: "running" }[state]);
    this.show((inside) => {
      const parts = [labelled("Arguments", pretty(block.arguments ?? ""))];
      if (result) parts.push(labelled(result.is_error ? "Error" : "Result", content(result)));
      inside.replaceChildren(...parts);
    });
  }
}

/** A result whose call is not in sight, or data. */
class Value extends Folded {
  #kind;

  constructor(kind) {
    super(kind, kind === "data" ? "source" : "tool");
    this.#kind = kind;
  }

  update(block) {
    tell(this.title, this.#kind === "data" ? "Data" : exact(block.name ?? "Result"));
    tell(this.state, block.is_error ? "failed" : "");
    this.show((inside) => inside.replaceChildren(make("pre", { tabindex: "0", text: content(block) })));
  }
}

function content(block) {
  return pretty(block.text ?? block.value ?? block.arguments ?? "");
}

function labelled(label, text) {
  return make("div", { class: "part" }, make("span", { text: label }), make("pre", { tabindex: "0", text }));
}

/** What somebody pasted, and that is longer than a screen. */
class Pasted extends Folded {
  constructor() {
    super("text", "source");
  }

  update({ text = "" }) {
    tell(this.title, "Pasted text");
    tell(this.state, text.slice(0, 90).replace(/\s+/g, " ").trim());
    this.show((inside) => inside.replaceChildren(make("pre", { tabindex: "0", text })));
  }
}

function made(block, role, does) {
  if (NAMING.includes(block.kind)) return new Named(block.kind, does.read);
  switch (block.kind) {
    case "text":
      if (role === "user" && block.text?.length > LONG) return new Pasted();
      return role === "assistant" ? new Formed() : new Plain();
    case "reasoning":
      return new Reasoning();
    case "tool_call":
      return new ToolCall();
    default:
      return new Value(block.kind);
  }
}

/** The text of a message, as it was written. */
export function said(message) {
  return message.blocks.filter((block) => block.kind === "text").map((block) => block.text ?? "").join("\n\n");
}

/** A call and its result have this in common; its id alone may come again in another answer. */
export function callKey(message, block) {
  return `${message.generation_id} ${block.tool_call_id}`;
}

/** Whether a message is nothing but results that stand with their calls. */
export function isAnswered(message, calls) {
  return message.role === "tool" && message.blocks.length > 0 && message.blocks.every((block) => calls.has(callKey(message, block)));
}

/** Whether an answer that ends with this message ends without a word: thoughts are none, and what a tool gave is not its own. */
export function isWordless({ role, blocks }) {
  return role === "tool" || blocks.every(({ kind, text = "" }) => kind === "reasoning" || (kind === "text" && !text.trim()));
}

/** How a message ended, if not well, and what it took. */
function ending(message, { generation, ends }, wordless) {
  if (message.role === "user") return "";
  if (message.status === "open") return generation?.state === "cancelling" ? "stopping…" : "";
  if (message.status === "complete") {
    if (isCutOff(message)) return "cut off at the token limit";
    return [wordless ? WORDLESS : "", taken(message.usage)].filter(Boolean).join(" · ");
  }
  const outcome = message.finish_reason ?? message.status;
  return ended(ends[message.generation_id] ?? { outcome });
}

/** Whether an answer reached the most that it could be, and can be gone on with. */
export function isCutOff({ role, status, finish_reason: reason }) {
  return role === "assistant" && status === "complete" && reason === "length";
}

/** What a model was not shown, of a conversation that is too long for it. */
function leftOut({ metadata }) {
  const turns = metadata?.left_out;
  if (!Number.isSafeInteger(turns) || turns < 1) return "";
  return turns === 1 ? "made without the oldest turn" : `made without the oldest ${turns} turns`;
}

function taken(usage) {
  const { input_tokens: read, output_tokens: written } = usage ?? {};
  return read === undefined || written === undefined ? "" : `${read} tokens read, ${written} written`;
}

export class MessageView {
  message = null;
  #blocks = [];
  #body = make("div", { class: "body" });
  #end = make("span", { class: "end" });
  #actions = make("span", { class: "does" });
  #versions;
  #source = null;
  #context = null;
  #does;

  /**
   * @param {{edit(message: object): void, fork(message: object): void, turn(messageId: string, index: number): void,
   *   read(fileId: string): Promise<Blob>}} does
   */
  constructor(message, does) {
    this.#does = does;
    const fork = iconButton("fork", "Fork from here", () => does.fork(this.message), "fork");
    const copied = iconButton("copy", "Copy the text", () => copy(said(this.message), copied), "copy");
    const source = iconButton("source", "Show as written", () => this.#toggle(source), "as-written");
    const edit = iconButton("edit", "Edit and send again", () => does.edit(this.message), "edit");
    if (message.role === "user") this.#actions.append(edit, copied, fork);
    else if (message.role === "assistant") this.#actions.append(copied, source, fork);
    this.#versions = new Switcher((index) => does.turn(this.message.message_id, index));
    this.foot = make("div", { class: "foot" }, this.#versions.element, this.#end, this.#actions);
    const names = { user: "You", assistant: "Answer", tool: "Tool", system: "System" };
    const attributes = { class: "message", "aria-label": names[message.role] ?? message.role };
    const data = { id: message.message_id, role: message.role };
    this.element = make("article", { ...attributes, data }, this.#body, this.foot);
  }

  /** Bring up to date. The same message in the same circumstances costs nothing. `wordless`: its answer ended so. */
  update(message, state, context, wordless) {
    if (message !== this.message || context !== this.#context) {
      this.message = message; // the same object is the same content
      this.#context = context;
      this.element.dataset.status = message.status;
      const live = state.generation?.generation_id === message.generation_id;
      message.blocks.forEach((block, index) => {
        let view = this.#blocks[index];
        if (!view) {
          view = made(block, message.role, this.#does);
          this.#blocks.push(view);
          this.#body.append(view.element);
        }
        view.update(block, { ...context, live, message });
      });
      this.element.hidden = isAnswered(message, context.calls);
      if (this.#source) grow(this.#source.firstChild, said(message));
    }
    this.#versions.update(message.version, state.generation !== null);
    this.element.dataset.wordless = wordless;
    tell(this.#end, [ending(message, state, wordless), leftOut(message), unseen(message)].filter(Boolean).join(" · "));
  }

  #toggle(button) {
    const shown = this.#source === null;
    button.setAttribute("aria-pressed", String(shown));
    this.#body.classList.toggle("unformed", shown);
    if (shown) {
      this.#source = make("pre", { class: "source", text: said(this.message) || " " });
      this.#body.append(this.#source);
    } else {
      this.#source.remove();
      this.#source = null;
    }
  }
}
