/* The playground page: two panels, each one session. What a panel shows is drawn by views.js. */

import { Session } from "./penstock.js";
import { Inspector, short, Transcript, WaitingList } from "./views.js";

const DROP_PAUSE = 1500; // long enough to see that the answer goes on without us
const CONNECTION = {
  connecting: "connecting",
  replaying: "catching up",
  live: "live",
  waiting: "cut off, resuming",
  ended: "ended",
  refused: "refused",
};
class Panel {
  #key; // "a" or "b": its name in the address
  #session = null;
  #transcript;
  #waiting;
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
    this.#transcript = new Transcript(this.$(".transcript"), (messageId) => this.#regenerate(messageId));
    this.#waiting = new WaitingList(this.$(".waiting"), (generationId) => this.#takeOut(generationId));
    this.#inspector = new Inspector(this.$(".inspector"));
    this.$(".composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.root.addEventListener("keydown", (event) => this.#keyboard(event));
    this.$(".stop").addEventListener("click", () => this.#stop());
    this.$(".next").addEventListener("click", () => this.#do("Not resumed", (session) => session.queueNext()));
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
      this.#waiting.render(fold);
      this.#inspector.render(cursor);
      this.$(".stop").disabled = fold.generation === null;
    });
  }

  async #send() {
    const input = this.$("textarea");
    const text = input.value;
    if (!text.trim() || this.#sending) return;
    this.#sending = true;
    input.value = "";
    const sent = await this.#do("Not sent", (session) => session.start({ text, ...this.#choices() }));
    if (!sent && !input.value) input.value = text; // what was written is not lost
    this.#sending = false;
  }

  /** What every start from this panel says of itself. */
  #choices() {
    this.#sent += 1;
    const pace = this.$(".pace select").value;
    return {
      job_id: `${this.#key}-${this.#sent}`,
      policy: this.$(".policy select").value,
      ...(pace && { input: JSON.parse(pace) }),
    };
  }

  #regenerate(messageId) {
    return this.#do("Not asked again", (session) =>
      session.start({ ...this.#choices(), replaces: messageId, policy: "reject" }),
    );
  }

  #takeOut(generationId) {
    return this.#do("Not taken out", (session) => session.dequeue(generationId));
  }

  async #stop() {
    const generation = this.#session.fold.generation;
    if (!generation) return;
    const stopped = await this.#do("Not stopped", (session) => session.stop({ generation_id: generation.generation_id }));
    if (stopped?.state === "stopping") {
      this.#notice("Stopped; the producer is still cleaning up and can write no more.");
    }
  }

  /** Carry out a command; a refusal is told. What the server answered, true where it answers with nothing. */
  async #do(otherwise, command) {
    try {
      const answer = await command(this.#session);
      this.#notice("");
      return answer ?? true;
    } catch (error) {
      this.#notice(`${otherwise}: ${error.message}`, "error");
      return false;
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
