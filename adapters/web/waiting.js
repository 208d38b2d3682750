/* What has not had its turn: starts that wait in the queue, and inputs that the answer has not used yet. */

import { make, plain, tell } from "./dom.js";
import { POLICIES } from "./composer.js";

export class WaitingList {
  #root;
  #list;
  #next;
  #takeOut;
  #shown = null;

  /** @param {(generationId: string) => void} takeOut */
  constructor(root, takeOut) {
    this.#root = root;
    this.#list = root.querySelector("ol");
    this.#next = root.querySelector(".next");
    this.#takeOut = takeOut;
  }

  render({ queue }) {
    if (queue === this.#shown) return;
    this.#shown = queue;
    this.#root.hidden = !queue.items.length;
    this.#root.dataset.paused = queue.paused;
    this.#next.hidden = !queue.paused;
    this.#list.replaceChildren(...queue.items.map((item) => this.#row(item)));
  }

  #row({ generation_id: id, text, policy }) {
    const label = "Take this one out";
    const out = { type: "button", class: "out quiet", title: label, "aria-label": label, text: "\u00d7" };
    return make(
      "li",
      {},
      make("span", { class: "what", dir: "auto", title: POLICIES[policy]?.told ?? policy, text: text === undefined ? "(no text)" : plain(text) }),
      make("button", { ...out, on: { click: () => this.#takeOut(id) } }),
    );
  }
}

export class Steering {
  #root;

  constructor(root) {
    this.#root = root;
  }

  render({ generation }) {
    const inputs = (generation?.inputs ?? []).filter((input) => input.kind !== "approval");
    this.#root.hidden = !inputs.length;
    while (this.#root.children.length > inputs.length) this.#root.lastChild.remove();
    inputs.forEach((input, index) => {
      if (!this.#root.children[index]) this.#root.append(make("li"));
      const text = input.content?.text ?? JSON.stringify(input.content ?? {});
      tell(this.#root.children[index], plain(`${input.kind}: ${text}`));
    });
  }
}
