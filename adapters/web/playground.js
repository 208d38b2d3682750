/* The page: the list of conversations, the panes that show some of them, and what concerns all. One pane to begin with; up
 * to four stand side by side. The address names what is shown, so that a reload, Back, Forward and another tab show it, too.
 */

import { Conversations } from "./conversations.js";
import { ask } from "./dialogs.js";
import { make } from "./dom.js";
import { Identity } from "./identity.js";
import { choice } from "./kept.js";
import { Pane } from "./pane.js";
import { Client } from "./penstock.js";
import { title } from "./titles.js";

const LETTERS = "abcd";
const UNSEEN = 3000; // milliseconds until what nobody looks at lets go of its event streams
const THEMES = { system: "as the system", light: "light", dark: "dark" };

/** What an address shows, by the panes' letters. */
function shownBy(hash) {
  const told = new URLSearchParams(hash.slice(1));
  return new Map([...LETTERS].filter((key) => told.get(key)).map((key) => [key, told.get(key)]));
}

class App {
  identity = new Identity(() => this.#admit());
  client = new Client({ token: this.identity.token });
  #panes = [];
  #stage = document.querySelector(".stage");
  #tabs = document.querySelector(".tabs");
  #list;
  #listing;
  #leaving = new AbortController(); // the list
  #resting;
  #producers = { producers: [] };

  constructor() {
    this.current = null;
    this.#list = new Conversations(document.getElementById("conversations"), {
      open: (id) => {
        if (id !== this.current.sessionId) this.current.open(id);
        this.showList(false);
        this.current.focus();
      },
      rename: (listed) => this.rename(listed),
      remove: (listed) => this.remove(listed),
    });
    const told = shownBy(location.hash);
    for (const [key, id] of told) this.#add(key, id, { told: true });
    if (!told.size) this.#add("a", this.identity.newSessionId(), { missing: true, told: true });
    this.#choose(this.#panes[0]);
    this.opened(true);
    this.#listen();
    this.#followList();
    this.#look();
    this.current.focus();
  }

  // --- panes

  #add(key, sessionId, how) {
    const pane = new Pane(key, this);
    const place = this.#panes.findIndex((each) => each.key > key);
    this.#panes.splice(place < 0 ? this.#panes.length : place, 0, pane);
    const after = this.#panes[this.#panes.indexOf(pane) + 1]?.root ?? null;
    document.getElementById("panels").insertBefore(pane.root, after);
    pane.offer(this.#producers);
    pane.root.addEventListener("focusin", () => this.#choose(pane));
    pane.root.addEventListener("pointerdown", () => this.#choose(pane));
    pane.open(sessionId, how);
    return pane;
  }

  #choose(pane) {
    if (this.current === pane) return;
    this.current = pane;
    for (const each of this.#panes) each.root.dataset.current = each === pane;
    this.#drawTabs();
  }

  #drawTabs() {
    const tabs = this.#panes.map((pane) => {
      const attributes = { type: "button", "aria-pressed": String(pane === this.current), title: pane.title, data: { key: pane.key } };
      return make("button", { ...attributes, text: pane.key.toUpperCase(), on: { click: () => this.#choose(pane) } });
    });
    this.#tabs.replaceChildren(...tabs);
    document.querySelector(".add-pane").disabled = this.#panes.length === LETTERS.length;
    document.getElementById("panels").dataset.count = this.#panes.length;
  }

  /** Another pane, if there is room for one; without an id it shows a new conversation. */
  add(sessionId) {
    const key = [...LETTERS].find((letter) => !this.#panes.some((pane) => pane.key === letter));
    if (key === undefined) return false;
    const pane = this.#add(key, sessionId ?? this.identity.newSessionId(), { missing: sessionId === undefined });
    this.#choose(pane);
    pane.focus();
    return true;
  }

  openBeside(pane, sessionId) {
    if (!this.add(sessionId)) pane.open(sessionId);
  }

  close(pane) {
    if (this.#panes.length === 1) return;
    this.#remove(pane);
    this.opened();
    this.current.focus();
  }

  #remove(pane) {
    this.#panes.splice(this.#panes.indexOf(pane), 1);
    pane.close();
    if (this.current === pane) this.#choose(this.#panes[0]);
    else this.#drawTabs();
  }

  /** Panes show others than before. `told`: as the address has it already, which is put right where it is not whole. */
  opened(told = false) {
    if (this.current === null) return; // not all of them are there yet
    const shown = this.#panes.filter((pane) => pane.sessionId !== undefined);
    const address = `#${new URLSearchParams(shown.map((pane) => [pane.key, pane.sessionId]))}`;
    if (address !== location.hash) history[told ? "replaceState" : "pushState"](null, "", address);
    const open = new Map();
    for (const pane of shown) open.set(pane.sessionId, [...(open.get(pane.sessionId) ?? []), shown.length > 1 ? pane.key : ""]);
    this.#list.setOpen(open);
    this.#drawTabs();
  }

  /** The address is another one: Back, Forward, or somebody wrote it. */
  #goThere() {
    const told = shownBy(location.hash);
    if (!told.size) told.set("a", this.identity.newSessionId());
    for (const pane of [...this.#panes]) if (!told.has(pane.key) && this.#panes.length > 1) this.#remove(pane);
    for (const [key, id] of told) {
      const pane = this.#panes.find((each) => each.key === key);
      if (!pane) this.#add(key, id, { told: true });
      else if (pane.sessionId !== id) pane.open(id, { told: true });
    }
    this.opened(true);
  }

  /** A pane was drawn. */
  drawn(pane, state) {
    const tab = this.#tabs.querySelector(`[data-key=${pane.key}]`);
    if (tab) tab.dataset.busy = state.generation !== null;
    if (pane === this.current) {
      const name = `${state.generation ? "● " : ""}${pane.title} · penstock`;
      if (document.title !== name) document.title = name;
    }
  }

  // --- conversations

  /** The list, from now on as the token of now may see it. */
  async #followList() {
    this.#leaving.abort();
    const listing = this.client.list({ over: choice("over") ?? "websocket" });
    this.#listing = listing;
    listing.subscribe(() => this.#listed(listing));
    this.#list.show(listing);
    this.#askProducers();
    return this.#hearList();
  }

  async #hearList() {
    const leaving = new AbortController();
    this.#leaving = leaving;
    const { problem } = await this.#listing.follow({ signal: leaving.signal });
    if (problem && !leaving.signal.aborted) for (const pane of this.#panes) pane.refuse(problem);
  }

  /** Whether somebody looks at the page is another matter than before. */
  #look() {
    clearInterval(this.#resting);
    if (document.hidden) {
      this.#resting = setInterval(() => this.#rest(), UNSEEN);
      return;
    }
    for (const pane of this.#panes) pane.wake();
    if (this.#leaving.signal.aborted) this.#hearList();
  }

  #rest() {
    for (const pane of this.#panes) pane.rest();
    if (this.#listing.over === "sse") this.#leaving.abort();
  }

  async #askProducers() {
    try {
      this.#producers = await this.client.producers();
    } catch {
      return; // who may not ask has the server's own choice
    }
    for (const pane of this.#panes) pane.offer(this.#producers);
  }

  /** What somebody else has made meanwhile is there now. */
  #listed(listing) {
    const missing = this.#panes.filter((pane) => pane.missing);
    if (!missing.length || listing.getSnapshot().connection.state !== "live") return;
    const ids = new Set(listing.getSnapshot().sessions.map(({ session_id: id }) => id));
    for (const pane of missing) if (ids.has(pane.sessionId)) pane.reopen();
  }

  async rename(listed) {
    const fields = [{ name: "title", label: "Title", value: title(listed) }];
    const said = await ask({ title: "Rename the conversation", confirm: "Rename", fields });
    if (said) await this.#try(listed, (session) => session.update({ title: said.title.trim() || null }));
  }

  async reset(listed) {
    const text = "What runs is stopped, what waits is dropped, and all messages are gone.";
    const yes = await ask({ title: `Empty “${title(listed)}”?`, text, confirm: "Empty it", danger: true });
    if (yes) await this.#try(listed, (session) => session.reset());
  }

  async remove(listed) {
    const text = "What runs is stopped, and the conversation is gone for everybody.";
    const yes = await ask({ title: `Delete “${title(listed)}”?`, text, confirm: "Delete", danger: true });
    if (yes) await this.#try(listed, (session) => session.delete());
  }

  async #try({ session_id: id }, command) {
    try {
      await command(this.client.session(id));
    } catch (problem) {
      const told = problem.uncertain ? "Whether this worked is not known" : "This did not work";
      await ask({ title: told, text: problem.message, confirm: "Close", cancel: false });
    }
  }

  async askToken() {
    await this.identity.change();
    for (const pane of this.#panes) if (!pane.missing) pane.reopen();
    this.#followList();
  }

  /** There is a token: what is new has an id from before it. */
  #admit() {
    for (const pane of this.#panes) if (pane.missing) pane.admit();
  }

  // --- the page

  showList(shown) {
    this.#stage.classList.toggle("listed", shown);
    document.querySelector(".list-toggle").setAttribute("aria-expanded", String(shown));
  }

  #toggleList() {
    if (matchMedia("(max-width: 860px)").matches) {
      const shown = !this.#stage.classList.contains("listed");
      this.showList(shown);
      document.querySelector(shown ? ".begin" : ".list-toggle").focus();
      return;
    }
    choice("list", this.#stage.classList.toggle("unlisted") ? "closed" : "open");
  }

  #theme(name) {
    choice("theme", name);
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    const button = document.querySelector(".theme");
    button.title = `Theme: ${THEMES[name]}`;
    button.setAttribute("aria-label", button.title);
  }

  #nextTheme() {
    const names = Object.keys(THEMES);
    this.#theme(names[(names.indexOf(choice("theme") ?? "system") + 1) % names.length]);
  }

  #listen() {
    const press = (selector, listener) => document.querySelector(selector).addEventListener("click", listener);
    const shortcuts = document.getElementById("shortcuts");
    press(".list-toggle", () => this.#toggleList());
    press(".curtain", () => this.showList(false));
    press(".begin", () => this.#begin());
    press(".add-pane", () => this.add());
    press(".key", () => this.askToken());
    press(".theme", () => this.#nextTheme());
    press(".keys", () => shortcuts.showModal());
    press("#shortcuts .close", () => shortcuts.close());
    this.#theme(choice("theme") ?? "system");
    this.#stage.classList.toggle("unlisted", choice("list") === "closed");
    addEventListener("offline", () => this.#panes.forEach((pane) => pane.probe()));
    addEventListener("popstate", () => this.#goThere());
    document.addEventListener("visibilitychange", () => this.#look());
    document.addEventListener("keydown", (event) => this.#keyboard(event, shortcuts));
  }

  #begin() {
    this.showList(false);
    this.current.begin();
  }

  #keyboard(event, shortcuts) {
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Escape" && this.#stage.classList.contains("listed")) this.#toggleList();
    if (event.key === "?" && !event.target.closest("textarea, input")) shortcuts.showModal();
    if (!event.altKey || event.ctrlKey || event.metaKey) return;
    const inspector = this.current.$(".inspector");
    const does = {
      KeyN: () => this.#begin(),
      KeyP: () => this.add(),
      KeyR: () => this.current.regenerate(),
      KeyI: () => (inspector.open = !inspector.open),
      KeyL: () => this.#toggleList(),
    };
    const digit = /^Digit([1-4])$/.exec(event.code);
    const pane = digit && this.#panes[Number(digit[1]) - 1];
    const act = pane ? () => (this.#choose(pane), pane.focus()) : does[event.code];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

new App();
