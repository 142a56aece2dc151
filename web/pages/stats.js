// How the nodes of the last hours ended: altogether, by name, and which ones. ?duration=24h&kind=job&limit=10000.

/** @import { NameRow } from "../model/breakdown.js" */
/** @import { ApiNode } from "../model/tree.js" */
/** @import { Column } from "../view/table.js" */

import { STATUSES } from "../model/tree.js";
import { Breakdown, percent } from "../model/breakdown.js";
import { hoursAgo } from "../model/times.js";
import { readNodes, session } from "../net/server.js";
import { SIGNS } from "../view/bars.js";
import { connectionBadge } from "../view/badge.js";
import { stackedBar } from "../view/chart.js";
import { el } from "../view/dom.js";
import { onFrame } from "../view/frame.js";
import { searchHref } from "../view/links.js";
import { fillIn, note } from "../view/notes.js";
import { nodeTable } from "../view/search.js";
import { table } from "../view/table.js";

/** What was chosen in the form. @typedef {Record<string, string>} Wish */
/** @typedef {{summary: HTMLElement, list: HTMLElement}} Place */

/** @type {Record<string, number>} */
const HOURS = { "24h": 24, "48h": 48, "7d": 168 };
const MOST_NAMES = 100;
const MOST_LISTED = 500;
const MOST_NODES = 100_000;
const FIELDS = [
  "id", "kind", "name", "state", "result", "created", "data.platform", "data.kernel_revision.tree", "data.kernel_revision.branch",
];

const form = /** @type {HTMLFormElement} */ (document.getElementById("choices"));
const view = /** @type {HTMLElement} */ (document.getElementById("view"));
const rpc = session("statistics");
rpc.onState = connectionBadge(/** @type {HTMLElement} */ (document.getElementById("connection")), rpc);
let chosen = ""; // the result whose nodes are listed

// A bookmark may ask for a number that is not among the choices.
const query = new URLSearchParams(location.search);
for (const [name, value] of query) {
  const select = form.elements.namedItem(name);
  if (!(select instanceof HTMLSelectElement)) continue;
  const plain = name === "limit" && /^\d+$/.test(value) ? String(Math.min(Math.max(Number(value), 1), MOST_NODES)) : null;
  if (plain && ![...select.options].some((option) => option.value === plain)) select.append(el("option", { text: plain }));
  if ([...select.options].some((option) => option.value === (plain ?? value))) select.value = plain ?? value;
}
chosen = STATUSES.find((status) => status === query.get("result")) ?? "";
form.addEventListener("submit", (event) => {
  event.preventDefault();
  show();
});

function show() {
  const wish = /** @type {Wish} */ (Object.fromEntries(new FormData(form)));
  history.replaceState(null, "", `?${new URLSearchParams({ ...wish, ...(chosen && { result: chosen }) })}`);
  const since = hoursAgo(HOURS[wish.duration]);
  const filter = { created__gt: since, ...(wish.kind && { kind: wish.kind }) };
  const breakdown = new Breakdown();
  const place = { summary: el("section", { class: "panel", "aria-label": "Results" }), list: el("section", { "aria-label": "Nodes" }) };
  fillIn(view, async (wanted) => {
    let more = "so far…";
    const draw = () => {
      if (!wanted()) return;
      view.replaceChildren(place.summary, place.list);
      drawSummary(place, breakdown, wish, more);
    };
    const onPage = (/** @type {ApiNode[]} */ items) => {
      breakdown.add(items);
      if (items.length) onFrame(draw, 250);
    };
    const cut = await readNodes(rpc, { filter, fields: FIELDS, sort: ["-created"] }, Number(wish.limit), onPage, wanted);
    more = cut ? "the newest ones" : "";
    return breakdown.total ? null : [note("No nodes in this time.")];
  });
}

/** @param {Place} place @param {Breakdown} breakdown @param {Wish} wish @param {string} more */
function drawSummary(place, breakdown, wish, more) {
  const pick = (/** @type {string} */ status) => {
    chosen = chosen === status ? "" : status;
    history.replaceState(null, "", `?${new URLSearchParams({ ...wish, ...(chosen && { result: chosen }) })}`);
    drawSummary(place, breakdown, wish, more);
  };
  const buttons = STATUSES.map((status) =>
    el("button", { type: "button", class: `card ${status}`, "aria-pressed": String(chosen === status), click: () => pick(status) },
      el("b", { text: breakdown.counts[status].toLocaleString() }),
      el("span", { text: `${SIGNS[status]} ${status}` }),
      el("span", { class: "muted", text: percent(breakdown.counts[status], breakdown.total) })),
  );
  const head = [`${breakdown.total.toLocaleString()} ${wish.kind || "node"}s`, more].filter(Boolean).join(", ");
  const since = hoursAgo(HOURS[wish.duration]);
  const conditions = (/** @type {string} */ name) => [...(wish.kind ? [`kind=${wish.kind}`] : []), `name=${name}`, `created>${since}`];
  /** @type {(status: string) => Column<NameRow>} */
  const count = (status) => ({ title: status, class: "end", cell: (row) => row.counts[status] ?? "" });
  const names = breakdown.names(MOST_NAMES);
  const focused = place.summary.contains(document.activeElement) ? [...place.summary.querySelectorAll("button")].findIndex((button) => button === document.activeElement) : -1;
  place.summary.replaceChildren(el("h2", { text: head }), el("div", { class: "cards" }, ...buttons), stackedBar(breakdown.counts, "All results"));
  place.summary.querySelectorAll("button")[focused]?.focus();
  if (chosen) {
    const nodes = breakdown.nodes(chosen, MOST_LISTED);
    const text = nodes.length < breakdown.counts[chosen] ? `The newest ${nodes.length} of them.` : "";
    place.list.replaceChildren(
      el("h2", { text: `${chosen}: ${breakdown.counts[chosen].toLocaleString()}` }),
      ...(nodes.length ? [nodeTable(`Nodes: ${chosen}`, nodes)] : [note("There are none.")]),
      ...(text ? [note(text)] : []),
    );
    return;
  }
  /** @type {Column<NameRow>[]} */
  const columns = [
    { title: "Name", class: "name", cell: (row) => el("a", { href: searchHref(conditions(row.name)), text: row.name }) },
    { title: "Nodes", class: "end", cell: (row) => row.total },
    ...STATUSES.map(count),
    { title: "Share", class: "bar-column", cell: (row) => stackedBar(row.counts, row.name) },
  ];
  const left = breakdown.nameCount - names.length;
  place.list.replaceChildren(table("Results by name, most failures first", columns, names), ...(left > 0 ? [note(`${left} more names.`)] : []));
}

show();
rpc.start();
