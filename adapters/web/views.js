/* What a panel shows of one session: its transcript, what waits, and every event as it came. */

const MOST_ROWS = 400; // rows the inspector keeps; the log itself is on the server
const ENDS = {
  superseded: "superseded",
  stopped: "stopped",
  failed: "failed",
  stalled: "stalled",
  expired: "out of time",
  lost: "lost: its process died",
  shutdown: "ended by a shutdown",
  deleted: "deleted",
  reset: "reset",
};

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** The last characters tell two ids of version 7 apart; the first ones are the time. */
export function short(id) {
  return id === undefined ? "" : id.slice(-6);
}

function hue(id) {
  let hash = 0;
  for (const character of id) hash = (hash * 31 + character.charCodeAt(0)) % 360;
  return hash;
}

/** The messages of one fold as elements; touches only what changed. `regenerate` is called with a message's id. */
export class Transcript {
  #root;
  #empty;
  #shown = new Map();
  #stuck = true; // to its end, until somebody scrolls back
  #again = make("button", "again quiet", "Regenerate");
  #replaces;

  constructor(root, regenerate) {
    this.#root = root;
    this.#empty = root.querySelector(".empty");
    root.addEventListener("scroll", () => {
      this.#stuck = root.scrollHeight - root.scrollTop - root.clientHeight < 60;
    });
    new ResizeObserver(() => this.#follow()).observe(root); // what waits takes room, too
    this.#again.type = "button";
    this.#again.title = "Take this answer back and ask for another one";
    this.#again.addEventListener("click", () => regenerate(this.#replaces));
  }

  #follow() {
    if (this.#stuck) this.#root.scrollTop = this.#root.scrollHeight;
  }

  render(fold) {
    for (const id of fold.changed) {
      const message = fold.message(id);
      if (message) this.#draw(message, fold);
      else this.#remove(id);
    }
    fold.changed.clear();
    this.#offer(fold);
    this.#empty.hidden = this.#shown.size > 0;
    this.#follow();
  }

  clear() {
    this.#again.remove();
    for (const id of [...this.#shown.keys()]) this.#remove(id);
    this.#empty.hidden = false;
  }

  /** The last answer can be asked for anew, once it has ended: all that its generation said is replaced. */
  #offer({ messages, generation }) {
    const last = messages.at(-1);
    if (generation !== null || !["assistant", "tool"].includes(last?.role)) {
      this.#again.remove();
      return;
    }
    const { generation_id: id } = last;
    const first = id === undefined ? last : messages.find((message) => message.generation_id === id);
    this.#replaces = first.message_id;
    const { foot } = this.#shown.get(last.message_id);
    if (this.#again.parentNode !== foot) foot.append(this.#again);
  }

  #remove(id) {
    this.#shown.get(id)?.element.remove();
    this.#shown.delete(id);
  }

  #draw(message, fold) {
    let shown = this.#shown.get(message.message_id);
    if (!shown) {
      const element = make("article", "message");
      element.dataset.id = message.message_id;
      element.dataset.role = message.role;
      shown = { element, body: make("div", "body"), foot: make("div", "foot"), end: make("span"), blocks: [] };
      shown.foot.append(shown.end);
      element.append(shown.body, shown.foot);
      this.#shown.set(message.message_id, shown);
      this.#root.append(element);
    }
    shown.element.dataset.status = message.status;
    message.blocks.forEach((block, index) => this.#drawBlock(shown, block, index));
    shown.end.textContent = foot(message, fold);
  }

  #drawBlock(shown, block, index) {
    let node = shown.blocks[index];
    if (!node) {
      const element = make("div", "block");
      element.dataset.kind = block.kind;
      const labels = { reasoning: "thinks", tool_call: `calls ${block.name}`, tool_result: "result", data: "data" };
      if (block.kind in labels) element.dataset.label = labels[block.kind];
      node = document.createTextNode("");
      element.append(node);
      shown.body.append(element);
      shown.blocks.push(node);
    }
    const text = blockText(block);
    if (text.length > node.length && text.startsWith(node.data)) node.appendData(text.slice(node.length));
    else if (text !== node.data) node.data = text;
  }
}

function blockText(block) {
  const content = block.text ?? block.arguments ?? block.value ?? "";
  return typeof content === "string" ? content : JSON.stringify(content, null, 2);
}

function foot(message, fold) {
  if (message.role === "user" || message.status === "complete") return "";
  if (message.status === "open") return fold.generation?.state === "cancelling" ? "stopping…" : "";
  const end = fold.ends.get(message.generation_id);
  if (!end) return message.status;
  const told = ENDS[end.outcome] ?? end.outcome;
  return end.outcome === "failed" && end.message ? `${told}: ${end.message}` : told;
}

/** The starts that wait, and whether they are held back. Calls `takeOut` with the id of one. */
export class WaitingList {
  #root;
  #list;
  #takeOut;
  #shown = "";

