/* Elements, made without ever reading text as markup. */

/**
 * An element. `text` becomes its text, `on` its listeners, `data` its dataset, what else is given its attributes;
 * a value of false, null or undefined leaves the attribute out.
 */
export function make(name, { text, on = {}, data = {}, ...attributes } = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value === true ? "" : value);
  }
  Object.assign(element.dataset, data);
  for (const [type, listener] of Object.entries(on)) element.addEventListener(type, listener);
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** One of the drawings at the end of index.html. */
export function icon(name) {
  const drawing = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  drawing.setAttribute("aria-hidden", "true");
  drawing.append(use);
  return drawing;
}

/** A button that is only a drawing; its name is for those who do not see it. */
export function iconButton(drawing, label, press, className = "") {
  const listeners = { click: press };
  return make("button", { type: "button", class: `icon ${className}`.trim(), title: label, "aria-label": label, on: listeners }, icon(drawing));
}

/** Set an element's text, if it is another one. */
export function tell(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set a text node's text; where it goes on, only what is new is added. */
export function grow(node, text) {
  if (text.length > node.length && text.startsWith(node.data)) node.appendData(text.slice(node.length));
  else if (text !== node.data) node.data = text;
}

// Controls, and what is not seen or turns the direction of what stands around it.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/gu;

/** The text with what cannot be seen in it written out, as JSON escapes it: for what people say yes to. */
export function exact(text) {
  return text.replace(UNSEEN, (found) =>
    found === "\n" || found === "\t" ? found : found.split("").map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`).join(""),
  );
}

// Of those, what makes a text look like another one: controls, spaces of no width, marks and embeddings that turn its
// direction. Not what joins emoji and letters.
const DECEPTIVE = /[\p{Cc}\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufeff\ufff9-\ufffb]/gu;

/** A name, a title or a message in one line, which nothing in it can make look like another one. */
export function plain(text) {
  const line = text.replace(/\s*\n\s*|\t/g, " ");
  return line.replace(DECEPTIVE, (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Whether something in a text of many lines makes it look like another one. */
export function deceives(text) {
  return text.replace(/[\n\r\t]/g, " ").search(DECEPTIVE) >= 0;
}

/** The last characters tell two ids of version 7 apart; the first ones are the time. */
export function short(id) {
  return id === undefined ? "" : id.slice(-6);
}

/** A colour for a text: always the same. */
export function hue(text) {
  let hash = 0;
  for (const character of text) hash = (hash * 31 + character.charCodeAt(0)) % 360;
  return hash;
}

/** Put into the clipboard, and show at the button that it is done. */
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.dataset.done = "copied";
  } catch {
    button.dataset.done = "not copied"; // the page is not secure, or may not
  }
  setTimeout(() => delete button.dataset.done, 1200);
}
