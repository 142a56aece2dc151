// Any JSON value as a tree that can be read: names, values, folded where it is deep.

import { httpUrl } from "../format.js";
import { el } from "./dom.js";
import { nodeHref } from "./links.js";

const MOST_ENTRIES = 3_000;
const OPEN_DEPTH = 3;
const OPEN_ENTRIES = 40;
const MOST_DEPTH = 40;
/** How many entries may still be shown. @typedef {{left: number}} Budget */

const ID = /^[0-9a-f]{24}$/;

/**
 * The members of an object (or array) as a list.
 * @param {object} value
 */
export function jsonTree(value) {
  const budget = { left: MOST_ENTRIES };
  const list = members(value, budget, 1);
  if (budget.left <= 0) list.append(el("li", { class: "muted", text: `… more than ${MOST_ENTRIES} entries; the rest is in the JSON below.` }));
  list.classList.add("json-tree");
  return list;
}

/** @param {object} value @param {Budget} budget @param {number} depth */
function members(value, budget, depth) {
  const list = el("ul");
  for (const [name, member] of Object.entries(value)) {
    if (budget.left-- <= 0) break;
    list.append(entry(name, member, budget, depth));
  }
  return list;
}

/** @param {string} name @param {any} value @param {Budget} budget @param {number} depth */
function entry(name, value, budget, depth) {
  const key = el("code", { class: "key", text: name });
  const count = value && typeof value === "object" ? Object.keys(value).length : 0;
  if (!count) return el("li", {}, key, " ", leaf(value));
  const size = el("span", { class: "muted", text: ` ${Array.isArray(value) ? `[${count}]` : `{${count}}`}` });
  if (depth >= MOST_DEPTH) return el("li", {}, key, size);
  const open = depth < OPEN_DEPTH && count <= OPEN_ENTRIES;
  return el("li", {}, el("details", { open }, el("summary", {}, key, size), members(value, budget, depth + 1)));
}

/** @param {any} value */
function leaf(value) {
  if (typeof value !== "string") return el("code", { class: "literal", text: JSON.stringify(value) });
  const href = httpUrl(value);
  if (href) return el("a", { href, rel: "noopener noreferrer", target: "_blank", text: value });
  if (ID.test(value)) return el("a", { href: nodeHref(value) }, el("code", { text: value }));
  return el("span", { text: value });
}
