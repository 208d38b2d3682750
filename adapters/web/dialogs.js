/* Questions to the person before the screen. */

import { make } from "./dom.js";

/**
 * Ask, and wait for the answer: null if it was no. With `fields`, an object of what was written, by name; else true.
 *
 * @param {{title: string, text?: string, confirm: string, danger?: boolean, cancel?: boolean,
 *   fields?: {name: string, label: string, value?: string, type?: string, hint?: string}[]}} question
 */
export function ask({ title, text, confirm, danger = false, cancel = true, fields = [] }) {
  const inputs = fields.map(({ name, label, value = "", type = "text", hint }) => {
    const input = make("input", { name, type, autocomplete: "off", spellcheck: "false" });
    input.value = value;
    return make("label", {}, make("span", { text: label }), input, ...(hint ? [make("small", { text: hint })] : []));
  });
  return new Promise((resolve) => {
    let answer = null;
    const close = () => dialog.close();
    const said = (event) => {
      event.preventDefault();
      const written = Object.fromEntries(inputs.map((label) => [label.querySelector("input").name, label.querySelector("input").value]));
      answer = fields.length ? written : true;
      close();
    };
    const dialog = make(
      "dialog",
      { class: "box", "aria-label": title, on: { close: () => (leave(dialog), resolve(answer)) } },
      make(
        "form",
        { on: { submit: said } },
        make("h2", { text: title }),
        ...(text ? [make("p", { text })] : []),
        ...inputs,
        make(
          "footer",
          {},
          ...(cancel ? [make("button", { type: "button", text: "Cancel", on: { click: close } })] : []),
          make("button", { type: "submit", class: danger ? "danger" : "primary", text: confirm }),
        ),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("input")?.select();
  });
}

/** Take it off the page. Chromium gives the focus back, at times without the caret: what is typed then goes nowhere. */
function leave(dialog) {
  dialog.remove();
  const back = document.activeElement;
  back.blur();
  back.focus();
}
