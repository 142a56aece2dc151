// The newest checkouts, newest first.

/** @import { ApiNode } from "./tree.js" */

/** How many checkouts the page shows. */
export const MAX_CHECKOUTS = 50;

/** @param {ApiNode} a @param {ApiNode} b */
const newestFirst = (a, b) =>
  a.created === b.created ? (a.id < b.id ? 1 : -1) : (a.created ?? "") < (b.created ?? "") ? 1 : -1;

export class Checkouts {
  /** Sorted. @type {ApiNode[]} */
  #items = [];
  /** @type {Map<string, ApiNode>} */
  #byId = new Map();

  /** The checkouts in order. */
  get items() {
    return this.#items;
  }

  /**
   * The checkout with this id.
   * @param {string} id
   */
  get(id) {
    return this.#byId.get(id);
  }

  /**
   * The checkout whose run this is.
   * @param {string | undefined} treeid
   */
  ofTree(treeid) {
    return treeid ? this.#items.find((item) => item.treeid === treeid) : undefined;
  }

  /**
   * Takes a checkout over unless a newer revision is known. Returns whether the list changed.
   * @param {ApiNode} node
   */
  put(node) {
    const known = this.#byId.get(node.id);
    if (known && (node.revision ?? 0) < (known.revision ?? 0)) return false;
    if (known) this.#items.splice(this.#items.indexOf(known), 1);
    this.#byId.set(node.id, node);
    this.#items.push(node);
    this.#items.sort(newestFirst);
    for (const old of this.#items.splice(MAX_CHECKOUTS)) this.#byId.delete(old.id);
    return true;
  }

  /**
   * Takes a snapshot over: `nodes` are the newest checkouts; what is older than the last one stays out.
   * @param {ApiNode[]} nodes
   */
  reset(nodes) {
    const newer = this.#items.filter((item) => !nodes.length || newestFirst(item, nodes[0]) < 0);
    this.#items = [];
    const known = this.#byId;
    this.#byId = new Map();
    for (const node of [...newer, ...nodes]) {
      const seen = known.get(node.id);
      this.put(seen && (seen.revision ?? 0) > (node.revision ?? 0) ? seen : node);
    }
  }
}
