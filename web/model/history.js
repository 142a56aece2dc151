// The last events, for the stream. Bounded; a page that is not looked at does not grow.

/** @import { CloudEvent, Gap, Place } from "../net/subscriptions.js" */
/** @import { ApiNode } from "./tree.js" */

/**
 * A line for an event; `text` is what is searched.
 * @typedef {{
 *   key: number, gap?: undefined, seq: number, time?: string, id: string, op: string, kind: string, name: string,
 *   state: string | null, before: string | null, result: string | null, many: boolean, tree: string, text: string,
 * }} EventRow
 */
/** A line that says that events are missing. @typedef {{key: number, gap: string}} GapRow */
/** @typedef {EventRow | GapRow} Row */

const KEPT = 1000;

export class History {
  /** Oldest first. @type {Row[]} */
  #rows = [];
  #serial = 0;
  /** Events per second of the last minute, oldest first; the last one is the running second. */
  rates = new Array(60).fill(0);

  /**
   * Adds an event; what was already `past` when the page was opened does not count as happening now.
   * @param {CloudEvent} event
   * @param {ApiNode | null} node
   * @param {Place} place
   */
  add(event, node, { seq, past }) {
    const data = event.data && typeof event.data === "object" ? event.data : {};
    const revision = (node?.data ?? data.data)?.kernel_revision;
    const row = {
      key: ++this.#serial,
      seq,
      time: event.time,
      id: data.id ?? event.subject ?? "",
      op: data.op ?? "",
      kind: String(data.kind ?? ""),
      name: String(data.name ?? event.type ?? ""),
      state: data.state ?? null,
      before: data.previous_state ?? null,
      result: data.result ?? null,
      many: Boolean(data.is_hierarchy),
      tree: revision ? `${revision.tree}/${revision.branch}` : "",
      text: "",
    };
    row.text = [row.kind, row.name, row.state, row.result, row.tree, ...(data.path ?? [])].join(" ").toLowerCase();
    this.#push(row);
    if (!past) this.rates[this.rates.length - 1]++;
  }

  /**
   * Adds a line that says that events are missing here.
   * @param {Gap} gap
   */
  addGap({ from, to }) {
    const range = from === undefined ? "" : `: ${from} to ${to}`;
    this.#push({ key: ++this.#serial, gap: `Some events were missed${range}. The lists were loaded again.` });
  }

  /** A second has gone by. */
  tick() {
    this.rates.shift();
    this.rates.push(0);
  }

  /**
   * Up to `limit` rows, newest first, of `kind` (or "") that contain `text` (lower case).
   * @param {{kind: string, text: string}} wish
   * @param {number} limit
   */
  select({ kind, text }, limit) {
    /** @type {Row[]} */
    const found = [];
    for (let i = this.#rows.length - 1; i >= 0 && found.length < limit; i--) {
      const row = this.#rows[i];
      if (row.gap !== undefined || ((!kind || row.kind === kind) && row.text.includes(text))) found.push(row);
    }
    return found;
  }

  /** @param {Row} row */
  #push(row) {
    this.#rows.push(row);
    // Cut in large steps: shifting one by one costs more than the rows.
    if (this.#rows.length >= 2 * KEPT) this.#rows.splice(0, KEPT);
  }
}
