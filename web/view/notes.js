// What stands where there is nothing to show: loading, empty, failed.

import { el } from "./dom.js";

/**
 * A line that says why there is nothing.
 * @param {string} text
 */
export function note(text) {
  return el("p", { class: "note", role: "status", text });
}

/**
 * A line that says what went wrong.
 * @param {{message: string}} error
 */
export function failure(error) {
  return el("p", { class: "note error", role: "alert", text: error.message });
}

/** The number of the last filling of each place. @type {WeakMap<Element, number>} */
const turns = new WeakMap();

/**
 * Fills `place` with what `work(wanted)` resolves with: elements, or null if it filled the place itself. Until then it
 * says that it is loading, afterwards what went wrong. Only the last of several fillings shows; `wanted()` says whether
 * this one is.
 * @param {Element} place
 * @param {(wanted: () => boolean) => Promise<Element[] | null>} work
 */
export async function fillIn(place, work) {
  const turn = (turns.get(place) ?? 0) + 1;
  turns.set(place, turn);
  const wanted = () => turns.get(place) === turn;
  place.setAttribute("aria-busy", "true");
  place.replaceChildren(note("Loading…"));
  try {
    const elements = await work(wanted);
    if (wanted() && elements) place.replaceChildren(...elements);
  } catch (/** @type {any} */ error) {
    if (wanted()) place.replaceChildren(failure(error));
  }
  if (wanted()) place.removeAttribute("aria-busy");
}
