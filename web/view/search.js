// Nodes that match conditions, the newest first.

/** @import { ApiNode } from "../model/tree.js" */
/** @import { Caller } from "../net/rpc.js" */
/** @import { Column } from "./table.js" */

import { age, commit, dateTime, parseTime } from "../format.js";
import { filterOf } from "../model/conditions.js";
import { el } from "./dom.js";
import { chip, nodeHref, nodeLink, searchHref } from "./links.js";
import { fillIn, note } from "./notes.js";
import { table } from "./table.js";

const MOST_FOUND = 250;
const FIELDS = [
  "id", "kind", "name", "group", "state", "result", "created", "jobfilter", "data.platform", "data.arch",
  "data.kernel_revision.tree", "data.kernel_revision.branch", "data.kernel_revision.commit",
];
const EXAMPLES = ["kind=checkout", "kind=job", "result=fail", "state!=done", "data.kernel_revision.tree=mainline", "name__re=^kbuild-clang"];

/**
 * Shows the search and what it found in `place`.
 * @param {Caller} rpc
 * @param {Element} place
 * @param {string[]} conditions
 */
export function showSearch(rpc, place, conditions) {
  const wanted = conditions.filter((text) => text.trim());
  const found = el("section", { "aria-label": "Found" });
  place.replaceChildren(form(wanted), found);
  if (!wanted.length) {
    found.replaceChildren(examples());
    return;
  }
  fillIn(found, async () => {
    const filter = filterOf(wanted);
    const { items, next } = await rpc.call("node.find", { filter, sort: ["-created"], limit: MOST_FOUND, fields: FIELDS });
    if (!items.length) return [note("Nothing matches.")];
    const count = next ? `The newest ${MOST_FOUND} nodes that match.` : `${items.length} ${items.length === 1 ? "node" : "nodes"}.`;
    return [el("p", { class: "count", role: "status", text: count }), nodeTable("Nodes that match, newest first", items)];
  });
}

/**
 * Nodes as a table.
 * @param {string} caption
 * @param {ApiNode[]} nodes
 */
export function nodeTable(caption, nodes) {
  const revision = (/** @type {ApiNode} */ node) => node.data?.kernel_revision ?? {};
  /** @type {Column<ApiNode>[]} */
  const columns = [
    { title: "Name", cell: nodeLink, class: "name" },
    { title: "Kind", cell: (node) => node.kind },
    { title: "Result", cell: chip },
    { title: "Platform", cell: (node) => node.data?.platform ?? node.data?.arch },
    { title: "Tree", class: "clip", cell: (node) => [revision(node).tree, revision(node).branch].filter(Boolean).join(" / ") },
    { title: "Commit", cell: (node) => el("code", { text: commit(revision(node).commit) }) },
    { title: "Age", class: "end", cell: ({ created }) => el("time", { title: dateTime(parseTime(created)), text: age(parseTime(created)) }) },
    { title: "Node", cell: (node) => el("a", { href: nodeHref(node.id) }, el("code", { text: node.id })) },
    { title: "Below", cell: (node) => el("a", { href: searchHref([`parent=${node.id}`]), text: "children", "aria-label": `Children of ${node.name}` }) },
  ];
  /** @param {ReturnType<Column<ApiNode>["cell"]>} content */
  const text = (content) => (content instanceof Node ? content.textContent : content);
  const filled = columns.filter(({ title, cell }) => !["Platform", "Tree", "Commit"].includes(title) || nodes.some((node) => text(cell(node))));
  return table(caption, filled, nodes);
}

/** @param {string[]} conditions */
function form(conditions) {
  const list = el("div", { class: "conditions" });
  const add = (value = "") => {
    const input = el("input", {
      name: "search", value, placeholder: "field = value", "aria-label": "Condition", spellcheck: "false", autocomplete: "off", list: "conditions-known",
    });
    list.append(input);
    return input;
  };
  for (const text of conditions) add(text);
  add();
  return el(
    "form",
    { class: "search", role: "search", action: location.pathname },
    list,
    el("button", { class: "primary", text: "Search" }),
    el("button", { type: "button", text: "Add a condition", click: () => add().focus() }),
    el("datalist", { id: "conditions-known" }, ...EXAMPLES.map((value) => el("option", { value }))),
    el("p", { class: "hint", text: "A condition is a field, one of = != > >= < <= and a value; all of them have to hold." }),
  );
}

function examples() {
  const links = EXAMPLES.map((text) => el("li", {}, el("a", { href: searchHref([text]) }, el("code", { text }))));
  return el("div", { class: "panel" }, el("h2", { text: "For example" }), el("ul", { class: "examples" }, ...links));
}
