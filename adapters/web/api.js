/* The API's page: openapi.json, shown. What is there is taken from the description alone. */

import { make as element } from "./dom.js";
import { choice } from "./kept.js";
import { asking } from "./trying.js";

const METHODS = ["get", "put", "patch", "post", "delete"];
let api;
let open = false; // whether anybody may ask for anything

// Where this page stands, and the operations: without the slash at its end.
const BASE = new URL(".", location.href).href.slice(0, -1);

/** An element with attributes and those of its children that there are. */
function make(name, attributes = {}, ...children) {
  return element(name, attributes, ...children.filter((child) => child !== null && child !== undefined));
}

/** Text in which `this` is code. */
function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));
}

const nameOf = (reference) => reference.slice(reference.lastIndexOf("/") + 1);
const resolve = (value) =>
  value.$ref ? value.$ref.slice(2).split("/").reduce((inside, part) => inside[part], api) : value;

// --- types

/** What kind of value a schema describes, in a line; names of others are links. */
function type(schema) {
  if (schema.$ref) return [link(nameOf(schema.$ref))];
  if ("const" in schema) return [JSON.stringify(schema.const)];
  const several = schema.oneOf ?? schema.anyOf;
  if (several && !schema.properties) return [...joined(several.map(type), " | "), ...limits(schema)];
  if (schema.allOf) return joined(schema.allOf.filter((each) => each.$ref).map(type), " & ");
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" | "), ...limits(schema)];
  if (schema.type === "array") return [...type(schema.items), "[]", ...limits(schema)];
  const plain = Array.isArray(schema.type) ? schema.type.join(" | ") : (schema.type ?? "any");
  return [plain, ...limits(schema)];
}

function limits(schema) {
  const found = [];
  const [from, to] = [schema.minimum ?? schema.minLength ?? schema.minItems, schema.maximum ?? schema.maxLength ?? schema.maxItems];
  const safe = to === Number.MAX_SAFE_INTEGER ? undefined : to;
  if (from !== undefined && safe !== undefined) found.push(`${from} to ${safe}`);
  else if (from !== undefined) found.push(`from ${from}`);
  else if (safe !== undefined) found.push(`to ${safe}`);
  if (schema.pattern) found.push(`/${schema.pattern}/`);
  if (schema.format) found.push(schema.format);
  if (schema.default !== undefined) found.push(`${JSON.stringify(schema.default)} by default`);
  return found.length ? [`, ${found.join(", ")}`] : [];
}

function joined(lists, between) {
  return lists.flatMap((list, index) => (index ? [between, ...list] : list));
}

const link = (name) => make("a", { href: `#${name}` }, name);

// --- pieces

const row = (term, ...told) => make("div", {}, make("dt", {}, ...term), make("dd", {}, ...told));
const typed = (schema) => make("span", { class: "type" }, ...type(schema));
const told = (text) => (text ? make("p", {}, ...prose(text)) : null);
const needed = (yes) => (yes ? make("span", { class: "needed" }, " required") : null);

/** The fields of an object, or what else a schema is. */
function shape(schema) {
  const fields = Object.entries(schema.properties ?? {});
  if (!fields.length) return make("p", {}, typed(schema));
  const required = schema.required ?? [];
  return make(
    "dl",
    {},
    ...fields.map(([name, field]) =>
      row([name, needed(required.includes(name))].filter(Boolean), typed(field), told(field.description)),
    ),
  );
}

/** A schema where it is used: its own fields if it is an object, a link to it else. */
function used(schema) {
  const target = resolve(schema);
  if (!schema.$ref) return shape(schema);
  return make("div", {}, make("p", {}, typed(schema)), target.properties ? shape(target) : null);
}

function heading(text) {
  return make("h3", {}, text);
}

function parameters(list) {
  if (!list.length) return [];
  const rows = list.map((each) =>
    row([each.name, needed(each.required)].filter(Boolean), make("span", { class: "type" }, `${each.in}: `, ...type(each.schema)), told(each.description)),
  );
  return [heading("Parameters"), make("dl", {}, ...rows)];
}

function body(request) {
  if (!request) return [];
  const [[media, { schema }]] = Object.entries(request.content);
  const kind = media === "application/json" ? "" : `, ${media}`;
  return [heading((request.required ? "Body" : "Body, or none") + kind), used(schema)];
}

