/* A pane: one conversation, with all that can be seen of it and done in it.
 *
 *   head         what it is called, how it hangs on its server (lifeline.js), who is there (company.js), the menu
 *   messages     and the answers that ended without one (transcript.js)
 *   asked        approvals.js; what waits, what was sent into the answer (waiting.js); the notice
 *   composer     composer.js; what becomes of what is sent is sending.js's
 *   inspector    each event, closed unless somebody looks (inspector.js)
 */

import { attachedTo } from "./attachments.js";
import { announce } from "./announcer.js";
import { Approvals } from "./approvals.js";
import { Company } from "./company.js";
import { Composer } from "./composer.js";
import { copy, exact, tell } from "./dom.js";
import { ended, WORDLESS } from "./endings.js";
import { Inspector } from "./inspector.js";
import { choice } from "./kept.js";
import { Lifeline, Notice } from "./lifeline.js";
import { isCutOff, said } from "./message.js";
import { Sending } from "./sending.js";
import { titleOf } from "./titles.js";
import { editIn, Transcript } from "./transcript.js";
import { Steering, WaitingList } from "./waiting.js";

const DROP_PAUSE = 1500; // long enough to see that the answer goes on without us
const TRIES = 2; // connections on a WebSocket before the event stream is taken: something on the way knows no WebSocket
const PAGE = 60; // messages: a few screenfuls

export class Pane {
  #app;
  #session = null;
  #over = choice("over") ?? "websocket"; // a browser has six connections to a server for event streams of all tabs
  #reached = false; // a connection stood, on this way
  #parts;
  #composer;
  #sending;
  #drawing = false;
  #live = null;
  #rests = false;
  #closed = new AbortController();

