/* One operation asked for: as a line for curl, and, where anybody may ask, by a form that sends it from this page. */

import { copy, make, tell } from "./dom.js";

const JSON_TYPE = "application/json";
const STREAMS = ["text/event-stream", "application/x-ndjson"];

// Characters of an answer that are kept: a stream has no end.
const SHOWN = 100_000;

// What a handshake has beside its path; the key is any.
const HANDSHAKE = [
  ["Connection", "Upgrade"],
  ["Upgrade", "websocket"],
  ["Sec-WebSocket-Version", "13"],
  ["Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="],
  ["Sec-WebSocket-Protocol", "penstock.v1"],
];

// What the server knows people by, as a header whose value stands in a variable of the shell's.
const SECRETS = { bearer: "Authorization: Bearer $PENSTOCK_TOKEN", application: "Cookie: $COOKIE" };

/** In a shell's single quotes. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** In a URL, and in a shell's quotes of either kind. */
const escaped = (text) => encodeURIComponent(text).replace(/[!'()*]/g, (each) => `%${each.charCodeAt(0).toString(16)}`);

/** The line, for a POSIX shell. In the URL, `$NAME` is a variable of the shell's. */
function curl({ method, url, headers, body, unbuffered, secret }) {
  const plain = /^[\w.:/~%[\]-]+$/.test(url) ? url : url.includes("$") ? `"${url}"` : quoted(url);
  const first = ["curl", unbuffered && "-N", method !== "GET" && `-X ${method}`, plain].filter(Boolean);
  const others = headers.map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`);
  if (secret) others.unshift(`-H "${secret}"`);
  if (body instanceof Blob) others.push(`--data-binary ${body.name ? quoted(`@${body.name}`) : '@"$FILE"'}`);
  else if (body) others.push(`-d ${quoted(body)}`);
  return [first.join(" "), ...others].join(" \\\n     ");
}

/** The text without the white space that a person put into it, if it is JSON. */
function compact(text) {
  try {
    return JSON.stringify(JSON.parse(text));
  } catch {
    return text;
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** What is asked for, of an operation and what was filled in: `values` by parameter, and a `body`, JSON or a file. */
function request(base, method, where, operation, values, body) {
  const given = (place) => (operation.parameters ?? []).filter((each) => each.in === place && values[each.name]);
  const path = where.replace(/\{(\w+)\}/g, (_, name) => (values[name] ? escaped(values[name]) : `$${name.toUpperCase()}`));
  const query = given("query").map(({ name }) => `${name}=${escaped(values[name])}`);
  const socket = "101" in operation.responses;
  const content = Object.keys(operation.responses[200]?.content ?? {});
  return {
    method: method.toUpperCase(),
    url: base + path + (query.length ? `?${query.join("&")}` : ""),
    headers: [
      ...(socket ? HANDSHAKE : []),
      ...given("header").map(({ name }) => [name, values[name]]),
      ...(body ? [["Content-Type", body instanceof Blob ? body.type || "application/octet-stream" : JSON_TYPE]] : []),
    ],
    body: body instanceof Blob ? body : body ? compact(body) : undefined,
    unbuffered: socket || content.some((each) => STREAMS.includes(each)),
    secret: SECRETS[operation.security.flatMap(Object.keys).find((each) => each in SECRETS)],
  };
}

/** Send it; what comes is shown as it comes. */
async function send({ method, url, headers, body }, shown, signal) {
  const begun = performance.now();
  tell(shown.status, "Sent…");
  shown.status.removeAttribute("data-class");
  tell(shown.head, "");
  tell(shown.body, "");
  try {
    const answer = await fetch(url, { method, headers, body, signal, cache: "no-store" });
    shown.status.dataset.class = String(answer.status)[0];
    tell(shown.status, `${answer.status} after ${Math.round(performance.now() - begun)} ms`);
    tell(shown.head, Array.from(answer.headers, ([name, value]) => `${name}: ${value}`).join("\n"));
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    let due = false;
    for (let piece = await reader?.read(); piece && !piece.done; piece = await reader.read()) {
      text = (text + piece.value).slice(-SHOWN);
      if (due) continue;
      due = true;
      requestAnimationFrame(() => {
        due = false;
        tell(shown.body, text);
      });
    }
    if (answer.headers.get("Content-Type")?.includes("json")) text = pretty(text);
    tell(shown.body, text);
  } catch (error) {
    if (signal.aborted) shown.status.append(", stopped");
    else tell(shown.status, `No answer: ${error.message}`);
  }
}

/**
 * How to ask for an operation below `base`, a URL without a slash at its end: the line for curl, and with `open` the
 * form.
 */
export function asking(base, method, where, operation, { open }) {
  const parameters = operation.parameters ?? [];
  const values = Object.fromEntries(parameters.map((each) => [each.name, each.example ?? ""]));
  const content = operation.requestBody?.content ?? {};
  const file = operation.requestBody && !(JSON_TYPE in content);
  const example = content[JSON_TYPE]?.example;
  let body = file ? new Blob() : example === undefined ? "" : JSON.stringify(example, null, 2);
  const asked = () => request(base, method, where, operation, values, body);

  const line = make("code");
  const button = make("button", { type: "button", class: "quiet", text: "Copy", on: { click: () => copy(line.textContent, button) } });
  const draw = () => tell(line, curl(asked()));
  draw();
  const made = [make("h3", { text: "With curl" }), make("div", { class: "curl" }, make("pre", {}, line), button)];
  if (!open || "101" in operation.responses) return made; // a page makes a handshake of its own, and no other

  const field = (name, input, required) => {
    const label = make("span", { text: name }, ...(required ? [make("i", { class: "needed", text: " required" })] : []));
    return make("label", {}, label, input);
  };
  const fields = parameters.map(({ name, required, schema }) => {
    const input = make("input", { value: values[name], required, autocomplete: "off", spellcheck: "false", placeholder: schema.type ?? "" });
    input.addEventListener("input", () => {
      values[name] = input.value;
      draw();
    });
    return field(name, input, required);
  });
  if (file) {
    const input = make("input", { type: "file", required: true });
    input.addEventListener("change", () => {
      body = input.files[0] ?? new Blob();
      draw();
    });
    fields.push(field("body, a file", input, true));
  } else if (operation.requestBody) {
    const input = make("textarea", { text: body, rows: Math.min(12, body.split("\n").length + 1), spellcheck: "false", required: operation.requestBody.required });
    input.addEventListener("input", () => {
      body = input.value.trim();
      draw();
    });
    fields.push(field("body, as JSON", input, operation.requestBody.required));
  }

  const shown = { status: make("p", { class: "status", role: "status" }), head: make("pre"), body: make("pre", { role: "group", tabindex: "0", "aria-label": "The answer's body" }) };
  const answer = make("div", { class: "answer", hidden: true }, shown.status, make("details", {}, make("summary", { text: "Headers" }), shown.head), shown.body);
  const go = make("button", { type: "submit", class: "primary", text: "Send" });
  let leaving = new AbortController();
  const stop = make("button", { type: "button", text: "Stop", hidden: true, on: { click: () => leaving.abort() } });
  const form = make("form", { class: "try" }, ...fields, make("p", {}, go, stop));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    leaving = new AbortController();
    form.closest("details").addEventListener("toggle", () => leaving.abort(), { signal: leaving.signal }); // closed
    [answer.hidden, go.disabled, stop.hidden] = [false, true, false];
    await send(asked(), shown, leaving.signal);
    [go.disabled, stop.hidden] = [false, true];
    leaving.abort(); // so that its listener goes
  });
  return [...made, make("h3", { text: "Try it" }), form, answer];
}
