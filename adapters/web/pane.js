/* A pane: one conversation, with all that can be seen of it and done in it. */

import { attachedTo, brought } from "./attachments.js";
import { announce } from "./announcer.js";
import { Approvals } from "./approvals.js";
import { Company } from "./company.js";
import { Composer } from "./composer.js";
import { title } from "./conversations.js";
import { copy, exact, tell } from "./dom.js";
import { Inspector } from "./inspector.js";
import { choice } from "./kept.js";
import { Lifeline, Notice } from "./lifeline.js";
import { said } from "./message.js";
import { newId } from "./penstock.js";
import { editIn, Transcript } from "./transcript.js";
import { Steering, WaitingList } from "./waiting.js";

const DROP_PAUSE = 1500; // long enough to see that the answer goes on without us
const TITLE = 60; // characters of the first message that a conversation is called by
const TRIES = 2; // connections on a WebSocket before the event stream is taken: something on the way knows no WebSocket
const PAGE = 60; // messages: a few screenfuls
const LATE = 8000; // longer than an attempt may take
const WIDE = matchMedia("(min-width: 861px)");

export class Pane {
  #app;
  #session = null;
  #over = choice("over") ?? "websocket"; // a browser has six connections to a server for event streams of all tabs
  #known = false; // it was there before
  #reached = false; // a connection stood, on this way
  #parts;
  #composer;
  #sent = 0;
  #steered = new Map(); // texts, by input id
  #drawing = false;
  #live = null;

