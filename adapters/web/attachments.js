/* What goes with a message beside its words: pictures and files that are pasted, dropped or picked, and long pastes,
 * folded; and how they are shown in the message that they stand in.
 *
 * A file is sent when its message is. What somebody calls a file, or says that it is, is only ever shown as text; a
 * picture is drawn from a blob of the server's answer, if that says that it is one. Nothing is fetched from elsewhere.
 */

import { exact, icon, iconButton, make, tell } from "./dom.js";

/** Characters from which on a text is folded: more than a screenful. */
export const LONG = 2000;

const KIB = 1024;

/** Types that browsers draw, and the server says of no other file. */
const DRAWN = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/** @typedef {{file?: File, text?: string, block?: object, sent?: {sessionId: string, block: object}}} Item what is attached:
 *   a file of this computer's, a long paste, or a block of a message that is sent again */

function size(bytes) {
  if (bytes < KIB) return `${bytes} B`;
  return bytes < KIB * KIB ? `${Math.round(bytes / KIB)} KiB` : `${(bytes / KIB / KIB).toFixed(1)} MiB`;
}

const counted = (text) => `${text.length.toLocaleString("en")} characters`;

/** What is attached to the message that is being written. */
export class Attachments {
  #list = make("ul", { class: "attached", "aria-label": "Goes with the message", hidden: true });
  #pick = make("input", { type: "file", multiple: true, hidden: true, tabindex: "-1", "aria-hidden": "true" });
  #field;
  /** @type {Map<Item, HTMLElement>} in order */
  #held = new Map();

  /**
   * @param {HTMLFormElement} form
   * @param {HTMLTextAreaElement} field
   */
  constructor(form, field) {
    this.#field = field;
    const button = iconButton("plus", "Attach files; or paste, or drop them here", () => this.#pick.click(), "attach");
    form.prepend(this.#list);
    form.querySelector(".actions").prepend(button, this.#pick);
    this.#pick.addEventListener("change", () => {
      this.#addFiles(this.#pick.files);
      this.#pick.value = ""; // the same file may be picked again
    });
    field.addEventListener("paste", (event) => this.#paste(event));
    this.#listenToDrops(form.closest("[data-panel]") ?? form);
  }

  get empty() {
    return this.#held.size === 0;
  }

  /** All of it; nothing is held any more. @returns {Item[]} */
  take() {
    const items = [...this.#held.keys()];
    for (const item of items) this.#drop(item);
    return items;
  }

  /** Hold what was not sent. @param {Item[]} items */
  giveBack(items) {
    for (const item of items) this.#add(item);
  }

  #listenToDrops(place) {
    const brings = (event) => event.dataTransfer?.types.includes("Files");
    const over = (shown) => place.classList.toggle("drops", shown);
    place.addEventListener("dragover", (event) => {
      if (!brings(event)) return;
      event.preventDefault(); // else the browser opens it, and the page is gone
      event.dataTransfer.dropEffect = "copy";
      over(true);
    });
    place.addEventListener("dragleave", (event) => {
      if (!place.contains(event.relatedTarget)) over(false);
    });
    place.addEventListener("drop", (event) => {
      over(false);
      if (!brings(event)) return;
      event.preventDefault();
      this.#addFiles(event.dataTransfer.files);
      this.#field.focus();
    });
  }

  #paste(event) {
    const { files } = event.clipboardData;
    const text = event.clipboardData.getData("text/plain");
    // A table that is copied comes as words and as a picture of them: the words are meant.
    if (files.length && !text) {
      event.preventDefault();
      this.#addFiles(files);
    } else if (text.length > LONG) {
      event.preventDefault();
      this.#add({ text });
    }
  }

  #addFiles(files) {
    for (const file of files) this.#add({ file });
  }

