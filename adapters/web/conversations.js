/* The list of conversations. */

import { iconButton, make, tell } from "./dom.js";

const PAGE = 100;
const REFRESHED = 8000; // while the page is looked at

/** What a conversation is called. */
export function title(sessionId, metadata) {
  return typeof metadata?.title === "string" && metadata.title ? metadata.title : `Untitled ${sessionId.slice(-4)}`;
}

export class Conversations {
  #root;
  #list;
  #client;
  #does;
  #listed = new Map();
  #rows = new Map();
  #next;
  #pages = 1;
  #asked = 0;
  #open = new Map(); // ids of those that are shown, and the panes' letters

  /** @param {{open(id: string): void, rename(id: string, metadata: object): void, remove(id: string, metadata: object): void}} does */
  constructor(root, client, does) {
    this.#root = root;
    this.#list = root.querySelector("ul");
    this.#client = client;
    this.#does = does;
    root.querySelector(".filter").addEventListener("input", () => this.#draw());
    root.querySelector(".more").addEventListener("click", () => {
      this.#pages += 1;
      this.refresh();
    });
    setInterval(() => document.visibilityState === "visible" && navigator.onLine && this.refresh(), REFRESHED);
  }

  /** Ask the server what there is. Who may not, or can not, keeps what is known. */
  async refresh() {
    const asked = ++this.#asked;
    const found = new Map();
    let after;
    try {
      for (let page = 0; page < this.#pages; page += 1) {
        const { sessions, next } = await this.#client.sessions({ limit: PAGE, after, signal: AbortSignal.timeout(5000) });
        for (const session of sessions) found.set(session.session_id, session);
        after = next;
        if (next === undefined) break;
      }
    } catch {
      return; // it is asked again soon
    }
    if (asked !== this.#asked) return; // somebody asked later
    this.#listed = found;
    this.#next = after;
    this.#draw();
  }

  /** @param {Map<string, string[]>} open */
  setOpen(open) {
    this.#open = open;
    this.#draw();
  }

  /** What a pane knows of a conversation is newer than the list. */
  know(id, metadata, live) {
    const known = this.#listed.get(id) ?? { session_id: id };
    if (known.metadata === metadata && Boolean(known.generation) === live) return;
    this.#listed.set(id, { ...known, metadata, generation: live || undefined, cursor: "" });
    this.#draw();
  }

  forget(id) {
    this.#listed.delete(id);
    this.#draw();
  }

  #draw() {
    const wanted = this.#root.querySelector(".filter").value.trim().toLowerCase();
    const shown = [...this.#listed.values()].filter(({ session_id: id, metadata, cursor }) => {
      if (wanted) return `${title(id, metadata)} ${id}`.toLowerCase().includes(wanted);
      return this.#open.has(id) || metadata.title || !cursor.endsWith("-0000000000000001"); // one in which nothing happened is none
    });
    const ids = new Set(shown.map((session) => session.session_id));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    shown.forEach((session, place) => {
      const row = this.#rows.get(session.session_id) ?? this.#row(session.session_id);
      const { metadata, generation } = session;
      row.metadata = metadata;
      tell(row.name, title(session.session_id, metadata));
      const panes = this.#open.get(session.session_id) ?? [];
      row.element.dataset.live = Boolean(generation);
      row.button.setAttribute("aria-current", panes.length ? "true" : "false");
      tell(row.panes, panes.join(" ").toUpperCase());
      if (this.#list.children[place] !== row.element) this.#list.insertBefore(row.element, this.#list.children[place] ?? null);
    });
    this.#root.querySelector(".more").hidden = this.#next === undefined;
    this.#root.querySelector(".hollow").hidden = shown.length > 0;
  }

  #row(id) {
    const row = { metadata: {}, name: make("span", { class: "name" }), panes: make("span", { class: "panes" }) };
    const live = make("i", { class: "live", title: "an answer runs" });
    row.button = make("button", { type: "button", class: "open", title: id, on: { click: () => this.#does.open(id) } }, live, row.name, row.panes);
    row.element = make(
      "li",
      { data: { session: id } },
      row.button,
      iconButton("edit", "Rename", () => this.#does.rename(id, row.metadata), "rename"),
      iconButton("bin", "Delete", () => this.#does.remove(id, row.metadata), "remove"),
    );
    this.#rows.set(id, row);
    return row;
  }
}
