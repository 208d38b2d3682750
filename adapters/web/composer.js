/* Where a message is written, and what goes with it: who answers, with which input, and what it does to an answer that
 * runs. What could not be sent comes back into the field; what is written and not sent is kept for each conversation.
 */

import { Attachments } from "./attachments.js";
import { make, plain, tell } from "./dom.js";
import { draft } from "./kept.js";

const KEPT = 300; // milliseconds behind the last key
const SOON = 400; // what goes out in less needs no word

/** What a message does while an answer runs: in plain words, and what the hint says of it. */
export const POLICIES = {
  supersede: { word: "interrupt it", told: "ends the answer that runs" },
  rollback: { word: "take it back", told: "takes back the answer that runs" },
  queue: { word: "wait in line", told: "waits for its turn" },
  latest: { word: "replace what waits", told: "waits in place of others" },
  reject: { word: "do not send", told: "is refused while an answer runs" },
  steer: { word: "tell the answer", told: "goes into the answer that runs" },
};

export class Composer {
  #field;
  #does;
  #policy;
  #producer;
  #giving;
  #given;
  #stop;
  #send;
  #hint;
  #going;
  #sessionId = "";
  #attachments;
  #aside = new Map(); // what is attached in other conversations, by their ids
  #unsent = []; // {sessionId, to, text, choices, attached, late} in order: the first of each conversation is on its way
  #busy = false;
  #keeping;
  #known = new Map(); // producers, by what the choice of them says: nothing for the server's own

