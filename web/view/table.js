// Tables that scroll sideways where they are too wide.

import { el } from "./dom.js";

/**
 * A column; `cell` has text or an element for a row.
 * @template Row
 * @typedef {{title: string, cell: (row: Row) => Node | string | number | null | undefined, class?: string}} Column
 */

/**
 * A table.
 * @param {string} caption what it shows, for those who do not see it
 * @template Row
 * @param {Column<Row>[]} columns the first one heads the row
 * @param {Row[]} rows
 */
export function table(caption, columns, rows) {
  const head = columns.map((column) => el("th", { scope: "col", class: column.class, text: column.title }));
  const body = rows.map((row) =>
    el("tr", {}, ...columns.map((column, i) => el(i ? "td" : "th", { scope: i ? null : "row", class: column.class }, cell(column.cell(row))))),
  );
  return scroll(caption, el("table", {}, el("caption", { text: caption }), el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body)));
}

/**
 * Something wide that scrolls by itself, with the keyboard too.
 * @param {string} label
 * @param {Node[]} children
 */
export function scroll(label, ...children) {
  return el("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, ...children);
}

/** @param {Node | string | number | null | undefined} content */
const cell = (content) => (content instanceof Node ? content : String(content ?? ""));
