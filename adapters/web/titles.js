/* What a conversation is called: its title, else how it begins, and only where there is neither, its id. */

import { plain } from "./dom.js";

const LONGEST = 60; // characters, as people count them

/** The first characters, none of them cut in two: neither a code point nor what is written as several. */
export function cut(text, length = LONGEST) {
  if (text.length <= length) return text;
  const characters = Intl.Segmenter ? new Intl.Segmenter().segment(text.slice(0, 32 * length)) : [...text].map((segment) => ({ segment }));
  let first = "";
  for (const { segment } of characters) {
    if (length === 0) return `${first.trimEnd()}…`;
    first += segment;
    length -= 1;
  }
  return first;
}

/** The first line of what was said, without the signs of its form. */
export function firstWords(text) {
  const line = text.trim().split("\n")[0];
  return cut(line.replace(/^[#>*\s-]+/, "").trim());
}

/** @param {{metadata?: object, title?: string, session_id: string}} listed as the list tells of it, or a state */
export function title({ metadata, title: begins, session_id: id }) {
  const given = metadata?.title;
  return plain(typeof given === "string" && given.trim() ? given : firstWords(begins ?? "") || `Untitled ${id.slice(-4)}`);
}

/** What a state is called, by what was said first. */
export function titleOf(state) {
  const first = state.more ? undefined : state.messages.find(({ role }) => role === "user");
  const text = first?.blocks.find(({ kind }) => kind === "text")?.text;
  return title({ ...state, title: text });
}
