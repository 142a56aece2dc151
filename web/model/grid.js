// Results as a grid: what was built or run by name, for each of the last commits of a branch.

/** @import { ApiNode, Counts } from "./tree.js" */

import { STATUSES, statusOf } from "./tree.js";

/**
 * A commit that there was a checkout of; `id` is the checkout's, `more` says that not everything of it was read.
 * @typedef {{commit: string, describe?: string, created?: string, id: string, more?: boolean}} Commit
 */
/** @typedef {{tree: string, branch: string, url?: string}} Branch */
/**
 * What there is of a name on a commit; `id` is the first node's.
 * @typedef {{counts: Counts, total: number, id: string}} Cell
 */
/**
 * A name, a node that has it, and its cells by commit.
 * @typedef {{name: string, sample: ApiNode, cells: Map<string, Cell>}} Row
 */

/**
 * The name of the row that a node stands in. Tests are told apart by where they stand below their job.
 * @param {Pick<ApiNode, "kind" | "name" | "group" | "path">} node
 */
export function rowName({ kind, name, group, path }) {
  if (kind !== "test") return String(name);
  const steps = Array.isArray(path) ? path.map(String) : [];
  const job = group ? steps.indexOf(String(group)) : -1;
  const below = job >= 0 ? steps.slice(job) : steps.slice(-2);
  return below.length ? below.join(" / ") : String(name);
}

/**
 * Commits of these checkouts, the newest first, each once.
 * @param {ApiNode[]} checkouts
 * @param {number} most
 */
export function commitsOf(checkouts, most) {
  /** @type {Map<string, Commit>} */
  const found = new Map();
  for (const { id, created, data } of checkouts) {
    const { commit, describe } = data?.kernel_revision ?? {};
    if (typeof commit === "string" && !found.has(commit)) found.set(commit, { commit, describe, created, id });
  }
  return [...found.values()].slice(0, most);
}

/**
 * Branches of these checkouts in order.
 * @param {Pick<ApiNode, "data">[]} checkouts
 */
export function branchesOf(checkouts) {
  /** @type {Map<string, Branch>} */
  const found = new Map();
  for (const { data } of checkouts) {
    const { tree, branch, url } = data?.kernel_revision ?? {};
    const key = JSON.stringify([tree, branch]);
    if (typeof tree === "string" && typeof branch === "string" && !found.has(key)) found.set(key, { tree, branch, url });
  }
  /** @param {string} a @param {string} b */
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  return [...found.values()].sort((a, b) => compare(a.tree, b.tree) || compare(a.branch, b.branch));
}

export class Grid {
  /** By name. @type {Map<string, Row>} */
  #rows = new Map();

  /**
   * Takes a node of a commit over; a node comes once.
   * @param {string} commit
   * @param {ApiNode} node
   */
  add(commit, node) {
    const name = rowName(node);
    let row = this.#rows.get(name);
    if (!row) this.#rows.set(name, (row = { name, sample: node, cells: new Map() }));
    let cell = row.cells.get(commit);
    if (!cell) row.cells.set(commit, (cell = { counts: {}, total: 0, id: node.id }));
    const status = statusOf(node);
    cell.counts[status] = (cell.counts[status] ?? 0) + 1;
    cell.total++;
  }

  get size() {
    return this.#rows.size;
  }

  /**
   * The rows by name that contain `text` and, if `failing`, a failure; at most `most`, and how many did not fit.
   * @param {{text?: string, failing?: boolean}} wish
   * @param {number} most
   */
  select({ text = "", failing = false }, most) {
    const wanted = text.trim().toLowerCase();
    const rows = [...this.#rows.values()]
      .filter((row) => !wanted || row.name.toLowerCase().includes(wanted))
      .filter((row) => !failing || [...row.cells.values()].some(({ counts }) => counts.fail || counts.incomplete))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
    return { rows: rows.slice(0, most), left: Math.max(0, rows.length - most) };
  }
}

/**
 * The worst of what is in a cell, and which share of what has a verdict is bad (0 to 1).
 * @param {Pick<Cell, "counts">} cell
 */
export function verdict({ counts }) {
  const bad = (counts.fail ?? 0) + (counts.incomplete ?? 0);
  const judged = bad + (counts.pass ?? 0);
  const worst = ["fail", "incomplete", "running", "pass", "skip"].find((status) => counts[status]) ?? "skip";
  return { worst, share: judged ? bad / judged : 0 };
}

/**
 * A cell in words: "3 pass, 1 fail".
 * @param {Pick<Cell, "counts">} cell
 */
export function inWords({ counts }) {
  return STATUSES.filter((status) => counts[status]).map((status) => `${counts[status]} ${status}`).join(", ");
}
