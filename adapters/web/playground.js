/* The playground page: two panels, each one session, its transcript and its events. */

import { Session } from "./penstock.js";

const DROP_PAUSE = 1500; // long enough to see that the answer goes on without us
const MOST_ROWS = 400; // rows the inspector keeps; the log itself is on the server
const CONNECTION = {
  connecting: "connecting",
  replaying: "catching up",
  live: "live",
  waiting: "cut off, resuming",
  ended: "ended",
  refused: "refused",
};
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
function short(id) {
  return id === undefined ? "" : id.slice(-6);
}

function hue(id) {
  let hash = 0;
  for (const character of id) hash = (hash * 31 + character.charCodeAt(0)) % 360;
  return hash;
}

/** The messages of one fold as elements; touches only what changed. */
class Transcript {
  #root;
  #empty;
  #shown = new Map();

  constructor(root) {
    this.#root = root;
    this.#empty = root.querySelector(".empty");
  }

  render(fold) {
    const stuck = this.#root.scrollHeight - this.#root.scrollTop - this.#root.clientHeight < 60;
    for (const id of fold.changed) {
      const message = fold.message(id);
      if (message) this.#draw(message, fold);
      else this.#remove(id);
    }
    fold.changed.clear();
    this.#empty.hidden = this.#shown.size > 0;
    if (stuck) this.#root.scrollTop = this.#root.scrollHeight;
  }

  clear() {
    for (const id of [...this.#shown.keys()]) this.#remove(id);
    this.#empty.hidden = false;
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
      shown = { element, body: make("div", "body"), foot: make("div", "foot"), blocks: [] };
      element.append(shown.body, shown.foot);
      this.#shown.set(message.message_id, shown);
      this.#root.append(element);
    }
    shown.element.dataset.status = message.status;
    message.blocks.forEach((block, index) => this.#drawBlock(shown, block, index));
    shown.foot.textContent = foot(message, fold);
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

/** Every event with its stamp, as it came. */
class Inspector {
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

class Panel {
  #key; // "a" or "b": its name in the address
  #session = null;
  #transcript;
  #inspector;
  #sent = 0;
  #drawing = false;
  #sending = false;

  constructor(key, name) {
    this.#key = key;
    this.root = document.getElementById("panel").content.firstElementChild.cloneNode(true);
    this.root.dataset.panel = key;
    this.root.setAttribute("aria-label", name);
    this.$("h2").textContent = name;
    this.#transcript = new Transcript(this.$(".transcript"));
    this.#inspector = new Inspector(this.$(".inspector"));
    this.$(".composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.root.addEventListener("keydown", (event) => this.#keyboard(event));
    this.$(".stop").addEventListener("click", () => this.#stop());
    this.$(".drop").addEventListener("click", () => this.#session.drop(DROP_PAUSE));
    this.$(".fresh").addEventListener("click", () => this.open(newId(), false));
    this.$(".session-id").addEventListener("click", () => navigator.clipboard?.writeText(this.#session.sessionId));
  }

  $(selector) {
    return this.root.querySelector(selector);
  }

  /** Show another session. `known`: it was open before, so begin with a snapshot instead of the whole log. */
  async open(sessionId, known) {
    this.#session?.close();
    this.#transcript.clear();
    const session = new Session(sessionId, {
      snapshot: known,
      onChange: () => this.#draw(),
      onEvent: (event, _cursor, verdict) => this.#inspector.event(event, verdict),
      onControl: (name, data) => this.#control(name, data),
      onConnection: (state, detail) => this.#connection(session, state, detail),
    });
    this.#session = session;
    remember(this.#key, sessionId);
    const id = this.$(".session-id");
    id.textContent = short(sessionId);
    id.title = `${sessionId} (click to copy)`;
    this.#notice("");
    try {
      await session.create();
    } catch (error) {
      this.#connection(session, "refused", error);
      return;
    }
    if (this.#session === session) await session.follow();
  }

  #control(name, data) {
    this.#inspector.control(name, name === "snapshot" ? { cursor: data.cursor, messages: data.messages.length } : data);
    if (name === "drain") this.#notice("The server is shutting down; this page reconnects when it is back.");
    if (name === "degraded") this.#notice("The server cannot store anything right now.", "error");
    if (name === "caught-up") this.#notice("");
  }

  #connection(session, state, detail) {
    if (session !== this.#session) return; // the panel shows another session by now
    const pill = this.$(".pill");
    pill.dataset.state = state;
    pill.lastElementChild.textContent = CONNECTION[state];
    this.$(".drop").disabled = !["live", "replaying"].includes(state);
    if (state === "waiting" && detail.cursor) this.#inspector.control("(cut)", { resumes_after: detail.cursor });
    if (state === "refused") this.#notice(detail.message, "error");
    if (state === "ended") this.#notice(`This session has ended (${detail.reason}). “New” begins another one.`);
    this.#draw();
  }

  /** Draw once per frame, however many events came meanwhile. */
  #draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      const { fold, cursor } = this.#session;
      this.#transcript.render(fold);
      this.#inspector.render(cursor);
      this.$(".stop").disabled = fold.generation === null;
    });
  }

  async #send() {
    const input = this.$("textarea");
    const text = input.value;
    if (!text.trim() || this.#sending) return;
    this.#sending = true;
    this.#sent += 1;
    const body = { text, job_id: `${this.#key}-${this.#sent}` };
    const pace = this.$("select").value;
    if (pace) body.input = JSON.parse(pace);
    input.value = "";
    try {
      await this.#session.start(body);
      this.#notice("");
    } catch (error) {
      if (!input.value) input.value = text; // what was written is not lost
      this.#notice(`Not sent: ${error.message}`, "error");
    } finally {
      this.#sending = false;
    }
  }

  async #stop() {
    const generation = this.#session.fold.generation;
    if (!generation) return;
    try {
      const { state } = await this.#session.stop({ generation_id: generation.generation_id });
      if (state === "stopping") this.#notice("Stopped; the producer is still cleaning up and can write no more.");
    } catch (error) {
      this.#notice(`Not stopped: ${error.message}`, "error");
    }
  }

  #keyboard(event) {
    if (event.key === "Escape") {
      this.#stop();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target.matches("textarea")) {
      event.preventDefault();
      this.#send();
    }
  }

  #notice(text, kind = "note") {
    const notice = this.$(".notice");
    notice.textContent = text;
    notice.dataset.kind = kind;
    notice.hidden = !text;
  }
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return `play-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** The sessions' ids stand in the address, so that a reload, or another tab, shows the same ones. */
function remembered() {
  return new URLSearchParams(location.hash.slice(1));
}

function remember(key, sessionId) {
  const ids = remembered();
  ids.set(key, sessionId);
  history.replaceState(null, "", `#${ids}`);
}

for (const [key, name] of [["a", "Conversation A"], ["b", "Conversation B"]]) {
  const panel = new Panel(key, name);
  document.getElementById("panels").append(panel.root);
  const known = remembered().get(key);
  panel.open(known ?? newId(), known !== null);
}
document.querySelector("textarea").focus();
