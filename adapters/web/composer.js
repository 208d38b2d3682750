/* Where a message is written. What could not be sent comes back into the field. */

import { Attachments } from "./attachments.js";
import { tell } from "./dom.js";

export class Composer {
  #field;
  #does;
  #policy;
  #pace;
  #stop;
  #send;
  #hint;
  #attachments;
  #unsent = []; // texts and what is attached to them, in order: the first is on its way
  #busy = false;

  /**
   * @param {{send(text: string, choices: object, attached: object[]): Promise<boolean>, stop(): void, typing(text: string): void,
   *   editLast(): void}} does `send` says whether it went
   */
  constructor(root, does) {
    this.#field = root.querySelector("textarea");
    this.#policy = root.querySelector(".policy select");
    this.#pace = root.querySelector(".pace select");
    this.#stop = root.querySelector(".stop");
    this.#send = root.querySelector(".send");
    this.#hint = root.querySelector(".hint");
    root.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#stop.addEventListener("click", () => does.stop());
    this.#does = does;
    this.#attachments = new Attachments(root, this.#field);
    this.#policy.addEventListener("change", () => this.#draw());
    this.#field.addEventListener("input", () => does.typing(this.#field.value));
    this.#field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#submit();
      } else if (event.key === "ArrowUp" && !this.#field.value) {
        event.preventDefault();
        does.editLast();
      }
    });
  }

  focus() {
    this.#field.focus({ preventScroll: true });
  }

  /** What every start from here says of itself. */
  get choices() {
    const pace = this.#pace.value;
    return { policy: this.#policy.value, ...(pace && { input: JSON.parse(pace) }) };
  }

  render({ generation }) {
    this.#busy = generation !== null;
    this.#draw();
  }

  /** Something was sent, and the server has not answered yet. */
  get sending() {
    return this.#unsent.length > 0;
  }

  /** What has not gone out yet is not sent any more. */
  hold() {
    for (const { text, attached } of this.#unsent.splice(1).reverse()) this.giveBack(text, attached);
  }

  #draw() {
    this.#stop.disabled = !this.#busy && !this.sending;
    const told = {
      supersede: "ends the answer that runs",
      rollback: "takes back the answer that runs",
      queue: "waits for its turn",
      latest: "waits in place of others",
      reject: "is refused while an answer runs",
      steer: "goes into the answer that runs",
    };
    tell(this.#hint, this.#busy ? told[this.#policy.value] : "");
  }

  /** Give back what was not used; what is being written meanwhile stays behind it. */
  giveBack(text, attached = []) {
    this.#field.value = this.#field.value ? `${text}\n${this.#field.value}` : text;
    this.#attachments.giveBack(attached);
  }

  /** One after the other, in their order, however quickly they are sent. */
  async #submit() {
    const text = this.#field.value;
    if (!text.trim() && this.#attachments.empty) return;
    const attached = this.#attachments.take();
    this.#field.value = "";
    this.#does.typing("");
    this.#unsent.push({ text, choices: this.choices, attached });
    if (this.#unsent.length > 1) return;
    for (let next = this.#unsent[0]; next; next = this.#unsent[0]) {
      this.#draw();
      const sent = await this.#does.send(next.text, next.choices, next.attached);
      this.#unsent.shift();
      if (sent) continue;
      for (const behind of this.#unsent.splice(0).reverse()) this.giveBack(behind.text, behind.attached);
      this.giveBack(next.text, next.attached);
    }
    this.#draw();
  }
}
