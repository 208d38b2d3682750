/* The block part of Markdown: a text as a list of paragraphs, headings, lists, code and so on. Pure.
 *
 * Each block says where it starts, so that a text that grows is read again from its last blocks only. A text takes time
 * in proportion to its length, whatever it holds: no pattern here has two parts side by side that match the same
 * characters, and what would is written out (`fenced`, `isRule`, `withoutEnd`).
 */

import { unescaped } from "./inline.js";

const FENCE = /^( {0,3})(```|~~~)/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+([^ \t][^]*)?)?$/;
const RULE = /^([-*_])\1\1+$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^([ \t]*)([-*+]|\d{1,9}[.)])(?:[ \t]+|$)/;
const DIVISION = /^:?-+:?$/;
const BLANK = /^[ \t]*$/;

/** A list in a list and so on: a line is not looked at for more of them. */
const DEEP = 8;

/** Columns of a table; what has more is no table to read, and is shown as it is written. */
const COLUMNS = 100;

/** @typedef {{kind: string, start: number, text?: string, level?: number, language?: string, ordered?: boolean,
 *   first?: number, items?: string[], rows?: string[][], align?: string[], open?: boolean}} Block */

/**
 * @param {string} source its lines end in "\n"
 * @returns {Block[]}
 */
export function split(source) {
  const lines = source.split("\n");
  const starts = [];
  let offset = 0;
  for (const line of lines) {
    starts.push(offset);
    offset += line.length + 1;
  }
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (BLANK.test(lines[at])) {
      at += 1;
      continue;
    }
    const { end, ...block } = next(lines, at);
    blocks.push({ ...block, start: starts[at] });
    at = end;
  }
  return blocks;
}

function next(lines, at) {
  const line = lines[at];
  const fence = fenced(line);
  if (fence) return code(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return { kind: "heading", level: heading[1].length, text: withoutEnd(heading[2] ?? ""), end: at + 1 };
  if (isRule(line)) return { kind: "rule", end: at + 1 };
  if (QUOTE.test(line)) return quote(lines, at);
  if (ITEM.test(line)) return list(lines, at);
  if (tableAt(lines, at)) return table(lines, at);
  let end = at + 1;
  while (end < lines.length && !BLANK.test(lines[end]) && !interrupts(lines, end)) end += 1;
  const text = lines.slice(at, end).map((each) => outdented(each, Infinity)).join("\n");
  return { kind: "paragraph", text, end };
}

const isSpace = (char) => char === " " || char === "\t";
const step = (char, column) => (char === "\t" ? 4 - (column % 4) : 1);

/** How many columns of white space the line begins with; a tab goes on to the next fourth one. */
function indentation(line) {
  let column = 0;
  for (let at = 0; isSpace(line[at]); at += 1) column += step(line[at], column);
  return column;
}

/** The line without so many of these columns, or as many as there are. */
function outdented(line, width) {
  let column = 0;
  let at = 0;
  for (; column < width && isSpace(line[at]); at += 1) column += step(line[at], column);
  return " ".repeat(Math.max(0, column - width)) + line.slice(at);
}

/** The fence that opens code: how far it is indented, its run of marks, and what stands behind it. Or null. */
function fenced(line) {
  const found = FENCE.exec(line);
  if (!found) return null;
  const from = found[1].length;
  let end = found[0].length;
  while (line[end] === line[from]) end += 1;
  if (line[from] === "`" && line.includes("`", end)) return null; // code in a paragraph
  return { indent: from, mark: line.slice(from, end), language: line.slice(end).trim() };
}

/** Whether the line ends code that a fence of this mark has opened. */
function closes(line, mark) {
  const found = fenced(line);
  return found !== null && found.language === "" && found.mark.startsWith(mark);
}

function isRule(line) {
  return /^ {0,3}([-*_])[ \t]*\1/.test(line) && RULE.test(line.replace(/[ \t]+/g, ""));
}

/** A heading's text without the marks that may close it. */
function withoutEnd(text) {
  const trimmed = text.trimEnd();
  let end = trimmed.length;
  while (trimmed[end - 1] === "#") end -= 1;
  return end < trimmed.length && /[ \t]/.test(trimmed[end - 1] ?? " ") ? trimmed.slice(0, end).trimEnd() : text;
}

/** Whether a block begins here though no blank line stands before it. A number does so only with 1. */
function interrupts(lines, at) {
  const line = lines[at];
  if (fenced(line) || HEADING.test(line) || isRule(line) || QUOTE.test(line) || tableAt(lines, at)) return true;
  const item = ITEM.exec(line);
  return item !== null && item[0].length < line.length && (!/\d/.test(item[2]) || parseInt(item[2], 10) === 1);
}

function code(lines, at, { indent, mark, language }) {
  let end = at + 1;
  while (end < lines.length && !closes(lines[end], mark)) end += 1;
  const open = end >= lines.length;
  const inside = lines.slice(at + 1, open && lines.at(-1) === "" ? -1 : end); // a line that has just ended is one
  const text = inside.map((line) => outdented(line, indent)).join("\n");
  return { kind: "code", language: unescaped(language.split(/\s/)[0]), text, open, end: end + 1 };
}

function quote(lines, at) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  return { kind: "quote", text: lines.slice(at, end).map((line) => line.replace(QUOTE, "")).join("\n"), end };
}

/** What a line says inside the lists and quotes that it stands in. */
function innermost(line) {
  let text = outdented(line, Infinity);
  for (let depth = 0; depth < DEEP && !isRule(text); depth += 1) {
    const [mark] = ITEM.exec(text) ?? QUOTE.exec(text) ?? [""];
    if (!mark) break;
    text = outdented(text.slice(mark.length), Infinity);
  }
  return text;
}

/** Whether the line is one of a paragraph, if it is none of code. */
function isText(line) {
  const text = innermost(line);
  return text !== "" && !fenced(text) && !HEADING.test(text) && !isRule(text);
}

function list(lines, at) {
  const first = ITEM.exec(lines[at]);
  const ordered = /\d/.test(first[2]);
  const sort = first[2].at(-1);
  const items = [];
  let inside = null; // the lines of the item that is being read
  let fence = null; // the mark of one that is open in it
  const add = (line) => {
    inside.push(line);
    if (fence === null) fence = fenced(innermost(line))?.mark ?? null;
    else if (closes(outdented(line, Infinity), fence)) fence = null;
  };
  let width = 0;
  let end = at;
  let after = at; // the first line from here on that is not blank
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    const indent = indentation(line);
    const item = ITEM.exec(line);
    if (BLANK.test(line)) {
      after = Math.max(after, end);
      while (after < lines.length && BLANK.test(lines[after])) after += 1;
      const next = lines[after];
      if (next !== undefined && indentation(next) < width) {
        const follows = ITEM.exec(next);
        if (!follows || follows[2].at(-1) !== sort || isRule(next)) break;
      }
      inside.push("");
    } else if (item && (inside === null || indent < width) && item[2].at(-1) === sort && !isRule(line)) {
      const begin = indent + item[2].length;
      const rest = " ".repeat(begin) + line.slice(item[1].length + item[2].length);
      const behind = indentation(rest) - begin;
      width = begin + (behind > 4 || BLANK.test(rest) ? 1 : behind);
      inside = [];
      fence = null;
      items.push(inside);
      add(outdented(rest, width));
    } else if (indent >= width) add(outdented(line, width));
    else if (fence === null && isText(inside.at(-1)) && !item && !interrupts(lines, end)) add(outdented(line, Infinity));
    else break;
  }
  const texts = items.map((each) => each.join("\n"));
  return { kind: "list", ordered, first: parseInt(first[2], 10) || 0, items: texts, end };
}

function tableAt(lines, at) {
  if (!lines[at].includes("|") || !lines[at + 1]?.includes("-")) return false;
  const divider = cells(lines[at + 1]);
  const columns = divider.length;
  return columns <= COLUMNS && divider.every((each) => DIVISION.test(each)) && cells(lines[at]).length === columns;
}

function cells(line) {
  const inside = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inside.split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, "|"));
}

function table(lines, at) {
  const align = cells(lines[at + 1]).map((cell) => {
    if (cell.endsWith(":")) return cell.startsWith(":") ? "center" : "right";
    return "left";
  });
  const rows = [cells(lines[at])];
  let end = at + 2;
  for (; end < lines.length && lines[end].includes("|"); end += 1) {
    rows.push(cells(lines[end]).slice(0, align.length)); // a short row has no more cells than it says
  }
  return { kind: "table", align, rows, end };
}