  /** @param {string} key a letter: its name in the address */
  constructor(key, app) {
    this.#app = app;
    this.key = key;
    this.root = document.getElementById("panel").content.firstElementChild.cloneNode(true);
    this.root.dataset.panel = key;
    const notice = new Notice(this.$(".notice"));
    const does = {
      regenerate: (messageId) => this.#sending.start("Not asked again", { replaces: messageId, policy: "reject" }),
      retry: () => this.#retry(),
      goOn: (messageId) => this.#sending.start("Not gone on", { continues: messageId, policy: "reject" }),
      edit: (message) => this.#edit(message),
      fork: (message) => this.#fork(message),
      turn: (messageId, index) => this.#turnVersion(messageId, index),
      older: () => this.#older(),
      read: (fileId) => this.#session.readFile(fileId),
    };
    this.#parts = {
      notice,
      transcript: new Transcript(this.root, does),
      waiting: new WaitingList(this.$(".waiting"), (id) => this.#do("Not taken out", (session) => session.dequeue(id))),
      steering: new Steering(this.$(".steering")),
      approvals: new Approvals(this.$(".approvals"), (id, yes, more) => this.#answer(id, yes, more)),
      inspector: new Inspector(this.$(".inspector")),
      company: new Company(this.$(".present"), app.identity, key, this.#closed.signal),
      lifeline: new Lifeline(this.$(".pill"), notice),
    };
    this.#composer = new Composer(this.root, {
      to: () => this.#sending.to,
      send: (text, choices, to, attached) => this.#send(text, choices, to, attached),
      stop: () => this.#sending.stop(),
      typing: (text) => this.#parts.company.typing(text),
      editLast: () => this.#editLast(),
    }, this.#closed.signal);
    this.#sending = new Sending(key, notice, this.#composer, () => this.#begun());
    this.#listen();
  }

  $(selector) {
    return this.root.querySelector(selector);
  }

  #listen() {
    const press = (selector, listener) => this.$(selector).addEventListener("click", listener);
    press(".next", () => this.#do("Not resumed", (session) => session.queueNext()));
    press(".drop", () => this.#session.drop(DROP_PAUSE));
    press(".fresh", () => this.begin());
    press(".rename", () => this.#app.rename(this.#listed));
    press(".reset", () => this.#app.reset(this.#listed));
    press(".delete", () => this.#app.remove(this.#listed));
    press(".copy-id", (event) => copy(this.sessionId, event.currentTarget));
    press(".over", () => this.#turnOver(this.#over === "sse" ? "websocket" : "sse"));
    press(".close-pane", () => this.#app.close(this));
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented && !event.isComposing) this.#sending.stop();
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

  get #missing() {
    return this.#sending.to.missing;
  }

  /** It is not on the server, as far as is known, and nothing is on its way that makes it. */
  get missing() {
    return this.#missing && !this.#composer.sending;
  }

  /** As the list would tell of it. */
  get #listed() {
    return { session_id: this.sessionId, metadata: this.#session.getSnapshot().metadata, title: this.title };
  }

  get title() {
    if (!this.#session) return "";
    return this.#missing ? "New conversation" : titleOf(this.#session.getSnapshot());
  }

  focus() {
    this.root.scrollIntoView({ inline: "nearest", block: "nearest" }); // four of them may be wider than the window
    this.#composer.focus();
  }

  /** Those who may answer. */
  offer(producers) {
    this.#composer.offer(producers);
  }

  /** A new conversation. */
  begin() {
    if (!this.#missing || !this.#composer.empty) this.open(this.#app.identity.newSessionId(), { missing: true });
    this.focus();
  }

  /**
   * Show another session. `missing`: nobody has made it; one that the server does not know is so, too.
   *
   * @param {{missing?: boolean, told?: boolean}} [how] `told`: by the address, which has it already
   */
  async open(sessionId, { missing = false, told = false } = {}) {
    this.#leave();
    this.#parts.transcript.clear();
    this.#parts.lifeline.begin();
    this.#parts.notice.clear();
    this.#live = null;
    const session = this.#app.client.session(sessionId, {
      over: this.#over,
      limit: PAGE,
      onEvent: (event, _cursor, verdict) => this.#event(event, verdict, session),
      onControl: (name, data) => this.#control(name, data),
      onConnection: (connection) => this.#connection(session, connection),
    });
    session.subscribe(() => this.draw());
    this.#session = session;
    this.#reached = false;
    this.#rests = false;
    this.#parts.inspector.begin(session);
    this.#composer.turnTo(sessionId);
    this.#turn(missing);
    tell(this.$(".over"), `Over ${this.#over === "sse" ? "WebSocket" : "event stream"} instead`);
    this.#app.opened(told);
    this.draw();
    if (!missing) await session.follow();
  }

  #turn(missing) {
    this.root.dataset.missing = missing;
    this.#sending.begin(this.#session, missing);
  }

  /** The session was made by what was sent. */
  #begun() {
    this.root.dataset.missing = false;
    this.#session.follow();
  }

  #leave() {
    this.#parts.company.leave();
    this.#session?.close();
  }

  /** The pane is taken off the page. */
  close() {
    this.#leave();
    this.#composer.turnTo("");
    this.#session = null;
    this.#closed.abort();
    this.#parts.approvals.render({ approvals: [] }); // nothing counts seconds any more
    this.#parts.lifeline.turn({ state: "idle" }, null, {});
    this.root.remove();
  }

  /** The network went away, or so the browser says: see whether the line still holds. */
  probe() {
    this.#session?.drop(0);
  }

  /**
   * Nobody looks at the page. An event stream is left, for of those a browser keeps six to a server for all its tabs; an
   * answer that runs is heard to its end first.
   */
  rest() {
    const { connection, generation } = this.#session.getSnapshot();
    if (this.#over !== "sse" || generation || ["idle", "refused", "ended"].includes(connection.state)) return;
    this.#rests = true;
    this.#session.close();
  }

  /** Somebody looks again: it goes on where it was left. */
  wake() {
    if (this.#rests && !this.#missing) this.#session.follow();
    this.#rests = false;
  }

  /** Open the same session again, from its state. */
  reopen() {
    return this.open(this.sessionId, { told: true });
  }

  /** It was never there: become one that the token is good for, with what is written here. */
  admit() {
    const written = this.#composer.take();
    this.open(this.#app.identity.newSessionId(), { missing: true, told: true });
    this.#composer.giveBack(...written);
  }

  /** The server asks who we are, before anything was opened. */
  refuse(problem) {
    if (this.#missing) this.#parts.lifeline.refuse(problem, this.#ways);
  }

  get #ways() {
    return { again: () => this.reopen(), anew: () => this.begin(), token: () => this.#app.askToken() };
  }

  #turnOver(over) {
    this.#over = over;
    choice("over", over);
    return this.#missing ? undefined : this.reopen();
  }

  #event(event, verdict, session) {
    this.#parts.inspector.event(event, verdict, session.getSnapshot().connection.state === "live");
    if (event.offset !== undefined) this.#parts.notice.clear("degraded"); // it stores again
    const text = this.#sending.returned(event);
    if (text === undefined) return;
    this.#parts.notice.say(`The answer ended without using: ${text}`);
    this.#composer.giveBack(text);
  }

  #control(name, data) {
    const told = name === "snapshot" ? { cursor: data.cursor, messages: data.messages.length } : data;
    this.#parts.inspector.control(name, told);
    if (name === "drain" && data.reason !== "went-back") this.#parts.notice.say("The server is shutting down; this page reconnects when it is back.", { kind: "line" });
    if (name === "degraded") this.#parts.notice.say("The server cannot store anything right now.", { kind: "degraded" });
  }

  #connection(session, connection) {
    if (session !== this.#session) return; // the pane shows another session by now
    const { state, attempts, problem } = connection;
    const { cursor } = session.getSnapshot();
    this.$(".drop").disabled = !["live", "replaying"].includes(state);
    if (problem?.code === "SESSION_NOT_FOUND" && state === "refused" && cursor === null) {
      this.#turn(true);
      this.draw();
      return;
    }
    this.#parts.lifeline.turn(connection, cursor, this.#ways);
    if (state === "waiting" && cursor) this.#parts.inspector.control("(cut)", { resumes_after: cursor });
    if (state === "live") {
      this.#reached = true;
      this.#parts.company.arrive(session);
    }
    if (state === "ended" || state === "refused") this.#parts.company.forget();
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
    inspector.render();
    company.render(state);
    this.#composer.render(state);
    const name = this.title;
    tell(this.$("h2"), name);
    this.$("h2").title = name;
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
    const end = ends[before] ?? {};
    const answer = messages.findLast((message) => message.generation_id === before && message.role === "assistant");
    const words = answer && said(answer).trim();
    if (end.outcome === "completed" && this.#app.current === this) announce(words ? `Answer: ${words}` : `No answer: ${WORDLESS}`);
    else if (end.outcome) announce(`${this.title}: the answer ended; ${ended(end)}`);
  }

  // --- what is done

  #send(text, choices, to, attached) {
    if (to === this.#sending.to) this.#parts.transcript.toEnd();
    return this.#sending.say(text, choices, to, attached);
  }

  /** Ask again for an answer that ended before its first word; of one that was asked for anew, the new one takes the number. */
  #retry() {
    const last = this.#session.getSnapshot().messages.at(-1);
    const body = isCutOff(last ?? {}) ? { continues: last.message_id } : {};
    return this.#sending.start("Not asked again", { ...body, policy: "reject" });
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

  /** Another version of a message takes its place, with all that followed it. */
  #turnVersion(messageId, index) {
    return this.#do("Not brought back", async (session) => {
      const { versions } = await session.versions(messageId, { after: index - 1, limit: 1 });
      return session.restore(versions[0].message_id);
    });
  }

  regenerate() {
    this.#parts.transcript.again();
  }

  async #edit(message) {
    const element = this.$(`.message[data-id="${CSS.escape(message.message_id)}"]`);
    if (element.classList.contains("edited")) return;
    const text = await editIn(element, said(message));
    const attached = attachedTo(message);
    this.focus();
    if (text === null) return;
    const { sessionId } = this;
    const sent = await this.#sending.start("Not sent", { text, attached, replaces: message.message_id, policy: "supersede" });
    if (!sent) this.#composer.giveBack(text, attached, sessionId);
  }

  #editLast() {
    const last = this.#session.getSnapshot().messages.findLast((message) => message.role === "user");
    if (last) this.#edit(last);
  }

  async #fork(message) {
    const { metadata } = this.#session.getSnapshot();
    const body = {
      at: message.last_message_id ?? message.message_id,
      session_id: this.#app.identity.newSessionId(),
      metadata: { ...metadata, title: `${this.title} (fork)` },
    };
    const fork = await this.#do("Not forked", (session) => session.fork(body));
    if (fork) this.#app.openBeside(this, fork.session_id);
  }

  #answer(id, yes, more) {
    return this.#do("Not answered", (session) => (yes ? session.approve(id, more) : session.refuse(id, more)));
  }

  #do(otherwise, command) {
    return this.#sending.carryOut(otherwise, command);
  }
}