function answers(responses) {
  const rows = Object.entries(responses).map(([status, response]) => {
    const answer = resolve(response);
    const shown = Object.entries(answer.content ?? {}).map(([media, content]) => {
      const schema = content.schema ?? content["x-item-schema"];
      const each = content.schema ? "" : ", each piece";
      return make("div", { class: "type" }, `${media}${each}: `, ...(schema ? type(schema) : ["any"]));
    });
    const problem = Object.keys(answer.content ?? {})[0] === "application/problem+json";
    return row(
      [make("span", { class: "status", "data-class": status[0] }, status)],
      problem ? make("p", {}, ...joined(answer.description.split(", ").map((code) => [make("code", {}, code)]), " ")) : told(answer.description),
      ...(problem ? [] : shown),
    );
  });
  return [heading("Answers"), make("dl", {}, ...rows)];
}

function path(text) {
  return text.split(/(\{\w+\})/).map((part) => (part.startsWith("{") ? make("b", {}, part) : part));
}

/** What may be opened; its inside is made when it is. */
function item(id, summary, inside, words) {
  const element = make("details", { class: "item", id }, make("summary", {}, ...summary));
  element.dataset.words = `${id} ${words}`.toLowerCase();
  element.addEventListener("toggle", () => {
    if (element.open && element.childElementCount === 1) element.append(make("div", { class: "inside" }, ...inside().filter(Boolean)));
  });
  return element;
}

function operation(method, where, each) {
  const scope = each.security.map((one) => (one.bearer ?? one.application)?.[0]).find(Boolean);
  const summary = [
    make("span", { class: "method", "data-method": method }, method.toUpperCase()),
    make("span", { class: "path" }, ...path(where)),
    make("span", { class: "summary" }, each.summary),
    scope ? make("span", { class: "scope" }, `scope ${scope}`) : null,
  ].filter(Boolean);
  const inside = () => [
    told(each.description),
    ...parameters(each.parameters ?? []),
    ...body(each.requestBody),
    ...asking(BASE, method, where, each, { open }),
    ...answers(each.responses),
  ];
  const codes = Object.entries(each.responses).map(([status, response]) => `${status} ${resolve(response).description}`);
  return item(each.operationId, summary, inside, `${method} ${where} ${each.summary} ${codes.join(" ")}`);
}

function schemaItem(name, schema) {
  const summary = [make("span", { class: "path" }, name), make("span", { class: "summary" }, ...prose(schema.description ?? ""))];
  return item(name, summary, () => [shape(schema)], `${schema.description ?? ""} ${Object.keys(schema.properties ?? {}).join(" ")}`);
}

// --- the page

function section(title, about, items) {
  return make("section", {}, make("h2", {}, title), about ? make("p", {}, ...prose(about)) : null, ...items);
}

function contents(title, entries) {
  const list = entries.map((name) => make("li", {}, make("a", { href: `#${name}` }, name)));
  return [make("h2", {}, title), make("ul", {}, ...list)];
}

function draw() {
  document.getElementById("about").append(...prose(`${api.info.description} Version ${api.info.version}; `), make("a", { href: "./openapi.json" }, "openapi.json"), ".");
  const main = document.getElementById("api");
  const index = document.getElementById("contents");
  main.replaceChildren();
  for (const tag of api.tags) {
    const found = [];
    for (const [where, methods] of Object.entries(api.paths))
      for (const method of METHODS)
        if (methods[method]?.tags.includes(tag.name)) found.push([method, where, methods[method]]);
    main.append(section(tag.name, tag.description, found.map((each) => operation(...each))));
    index.append(...contents(tag.name, found.map(([, , each]) => each.operationId)));
  }
  const schemas = Object.entries(api.components.schemas);
  main.append(section("schemas", "Of bodies, answers, events and their data.", schemas.map((each) => schemaItem(...each))));
  index.append(...contents("schemas", schemas.map(([name]) => name)));
}

function find(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const element of document.querySelectorAll("details.item"))
    element.hidden = !words.every((word) => element.dataset.words.includes(word));
  for (const part of document.querySelectorAll("main section"))
    part.hidden = !part.querySelector("details.item:not([hidden])");
}

/** Open what the address names. */
function openNamed() {
  const element = document.getElementById(location.hash.slice(1)); // the names of schemas need no escapes
  if (element?.tagName !== "DETAILS") return;
  element.hidden = false;
  element.open = true;
  element.scrollIntoView();
}

const theme = choice("theme");
if (theme && theme !== "system") document.documentElement.dataset.theme = theme;

try {
  const answer = await fetch("./openapi.json");
  if (!answer.ok) throw new Error(`openapi.json was answered with ${answer.status}`);
  api = await answer.json();
  open = !Object.values(api.paths).some((each) => Object.values(each).some(({ security }) => security.length));
  draw();
  document.getElementById("find").addEventListener("input", (event) => find(event.target.value));
  window.addEventListener("hashchange", openNamed);
  openNamed();
} catch (error) {
  document.getElementById("api").replaceChildren(make("p", { class: "notice", "data-kind": "error", role: "alert" }, `The description cannot be shown: ${error.message}`));
}
