/* The messages of a conversation as elements, in order; touches only what changed. */

import { iconButton, make, tell } from "./dom.js";
import { callKey, MessageView } from "./message.js";

const NEAR = 60; // pixels from the end that still count as being there

/** Of what a producer says it does, what is no plain word. */
const WORK = new Map([
  ["shortened", "thinking, without the oldest turns"],
  ["unseen", "thinking, without what is attached"],
  ["waiting", "waiting for the first word"],
]);

export class Transcript {
  #root;
  #empty;
  #working;
  #down;
  #older;
  #first; // the id of the message that stood first
  #shown = new Map();
  #stuck = true; // to its end, until somebody scrolls back
  #context = { results: new Map(), calls: new Set(), approvals: [], live: null };
  #does;
  #again;
  #replaces;

  /**
   * @param {{regenerate(messageId: string): void, edit(message: object): void, fork(message: object): void,
   *   older(): void}} does
   */
  constructor(pane, does) {
    this.#root = pane.querySelector(".transcript");
    this.#empty = pane.querySelector(".empty");
    this.#working = pane.querySelector(".working");
    this.#down = pane.querySelector(".down");
    this.#older = pane.querySelector(".older");
    this.#older.addEventListener("click", () => does.older());
    this.#does = does;
    this.#again = iconButton("again", "Regenerate: take this answer back and ask for another one", () => does.regenerate(this.#replaces), "again");
    this.#root.addEventListener("scroll", () => {
      this.#stuck = this.#root.scrollHeight - this.#root.scrollTop - this.#root.clientHeight < NEAR;
      this.#down.hidden = this.#stuck;
    });
    this.#down.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.#follow()).observe(this.#root); // what waits takes room, too
  }

  toEnd() {
    this.#stuck = true;
    this.#follow();
  }

  #follow() {
    if (this.#stuck) this.#root.scrollTop = this.#root.scrollHeight;
    this.#down.hidden = this.#stuck;
  }

  clear() {
    this.#again.remove();
    for (const view of this.#shown.values()) view.element.remove();
    this.#shown.clear();
    this.#empty.hidden = false;
    this.#stuck = true;
  }

  render(state) {
    const { messages } = state;
    const first = this.#first;
    this.#first = messages[0]?.message_id;
    const fromEnd = first === this.#first ? 0 : this.#root.scrollHeight - this.#root.scrollTop;
    const there = new Set(messages.map((message) => message.message_id));
    for (const [id, view] of this.#shown) {
      if (there.has(id)) continue;
      view.element.remove();
      this.#shown.delete(id);
    }
    this.#know(messages, state);
    let before = this.#empty;
    for (const message of messages) {
      let view = this.#shown.get(message.message_id);
      if (!view) {
        view = new MessageView(message, this.#does);
        this.#shown.set(message.message_id, view);
      }
      if (before.nextSibling !== view.element) before.after(view.element);
      view.update(message, state, this.#context);
      before = view.element;
    }
    this.#offer(messages, state.generation);
    this.#showWork(messages, state);
    this.#empty.hidden = messages.length > 0;
    this.#older.hidden = !state.more;
    // what is being read stays where it is when older messages come above it
    if (first !== this.#first && there.has(first)) this.#root.scrollTop = this.#root.scrollHeight - fromEnd;
    this.#follow();
  }

  /** What messages must know of each other; the same object as long as that is the same. */
  #know(messages, { approvals, generation }) {
    const results = new Map();
    const calls = new Set();
    for (const message of messages) {
      for (const block of message.blocks) {
        if (block.kind === "tool_call") calls.add(callKey(message, block));
        else if (block.kind === "tool_result" && message.role === "tool") results.set(callKey(message, block), block);
      }
    }
    const live = generation?.generation_id ?? null;
    const known = this.#context;
    const same =
      known.live === live &&
      known.approvals === approvals &&
      known.calls.size === calls.size &&
      known.results.size === results.size &&
      [...results].every(([id, block]) => known.results.get(id) === block);
    if (!same) this.#context = { results, calls, approvals, live };
  }

  /** The last answer can be asked for anew, once it has ended: all that its generation said is replaced. */
  #offer(messages, generation) {
    const last = messages.at(-1);
    if (generation !== null || !["assistant", "tool"].includes(last?.role)) {
      this.#again.remove();
      this.#replaces = undefined;
      return;
    }
    const { generation_id: id } = last;
    const first = id === undefined ? last : messages.find((message) => message.generation_id === id);
    this.#replaces = first.message_id;
    const shown = messages.findLast((message) => !this.#shown.get(message.message_id).element.hidden) ?? last;
    const { foot } = this.#shown.get(shown.message_id);
    if (this.#again.parentNode !== foot.lastChild) foot.lastChild.prepend(this.#again);
  }

  /** Regenerate the last answer, if that is possible now. */
  again() {
    if (this.#replaces !== undefined) this.#does.regenerate(this.#replaces);
  }

  /** Something is under way, and nothing of it can be read yet. */
  #showWork(messages, { generation, approvals }) {
    const writes = messages.some((message) => message.status === "open" && message.blocks.length > 0);
    this.#working.hidden = generation === null || writes || approvals.length > 0;
    const { state, status = "" } = generation ?? {};
    tell(this.#working.lastElementChild, state === "cancelling" ? "stopping" : (WORK.get(status) ?? status));
  }
}

/** A message's text in an editor in its place; resolves with the new text, or null. */
export function editIn(element, text) {
  return new Promise((resolve) => {
    const done = (value) => {
      editor.remove();
      element.classList.remove("edited");
      resolve(value);
    };
    const field = make("textarea", { "aria-label": "Edit the message", rows: "1" });
    field.value = text;
    const editor = make(
      "div",
      {
        class: "editor",
        on: {
          keydown: (event) => {
            event.stopPropagation(); // Escape is for the editor
            if (event.key === "Escape") done(null);
            if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
              event.preventDefault();
              if (field.value.trim()) done(field.value);
            }
          },
        },
      },
      field,
      make(
        "div",
        {},
        make("button", { type: "button", class: "quiet", text: "Cancel", on: { click: () => done(null) } }),
        make("button", { type: "button", class: "primary", text: "Send", on: { click: () => field.value.trim() && done(field.value) } }),
      ),
    );
    element.classList.add("edited");
    element.prepend(editor);
    field.focus();
  });
}