  /** @param {string} key a letter: its name in the address */
  constructor(key, app) {
    this.#app = app;
    this.key = key;
    this.root = document.getElementById("panel").content.firstElementChild.cloneNode(true);
    this.root.dataset.panel = key;
    const does = {
      regenerate: (messageId) => this.#start("Not asked again", { replaces: messageId, policy: "reject" }),
      edit: (message) => this.#edit(message),
      fork: (message) => this.#fork(message),
      older: () => this.#older(),
      read: (fileId) => this.#session.readFile(fileId),
    };
    const notice = new Notice(this.$(".notice"));
    this.#parts = {
      notice,
      transcript: new Transcript(this.root, does),
      waiting: new WaitingList(this.$(".waiting"), (id) => this.#do("Not taken out", (session) => session.dequeue(id))),
      steering: new Steering(this.$(".steering")),
      approvals: new Approvals(this.$(".approvals"), (id, yes, more) => this.#answer(id, yes, more)),
      inspector: new Inspector(this.$(".inspector")),
      company: new Company(this.$(".present"), app.identity, key),
      lifeline: new Lifeline(this.$(".pill"), notice),
    };
    this.#composer = new Composer(this.$(".composer"), {
      send: (text, choices, attached) => this.#send(text, choices, attached),
      stop: () => this.#stop(),
      typing: (text) => this.#parts.company.typing(text),
      editLast: () => this.#editLast(),
    });
    this.#listen();
  }

  $(selector) {
    return this.root.querySelector(selector);
  }

  #listen() {
    const press = (selector, listener) => this.$(selector).addEventListener("click", listener);
    press(".next", () => this.#do("Not resumed", (session) => session.queueNext()));
    press(".drop", () => this.#session.drop(DROP_PAUSE));
    press(".fresh", () => this.open(this.#app.identity.newSessionId(), false));
    press(".rename", () => this.#app.rename(this.sessionId, this.#session.getSnapshot().metadata));
    press(".reset", () => this.#app.reset(this.sessionId, this.#session.getSnapshot().metadata));
    press(".delete", () => this.#app.remove(this.sessionId, this.#session.getSnapshot().metadata));
    press(".copy-id", (event) => copy(this.sessionId, event.currentTarget));
    press(".over", () => this.#turnOver(this.#over === "sse" ? "websocket" : "sse"));
    press(".close-pane", () => this.#app.close(this));
    const inspector = this.$(".inspector");
    inspector.open = (choice("inspector") ?? "open") === "open" && WIDE.matches;
    inspector.addEventListener("toggle", () => {
      if (WIDE.matches) choice("inspector", inspector.open ? "open" : "closed");
      this.draw();
    });
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented && !event.isComposing) this.#stop();
    });
    const menu = this.$(".menu");
    menu.addEventListener("click", (event) => event.target.closest("button") && (menu.open = false));
    menu.addEventListener("focusout", (event) => menu.contains(event.relatedTarget) || (menu.open = false));
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !menu.open) return;
      event.preventDefault();
      menu.open = false;
      menu.firstElementChild.focus();
    });
  }

  // --- the session

  get sessionId() {
    return this.#session?.sessionId;
  }

  get title() {
    return this.#session ? title(this.sessionId, this.#session.getSnapshot().metadata) : "";
  }

  focus() {
    this.#composer.focus();
  }

  /** Show another session. `known`: it was open before, so begin with a snapshot instead of the whole log. */
  async open(sessionId, known) {
    this.#leave();
    this.#parts.transcript.clear();
    this.#parts.inspector.clear();
    this.#parts.lifeline.begin();
    this.#parts.notice.clear();
    this.#live = null;
    this.#steered.clear();
    const session = this.#app.client.session(sessionId, {
      over: this.#over,
      snapshot: known,
      limit: PAGE,
      onEvent: (event, _cursor, verdict) => this.#event(event, verdict, session),
      onControl: (name, data) => this.#control(name, data),
      onConnection: (connection) => this.#connection(session, connection),
    });
    session.subscribe(() => this.draw());
    this.#session = session;
    this.#known = known;
    this.#reached = false;
    tell(this.$(".over"), `Over ${this.#over === "sse" ? "WebSocket" : "event stream"} instead`);
    this.#app.opened();
    try {
      await session.create();
    } catch (problem) {
      const mayRead = problem.code === "FORBIDDEN"; // perhaps it is there, and may be looked at
      if (!mayRead) return this.#connection(session, { state: "refused", problem, attempts: 0 });
    }
    if (this.#session === session) await session.follow();
  }

  #leave() {
    this.#parts.company.leave();
    this.#session?.close();
  }

  /** The pane is taken off the page. */
  close() {
    this.#leave();
    this.#session = null;
    this.root.remove();
  }

  /** The network went away, or so the browser says: see whether the line still holds. */
  probe() {
    this.#session?.drop(0);
  }

  /** Open the same session again, from its state. */
  reopen() {
    return this.open(this.sessionId, true);
  }

  /** There is another token: open again what it may see. What was never open becomes one that it is good for. */
  admit() {
    const { cursor } = this.#session.getSnapshot();
    return cursor === null && !this.#known ? this.open(this.#app.identity.newSessionId(), false) : this.reopen();
  }

  #turnOver(over) {
    this.#over = over;
    choice("over", over);
    return this.reopen();
  }

  #event(event, verdict, session) {
    this.#parts.inspector.event(event, verdict, session.getSnapshot().connection.state === "live");
    if (event.offset !== undefined) this.#parts.notice.clear("degraded"); // it stores again
    if (event.type === "input.returned" && this.#steered.has(event.data.input_id)) {
      const text = this.#steered.get(event.data.input_id);
      this.#parts.notice.say(`The answer ended without using: ${text}`);
      this.#composer.giveBack(text);
    }
    if (event.type.startsWith("input.") && event.type !== "input.accepted") this.#steered.delete(event.data.input_id);
  }

  #control(name, data) {
    const told = name === "snapshot" ? { cursor: data.cursor, messages: data.messages.length } : data;
    this.#parts.inspector.control(name, told);
    if (name === "drain") this.#parts.notice.say("The server is shutting down; this page reconnects when it is back.", { kind: "line" });
    if (name === "degraded") this.#parts.notice.say("The server cannot store anything right now.", { kind: "degraded" });
  }

  #connection(session, connection) {
    if (session !== this.#session) return; // the pane shows another session by now
    const { state, attempts } = connection;
    const { cursor } = session.getSnapshot();
    this.$(".drop").disabled = !["live", "replaying"].includes(state);
    this.#parts.lifeline.turn(connection, cursor, {
      again: () => this.reopen(),
      anew: () => this.$(".fresh").click(),
      token: () => this.#app.askToken(),
    });
    if (state === "waiting" && cursor) this.#parts.inspector.control("(cut)", { resumes_after: cursor });
    if (state === "live") {
      this.#reached = true;
      this.#parts.company.arrive(session);
    }
    if (state === "ended" || state === "refused") this.#parts.company.forget();
    if (state === "ended") this.#app.gone(session.sessionId);
    if (state === "waiting" && !this.#reached && attempts >= TRIES && this.#over === "websocket" && navigator.onLine) {
      this.#over = "sse"; // not kept: the next page tries the better way first
      this.reopen();
      return;
    }
    this.draw();
  }

  // --- what is shown

  /** Draw once per frame, however many events came meanwhile. */
  draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      if (this.#session) this.#drawNow(this.#session.getSnapshot());
    });
  }

  #drawNow(state) {
    const { transcript, waiting, steering, approvals, inspector, company } = this.#parts;
    transcript.render(state);
    waiting.render(state);
    steering.render(state);
    for (const { name } of approvals.render(state)) announce(`${exact(name ?? "A step")} needs your yes.`);
    inspector.render(state.cursor);
    company.render(state);
    this.#composer.render(state);
    const name = title(this.sessionId, state.metadata);
    tell(this.$("h2"), name);
    this.$("h2").title = this.sessionId;
    this.root.setAttribute("aria-label", `Pane ${this.key.toUpperCase()}: ${name}`);
    this.root.dataset.busy = state.generation !== null;
    if (!state.more) this.#parts.notice.clear("older");
    this.#tellEnd(state);
    this.#app.drawn(this, state);
  }

  #tellEnd({ generation, messages, ends }) {
    const before = this.#live;
    this.#live = generation?.generation_id ?? null;
    if (before === null || before === this.#live) return;
    const { outcome } = ends[before] ?? {};
    const answer = messages.findLast((message) => message.generation_id === before && message.role === "assistant");
    if (outcome === "completed" && this.#app.current === this) announce(`Answer: ${answer ? said(answer) : "none"}`);
    else if (outcome) announce(`${this.title}: the answer is ${outcome}.`);
  }

  // --- what is done

  async #send(text, choices, attached) {
    const { generation, messages, metadata } = this.#session.getSnapshot();
    this.#parts.transcript.toEnd();
    if (choices.policy === "steer" && generation && !attached.length) return this.#steer(generation.generation_id, text);
    const { policy, ...rest } = choices;
    const later = generation ? "queue" : undefined; // what is attached does not go into an answer that runs
    const session = this.#session;
    const sent = await this.#start("Not sent", { text, attached, ...rest, policy: policy === "steer" ? later : policy });
    if (sent && !metadata.title && !messages.length && !session.getSnapshot().metadata.title) {
      const name = text.trim().split("\n")[0].replace(/^[#>*\s-]+/, "").slice(0, TITLE) || "Untitled";
      session.update({ title: name }).then(() => this.#app.refresh(), () => {}); // it stays untitled
    }
    return Boolean(sent);
  }

  async #steer(generationId, text) {
    const id = newId();
    this.#steered.set(id, text);
    const sent = await this.#settle("Not sent", (session) => session.input(generationId, { kind: "steer", text, input_id: id }));
    if (!sent) this.#steered.delete(id);
    return Boolean(sent);
  }

  #start(otherwise, body) {
    this.#sent += 1;
    const id = newId(); // and the key: however often it is sent, it is one start
    const job = `${this.key}-${this.#sent}`;
    const { input } = this.#composer.choices;
    const made = { generation_id: id, job_id: job, ...(input && { input }), ...body };
    if (made.policy === undefined) delete made.policy;
    const command = async (session) => session.start(await brought(session, made));
    return this.#settle(otherwise, command, (session) => session.stop({ generation_id: id }));
  }

  /**
   * As `#do`, what may be repeated: until it is known what became of it, for nothing is told as not sent that may have been.
   * Stopped meanwhile, `stop` finds out whether it had gone.
   */
  async #settle(otherwise, command, stop) {
    const session = this.#session;
    const { notice } = this.#parts;
    const told = "No answer yet. It is asked for again until there is one, and nothing is sent twice.";
    const late = setTimeout(() => notice.say(told, { kind: "unanswered" }), LATE);
    try {
      for (let next = command; ; ) {
        try {
          const answer = await next(session);
          notice.clear("error");
          if (answer.state !== "pending") return answer;
          notice.say("Stopped before it was sent.");
          return false;
        } catch (problem) {
          if (problem.name === "AbortError" && next === command && stop) next = stop;
          else if (!problem.uncertain || !problem.retryable) return this.#failed(otherwise, problem);
        }
      }
    } finally {
      clearTimeout(late);
      notice.clear("unanswered");
    }
  }

  async #older() {
    const { notice } = this.#parts;
    try {
      await this.#session.older({ limit: PAGE });
      notice.clear("older");
    } catch (problem) {
      const again = { label: "Try again", press: () => this.#older() };
      notice.say(`Older messages are missing: ${problem.message}`, { kind: "older", ...again });
    }
  }

  regenerate() {
    this.#parts.transcript.again();
  }

  async #edit(message) {
    const element = this.$(`.message[data-id="${CSS.escape(message.message_id)}"]`);
    if (element.classList.contains("edited")) return;
    const text = await editIn(element, said(message));
    if (text === null) return this.focus();
    const attached = attachedTo(message);
    await this.#start("Not sent", { text, attached, replaces: message.message_id, policy: "supersede" });
    this.focus();
  }

  #editLast() {
    const last = this.#session.getSnapshot().messages.findLast((message) => message.role === "user");
    if (last) this.#edit(last);
  }

  async #fork(message) {
    const { metadata } = this.#session.getSnapshot();
    const body = {
      at: message.message_id,
      session_id: this.#app.identity.newSessionId(),
      metadata: { ...metadata, title: `${this.title} (fork)` },
    };
    const fork = await this.#do("Not forked", (session) => session.fork(body));
    if (fork) this.#app.openBeside(this, fork.session_id);
  }

  #answer(id, yes, more) {
    return this.#do("Not answered", (session) => (yes ? session.approve(id, more) : session.refuse(id, more)));
  }

  async #stop() {
    if (!this.#session) return;
    const { generation } = this.#session.getSnapshot();
    if (!generation && !this.#composer.sending) return;
    this.#composer.hold();
    // without a name it also reaches a start of ours that is not answered yet
    const named = this.#composer.sending ? {} : { generation_id: generation.generation_id };
    const stopped = await this.#do("Not stopped", (session) => session.stop(named));
    if (stopped?.state === "stopping") {
      this.#parts.notice.say("Stopped; the producer is still cleaning up and can write no more.");
    }
  }

  /** Carry out a command; a refusal is told. What the server answered, true where it answers with nothing. */
  async #do(otherwise, command) {
    try {
      const answer = await command(this.#session);
      this.#parts.notice.clear("error");
      return answer ?? true;
    } catch (problem) {
      return this.#failed(otherwise, problem);
    }
  }

  #failed(otherwise, problem) {
    const told = problem.uncertain ? `${otherwise}, perhaps` : otherwise;
    this.#parts.notice.say(`${told}: ${problem.message}`, { kind: "error" });
    return false;
  }
}
