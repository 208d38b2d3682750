/* Every event with its stamp, as it came, and how long it took to come. Closed, it keeps nothing but a tally: what is on
 * the server is fetched when somebody looks. Of the rows only those are made that can be seen.
 */

import { exact, hue, make, short, tell } from "./dom.js";
import { choice } from "./kept.js";
import { parseCursor } from "./penstock.js";

const PAUSE = 120; // milliseconds between two drawings: a table costs more than text does
const MOST_LAGS = 2000; // of the latest events, for the median
const MOST_ROWS = 20_000; // the log itself is on the server
const PAGE = 500; // events that are fetched at once
const BEYOND = 12; // rows that are made above and below what can be seen

export class Inspector {
  #root;
  #log;
  #body;
  #counts;
  #cursor;
  #lag;
  #whole;
  #session = null;
  #entries = []; // {event, verdict, lag, family} in order
  #rows = []; // of those the ones that are not left out
  #made = new Map(); // elements, by their entries
  #above = make("tr", { class: "space", "aria-hidden": "true" });
  #below = make("tr", { class: "space", "aria-hidden": "true" });
  #height = 18; // pixels of a row, until one is seen
  #chosen = null;
  #first = 1; // the offset of the oldest event that is here; behind the last one where there is none
  #fetching = null;
  #lags = [];
  #tally = {};
  #timer = null;
  #drawn = 0;
  #pieces = true;

  constructor(root) {
    this.#root = root;
    this.#log = root.querySelector(".log");
    this.#body = root.querySelector("tbody");
    this.#counts = root.querySelector(".counts");
    this.#cursor = root.querySelector(".cursor");
    this.#lag = root.querySelector(".lag");
    this.#whole = root.querySelector(".whole");
    this.#body.append(this.#above, this.#below);
    this.#body.addEventListener("click", (click) => this.#choose(this.#entryOf(click.target.closest("tr")), true));
    this.#log.addEventListener("keydown", (event) => this.#keyboard(event));
    this.#log.addEventListener("scroll", () => this.#scrolled());
    const pieces = root.querySelector(".deltas");
    pieces.addEventListener("change", () => {
      this.#pieces = pieces.checked;
      this.#rows = this.#entries.filter((entry) => this.#isShown(entry));
      this.#lay();
    });
    root.open = choice("inspector") === "open";
    root.addEventListener("toggle", () => {
      choice("inspector", root.open ? "open" : "closed");
      this.#turn();
    });
  }

  /** Another session. */
  begin(session) {
    this.#session = session;
    this.#tally = { applied: 0, duplicate: 0, foreign: 0, gap: 0 };
    this.#turn();
  }