  /** @param {Item} item */
  #add(item) {
    const { file, text, block } = item;
    const name = file ? file.name : text === undefined ? (block.filename ?? block.url ?? block.kind) : "Pasted text";
    const told = file ? size(file.size) : text === undefined ? "" : counted(text);
    const off = iconButton("bin", `Take ${name} off`, () => {
      this.#drop(item);
      this.#field.focus();
    }, "off");
    const label = [make("span", { class: "name", text: exact(name) }), make("span", { class: "size", text: told })];
    const chip = make("li", {}, ...(text === undefined ? [preview(file), ...label] : [this.#folded(item, label)]), off);
    this.#held.set(item, chip);
    this.#list.append(chip);
    this.#list.hidden = false;
  }

  #folded(item, label) {
    const back = make("button", { type: "button", class: "quiet", text: "Put it into the message", on: { click: () => this.#unfold(item) } });
    return make("details", {}, make("summary", {}, ...label), make("pre", { tabindex: "0", text: item.text }), back);
  }

  /** A paste is to stand in the field after all. */
  #unfold(item) {
    this.#drop(item);
    this.#field.setRangeText(item.text, this.#field.selectionStart, this.#field.selectionEnd, "end");
    this.#field.dispatchEvent(new Event("input"));
    this.#field.focus();
  }

  #drop(item) {
    this.#held.get(item)?.remove();
    this.#held.delete(item);
    this.#list.hidden = this.empty;
  }
}

/** A small picture of a file that is one. */
function preview(file) {
  if (!file || !DRAWN.includes(file.type)) return icon("source");
  const url = URL.createObjectURL(file);
  const done = () => URL.revokeObjectURL(url);
  return make("img", { src: url, alt: "", on: { load: done, error: done } });
}

/**
 * The body of a start, once what is attached to it was sent. What was sent before, to the same session, is not again.
 *
 * @param {import("./penstock.js").Session} session
 * @param {{text?: string, attached?: Item[], [name: string]: any}} asked
 * @param {{signal?: AbortSignal, tell?: (name: string) => void}} [options] `tell`: a file of this name is on its way
 */
export async function brought(session, { attached = [], ...body }, options = {}) {
  if (!attached.length) return body;
  const { text, ...rest } = body;
  const blocks = text?.trim() ? [{ kind: "text", text }] : [];
  for (const item of attached) blocks.push(await blockOf(session, item, options));
  return { ...rest, message: { blocks } };
}

async function blockOf(session, item, { signal, tell = () => {} }) {
  if (item.text !== undefined) return { kind: "text", text: item.text };
  if (item.block) return item.block;
  if (item.sent?.sessionId !== session.sessionId) {
    tell(item.file.name);
    const { file_id, media_type } = await session.keepFile(item.file, { signal });
    const kind = media_type.startsWith("image/") ? "image" : "file";
    item.sent = { sessionId: session.sessionId, block: { kind, file_id } };
  }
  return item.sent.block;
}

/** What is attached to a message, for one in its place. @returns {Item[]} */
export function attachedTo(message) {
  const named = message.blocks.filter((block) => NAMING.includes(block.kind));
  return named.map(({ seq, open, ...block }) => ({ block }));
}

/** The kinds of blocks that `Named` shows. */
export const NAMING = ["image", "file", "source"];

/** A picture, a file or a source in a message. */
export class Named {
  element;
  #block = null;
  #read;

  /** @param {(fileId: string) => Promise<Blob>} read */
  constructor(kind, read) {
    this.element = make("div", { class: "block named", data: { kind } });
    this.#read = read;
  }

  update(block) {
    if (this.#block !== null) return; // what it names stays
    this.#block = block;
    const { kind, url, file_id: fileId } = block;
    if (url !== undefined) this.element.append(link(block));
    else if (kind === "image" && (block.media_type === undefined || DRAWN.includes(block.media_type))) this.#draw(fileId);
    else this.element.append(this.#saving());
  }

  /** Draw the picture as soon as it is near what is seen. */
  #draw(fileId) {
    const picture = make("img", { alt: exact(this.#block.filename ?? "A picture"), class: "picture" });
    const button = make("button", { type: "button", class: "shown", title: "Save", on: { click: () => this.#save(button) } }, picture);
    this.element.append(button);
    const seen = new IntersectionObserver(async (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      seen.disconnect();
      try {
        const blob = await this.#read(fileId);
        if (!DRAWN.includes(blob.type)) throw new Error("it is no picture that can be drawn");
        const url = URL.createObjectURL(blob);
        picture.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
        picture.addEventListener("error", () => this.#undrawn(url), { once: true });
        picture.src = url;
      } catch {
        this.#undrawn();
      }
    }, { rootMargin: "400px" });
    seen.observe(this.element);
  }

  #undrawn(url) {
    if (url) URL.revokeObjectURL(url);
    this.element.replaceChildren(this.#saving());
  }

  #saving() {
    const { filename, media_type: type } = this.#block;
    const told = [make("span", { class: "name", text: exact(filename ?? "A file") }), make("span", { class: "type", text: exact(type ?? "") })];
    const button = make("button", { type: "button", class: "quiet", title: "Save", on: { click: () => this.#save(button) } }, icon("down"), ...told);
    return button;
  }

  async #save(button) {
    button.disabled = true;
    try {
      const url = URL.createObjectURL(await this.#read(this.#block.file_id));
      make("a", { href: url, download: this.#block.filename ?? "" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser may ask first where it is to go
    } catch (problem) {
      tell(button, `It cannot be read: ${problem.message}`);
    } finally {
      button.disabled = false;
    }
  }
}

/** Where it stands elsewhere: only who follows it asks there. */
function link({ title, filename, url }) {
  const { host, protocol } = URL.canParse(url) ? new URL(url) : {};
  if (protocol !== "http:" && protocol !== "https:") return make("span", { text: exact(url) });
  const named = title ?? filename;
  const told = named ? [make("span", { class: "name", text: exact(named) }), make("span", { class: "type", text: host })] : [exact(url)];
  return make("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow", title: exact(url) }, icon("source"), ...told);
}

/** What a model was not shown of what is attached. */
export function unseen({ metadata }) {
  const names = metadata?.unseen;
  if (!Array.isArray(names) || !names.length || !names.every((name) => typeof name === "string")) return "";
  return `made without ${names.map(exact).join(", ")}`;
}
