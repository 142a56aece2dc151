// A grid of results: rows are names, columns are commits, cells are how it ended.

/** @import { Cell, Commit, Row } from "../model/grid.js" */
/** @import { ApiNode } from "../model/tree.js" */

import { age, commit as shortCommit, dateTime, parseTime } from "../format.js";
import { inWords, verdict } from "../model/grid.js";
import { SIGNS } from "./bars.js";
import { el } from "./dom.js";
import { nodeHref, searchHref } from "./links.js";
import { scroll } from "./table.js";

/**
 * The grid as a table.
 * @param {string} caption what it shows
 * @param {Commit[]} columns
 * @param {Row[]} rows
 */
export function gridTable(caption, columns, rows) {
  const head = columns.map((column) =>
    el(
      "th",
      { scope: "col" },
      el("a", { href: nodeHref(column.id), title: [column.describe, column.commit, dateTime(parseTime(column.created))].filter(Boolean).join("\n") },
        el("code", { text: shortCommit(column.commit).slice(0, 8) })),
      el("span", { class: "muted", text: column.more ? `${age(parseTime(column.created))} +` : age(parseTime(column.created)) }),
    ),
  );
  const body = rows.map((row) =>
    el(
      "tr",
      {},
      el("th", { scope: "row", title: row.name, text: row.name }),
      ...columns.map(({ commit }) => el("td", {}, cell(row, commit))),
    ),
  );
  const table = el(
    "table",
    { class: "grid" },
    el("caption", { text: caption }),
    el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "Name" }), ...head)),
    el("tbody", {}, ...body),
  );
  return scroll(caption, table);
}

/** @param {Row} row @param {string} commit */
function cell(row, commit) {
  const found = row.cells.get(commit);
  if (!found) return "";
  const { worst, share } = verdict(found);
  const words = inWords(found);
  const passed = found.counts.pass ?? 0;
  const text = found.total === 1 ? SIGNS[worst] : Object.keys(found.counts).length === 1 ? `${SIGNS[worst]} ${found.total}` : `${passed}/${found.total}`;
  const link = el("a", { class: `cell ${worst}`, href: href(row.sample, commit, found), title: words, "aria-label": `${row.name}: ${words}`, text });
  // How bad it is: the colour of a mixed cell lies between those of pass and fail.
  if (worst === "fail" || worst === "incomplete") link.style.setProperty("--share", `${Math.round(100 * Math.max(share, 0.25))}%`);
  return link;
}

/** @param {ApiNode} sample @param {string} commit @param {Cell} cell */
function href({ kind, name, group }, commit, cell) {
  if (cell.total === 1) return nodeHref(cell.id);
  const conditions = [`kind=${kind}`, `name=${name}`, `data.kernel_revision.commit=${commit}`];
  return searchHref(kind === "test" && group ? [...conditions, `group=${group}`] : conditions);
}
