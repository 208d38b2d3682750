/* The block part of Markdown: a text as a list of paragraphs, headings, lists, code and so on. Pure.
 *
 * Each block says where it starts, so that a text that grows is read again from its last blocks only.
 */

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(\S.*)$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])( +|\t)(?=\S|$)/;
const DIVIDER = /^ *\|? *:?-+:? *(\| *:?-+:? *)*\|? *$/;
const BLANK = /^[ \t]*$/;

/** @typedef {{kind: string, start: number, text?: string, level?: number, language?: string, ordered?: boolean,
 *   first?: number, items?: string[], rows?: string[][], align?: string[], open?: boolean}} Block */

/**
 * @param {string} source
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
  const fence = FENCE.exec(line);
  if (fence) return code(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) {
    const text = heading[2].replace(/[ \t]+#+[ \t]*$/, "");
    return { kind: "heading", level: heading[1].length, text, end: at + 1 };
  }
  if (RULE.test(line)) return { kind: "rule", end: at + 1 };
  if (QUOTE.test(line)) return quote(lines, at);
  if (ITEM.test(line)) return list(lines, at);
  if (tableAt(lines, at)) return table(lines, at);
  let end = at + 1;
  while (end < lines.length && !BLANK.test(lines[end]) && !interrupts(lines, end)) end += 1;
  const text = lines.slice(at, end).map((each) => each.trimStart()).join("\n");
  return { kind: "paragraph", text, end };
}

/** Whether a block begins here though no blank line stands before it. A number does so only with 1. */
function interrupts(lines, at) {
  const line = lines[at];
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || tableAt(lines, at)) return true;
  const item = ITEM.exec(line);
  return item !== null && item[0].length < line.length && (!/\d/.test(item[2]) || parseInt(item[2], 10) === 1);
}

function code(lines, at, [, mark, language]) {
  const closing = new RegExp(`^ {0,3}${mark[0]}{${mark.length},}[ \\t]*$`);
  let end = at + 1;
  while (end < lines.length && !closing.test(lines[end])) end += 1;
  const text = lines.slice(at + 1, end).join("\n");
  return { kind: "code", language: language.trim().split(/\s/)[0], text, open: end >= lines.length, end: end + 1 };
}

function quote(lines, at) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  return { kind: "quote", text: lines.slice(at, end).map((line) => line.replace(QUOTE, "")).join("\n"), end };
}

function list(lines, at) {
  const first = ITEM.exec(lines[at]);
  const ordered = /\d/.test(first[2]);
  const sort = first[2].at(-1);
  const items = [];
  let inside = null; // the lines of the item that is being read
  let width = 0;
  let end = at;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    const indent = line.length - line.trimStart().length;
    const item = ITEM.exec(line);
    if (BLANK.test(line)) {
      const after = lines.slice(end + 1).find((each) => !BLANK.test(each));
      if (after !== undefined && after.length - after.trimStart().length < width) {
        const follows = ITEM.exec(after);
        if (!follows || follows[2].at(-1) !== sort || RULE.test(after)) break;
      }
      inside?.push("");
    } else if (item && (inside === null || indent < width) && item[2].at(-1) === sort && !RULE.test(line)) {
      width = item[0].length > item[1].length + item[2].length + 4 ? item[1].length + item[2].length + 1 : item[0].length;
      inside = [line.slice(width)];
      items.push(inside);
    } else if (indent >= width) inside.push(line.slice(width));
    else if (inside.at(-1) !== "" && !interrupts(lines, end)) inside.push(line.trimStart());
    else break;
  }
  const texts = items.map((each) => each.join("\n"));
  return { kind: "list", ordered, first: parseInt(first[2], 10) || 0, items: texts, end };
}

function tableAt(lines, at) {
  return (
    lines[at].includes("|") &&
    at + 1 < lines.length &&
    lines[at + 1].includes("-") &&
    DIVIDER.test(lines[at + 1]) &&
    cells(lines[at]).length === cells(lines[at + 1]).length
  );
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
    const row = cells(lines[end]);
    rows.push(align.map((_, index) => row[index] ?? ""));
  }
  return { kind: "table", align, rows, end };
}
