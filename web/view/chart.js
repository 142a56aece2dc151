// Pictures of numbers, as SVG. Each says in words what it shows.

/** @import { Counts } from "../model/tree.js" */

import { STATUSES } from "../model/tree.js";
import { percent } from "../model/breakdown.js";
import { short } from "../format.js";
import { el, svg } from "./dom.js";

/** @param {Counts} counts @param {string[]} names */
const inWords = (counts, names) => names.filter((name) => counts[name]).map((name) => `${counts[name]} ${name}`).join(", ") || "none";

/**
 * One bar, divided by status.
 * @param {Counts} counts
 * @param {string} label
 */
export function stackedBar(counts, label, names = STATUSES) {
  const total = names.reduce((sum, name) => sum + (counts[name] ?? 0), 0);
  let x = 0;
  const parts = names.filter((name) => counts[name]).map((name) => {
    const width = (100 * counts[name]) / total;
    const part = svg("rect", { class: name, x, y: 0, width, height: 8 });
    x += width;
    return part;
  });
  const text = `${label}: ${inWords(counts, names)}`;
  return svg("svg", { class: "stacked", viewBox: "0 0 100 8", preserveAspectRatio: "none", role: "img", "aria-label": text }, svg("title", {}, text), ...parts);
}

/**
 * A ring, divided by name, beside a legend.
 * @param {Counts} counts
 * @param {string} label
 * @param {string[]} names
 */
export function ring(counts, label, names) {
  const total = names.reduce((sum, name) => sum + (counts[name] ?? 0), 0);
  const radius = 40;
  const around = 2 * Math.PI * radius;
  let turned = 0;
  const parts = names.filter((name) => counts[name]).map((name) => {
    const length = (around * counts[name]) / total;
    const part = svg("circle", {
      class: name, cx: 60, cy: 60, r: radius, "stroke-dasharray": `${length} ${around - length}`, "stroke-dashoffset": -turned,
    });
    turned += length;
    return part;
  });
  const picture = svg(
    "svg",
    { class: "ring", viewBox: "0 0 120 120", role: "img", "aria-label": `${label}: ${inWords(counts, names)}` },
    svg("g", { transform: "rotate(-90 60 60)" }, ...parts),
    svg("text", { x: 60, y: 65, "text-anchor": "middle" }, short(total)),
  );
  const legend = names.filter((name) => counts[name]).map((name) =>
    el("li", { class: name }, el("i", { "aria-hidden": "true" }), el("span", { text: name.replace("_", " ") }), el("b", { text: short(counts[name]) }),
      el("span", { class: "muted", text: percent(counts[name], total) })),
  );
  return el("div", { class: "ring-chart" }, picture, el("ul", { class: "legend" }, ...legend));
}

/**
 * One labelled bar per row; the longest fills the width unless `even`.
 * @param {{label: string, counts: Counts, total: number, text?: string, onClick?: (() => void) | null}[]} rows
 * @param {string[]} names
 */
export function barList(rows, names, { even = false } = {}) {
  const most = Math.max(...rows.map((row) => row.total), 1);
  return el(
    "ul",
    { class: "bar-list" },
    ...rows.map(({ label, counts, total, text, onClick }) => {
      const bar = el("span", { class: "bar-room" }, stackedBar(counts, label, names));
      bar.style.setProperty("--length", even ? "100%" : `${Math.max(1, (100 * total) / most)}%`);
      const name = onClick ? el("button", { type: "button", class: "link", text: label, click: onClick }) : el("span", { text: label });
      return el("li", {}, name, bar, el("span", { class: "end", text: text ?? short(total) }));
    }),
  );
}
