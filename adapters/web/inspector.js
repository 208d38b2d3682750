/* Every event with its stamp, as it came, and how long it took to come. */

import { exact, hue, make, short, tell } from "./dom.js";

const MOST_ROWS = 400; // the log itself is on the server
const PAUSE = 120; // milliseconds between two drawings: a table costs more than text does
const MOST_LAGS = 2000; // of the latest events, for the median

export class Inspector {
  #root;
  #log;
  #body;
  #counts;
  #cursor;
  #lag;
  #waiting = [];
  #lags = [];
  #raw = new WeakMap();
  #tally = { applied: 0, duplicate: 0, foreign: 0, gap: 0 };
  #place = null;
  #timer = null;
  #drawn = 0;

  constructor(root) {
    this.#root = root;
    this.#log = root.querySelector(".log");
    this.#body = root.querySelector("tbody");
    this.#counts = root.querySelector(".counts");
    this.#cursor = root.querySelector(".cursor");
    this.#lag = root.querySelector(".lag");
    this.#body.addEventListener("click", (click) => this.#choose(click.target.closest("tr"), true));
    this.#log.addEventListener("keydown", (event) => this.#keyboard(event));
    const deltas = root.querySelector(".deltas");
    deltas.addEventListener("change", () => this.#log.classList.toggle("no-deltas", !deltas.checked));
  }

  /** @param {boolean} live it came when it happened, not in a replay */
  event(event, verdict, live) {
    if (verdict in this.#tally) this.#tally[verdict] += 1;
    const lag = live ? Date.now() - Date.parse(event.time) : null;
    if (lag !== null) {
      this.#lags.push(lag);
      if (this.#lags.length > 2 * MOST_LAGS) this.#lags.splice(0, MOST_LAGS);
    }
    this.#add({ event, verdict, lag, family: event.type.split(".")[0] });
  }

  control(name, data) {
    this.#add({ event: { type: name, data }, verdict: "", lag: null, family: "control" });
  }

  clear() {
    this.#waiting = [];
    this.#lags = [];
    this.#body.replaceChildren();
    this.#tally = { applied: 0, duplicate: 0, foreign: 0, gap: 0 };
  }

  #add(entry) {
    this.#waiting.push(entry);
    if (this.#waiting.length > 2 * MOST_ROWS) this.#waiting.splice(0, MOST_ROWS);
  }

  /** Bring up to date, now or soon. */
  render(cursor) {
    this.#place = cursor;
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#drawn = performance.now();
      this.#render();
    }, Math.max(0, this.#drawn + PAUSE - performance.now()));
  }

  #render() {
    const { applied, duplicate, foreign, gap } = this.#tally;
    const odd = [[duplicate, "repeated"], [foreign, "foreign"], [gap, "gaps"]].filter(([count]) => count);
    tell(this.#counts, [[applied, "folded"], ...odd].map(([count, what]) => `${count} ${what}`).join(" · "));
    tell(this.#cursor, this.#place ?? "");
    if (!this.#waiting.length || !this.#root.open) return; // closed, it costs nothing
    tell(this.#lag, this.#told());
    const stuck = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < 40;
    this.#body.append(...this.#waiting.splice(0).slice(-MOST_ROWS).map((entry) => this.#row(entry)));
    while (this.#body.rows.length > MOST_ROWS) this.#body.firstChild.remove();
    if (stuck) this.#log.scrollTop = this.#log.scrollHeight;
  }

  #told() {
    const lags = this.#lags.slice(-MOST_LAGS).sort((a, b) => a - b);
    if (!lags.length) return "";
    const at = (part) => lags[Math.min(lags.length - 1, Math.floor(part * lags.length))];
    return `lag: median ${at(0.5)} ms · 95 % within ${at(0.95)} ms`;
  }

  #row({ event, verdict, lag, family }) {
    const generation = make("td");
    if (event.generation_id !== undefined) {
      const chip = make("span", { class: "chip", title: event.generation_id, text: short(event.generation_id) });
      chip.style.setProperty("--hue", hue(event.generation_id));
      generation.append(chip);
    }
    const cell = (text) => make("td", { text: text ?? "" });
    const row = make(
      "tr",
      { data: { family, type: event.type, ...(verdict && { verdict }) } },
      cell(event.offset),
      cell(event.type),
      generation,
      cell(event.turn),
      cell(event.job_id),
      make("td", { title: event.message_id, text: short(event.message_id) }),
      cell(event.block_index),
      cell(event.seq),
      cell(lag),
      cell(exact(JSON.stringify(event.data))),
    );
    this.#raw.set(row, event);
    return row;
  }

  #choose(row, open) {
    if (!row) return;
    this.#body.querySelector("[aria-selected=true]")?.removeAttribute("aria-selected");
    row.setAttribute("aria-selected", "true");
    row.scrollIntoView({ block: "nearest" });
    if (!open) return;
    const event = this.#raw.get(row);
    const whole = row.classList.toggle("whole");
    row.lastChild.textContent = exact(whole ? JSON.stringify(event, null, 2) : JSON.stringify(event.data));
  }

  #keyboard(event) {
    const chosen = this.#body.querySelector("[aria-selected=true]");
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (step) this.#choose(chosen ? chosen[step] : this.#body.lastElementChild, false);
    else if (event.key === "Enter") this.#choose(chosen, true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
