// Reads the nodes of runs page by page: few at a time, the same run not too often.

/** @import { Caller } from "../net/rpc.js" */
/** @import { Tree } from "./tree.js" */

/**
 * The reading of a run: `wanted` as soon as there is room, `again` when it has ended, not before `notBefore` (ms).
 * @typedef {{
 *   tree: Tree, notBefore: number, wanted?: boolean, running?: boolean, again?: boolean, forgotten?: boolean,
 *   timer?: ReturnType<typeof setTimeout> | 0,
 * }} Job
 */

const PAGE = 1000;
const MOST_PAGES = 20;
const AT_ONCE = 3;
const PAUSE_MS = 2_000;
const FIELDS = ["id", "kind", "name", "parent", "state", "result", "treeid", "revision"];

export class Loader {
  #rpc;
  #onTree;
  /** By treeid. @type {Map<string, Job>} */
  #jobs = new Map();
  #running = 0;

  /**
   * `onTree(treeid)` is called whenever a page has arrived.
   * @param {Caller} rpc
   * @param {(treeid: string) => void} onTree
   */
  constructor(rpc, onTree) {
    this.#rpc = rpc;
    this.#onTree = onTree;
  }

  /**
   * Asks for a (new) snapshot of a run: soon, or as soon as the last one is long enough ago.
   * @param {string} treeid
   * @param {Tree} tree
   */
  request(treeid, tree) {
    let job = this.#jobs.get(treeid);
    if (!job) this.#jobs.set(treeid, (job = { tree, notBefore: 0 }));
    if (job.running) job.again = true;
    if (job.running || job.wanted || job.timer) return;
    const wait = job.notBefore - Date.now();
    if (wait > 0) {
      job.timer = setTimeout(() => this.#enqueue(job), wait + Math.random() * 500);
    } else {
      this.#enqueue(job);
    }
  }

  /**
   * Nobody looks at the run any more.
   * @param {string} treeid
   */
  forget(treeid) {
    const job = this.#jobs.get(treeid);
    if (!job) return;
    clearTimeout(job.timer);
    job.forgotten = true;
    this.#jobs.delete(treeid);
  }

  /** @param {Job} job */
  #enqueue(job) {
    job.timer = 0;
    job.wanted = true;
    this.#pump();
  }

  #pump() {
    for (const [treeid, job] of this.#jobs) {
      if (this.#running >= AT_ONCE) return;
      if (job.wanted) this.#run(treeid, job);
    }
  }

  /** @param {string} treeid @param {Job} job */
  async #run(treeid, job) {
    Object.assign(job, { wanted: false, running: true, again: false });
    this.#running++;
    const start = Date.now();
    try {
      await this.#read(treeid, job);
    } catch (/** @type {any} */ error) {
      job.again = true;
      job.notBefore = Date.now() + Math.max(PAUSE_MS, error.retryAfterMs ?? 0);
    }
    // A big run is read less often: at most a sixth of the time goes into it.
    job.notBefore = Math.max(job.notBefore, Date.now() + PAUSE_MS, Date.now() + 5 * (Date.now() - start));
    job.running = false;
    this.#running--;
    if (job.again && !job.forgotten) this.request(treeid, job.tree);
    this.#pump();
  }

  /** @param {string} treeid @param {Job} job */
  async #read(treeid, job) {
    job.tree.beginSnapshot();
    let pages = 0;
    let partial = false;
    // Builds and jobs first: if a run is too large, only the number of its tests is a lower bound.
    for (const kinds of [["kbuild", "job"], ["test"]]) {
      let after;
      do {
        if (pages++ >= MOST_PAGES) {
          partial = true;
          break;
        }
        const filter = { treeid, kind__in: kinds };
        const params = { filter, fields: FIELDS, limit: PAGE, ...(after && { after }) };
        const page = await this.#rpc.call("node.find", params);
        if (job.forgotten) return;
        for (const node of page.items) job.tree.put(node);
        after = page.next;
        if (after) this.#onTree(treeid);
      } while (after);
    }
    job.tree.endSnapshot(partial);
    this.#onTree(treeid);
  }
}
