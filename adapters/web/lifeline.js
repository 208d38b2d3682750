/* How a conversation hangs on its server: the pill, what is said of cuts and resumes, and the way back. */

import { announce } from "./announcer.js";
import { plain, tell } from "./dom.js";

const TOLD = {
  connecting: "connecting",
  replaying: "catching up",
  live: "live",
  waiting: "cut off",
  ended: "ended",
  refused: "refused",
  idle: "left",
};

/** The one line in which a pane tells what happened, with perhaps one thing to do about it. */
export class Notice {
  #root;
  #press = () => {};

  constructor(root) {
    this.#root = root;
    root.lastElementChild.addEventListener("click", () => this.#press());
  }

  say(text, { kind = "note", label, press } = {}) {
    tell(this.#root.firstElementChild, plain(text));
    this.#root.dataset.kind = kind;
    this.#root.hidden = !text;
    this.#root.lastElementChild.hidden = label === undefined;
    this.#root.lastElementChild.textContent = label ?? "";
    this.#press = press ?? (() => {});
  }

  clear(kind) {
    if (kind === undefined || this.#root.dataset.kind === kind) this.say("");
  }
}

export class Lifeline {
  #pill;
  #notice;
  #cutAt = null; // the cursor at which the line broke
  #until = 0;
  #state = "idle";
  #counting;

  constructor(pill, notice) {
    this.#pill = pill;
    this.#notice = notice;
  }

  /** Another session. */
  begin() {
    this.#cutAt = null;
  }

  /**
   * The connection changed; what a person does about it is done by `again` and `anew`.
   *
   * @param {{state: string, reason?: string, until?: number, problem?: {code: string, message: string}}} connection
   * @param {string | null} cursor
   * @param {{again(): void, anew(): void, token(): void}} does
   */
  turn({ state, reason, until, problem }, cursor, does) {
    this.#state = state;
    this.#until = until ?? 0;
    this.#pill.dataset.state = state;
    if (state === "waiting") {
      if (this.#cutAt === null && cursor !== null) {
        this.#cutAt = cursor;
        announce("The connection is lost; it is being resumed.");
      }
      const where = cursor === null ? "" : ` It resumes behind event ${Number(cursor.split("-")[1])}.`;
      this.#notice.say(`The line is cut; an answer that runs goes on without it.${where}`, { kind: "line" });
    } else if (state === "live") {
      this.#notice.clear("line");
      if (this.#cutAt !== null && cursor !== null) {
        const missed = cursor.split("-")[0] === this.#cutAt.split("-")[0] ? Number(cursor.split("-")[1]) - Number(this.#cutAt.split("-")[1]) : 0;
        const events = missed === 1 ? "One event" : `${missed} events`;
        this.#notice.say(missed ? `Resumed. ${events} came meanwhile, none is missing.` : "Resumed. Nothing came meanwhile.", { kind: "resumed" });
        setTimeout(() => this.#notice.clear("resumed"), 4000);
        announce("Connected again.");
      }
      this.#cutAt = null;
    } else if (state === "refused") {
      this.refuse(problem, does);
    } else if (state === "ended") {
      this.#notice.say(`This conversation has ended (${reason}).`, { kind: "ended", label: "Begin another", press: does.anew });
    }
    clearInterval(this.#counting);
    if (state === "waiting") this.#counting = setInterval(() => this.#count(), 500);
    this.#count();
  }

  /** The server will not have it. */
  refuse(problem, does) {
    const wants = problem.code === "UNAUTHENTICATED";
    const way = wants ? { label: "Give a token", press: does.token } : { label: "Try again", press: does.again };
    this.#notice.say(problem.message, { kind: "error", ...way });
  }

  #count() {
    const seconds = Math.ceil((this.#until - Date.now()) / 1000);
    const soon = this.#state === "waiting" && seconds > 0 ? `, resuming in ${seconds} s` : "";
    tell(this.#pill.lastElementChild, TOLD[this.#state] + soon);
  }
}