  /**
   * @param {{to(): object, send(text: string, choices: object, to: object, attached: object[]): Promise<boolean>, stop(): void,
   *   typing(text: string): void, editLast(): void}} does `to`: where what is written now goes; `send` says whether it went
   * @param {AbortSignal} signal the pane is closed
   */
  constructor(root, does, signal) {
    this.#field = root.querySelector(".field");
    this.#policy = root.querySelector(".policy select");
    this.#producer = root.querySelector(".producer select");
    this.#giving = root.querySelector(".giving");
    this.#given = root.querySelector(".given");
    this.#stop = root.querySelector(".stop");
    this.#send = root.querySelector(".send");
    this.#hint = root.querySelector(".hint");
    this.#going = root.querySelector(".going");
    this.#does = does;
    const options = Object.entries(POLICIES).map(([value, { word, told }]) => make("option", { value, text: word, title: `${value}: it ${told}` }));
    this.#policy.append(...options);
    root.querySelector(".composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#stop.addEventListener("click", () => does.stop());
    this.#attachments = new Attachments(root.querySelector(".composer"), this.#field);
    this.#policy.addEventListener("change", () => this.#draw());
    this.#producer.addEventListener("change", () => this.#describe());
    this.#giving.popoverTargetElement = this.#given;
    this.#given.addEventListener("input", () => this.#check());
    this.#given.addEventListener("keydown", (event) => event.stopPropagation()); // Escape is for it, not for the answer
    this.#given.addEventListener("toggle", ({ newState }) => newState === "open" && this.#given.querySelector("textarea").focus());
    this.#field.addEventListener("input", () => {
      does.typing(this.#field.value);
      clearTimeout(this.#keeping);
      this.#keeping = setTimeout(() => this.#keep(), KEPT);
    });
    addEventListener("pagehide", () => this.#keep(), { signal });
    this.#field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#submit();
      } else if (event.key === "ArrowUp" && !this.#field.value) {
        event.preventDefault();
        does.editLast();
      }
    });
    this.#draw();
  }

  focus() {
    this.#field.focus({ preventScroll: true });
  }

  get empty() {
    return !this.#field.value && this.#attachments.empty && !this.sending;
  }

  // --- drafts

  /** The conversation is another one: what was written there stays there. */
  turnTo(sessionId) {
    this.#keep();
    if (!this.#attachments.empty) this.#aside.set(this.#sessionId, this.#attachments.take());
    this.#sessionId = sessionId;
    this.#field.value = draft(sessionId);
    this.#attachments.giveBack(this.#aside.get(sessionId) ?? []);
    this.#aside.delete(sessionId);
  }

  #keep() {
    clearTimeout(this.#keeping);
    if (this.#sessionId) draft(this.#sessionId, this.#field.value);
  }

  /** Take what is written and attached here, for `giveBack`. */
  take() {
    const written = [this.#field.value, this.#attachments.take()];
    this.#field.value = "";
    return written;
  }

  /** Give back what was not used, where it was written; what is being written there meanwhile stays behind it. */
  giveBack(text, attached = [], sessionId = this.#sessionId) {
    const here = sessionId === this.#sessionId;
    const behind = here ? this.#field.value : draft(sessionId);
    const whole = [text, behind].filter(Boolean).join("\n");
    draft(sessionId, whole);
    if (here) {
      this.#field.value = whole;
      this.#attachments.giveBack(attached);
    } else {
      this.#aside.set(sessionId, [...(this.#aside.get(sessionId) ?? []), ...attached]);
    }
  }

  // --- what goes with a message

  /** Those who may answer, as the server tells of them. */
  offer({ producers, default: own }) {
    const chosen = this.#producer.value;
    this.#known = new Map(producers.map((each) => [each.name === own ? "" : each.name, each]));
    this.#producer.replaceChildren(...[...this.#known].map(([value, { name }]) => make("option", { value, text: plain(name) })));
    if (this.#known.has(chosen)) this.#producer.value = chosen;
    this.#producer.closest(".producer").hidden = this.#known.size < 2;
    this.#describe();
  }

  /** What the one that is chosen is, and what it may be given. */
  #describe() {
    const { description = "", input_schema: schema } = this.#known.get(this.#producer.value) ?? {};
    this.#producer.title = plain(description);
    const fields = Object.entries(schema?.properties ?? {}).map(([name, { type }]) => `${name}: ${type ?? "anything"}`);
    tell(this.#given.querySelector("small"), plain(fields.join(", ")));
  }

  /** What every start from here says of itself. */
  get choices() {
    const given = this.#read();
    return {
      policy: this.#policy.value,
      ...(this.#producer.value && { producer: this.#producer.value }),
      ...(given !== undefined && { input: given }),
    };
  }

  /** What the producer is given; undefined where that is nothing, or no JSON. */
  #read() {
    try {
      return JSON.parse(this.#given.querySelector("textarea").value || "null") ?? undefined;
    } catch {
      return undefined;
    }
  }

  /** Whether what the producer is to be given is JSON. */
  #check() {
    const text = this.#given.querySelector("textarea").value.trim();
    const bad = text !== "" && text !== "null" && this.#read() === undefined;
    this.#giving.setAttribute("aria-pressed", String(text !== "")); // something is given
    tell(this.#given.querySelector(".problem"), bad ? "This is no JSON." : "");
    return !bad;
  }

  render({ generation }) {
    this.#busy = generation !== null;
    this.#draw();
  }

  #draw() {
    this.#stop.disabled = !this.#busy && !this.sending;
    const { told } = POLICIES[this.#policy.value];
    this.#policy.title = `If an answer runs, the message ${told} (${this.#policy.value})`;
    tell(this.#hint, this.#busy ? told : "");
    const going = this.#unsentOf(this.#sessionId).filter(({ late }) => late);
    this.#going.hidden = !going.length;
    this.#going.replaceChildren(...going.map(({ text }) => make("li", { dir: "auto", text: text.trim() || "What is attached" })));
  }

  // --- sending

  /** Where something goes that was sent from here, and that the server has not answered yet; else undefined. */
  get sendingTo() {
    return this.#unsentOf(this.#sessionId)[0]?.to;
  }

  get sending() {
    return this.sendingTo !== undefined;
  }

  /** What has not gone out from here yet is not sent any more. */
  hold() {
    this.#takeBack(this.#unsentOf(this.#sessionId).slice(1));
  }

  #unsentOf(sessionId) {
    return this.#unsent.filter((each) => each.sessionId === sessionId);
  }

  #takeBack(unsent) {
    this.#unsent = this.#unsent.filter((each) => !unsent.includes(each));
    for (const { text, attached, sessionId } of unsent.reverse()) this.giveBack(text, attached, sessionId);
  }

  /** One after the other in each conversation, in their order, however quickly they are sent. */
  async #submit() {
    const text = this.#field.value;
    if (!text.trim() && this.#attachments.empty) return;
    if (!this.#check()) {
      this.#given.showPopover();
      return;
    }
    this.#field.value = "";
    this.#keep();
    this.#does.typing("");
    const [sessionId, attached] = [this.#sessionId, this.#attachments.take()];
    const going = { sessionId, to: this.#does.to(), text, choices: this.choices, attached, late: false };
    this.#unsent.push(going);
    setTimeout(() => {
      going.late = true;
      this.#draw();
    }, SOON);
    if (this.#unsentOf(sessionId).length > 1) return;
    for (let [next] = this.#unsentOf(sessionId); next; [next] = this.#unsentOf(sessionId)) {
      this.#draw();
      if (await this.#does.send(next.text, next.choices, next.to, next.attached)) this.#unsent = this.#unsent.filter((each) => each !== next);
      else this.#takeBack(this.#unsentOf(sessionId));
    }
    this.#draw();
  }
}
