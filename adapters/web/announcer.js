/* What is read out to those who do not see the page: ends and questions, never the pieces of an answer. */

import { cut } from "./titles.js";

const LONGEST = 600; // characters; the rest is in the transcript

const region = document.getElementById("announce");
let clearing;

/** Read out this text, when what is being read is done. */
export function announce(text) {
  clearTimeout(clearing);
  region.textContent = cut(text, LONGEST);
  clearing = setTimeout(() => (region.textContent = ""), 10_000); // so that it is not met when reading the page
}
