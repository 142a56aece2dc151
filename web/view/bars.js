// How many nodes of one kind stand where: numbers over a stacked bar.

/** @import { Tree } from "../model/tree.js" */

import { KINDS, STATUSES } from "../model/tree.js";
import { short } from "../format.js";
import { el, setAttr, setText } from "./dom.js";

/** The sign of each status; colour is never the only difference. @type {Record<string, string>} */
export const SIGNS = { pass: "✓", fail: "✗", incomplete: "!", skip: "–", running: "•" };
/** Headings of the kinds. @type {Record<string, string>} */
export const TITLES = { kbuild: "Builds", job: "Jobs", test: "Tests" };

/**
 * One empty cell; fill it with `updateBar`.
 * @param {string} kind
 */
export function createBar(kind) {
  const numbers = STATUSES.map((status) => el("span", { class: `num ${status}`, hidden: true }));
  const parts = STATUSES.map((status) => el("i", { class: status }));
  return el(
    "div",
    { class: `bar-cell ${kind}`, role: "img" },
    el("span", { class: "bar-title", "aria-hidden": "true", text: TITLES[kind] }),
    el("span", { class: "numbers" }, ...numbers),
    el("span", { class: "bar" }, ...parts),
  );
}

/**
 * Shows the counts of a kind of `tree` (undefined: not known yet).
 * @param {Element} cell
 * @param {string} kind
 * @param {Tree | undefined} tree
 */
export function updateBar(cell, kind, tree) {
  const counts = tree?.counts[kind];
  const total = counts ? STATUSES.reduce((sum, status) => sum + counts[status], 0) : 0;
  const known = Boolean(tree?.loaded || total);
  cell.classList.toggle("loading", !known);
  cell.classList.toggle("none", known && total === 0);
  const more = kind === "test" && tree?.partial ? "+" : "";
  const [, numbers, bar] = cell.children;
  /** @type {string[]} */
  const words = [];
  STATUSES.forEach((status, i) => {
    const number = /** @type {HTMLElement} */ (numbers.children[i]);
    const part = /** @type {HTMLElement} */ (bar.children[i]);
    const count = counts?.[status] ?? 0;
    number.hidden = count === 0;
    setText(number, count ? `${SIGNS[status]}${short(count)}${more}` : "");
    part.style.flexGrow = String(count);
    part.hidden = count === 0;
    if (count) words.push(`${count}${more} ${status}`);
  });
  const label = `${TITLES[kind]}: ${known ? words.join(", ") || "none" : "loading"}`;
  setAttr(cell, "aria-label", label);
  setAttr(cell, "title", label);
}

/** The three cells of a run. */
export const createBars = () => KINDS.map(createBar);
/**
 * Fills them.
 * @param {Element[]} cells
 * @param {Tree | undefined} tree
 */
export const updateBars = (cells, tree) => KINDS.forEach((kind, i) => updateBar(cells[i], kind, tree));
