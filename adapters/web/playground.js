/* The playground: panes side by side, the list of conversations, and what concerns all of them. */

import { Conversations, title } from "./conversations.js";
import { ask } from "./dialogs.js";
import { make } from "./dom.js";
import { Identity } from "./identity.js";
import { choice } from "./kept.js";
import { Pane } from "./pane.js";
import { Client } from "./penstock.js";

const LETTERS = "abcd";
const THEMES = { system: "as the system", light: "light", dark: "dark" };

class App {
  identity = new Identity();
  client = new Client({ token: this.identity.token });
  #panes = [];
  #stage = document.querySelector(".stage");
  #tabs = document.querySelector(".tabs");
  #list;

  constructor() {
    this.current = null;
    this.#list = new Conversations(document.getElementById("conversations"), this.client, {
      open: (id) => {
        this.current.open(id, true);
        this.showList(false);
        this.current.focus();
      },
      rename: (id, metadata) => this.rename(id, metadata),
      remove: (id, metadata) => this.remove(id, metadata),
    });
    const told = new URLSearchParams(location.hash.slice(1));
    const keys = [...LETTERS].filter((key) => told.has(key));
    for (const key of keys.length ? keys : ["a", "b"]) this.#add(key, told.get(key));
    this.#choose(this.#panes[0]);
    this.#listen();
    this.refresh();
    this.current.focus();
  }

  // --- panes

  #add(key, sessionId) {
    const pane = new Pane(key, this);
    const place = this.#panes.findIndex((each) => each.key > key);
    this.#panes.splice(place < 0 ? this.#panes.length : place, 0, pane);
    const after = this.#panes[this.#panes.indexOf(pane) + 1]?.root ?? null;
    document.getElementById("panels").insertBefore(pane.root, after);
    pane.root.addEventListener("focusin", () => this.#choose(pane));
    pane.root.addEventListener("pointerdown", () => this.#choose(pane));
    pane.open(sessionId ?? this.identity.newSessionId(), Boolean(sessionId));
    return pane;
  }

  #choose(pane) {
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

  /** Another pane, if there is room for one. */
  add(sessionId) {
    const key = [...LETTERS].find((letter) => !this.#panes.some((pane) => pane.key === letter));
    if (key === undefined) return false;
    const pane = this.#add(key, sessionId);
    this.#choose(pane);
    pane.focus();
    return true;
  }

  openBeside(pane, sessionId) {
    if (!this.add(sessionId)) pane.open(sessionId, true);
    this.refresh();
  }

  close(pane) {
    if (this.#panes.length === 1) return;
    this.#panes.splice(this.#panes.indexOf(pane), 1);
    pane.close();
    this.opened();
    if (this.current === pane) this.#choose(this.#panes[0]);
    this.#drawTabs();
    this.current.focus();
  }

  /** The sessions' ids stand in the address, so that a reload, or another tab, shows the same ones. */
  opened() {
    const shown = this.#panes.filter((pane) => pane.sessionId !== undefined);
    history.replaceState(null, "", `#${new URLSearchParams(shown.map((pane) => [pane.key, pane.sessionId]))}`);
    const open = new Map();
    for (const pane of shown) open.set(pane.sessionId, [...(open.get(pane.sessionId) ?? []), pane.key]);
    this.#list.setOpen(open);
  }

  /** A pane was drawn. */
  drawn(pane, state) {
    if (state.connection.state !== "ended") this.#list.know(pane.sessionId, state.metadata, state.generation !== null);
    const tab = this.#tabs.querySelector(`[data-key=${pane.key}]`);
    if (tab) tab.dataset.busy = state.generation !== null;
    if (pane === this.current) {
      const name = `${state.generation ? "● " : ""}${pane.title} · penstock`;
      if (document.title !== name) document.title = name;
    }
  }

  // --- conversations

  refresh() {
    return this.#list.refresh();
  }

  gone(sessionId) {
    this.#list.forget(sessionId);
  }

  async rename(id, metadata) {
    const fields = [{ name: "title", label: "Title", value: title(id, metadata) }];
    const said = await ask({ title: "Rename the conversation", confirm: "Rename", fields });
    if (said) await this.#try(() => this.client.session(id).update({ title: said.title.trim() || null }));
  }

  async reset(id, metadata) {
    const text = "What runs is stopped, what waits is dropped, and all messages are gone.";
    const yes = await ask({ title: `Empty “${title(id, metadata)}”?`, text, confirm: "Empty it", danger: true });
    if (yes) await this.#try(() => this.client.session(id).reset());
  }

  async remove(id, metadata) {
    const text = "What runs is stopped, and the conversation is gone for everybody.";
    const yes = await ask({ title: `Delete “${title(id, metadata)}”?`, text, confirm: "Delete", danger: true });
    if (yes && (await this.#try(() => this.client.session(id).delete()))) this.gone(id);
  }

  async #try(command) {
    try {
      await command();
      this.refresh();
      return true;
    } catch (problem) {
      await ask({ title: "This did not work", text: problem.message, confirm: "Close", cancel: false });
      return false;
    }
  }

  async askToken() {
    await this.identity.change();
    for (const pane of this.#panes) pane.admit();
    this.refresh();
  }

  // --- the page

  showList(shown) {
    this.#stage.classList.toggle("listed", shown);
    document.querySelector(".list-toggle").setAttribute("aria-expanded", String(shown));
  }

  #toggleList() {
    if (matchMedia("(max-width: 860px)").matches) return this.showList(!this.#stage.classList.contains("listed"));
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
    addEventListener("hashchange", () => this.#follow());
    document.addEventListener("keydown", (event) => this.#keyboard(event, shortcuts));
  }

  /** Somebody wrote another address. */
  #follow() {
    const told = new URLSearchParams(location.hash.slice(1));
    for (const pane of this.#panes) {
      const id = told.get(pane.key);
      if (id && id !== pane.sessionId) pane.open(id, true);
    }
  }

  #begin() {
    this.showList(false);
    this.current.open(this.identity.newSessionId(), false);
    this.current.focus();
  }

  #keyboard(event, shortcuts) {
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Escape" && this.#stage.classList.contains("listed")) this.showList(false);
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
