// How nodes ended: altogether and by name.

/** @import { ApiNode, Counts } from "./tree.js" */

import { STATUSES, statusOf } from "./tree.js";

/**
 * `share` of `total` as "12.5 %"; empty if there is nothing to share.
 * @param {number} share
 * @param {number} total
 */
export function percent(share, total) {
  if (!total) return "";
  const value = (100 * share) / total;
  return `${value < 10 && value % 1 ? value.toFixed(1) : Math.round(value)} %`;
}

/** The nodes of one name. @typedef {{name: string, total: number, counts: Counts}} NameRow */

export class Breakdown {
  /** All nodes. @type {Counts} */
  counts = Object.fromEntries(STATUSES.map((status) => [status, 0]));
  total = 0;
  /** @type {Map<string, NameRow>} */
  #names = new Map();
  /** @type {ApiNode[]} */
  #nodes = [];

  /**
   * Takes nodes over, in the order in which they are to be listed.
   * @param {ApiNode[]} nodes
   */
  add(nodes) {
    for (const node of nodes) {
      const status = statusOf(node);
      this.counts[status]++;
      this.total++;
      const name = String(node.name);
      let row = this.#names.get(name);
      if (!row) this.#names.set(name, (row = { name, total: 0, counts: {} }));
      row.total++;
      row.counts[status] = (row.counts[status] ?? 0) + 1;
      this.#nodes.push(node);
    }
  }

  /**
   * The names with most failures first; at most `most`.
   * @param {number} most
   */
  names(most) {
    const bad = (/** @type {NameRow} */ { counts }) => (counts.fail ?? 0) + (counts.incomplete ?? 0);
    return [...this.#names.values()].sort((a, b) => bad(b) - bad(a) || b.total - a.total).slice(0, most);
  }

  get nameCount() {
    return this.#names.size;
  }

  /**
   * The first `most` nodes that stand at `status`.
   * @param {string} status
   * @param {number} most
   */
  nodes(status, most) {
    const found = [];
    for (const node of this.#nodes) {
      if (found.length >= most) break;
      if (statusOf(node) === status) found.push(node);
    }
    return found;
  }
}
