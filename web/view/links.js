// Addresses of nodes and searches, and how nodes are named in lists. They are relative, so that a page under /latest
// leads to pages under /latest.

/** @import { ApiNode } from "../model/tree.js" */

import { SIGNS } from "./bars.js";
import { statusOf } from "../model/tree.js";
import { el } from "./dom.js";

/**
 * The page of a node.
 * @param {string} id
 */
export const nodeHref = (id) => `viewer?${new URLSearchParams({ node_id: id })}`;

/**
 * The search for these conditions.
 * @param {string[]} conditions
 */
export const searchHref = (conditions) => `viewer?${new URLSearchParams(conditions.map((text) => ["search", text]))}`;

/**
 * A link to a node.
 * @param {Pick<ApiNode, "id" | "name">} node
 */
export const nodeLink = (node) => el("a", { href: nodeHref(node.id), text: String(node.name) });

/**
 * State and result of a node; colour is never the only difference.
 * @param {ApiNode} node
 */
export function chip(node) {
  const status = statusOf(node);
  const words = node.state === "done" || !node.state ? (node.result ?? "done") : [node.state, node.result].filter(Boolean).join(", ");
  return el("span", { class: `chip ${status}` }, el("span", { "aria-hidden": "true", text: SIGNS[status] }), ` ${words}`);
}
