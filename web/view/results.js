// Results of a branch, commit by commit: which branch, since when, and the grid. The address says what is shown.

/** @import { Branch, Commit } from "../model/grid.js" */
/** @import { ApiNode } from "../model/tree.js" */
/** @import { Caller } from "../net/rpc.js" */

import { Grid, commitsOf } from "../model/grid.js";
import { hoursAgo, hoursOf } from "../model/times.js";
import { readNodes } from "../net/server.js";
import { recentBranches, showBranches } from "./branches.js";
import { el } from "./dom.js";
import { onFrame } from "./frame.js";
import { gridTable } from "./grid.js";
import { fillIn, note } from "./notes.js";

/** Days whose checkouts are offered. */
const OFFERED_DAYS = 28;
const MOST_COMMITS = 20;
const MOST_ROWS = 500;
/** Nodes of a commit and a kind that are read. */
const MOST_NODES = 3_000;
const AT_ONCE = 3;
/** @type {Record<string, string>} */
const FRAMES = { 24: "last 24 hours", 72: "last 3 days", 168: "last week", 336: "last two weeks", 672: "last four weeks" };
const FIELDS = ["id", "kind", "name", "path", "group", "state", "result"];

export class ResultsView {
  #rpc;
  #fixed;
  #kind;
  #place = el("section", { "aria-label": "Results" });
  #branch = el("select", { name: "branch", change: () => this.#show(true) });
  #frame = el("select", { name: "timeframe", change: () => this.#show(true) });
  #text = el("input", { type: "search", placeholder: "name…", input: () => this.#redraw() });
  #failing = el("input", { type: "checkbox", change: () => this.#redraw() });
  /** @type {Branch[]} */
  #branches = [];
  /** @type {{caption: string, columns: Commit[], grid: Grid, loading: number} | null} */
  #shown = null;

  /**
   * @param {Caller} rpc
   * @param {string} kind of the nodes that are shown
   * @param {Record<string, string>} fixed what the address says besides, e.g. {view: "trees"}
   */
  constructor(rpc, kind, fixed) {
    this.#rpc = rpc;
    this.#kind = kind;
    this.#fixed = fixed;
  }

  /**
   * Shows it in `body`, as the address says.
   * @param {Element} body
   */
  async start(body) {
    const wish = new URLSearchParams(location.search);
    const hours = hoursOf(wish.get("timeframe"));
    const frames = { ...FRAMES, ...(!FRAMES[hours] && { [hours]: `last ${hours} hours` }) };
    this.#frame.replaceChildren(
      ...Object.entries(frames).map(([value, text]) => el("option", { value, text, selected: Number(value) === hours })),
    );
    const controls = el(
      "div",
      { class: "controls" },
      el("label", {}, "Branch ", this.#branch),
      el("label", {}, "Commits of the ", this.#frame),
      el("label", {}, "Rows ", this.#text),
      el("label", { class: "check" }, this.#failing, " only with failures"),
      el("button", { type: "button", text: "Refresh", click: () => this.#show(false) }),
    );
    body.replaceChildren(controls, this.#place);
    await fillIn(this.#place, async () => {
      const { branches, newest } = await recentBranches(this.#rpc, OFFERED_DAYS);
      const tree = wish.get("tree");
      const branch = wish.get("branch");
      /** @type {Branch | null | undefined} */
      let chosen = newest;
      if (tree) chosen = branches.find((one) => one.tree === tree && (!branch || one.branch === branch));
      if (!chosen && tree) {
        chosen = { tree, branch: branch ?? "" };
        branches.unshift(chosen);
      }
      this.#branches = branches;
      showBranches(this.#branch, branches, chosen);
      if (!branches.length) return [note(`No checkouts in the last ${OFFERED_DAYS} days.`)];
      await this.#show(false);
      return null;
    });
  }

  /** @param {boolean} changed @returns {Promise<void> | undefined} */
  #show(changed) {
    const one = this.#branches[Number(this.#branch.value)];
    if (!one) return;
    const hours = Number(this.#frame.value);
    if (changed) {
      const query = new URLSearchParams({ ...this.#fixed, tree: one.tree, branch: one.branch, timeframe: String(hours) });
      history.replaceState(null, "", `?${query}`);
    }
    return fillIn(this.#place, (wanted) => this.#load(one, hours, wanted));
  }

  /** @param {Branch} branch @param {number} hours @param {() => boolean} wanted */
  async #load({ tree, branch }, hours, wanted) {
    this.#shown = null;
    const revision = { "data.kernel_revision.tree": tree, "data.kernel_revision.branch": branch };
    const { items } = await this.#rpc.call("node.find", {
      filter: { kind: "checkout", ...revision, created__gt: hoursAgo(hours) },
      fields: ["id", "created", "data.kernel_revision.commit", "data.kernel_revision.describe"],
      sort: ["-created"],
      limit: 200,
    });
    const columns = commitsOf(items, MOST_COMMITS);
    if (!wanted()) return null;
    if (!columns.length) return [note(`No checkouts of ${tree} / ${branch} in this time.`)];
    const shown = { caption: `${this.#kind} results of ${tree} / ${branch}`, columns, grid: new Grid(), loading: columns.length };
    this.#shown = shown;
    const queue = [...columns];
    const open = () => wanted() && this.#shown === shown;
    const worker = async () => {
      for (let column = queue.shift(); column && open(); column = queue.shift()) {
        const filter = { ...revision, "data.kernel_revision.commit": column.commit, kind: this.#kind };
        const add = (/** @type {ApiNode[]} */ nodes) => nodes.forEach((node) => shown.grid.add(column.commit, node));
        column.more = await readNodes(this.#rpc, { filter, fields: FIELDS, sort: ["-id"] }, MOST_NODES, add, open);
        shown.loading--;
        if (open()) this.#redraw();
      }
    };
    try {
      await Promise.all(Array.from({ length: AT_ONCE }, worker));
    } catch (error) {
      // An empty cell must not look like "nothing ran" when it was not read.
      if (open()) this.#shown = null;
      throw error;
    }
    return null;
  }

  #redraw = () => onFrame(this.#draw, 200);

  #draw = () => {
    if (!this.#shown) return;
    const { caption, columns, grid, loading } = this.#shown;
    const { rows, left } = grid.select({ text: this.#text.value, failing: this.#failing.checked }, MOST_ROWS);
    const words = [
      loading ? `Loading, ${loading} commits to go…` : "",
      left ? `${left} more rows are not shown; say more about the name.` : "",
      columns.some((column) => column.more) && !loading ? `Of commits with + only the last ${MOST_NODES} results are shown.` : "",
    ].filter(Boolean);
    if (!rows.length) words.push(loading ? "" : grid.size ? "No row matches." : "Nothing ran on these commits.");
    const text = words.filter(Boolean).join(" ");
    this.#place.replaceChildren(...(rows.length ? [gridTable(caption, columns, rows)] : []), ...(text ? [note(text)] : []));
  };
}
