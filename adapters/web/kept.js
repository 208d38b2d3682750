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
