/* How an answer ended, in plain words; and what stands in the place of one that has no message. */

import { make, plain, tell } from "./dom.js";
import { Switcher } from "./versions.js";

/** Of an answer that completed, and in which there is nothing to read: behind a tool's result, mostly. */
export const WORDLESS = "the model ended without a word";

// The word for it, and why; of a failure, and of a limit, the server's own text says more.
const WORDS = {
  completed: ["ended", WORDLESS],
  superseded: ["superseded", "something else was asked"],
  stopped: ["stopped", "it was stopped"],
  failed: ["failed", "it did not work"],
  stalled: ["stalled", "nothing came for too long"],
  expired: ["out of time", "it took too long"],
  lost: ["lost", "the server's process died"],
  shutdown: ["ended", "the server was shut down"],
  deleted: ["ended", "the conversation was deleted"],
  reset: ["ended", "the conversation was emptied"],
};
const TELLING = new Set(["failed", "stalled", "expired"]);

function words({ outcome, message }) {
  const [word, why] = WORDS[outcome] ?? [plain(outcome ?? "ended"), ""];
  return [word, message && TELLING.has(outcome) ? plain(message) : why];
}

/** Beside what there is of an answer. @param {{outcome?: string, message?: string}} end */
export function ended(end) {
  const [word, why] = words(end);
  return end.outcome === "stopped" || !why ? word : `${word}: ${why}`;
}

/** What a person reads where an answer is missing, because it ended before its first word. */
export class Ended {
  #text = make("span", { class: "why", dir: "auto" });
  #again;
  #versions;
  #version;

  /** @param {{retry(): void, turn(messageId: string, index: number): void}} does */
  constructor(generationId, does) {
    this.#again = make("button", { type: "button", class: "quiet retry", text: "Try again", hidden: true, on: { click: () => does.retry() } });
    this.#versions = new Switcher((index) => does.turn(this.#version.of, index));
    this.element = make("div", { class: "ended", data: { generation: generationId } }, this.#versions.element, this.#text, this.#again);
  }

  /**
   * @param {{outcome: string, message?: string, code?: string, version?: {of: string}}} generation with the version that its
   *   message would have been
   * @param {boolean} last nothing came behind it
   */
  update(generation, last) {
    this.#version = generation.version;
    this.#versions.update(last ? generation.version : undefined, false);
    const { outcome, code } = generation;
    const [word, why] = words(generation);
    this.element.dataset.outcome = outcome;
    tell(this.#text, `No answer: ${why || word}`);
    this.#text.title = code ?? outcome;
    this.#again.hidden = !last;
  }
}
