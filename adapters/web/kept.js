/* What the page keeps in the browser: choices for good, the token for this tab only. A browser may refuse to. */

function at(storage, key, value) {
  try {
    const store = globalThis[storage];
    if (value === undefined) return store.getItem(key);
    if (value === null) store.removeItem(key);
    else store.setItem(key, value);
  } catch {
    // private windows, or storage that is full: then it is kept as long as the page
  }
  return value ?? null;
}

/** A choice; with a value it is kept, with null forgotten. */
export const choice = (key, value) => at("localStorage", `penstock.${key}`, value);

/** What belongs to this tab, and ends with it. */
export const ofTab = (key, value) => at("sessionStorage", `penstock.${key}`, value);

const DRAFTS = 20; // conversations
const LONGEST = 20_000; // characters of one

/** What was written and not sent in a conversation; with a text that is kept, in this tab, with "" forgotten. */
export function draft(sessionId, text) {
  let drafts = [];
  try {
    drafts = JSON.parse(ofTab("drafts") ?? "[]");
  } catch {
    // somebody else's
  }
  if (text === undefined) return drafts.find(([id]) => id === sessionId)?.[1] ?? "";
  drafts = drafts.filter(([id]) => id !== sessionId).slice(1 - DRAFTS);
  if (text) drafts.push([sessionId, text.slice(0, LONGEST)]);
  ofTab("drafts", drafts.length ? JSON.stringify(drafts) : null);
  return text;
}
