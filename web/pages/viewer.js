// The viewer: a node, a search, the grid of a tree. The address says which:
// ?node_id=…, ?search=<condition>&search=…, ?view=trees|day|week.

import { hoursAgo } from "../model/times.js";
import { session } from "../net/server.js";
import { connectionBadge } from "../view/badge.js";
import { NodeView } from "../view/node_page.js";
import { ResultsView } from "../view/results.js";
import { showSearch } from "../view/search.js";

const view = /** @type {HTMLElement} */ (document.getElementById("view"));
const rpc = session("viewer");
rpc.onState = connectionBadge(/** @type {HTMLElement} */ (document.getElementById("connection")), rpc);

const query = new URLSearchParams(location.search);
const checkoutsOf = (/** @type {number} */ hours) => ["kind=checkout", `created>${hoursAgo(hours)}`];
/** @type {Record<string, () => unknown>} */
const VIEWS = {
  day: () => showSearch(rpc, view, checkoutsOf(24)),
  week: () => showSearch(rpc, view, checkoutsOf(7 * 24)),
  trees: () => new ResultsView(rpc, "kbuild", { view: "trees" }).start(view),
  search: () => showSearch(rpc, view, query.getAll("search")),
};
const named = query.get("view") ?? "";
const nodeId = query.get("node_id") ?? "";
const shown = nodeId ? "node" : Object.hasOwn(VIEWS, named) ? named : "search";
document.querySelector(`[data-view="${shown}"]`)?.setAttribute("aria-current", "page");

const open = /** @type {HTMLFormElement} */ (document.getElementById("open-node"));
/** @type {HTMLInputElement} */ (open.elements.namedItem("node_id")).value = nodeId;

if (shown === "node") new NodeView(rpc, view, nodeId.trim());
else VIEWS[shown]();
rpc.start();