  /** It was opened or closed. */
  #turn() {
    this.#fetching?.abort();
    this.#fetching = null;
    this.#entries = [];
    this.#rows = [];
    this.#made.clear();
    this.#lags = [];
    this.#choose(null);
    const place = parseCursor(this.#session?.getSnapshot().cursor);
    this.#first = (place?.offset ?? 0) + 1; // what follows comes by itself
    this.#lay();
    this.#render();
    if (this.#root.open && place) this.#fetch(true);
  }

  /** @param {boolean} live it came when it happened, not in a replay */
  event(event, verdict, live) {
    if (verdict in this.#tally) this.#tally[verdict] += 1;
    if (!this.#root.open) return;
    const lag = live ? Date.now() - Date.parse(event.time) : null;
    if (lag !== null) {
      this.#lags.push(lag);
      if (this.#lags.length > 2 * MOST_LAGS) this.#lags.splice(0, MOST_LAGS);
    }
    this.#add({ event, verdict, lag, family: event.type.split(".")[0] });
  }

  control(name, data) {
    if (!this.#root.open) return;
    this.#add({ event: { type: name, data }, verdict: "", lag: null, family: "control" });
    if (name !== "snapshot" || this.#entries.some(({ event }) => event.offset !== undefined)) return;
    this.#first = (parseCursor(data.cursor)?.offset ?? 0) + 1;
    this.#fetch(true);
  }

  #isShown({ event }) {
    return this.#pieces || event.type !== "block.delta";
  }

  #add(entry) {
    this.#entries.push(entry);
    if (this.#isShown(entry)) this.#rows.push(entry);
    if (this.#entries.length <= 2 * MOST_ROWS) return;
    this.#entries.splice(0, MOST_ROWS);
    this.#rows = this.#entries.filter((each) => this.#isShown(each));
    this.#first = this.#entries.find(({ event }) => event.offset !== undefined)?.event.offset ?? this.#first;
  }

  /** Fetch what lies before the first row. */
  async #fetch(toEnd = false) {
    if (this.#fetching || this.#first <= 1) return;
    const fetching = new AbortController();
    this.#fetching = fetching;
    try {
      const events = await this.#session.history({ before: this.#first, limit: PAGE, signal: fetching.signal });
      if (fetching.signal.aborted) return;
      const before = events.map((event) => ({ event, verdict: "", lag: null, family: event.type.split(".")[0] }));
      const shown = before.filter((entry) => this.#isShown(entry));
      this.#first = events[0]?.offset ?? 1;
      this.#entries = [...before, ...this.#entries];
      this.#rows = [...shown, ...this.#rows];
      this.#lay();
      this.#log.scrollTop = toEnd ? this.#log.scrollHeight : this.#log.scrollTop + shown.length * this.#height;
    } catch (problem) {
      if (!fetching.signal.aborted) this.control("(history)", { missing: problem.message });
    } finally {
      if (this.#fetching === fetching) this.#fetching = null;
    }
  }

  /** Bring up to date, now or soon. */
  render() {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#drawn = performance.now();
      this.#render();
    }, Math.max(0, this.#drawn + PAUSE - performance.now()));
  }

  #render() {
    const { applied, duplicate, foreign, gap } = this.#tally;
    const odd = [[duplicate, "repeated"], [foreign, "foreign"], [gap, "gaps"]].filter(([count]) => count);
    const told = this.#root.open ? [[applied, "folded"], ...odd] : odd;
    tell(this.#counts, told.map(([count, what]) => `${count} ${what}`).join(" · "));
    if (!this.#root.open) return;
    tell(this.#cursor, this.#session?.getSnapshot().cursor ?? "");
    tell(this.#lag, this.#told());
    const stuck = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < 40;
    this.#lay();
    if (!stuck) return;
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#lay();
  }

  #scrolled() {
    this.#lay();
    if (this.#log.scrollTop < this.#height * BEYOND) this.#fetch();
  }

  /** Make the rows that can be seen, and leave room for the others. */
  #lay() {
    const { scrollTop, clientHeight } = this.#log;
    const from = Math.max(0, Math.min(Math.floor(scrollTop / this.#height), this.#rows.length) - BEYOND);
    const to = Math.min(this.#rows.length, from + Math.ceil(clientHeight / this.#height) + 2 * BEYOND);
    const seen = this.#root.open ? this.#rows.slice(from, to) : [];
    const made = new Map(seen.map((entry) => [entry, this.#made.get(entry) ?? this.#row(entry)]));
    const rows = [...made.values()];
    if (rows.length !== this.#made.size || rows.some((row, index) => this.#body.children[index + 1] !== row)) {
      this.#body.replaceChildren(this.#above, ...rows, this.#below);
    }
    this.#made = made;
    this.#above.style.height = `${from * this.#height}px`;
    this.#below.style.height = `${(this.#rows.length - from - seen.length) * this.#height}px`;
    this.#height = rows[0]?.offsetHeight || this.#height;
  }

  #told() {
    const lags = this.#lags.slice(-MOST_LAGS).sort((a, b) => a - b);
    if (!lags.length) return "";
    const at = (part) => lags[Math.min(lags.length - 1, Math.floor(part * lags.length))];
    return `lag: median ${at(0.5)} ms · 95 % within ${at(0.95)} ms`;
  }

  #row(entry) {
    const { event, verdict, lag, family } = entry;
    const generation = make("td");
    if (event.generation_id !== undefined) {
      const chip = make("span", { class: "chip", title: event.generation_id, text: short(event.generation_id) });
      chip.style.setProperty("--hue", hue(event.generation_id));
      generation.append(chip);
    }
    const cell = (text) => make("td", { text: text ?? "" });
    return make(
      "tr",
      { data: { family, type: event.type, ...(verdict && { verdict }) }, "aria-selected": entry === this.#chosen ? "true" : null },
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
  }

  // --- one of them

  #entryOf(row) {
    return [...this.#made].find(([, element]) => element === row)?.[0] ?? null;
  }

  /** Choose an entry; `open` shows all of it, or no more. */
  #choose(entry, open = false) {
    if (entry === null && this.#chosen === null) return;
    this.#made.get(this.#chosen)?.removeAttribute("aria-selected");
    const same = entry === this.#chosen;
    this.#chosen = entry;
    if (entry === null) this.#whole.hidden = true;
    else {
      if (open) this.#whole.hidden = same && !this.#whole.hidden;
      tell(this.#whole, exact(JSON.stringify(entry.event, null, 2)));
      const top = this.#rows.indexOf(entry) * this.#height;
      const { scrollTop, clientHeight } = this.#log;
      if (top < scrollTop) this.#log.scrollTop = top;
      else if (top + 3 * this.#height > scrollTop + clientHeight) this.#log.scrollTop = top + 3 * this.#height - clientHeight;
      this.#lay();
      this.#made.get(entry)?.setAttribute("aria-selected", "true");
    }
  }

  #keyboard(event) {
    const at = this.#rows.indexOf(this.#chosen);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) this.#choose(this.#rows[at < 0 ? this.#rows.length - 1 : at + step] ?? this.#chosen);
    else if (event.key === "Enter" && this.#chosen) this.#choose(this.#chosen, true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
