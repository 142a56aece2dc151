// Snapshot, then follow: the subscription stands first, then the lists are read, and events are merged into them by
// revision. So it does not matter whether a change arrives with the snapshot, as an event, or both.

/** @import { Caller } from "../net/rpc.js" */
/** @import { CloudEvent } from "../net/subscriptions.js" */
/** @import { ApiNode } from "./tree.js" */

import { Checkouts, MAX_CHECKOUTS } from "./checkouts.js";
import { Loader } from "./loader.js";
import { Tree } from "./tree.js";

const FIELDS = ["id", "kind", "name", "state", "result", "treeid", "created", "data", "owner", "revision"];
const RETRY_MS = 3_000;

export class Follow {
  checkouts = new Checkouts();
  /** By treeid, the runs that are looked at. @type {Map<string, Tree>} */
  trees = new Map();
  /** Whether the list of checkouts was read at least once. */
  loaded = false;
  /** Called when the list of checkouts changed. */
  onCheckouts = () => {};
  /** Called with the treeid of a run whose nodes changed. @type {(treeid: string) => void} */
  onTree = () => {};
  /** Called with a node that an event brought, as it stands now. @type {(node: ApiNode) => void} */
  onNode = () => {};

  #rpc;
  #loader;
  #round = 0;
  /** @type {string | null | undefined} */
  #pinned = null;

  /** @param {Caller} rpc */
  constructor(rpc) {
    this.#rpc = rpc;
    this.#loader = new Loader(rpc, (treeid) => this.onTree(treeid));
  }

  /** Reads everything again: at the start, and after events were lost. */
  async reload() {
    const round = ++this.#round;
    for (const [treeid, tree] of this.trees) this.#loader.request(treeid, tree);
    const params = { filter: { kind: "checkout" }, sort: ["-created"], limit: MAX_CHECKOUTS, fields: FIELDS };
    let page;
    try {
      page = await this.#rpc.call("node.find", params);
    } catch {
      if (round === this.#round) setTimeout(() => round === this.#round && this.reload(), RETRY_MS);
      return;
    }
    if (round !== this.#round) return;
    this.checkouts.reset(page.items);
    this.loaded = true;
    this.#dropUnseen();
    this.onCheckouts();
  }

  /**
   * Merges one event of the channel `node`; `node` is the node as it stands now, if the event came with it.
   * @param {CloudEvent} event
   * @param {ApiNode | null} node
   */
  apply(event, node) {
    const data = event.data;
    if (!data || typeof data !== "object" || !data.id) return;
    const now = node ?? { ...data, treeid: event.partitionkey };
    if (now.kind === "checkout") {
      // An event alone does not say when the checkout was made.
      if ((node || this.checkouts.get(now.id)) && this.checkouts.put({ ...this.checkouts.get(now.id), ...now })) {
        this.#dropUnseen();
        this.onCheckouts();
      }
    }
    const treeid = now.treeid ?? event.partitionkey;
    const tree = this.trees.get(treeid);
    if (tree) {
      if (tree.put(now)) this.onTree(treeid);
      // One event stands for all nodes that were written below its root.
      if (data.is_hierarchy) this.#loader.request(treeid, tree);
    }
    if (node) this.onNode(node);
  }

  /**
   * Somebody looks at this run: from now on its nodes are read and kept up to date.
   * @param {string | null | undefined} treeid
   */
  want(treeid) {
    if (!treeid || this.trees.has(treeid)) return;
    const tree = new Tree();
    this.trees.set(treeid, tree);
    this.#loader.request(treeid, tree);
  }

  /**
   * The run that the detail panel shows (or null) is kept even if its checkout is not in the list.
   * @param {string | null | undefined} treeid
   */
  pin(treeid) {
    this.#pinned = treeid;
    this.want(treeid);
    this.#dropUnseen();
  }

  #dropUnseen() {
    for (const treeid of this.trees.keys()) {
      if (treeid === this.#pinned || this.checkouts.ofTree(treeid)) continue;
      this.trees.delete(treeid);
      this.#loader.forget(treeid);
    }
  }
}
