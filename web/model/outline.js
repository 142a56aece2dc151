// The nodes of a run as the lines of an outline: builds, below them jobs, below them tests.

/** @import { Counts, RunNode, Tree } from "./tree.js" */

import { KINDS } from "./tree.js";

const MOST_LINES = 1_000;
const MOST_DEPTH = 16; // parents come from outside and may even form a circle

/** @type {Record<string, (node: RunNode) => boolean>} */
const WANTED = {
  all: () => true,
  fail: (node) => node.status === "fail" || node.status === "incomplete",
  running: (node) => node.status === "running",
};

/**
 * One line; `has` says whether there is anything to open, `below` how many nodes of each status are below it.
 * @typedef {{node: RunNode, depth: number, has: boolean, isOpen: boolean, below: Counts}} Line
 */

/**
 * The lines to show.
 * @param {Tree} tree
 * @param {{only: string, open: Set<string>}} wish `only` is a key of WANTED; `open` has the ids whose children show
 * @returns {{lines: Line[], left: number}} `left`: how many lines did not fit
 */
export function outline(tree, { only, open }) {
  /** @type {Map<string | null, RunNode[]>} */
  const children = new Map();
  /** @type {Map<string, Counts>} */
  const below = new Map();
  /** @type {Set<string>} */
  const kept = new Set();
  for (const node of tree.nodes.values()) {
    const parent = node.parent !== null && tree.nodes.has(node.parent) ? node.parent : null;
    const siblings = children.get(parent);
    if (siblings) siblings.push(node);
    else children.set(parent, [node]);
    const wanted = WANTED[only](node);
    if (wanted) kept.add(node.id);
    let above = tree.nodes.get(node.parent ?? "");
    for (let depth = 0; above && depth < MOST_DEPTH; depth++) {
      let counts = below.get(above.id);
      if (!counts) below.set(above.id, (counts = {}));
      counts[node.status] = (counts[node.status] ?? 0) + 1;
      if (wanted) kept.add(above.id);
      above = tree.nodes.get(above.parent ?? "");
    }
  }
  /** @type {Line[]} */
  const lines = [];
  let left = 0;
  /** @param {string | null} parent @param {number} depth */
  const walk = (parent, depth) => {
    const nodes = (children.get(parent) ?? []).filter((node) => kept.has(node.id)).sort(inOrder);
    for (const node of nodes) {
      if (lines.length >= MOST_LINES) {
        left++;
        continue;
      }
      const has = children.get(node.id)?.some((child) => kept.has(child.id)) ?? false;
      // What is looked for lies deep: a filter opens the way to it.
      const isOpen = has && (only !== "all") !== open.has(node.id);
      lines.push({ node, depth, has, isOpen, below: below.get(node.id) ?? {} });
      if (isOpen && depth < MOST_DEPTH) walk(node.id, depth + 1);
    }
  };
  walk(null, 0);
  return { lines, left };
}

/** @param {RunNode} a @param {RunNode} b */
const inOrder = (a, b) =>
  KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind) || (a.name < b.name ? -1 : a.name > b.name ? 1 : a.id < b.id ? -1 : 1);
