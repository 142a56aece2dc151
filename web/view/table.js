// Tables that scroll sideways where they are too wide.

import { el } from "./dom.js";

/**
 * A table.
 * @param {string} caption what it shows, for those who do not see it
 * @param {{title: string, cell: Function, class?: string}[]} columns `cell(row)` is text or an element; the first
 *   column heads the row
 * @param {object[]} rows
 */
export function table(caption, columns, rows) {
  const head = columns.map((column) => el("th", { scope: "col", class: column.class, text: column.title }));
  const body = rows.map((row) =>
    el("tr", {}, ...columns.map((column, i) => el(i ? "td" : "th", { scope: i ? null : "row", class: column.class }, cell(column.cell(row))))),
  );
  return scroll(caption, el("table", {}, el("caption", { text: caption }), el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body)));
}

/** Something wide that scrolls by itself, with the keyboard too. */
export function scroll(label, ...children) {
  return el("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, ...children);
}

const cell = (content) => (content instanceof Node ? content : String(content ?? ""));