  constructor(root, takeOut) {
    this.#root = root;
    this.#list = root.querySelector("ol");
    this.#takeOut = takeOut;
  }

  render({ queue }) {
    const told = JSON.stringify(queue);
    if (told === this.#shown) return;
    this.#shown = told;
    this.#root.hidden = !queue.items.length;
    this.#root.dataset.paused = queue.paused;
    this.#root.querySelector(".next").hidden = !queue.paused;
    this.#list.replaceChildren(...queue.items.map((item) => this.#row(item)));
  }

  #row({ generation_id: id, text, policy }) {
    const row = make("li");
    const what = make("span", "what", text ?? "(no text)");
    what.title = `${policy}: ${id}`;
    const out = make("button", "out quiet", "\u00d7");
    out.type = "button";
    out.title = "Take this one out";
    out.setAttribute("aria-label", `Take out: ${text ?? id}`);
    out.addEventListener("click", () => this.#takeOut(id));
    row.append(what, out);
    return row;
  }
}

/** Every event with its stamp, as it came. */
export class Inspector {
  #root;
  #body;
  #counts;
  #cursor;
  #waiting = [];
  #tally = { applied: 0, duplicate: 0, foreign: 0, gap: 0 };

  constructor(root) {
    this.#root = root.querySelector(".log");
    this.#body = root.querySelector("tbody");
    this.#counts = root.querySelector(".counts");
    this.#cursor = root.querySelector(".cursor");
    this.#body.addEventListener("click", (click) => click.target.closest("tr")?.classList.toggle("whole"));
  }

  event(event, verdict) {
    if (verdict in this.#tally) this.#tally[verdict] += 1;
    this.#waiting.push({ event, verdict, family: event.type.split(".")[0] });
  }

  control(name, data) {
    this.#waiting.push({ event: { type: name, data }, verdict: "", family: "control" });
  }

  render(cursor) {
    const { applied, duplicate, foreign, gap } = this.#tally;
    const odd = [[duplicate, "repeated"], [foreign, "foreign"], [gap, "gaps"]].filter(([count]) => count);
    this.#counts.textContent = [[applied, "folded"], ...odd].map(([count, what]) => `${count} ${what}`).join(" · ");
    this.#cursor.textContent = cursor ?? "";
    if (!this.#waiting.length) return;
    const stuck = this.#root.scrollHeight - this.#root.scrollTop - this.#root.clientHeight < 40;
    this.#body.append(...this.#waiting.splice(0).slice(-MOST_ROWS).map(row));
    while (this.#body.rows.length > MOST_ROWS) this.#body.firstChild.remove();
    if (stuck) this.#root.scrollTop = this.#root.scrollHeight;
  }
}

function row({ event, verdict, family }) {
  const element = make("tr");
  element.dataset.family = family;
  if (verdict) element.dataset.verdict = verdict;
  const generation = make("td");
  if (event.generation_id !== undefined) {
    const chip = make("span", "chip", short(event.generation_id));
    chip.style.setProperty("--hue", hue(event.generation_id));
    chip.title = event.generation_id;
    generation.append(chip);
  }
  const message = make("td", "", short(event.message_id));
  if (event.message_id !== undefined) message.title = event.message_id;
  element.append(
    make("td", "", event.offset ?? ""),
    make("td", "", event.type),
    generation,
    make("td", "", event.turn ?? ""),
    make("td", "", event.job_id ?? ""),
    message,
    make("td", "", event.block_index ?? ""),
    make("td", "", event.seq ?? ""),
    make("td", "", JSON.stringify(event.data)),
  );
  return element;
}
