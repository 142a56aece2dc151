// The nodes of one run, as far as the page needs them, and how many of each kind stand where.

/**
 * A node as the server has it, or the part of it that was asked for; what is in `data` depends on its kind.
 * @typedef {{
 *   id: string, kind: string, name: string, state?: string, result?: string | null, parent?: string | null,
 *   treeid?: string, group?: string | null, path?: string[], created?: string, updated?: string, owner?: string,
 *   submitter?: string, artifacts?: Record<string, string> | null, data?: any, revision?: number,
 * }} ApiNode
 */
/** Numbers of nodes by status. @typedef {Record<string, number>} Counts */
/**
 * What is kept of a node of a run.
 * @typedef {{
 *   id: string, kind: string, name: string, parent: string | null, state?: string, result?: string | null,
 *   status: string, revision: number, round: number,
 * }} RunNode
 */

/** The kinds that are counted, in the order in which they are shown. */
export const KINDS = ["kbuild", "job", "test"];
/** Where a node can stand, in the order in which bars show it. */
export const STATUSES = ["pass", "fail", "incomplete", "skip", "running"];

/**
 * One word for state and result: the result once there is one, else running; done without a result is incomplete.
 * @param {{state?: string, result?: string | null}} node
 * @returns {string}
 */
export function statusOf({ state, result }) {
  if (result && STATUSES.includes(result)) return result;
  return state === "done" ? "incomplete" : "running";
}

const MOST_NODES = 30_000;

/** @returns {Counts} */
const noCounts = () => Object.fromEntries(STATUSES.map((status) => [status, 0]));

export class Tree {
  /** By id; the tree of one checkout. @type {Map<string, RunNode>} */
  nodes = new Map();
  /** By kind. @type {Record<string, Counts>} */
  counts = Object.fromEntries(KINDS.map((kind) => [kind, noCounts()]));
  /** Whether a snapshot was read; before that the counts mean nothing. */
  loaded = false;
  /** Whether there are more nodes than the page reads. */
  partial = false;
  #round = 0;

  /**
   * Takes a node over unless a newer revision is known. Returns whether anything that is shown changed.
   * @param {ApiNode} node
   */
  put(node) {
    if (!KINDS.includes(node.kind)) return false;
    const known = this.nodes.get(node.id);
    const revision = node.revision ?? known?.revision ?? 0;
    if (known && revision < known.revision) {
      known.round = this.#round;
      return false;
    }
    if (!known && this.nodes.size >= MOST_NODES) {
      this.partial = true;
      return true;
    }
    const status = statusOf(node);
    const same = known && known.status === status && known.state === node.state && known.name === node.name;
    if (known) this.counts[known.kind][known.status]--;
    this.counts[node.kind][status]++;
    this.nodes.set(node.id, {
      id: node.id,
      kind: node.kind,
      name: node.name,
      parent: node.parent === undefined ? (known?.parent ?? null) : node.parent,
      state: node.state,
      result: node.result,
      status,
      revision,
      round: this.#round,
    });
    return !same;
  }

  /** A snapshot begins: what neither it nor an event mentions until `endSnapshot` is gone. */
  beginSnapshot() {
    this.#round++;
  }

  /**
   * A snapshot is complete, or `partial` if it stopped at its limit.
   * @param {boolean} partial
   */
  endSnapshot(partial) {
    this.loaded = true;
    this.partial = partial;
    if (partial) return;
    for (const node of this.nodes.values()) {
      if (node.round === this.#round) continue;
      this.nodes.delete(node.id);
      this.counts[node.kind][node.status]--;
    }
  }
}
