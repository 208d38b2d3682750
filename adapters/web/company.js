/* Who else is in a conversation, and telling them that we are. */

import { hue, make, plain } from "./dom.js";

const RENEWED = 25_000; // the server forgets after a minute
const TYPING = 3000;

export class Company {
  #root;
  #identity;
  #device;
  #session = null;
  #renewing;
  #resting;
  #status = "reading";
  #shown = null;

  /**
   * @param {string} place where in this tab: two panes may show one conversation
   * @param {AbortSignal} signal the pane is closed
   */
  constructor(root, identity, place, signal) {
    this.#root = root;
    this.#device = `${identity.device}.${place}`;
    this.#identity = identity;
    const left = () => {
      const session = this.#session;
      this.leave();
      const back = (event) => event.persisted && session && this.arrive(session);
      addEventListener("pageshow", back, { once: true, signal });
    };
    addEventListener("pagehide", left, { signal });
  }

  /** Be seen in this session from now on. */
  arrive(session) {
    if (this.#session !== session) this.leave();
    this.#session = session;
    clearInterval(this.#renewing);
    this.#renewing = setInterval(() => this.#put(), RENEWED);
    this.#put();
  }

  leave() {
    clearInterval(this.#renewing);
    clearTimeout(this.#resting);
    this.#session?.dropPresence(this.#identity.actor, this.#device).catch(() => {});
    this.#session = null;
    this.#status = "reading";
  }

  /** Nothing can be told any more: the session is gone. */
  forget() {
    clearInterval(this.#renewing);
    this.#session = null;
  }

  /** Something is being written; told only where somebody else could see it. */
  typing(text) {
    clearTimeout(this.#resting);
    this.#turn(text && this.#shown?.length > 1 ? "typing" : "reading");
    if (text) this.#resting = setTimeout(() => this.#turn("reading"), TYPING);
  }

  #turn(status) {
    if (status === this.#status) return;
    this.#status = status;
    this.#put();
  }

  #put() {
    const { actor, name } = this.#identity;
    const session = this.#session;
    // who may only read, or has no token, is not seen; that is no reason to be told of it again and again
    session?.putPresence(actor, this.#device, { name, status: this.#status }).catch((problem) => {
      if (problem.status >= 400 && problem.status < 500 && this.#session === session) clearInterval(this.#renewing);
    });
  }

  render({ presence }) {
    if (presence === this.#shown) return;
    this.#shown = presence;
    const people = new Map();
    for (const { actor_id: actor, device_id: device, name, status } of presence) {
      const person = people.get(actor) ?? { actor, name: plain(name ?? actor), devices: 0, typing: false };
      person.devices += 1;
      const self = actor === this.#identity.actor && device === this.#device;
      person.typing ||= status === "typing" && !self;
      people.set(actor, person);
    }
    this.#root.replaceChildren(...[...people.values()].map((person) => this.#badge(person)));
  }

  #badge({ actor, name, devices, typing }) {
    const you = actor === this.#identity.actor ? " (you)" : "";
    const told = `${name}${you}${devices > 1 ? `, on ${devices} devices` : ""}${typing ? ", typing" : ""}`;
    const letters = name.trim().split(/\s+/, 2).map((word) => [...word][0] ?? "").join("").toUpperCase() || "?";
    const badge = make("li", { title: told, "aria-label": told, data: { typing, actor } }, make("span", { text: letters }));
    if (devices > 1) badge.append(make("small", { text: String(devices) }));
    badge.style.setProperty("--hue", hue(actor));
    return badge;
  }
}
