/* The list of conversations, the last active first, as the server tells of it. */

import { iconButton, make, plain, tell } from "./dom.js";
import { title } from "./titles.js";

/** One in which nothing has happened yet is none. */
function isBegun({ title: named, last, running, metadata }) {
  return Boolean(named || last || running || metadata.title);
}

export class Conversations {
  #root;
  #list;
  #does;
  #listing = null;
  #rows = new Map();
  #open = new Map(); // ids of those that are shown, and the panes' letters
  #drawing = false;

  /** @param {{open(id: string): void, rename(listed: object): void, remove(listed: object): void}} does */
  constructor(root, does) {
    this.#root = root;
    this.#list = root.querySelector("ul");
    this.#does = does;
    root.querySelector(".filter").addEventListener("input", () => this.draw());
    root.querySelector(".more").addEventListener("click", () => this.#listing.older().catch(() => {})); // the button stays
  }

  /** @param {Listing} listing of penstock.js; it is followed elsewhere */
  show(listing) {
    this.#listing = listing;
    listing.subscribe(() => listing === this.#listing && this.draw());
    this.draw();
  }

  /** @param {Map<string, string[]>} open */
  setOpen(open) {
    this.#open = open;
    this.draw();
  }

  /** Once per frame, however much was told meanwhile. */
  draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      if (this.#listing) this.#draw(this.#listing.getSnapshot());
    });
  }

  #draw({ sessions, more }) {
    const wanted = this.#root.querySelector(".filter").value.trim().toLowerCase();
    const shown = sessions.filter((listed) => {
      const { session_id: id, last } = listed;
      if (wanted) return `${title(listed)} ${id} ${last?.text ?? ""}`.toLowerCase().includes(wanted);
      return isBegun(listed) || this.#open.has(id);
    });
    const ids = new Set(shown.map((listed) => listed.session_id));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    shown.forEach((listed, place) => {
      const row = this.#rows.get(listed.session_id) ?? this.#row(listed.session_id);
      this.#update(row, listed);
      if (this.#list.children[place] !== row.element) this.#list.insertBefore(row.element, this.#list.children[place] ?? null);
    });
    this.#root.querySelector(".more").hidden = !more;
    this.#root.querySelector(".hollow").hidden = shown.length > 0;
  }

  #update(row, listed) {
    row.listed = listed;
    const name = title(listed);
    const { running = false, approvals = 0, last } = listed;
    tell(row.name, name);
    row.button.title = last ? `${name}\n${plain(last.text)}` : name;
    const panes = this.#open.get(listed.session_id) ?? [];
    row.element.dataset.live = running;
    row.element.dataset.asks = approvals > 0;
    row.button.setAttribute("aria-current", panes.length ? "true" : "false");
    tell(row.state, approvals ? "needs a yes" : running ? "answers" : "");
    tell(row.panes, panes.join(" ").toUpperCase());
  }

  #row(id) {
    const row = { name: make("span", { class: "name", dir: "auto" }), panes: make("span", { class: "panes" }) };
    row.state = make("span", { class: "state" });
    const live = make("i", { class: "live" });
    row.button = make("button", { type: "button", class: "open", on: { click: () => this.#does.open(id) } }, live, row.name, row.state, row.panes);
    row.element = make(
      "li",
      { data: { session: id } },
      row.button,
      iconButton("edit", "Rename", () => this.#does.rename(row.listed), "rename"),
      iconButton("bin", "Delete", () => this.#does.remove(row.listed), "remove"),
    );
    this.#rows.set(id, row);
    return row;
  }
}
