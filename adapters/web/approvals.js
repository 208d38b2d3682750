/* What an answer asks leave for: the call and its arguments, to be let through, changed or refused. */

import { exact, make, tell } from "./dom.js";

export class Approvals {
  #root;
  #answer;
  #cards = new Map();
  #counting;

  /** @param {(approvalId: string, approved: boolean, more: {reason?: string, arguments?: unknown}) => Promise<unknown>} answer */
  constructor(root, answer) {
    this.#root = root;
    this.#answer = answer;
  }

  /** Those that were not there before. */
  render({ approvals }) {
    const open = new Set(approvals.map((approval) => approval.approval_id));
    for (const [id, card] of this.#cards) {
      if (open.has(id)) continue;
      card.element.remove();
      this.#cards.delete(id);
    }
    const fresh = approvals.filter((approval) => !this.#cards.has(approval.approval_id));
    for (const approval of fresh) {
      const card = this.#card(approval);
      this.#cards.set(approval.approval_id, card);
      this.#root.append(card.element);
      clearInterval(this.#counting);
      this.#counting = setInterval(() => this.#count(), 1000);
    }
    this.#root.hidden = this.#cards.size === 0;
    if (fresh.length) this.#count();
    if (!this.#cards.size) clearInterval(this.#counting);
    return fresh;
  }

  #card({ approval_id: id, name: called, arguments: given, expires_at: until }) {
    const name = exact(called ?? "this");
    const told = exact(JSON.stringify(given ?? {}, null, 2));
    const field = make("textarea", { "aria-label": "Arguments", rows: String(Math.min(8, told.split("\n").length)), spellcheck: "false" });
    field.value = told;
    const reason = make("input", { type: "text", placeholder: "Reason (if you like)", "aria-label": "Reason" });
    const problem = make("span", { class: "problem", role: "alert" });
    const left = make("span", { class: "left" });
    const buttons = [
      make("button", { type: "button", class: "deny", text: "Deny", on: { click: () => say(false) } }),
      make("button", { type: "button", class: "approve primary", text: "Approve", on: { click: () => say(true) } }),
    ];
    const say = async (approved) => {
      const more = {};
      if (reason.value.trim()) more.reason = reason.value.trim();
      if (approved && field.value !== told) {
        try {
          more.arguments = JSON.parse(field.value);
        } catch {
          tell(problem, "The arguments are no JSON.");
          field.focus();
          return;
        }
      }
      for (const button of buttons) button.disabled = true;
      if (!(await this.#answer(id, approved, more))) for (const button of buttons) button.disabled = false;
    };
    const title = make("h3", {}, make("code", { text: name }), " needs your yes");
    const element = make(
      "article",
      { class: "approval", "aria-label": `${name} needs your yes`, data: { id } },
      make("header", {}, title, left),
      field,
      make("div", { class: "answer" }, reason, ...buttons),
      problem,
    );
    return { element, left, until: until === undefined ? null : Date.parse(until) };
  }

  #count() {
    for (const { left, until } of this.#cards.values()) {
      if (until === null) continue;
      const seconds = Math.max(0, Math.round((until - Date.now()) / 1000));
      tell(left, seconds < 120 ? `${seconds} s left` : `${Math.round(seconds / 60)} min left`);
    }
  }
}
