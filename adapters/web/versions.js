/* ‹ 2/3 › at a message that was regenerated, or edited and sent again: the way to its other versions. */

import { make, tell } from "./dom.js";

export class Switcher {
  #place = make("span", { class: "place" });
  #before;
  #behind;
  #version;

  /** @param {(index: number) => void} go to the version of this number */
  constructor(go) {
    const button = (label, text, step) =>
      make("button", { type: "button", class: "icon", "aria-label": label, title: label, text, on: { click: () => go(this.#version.index + step) } });
    this.#before = button("The version before", "‹", -1);
    this.#behind = button("The version behind", "›", 1);
    this.element = make("span", { class: "versions", role: "group", "aria-label": "Versions", hidden: true }, this.#before, this.#place, this.#behind);
  }

  /** @param {{index: number, count: number} | undefined} version  @param {boolean} busy an answer runs, which would be in the way */
  update(version, busy) {
    this.#version = version;
    this.element.hidden = !(version?.count > 1);
    if (this.element.hidden) return;
    const { index, count } = version;
    tell(this.#place, `${index}/${count}`);
    this.#before.disabled = busy || index <= 1;
    this.#behind.disabled = busy || index >= count;
  }
}
