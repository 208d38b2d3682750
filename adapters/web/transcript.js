/* The messages of a conversation as elements, in order, and the answers that ended before their first word; touches only
 * what changed.
 */

import { iconButton, make, plain, tell } from "./dom.js";
import { Ended } from "./endings.js";
import { Joining } from "./joining.js";
import { callKey, isAnswered, isCutOff, isWordless, MessageView } from "./message.js";

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
  #shown = new Map(); // views of messages, by their ids
  #ended = new Map(); // views of answers without a message, by their generations' ids
  #joining = new Joining();
  #stuck = true; // to its end, until somebody scrolls back
  #context = { results: new Map(), calls: new Set(), approvals: [], live: null };
  #does;
  #again;
  #replaces;
  #retry;
  #goOn;
  #continues;

  /**
   * @param {{regenerate(messageId: string): void, retry(): void, goOn(messageId: string): void, edit(message: object): void,
   *   fork(message: object): void, turn(messageId: string, index: number): void, older(): void}} does
   */
  constructor(pane, does) {
    this.#root = pane.querySelector(".transcript");
    this.#empty = pane.querySelector(".empty");
    this.#working = pane.querySelector(".working");
    this.#down = pane.querySelector(".down");
    this.#older = pane.querySelector(".older");
    this.#older.addEventListener("click", () => does.older());
    this.#does = does;
    this.#again = iconButton("again", "Regenerate: take this answer back and ask for another one", () => this.again(), "again");
    const button = (text, name, click) => make("button", { type: "button", class: `quiet ${name}`, text, on: { click } });
    this.#retry = button("Try again", "retry", () => this.again());
    this.#goOn = button("Go on", "go-on", () => does.goOn(this.#continues));
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
    for (const button of [this.#again, this.#retry, this.#goOn]) button.remove();
    for (const views of [this.#shown, this.#ended]) {
      for (const view of views.values()) view.element.remove();
      views.clear();
    }
    this.#joining = new Joining();
    this.#empty.hidden = false;
    this.#stuck = true;
  }

  render(state) {
    const focused = this.#root.contains(document.activeElement);
    this.#draw(state);
    // a button that was pressed and is gone leaves those who use no mouse where they were
    if (focused && !(this.#root.contains(document.activeElement) && document.activeElement.checkVisibility())) this.#root.focus({ preventScroll: true });
  }

  #draw(state) {
    const { messages } = state;
    const first = this.#first;
    this.#first = messages[0]?.message_id;
    const fromEnd = first === this.#first ? 0 : this.#root.scrollHeight - this.#root.scrollTop;
    const joined = this.#joining.join(messages);
    const there = new Set(joined.map(({ message }) => message.message_id));
    const silent = this.#silent(state);
    for (const [id, view] of this.#shown) if (!there.has(id)) this.#take(this.#shown, id, view);
    for (const [id, view] of this.#ended) if (!silent.ids.has(id)) this.#take(this.#ended, id, view);
    this.#know(messages, state);
    const wordless = this.#wordless(joined, state);
    let before = this.#empty;
    const put = (element) => {
      if (before.nextSibling !== element) before.after(element);
      before = element;
    };
    for (const generation of silent.behind.get(undefined) ?? []) put(this.#tellEnd(generation, silent.last));
    for (const { message, parts } of joined) {
      let view = this.#shown.get(message.message_id);
      if (!view) {
        view = new MessageView(message, this.#does);
        this.#shown.set(message.message_id, view);
      }
      put(view.element);
      view.update(message, state, this.#context, wordless.has(message.message_id));
      for (const { message_id: id } of parts) {
        for (const generation of silent.behind.get(id) ?? []) put(this.#tellEnd(generation, silent.last));
      }
    }
    this.#offer(joined, state.generation, silent.last, wordless);
    this.#showWork(messages, state);
    this.#empty.hidden = messages.length > 0 || silent.ids.size > 0;
    this.#older.hidden = !state.more;
    // what is being read stays where it is when older messages come above it
    if (first !== this.#first && this.#shown.has(first)) this.#root.scrollTop = this.#root.scrollHeight - fromEnd;
    this.#follow();
  }

  #take(views, id, view) {
    view.element.remove();
    views.delete(id);
  }

  /** The answers that ended and have no message: by the message that they stand behind; `last` has nothing behind it. */
  #silent({ generations, generation: live, messages }) {
    const ended = generations.filter(({ silent, state }) => silent && state === "finished");
    const behind = Map.groupBy(ended, ({ behind: id }) => id);
    const newest = generations.at(-1);
    const isLast = live === null && newest?.silent && newest.behind === messages.at(-1)?.message_id;
    return { behind, ids: new Set(ended.map(({ generation_id: id }) => id)), last: isLast ? newest : null };
  }

  /** The messages that are the last to be seen of answers that completed without a word at their end, by their ids. */
  #wordless(joined, { generations }) {
    const completed = new Set(generations.filter(({ outcome }) => outcome === "completed").map(({ generation_id: id }) => id));
    const last = new Map(joined.map(({ message }, place) => [message.generation_id, place]));
    const found = new Set();
    for (const [id, place] of last) {
      if (!completed.has(id) || !isWordless(joined[place].message)) continue;
      let seen = place;
      while (isAnswered(joined[seen].message, this.#context.calls)) seen -= 1; // it stands with its call
      found.add(joined[seen].message.message_id);
    }
    return found;
  }

  #tellEnd(generation, last) {
    const { generation_id: id } = generation;
    const view = this.#ended.get(id) ?? new Ended(id, this.#does);
    this.#ended.set(id, view);
    view.update(generation, generation === last);
    return view.element;
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
  #offer(joined, generation, silent, wordless) {
    const { message: last, parts } = joined.at(-1) ?? {};
    this.#replaces = undefined;
    this.#continues = undefined;
    if (generation === null && ["assistant", "tool"].includes(last?.role)) {
      const { generation_id: id } = parts[0];
      const first = id === undefined ? last : joined.find((each) => each.parts.some((part) => part.generation_id === id)).message;
      this.#replaces = first.message_id;
      if (isCutOff(last) && !silent) this.#continues = parts.at(-1).message_id;
    }
    const shown = joined.findLast(({ message }) => !this.#shown.get(message.message_id).element.hidden) ?? joined.at(-1);
    const foot = shown && this.#shown.get(shown.message.message_id).foot;
    const does = foot?.lastChild;
    const offer = (button, offered, place, before) => {
      if (!offered) button.remove();
      else if (button.parentNode !== place) place.insertBefore(button, before);
    };
    offer(this.#again, this.#replaces !== undefined, does, does?.firstChild);
    const again = last?.status === "failed" || wordless.has(shown?.message.message_id);
    offer(this.#retry, this.#replaces !== undefined && again, foot, does);
    offer(this.#goOn, this.#continues !== undefined, foot, does);
  }

  /** Ask again for the last answer, if that is possible now. */
  again() {
    if (this.#replaces !== undefined) this.#does.regenerate(this.#replaces);
    else if (this.#root.querySelector(".ended .retry:not([hidden])")) this.#does.retry();
  }

  /** Something is under way, and nothing of it can be read yet. */
  #showWork(messages, { generation, approvals }) {
    const writes = messages.some((message) => message.status === "open" && message.blocks.length > 0);
    this.#working.hidden = generation === null || writes || approvals.length > 0;
    const { state, status = "" } = generation ?? {};
    tell(this.#working.lastElementChild, state === "cancelling" ? "stopping" : plain(WORK.get(status) ?? status));
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
