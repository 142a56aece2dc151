// The stream of events, newest first.

/** @import { History, Row } from "../model/history.js" */

import { clock, dateTime, parseTime } from "../format.js";
import { el, setText, showKeyed } from "./dom.js";
import { onFrame } from "./frame.js";

/**
 * What the stream is shown in.
 * @typedef {{
 *   list: Element, empty: HTMLElement, kind: HTMLSelectElement, text: HTMLInputElement, pause: Element, rate: Element,
 *   pulse: HTMLCanvasElement,
 * }} Parts
 */

const SHOWN = 200;
const EVERY_MS = 100; // nobody reads faster

export class StreamView {
  #history;
  #parts;
  /** By key. @type {Map<number, HTMLElement>} */
  #elements = new Map();
  #paused = false;
  #missed = 0;

  /** @param {Parts} parts @param {History} history */
  constructor(parts, history) {
    this.#parts = parts;
    this.#history = history;
    const redraw = () => onFrame(this.#draw);
    parts.kind.addEventListener("change", redraw);
    parts.text.addEventListener("input", redraw);
    parts.pause.addEventListener("click", () => this.#toggle());
    setInterval(() => {
      this.#drawRate();
      this.#history.tick();
    }, 1_000);
  }

  /** There is something new in the history. */
  changed() {
    if (this.#paused) this.#missed++;
    onFrame(this.#paused ? this.#drawPause : this.#draw, EVERY_MS);
  }

  #toggle() {
    this.#paused = !this.#paused;
    this.#missed = 0;
    this.#parts.pause.setAttribute("aria-pressed", String(this.#paused));
    onFrame(this.#drawPause);
    if (!this.#paused) onFrame(this.#draw);
  }

  #drawPause = () => {
    const label = this.#paused ? (this.#missed ? `Resume (${this.#missed} new)` : "Resume") : "Pause";
    setText(this.#parts.pause, label);
  };

  #draw = () => {
    const { kind, text, list, empty } = this.#parts;
    const wish = { kind: kind.value, text: text.value.trim().toLowerCase() };
    const rows = this.#history.select(wish, SHOWN);
    empty.hidden = rows.length > 0;
    setText(empty, wish.kind || wish.text ? "No event matches." : "Waiting for events…");
    showKeyed(list, this.#elements, rows, { key: (row) => row.key, create });
  };

  #drawRate() {
    const { rate, pulse } = this.#parts;
    const { rates } = this.#history;
    const recent = rates.slice(-5).reduce((sum, n) => sum + n, 0) / 5;
    setText(rate, `${recent < 10 ? recent.toFixed(1) : Math.round(recent)}/s`);
    const ratio = globalThis.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = pulse;
    if (!width) return;
    pulse.width = width * ratio;
    pulse.height = height * ratio;
    const paint = /** @type {CanvasRenderingContext2D} */ (pulse.getContext("2d"));
    paint.scale(ratio, ratio);
    paint.fillStyle = getComputedStyle(pulse).color;
    const most = Math.max(4, ...rates);
    const step = width / rates.length;
    rates.forEach((count, i) => {
      const tall = count ? Math.max(1.5, (count / most) * height) : 0.75;
      paint.globalAlpha = count ? 0.9 : 0.35;
      paint.fillRect(i * step, height - tall, step - 1, tall);
    });
  }
}

/** @param {Row} row */
function create(row) {
  if (row.gap !== undefined) return el("li", { class: "gap", text: row.gap });
  const time = parseTime(row.time);
  const change = row.op === "created" || row.before === row.state ? [] : [row.before];
  const outcome = row.result ?? "";
  return el(
    "li",
    { class: "event", "data-seq": row.seq },
    el("time", { text: clock(time), title: dateTime(time) }),
    el("span", { class: "kind", text: row.kind || "event" }),
    el("a", { class: "name", href: `#/node/${encodeURIComponent(row.id)}`, text: row.name, title: row.name }),
    el("span", { class: "tree", text: row.tree }),
    el(
      "span",
      { class: "change" },
      row.op === "created" ? el("span", { class: "new", text: "new" }) : null,
      ...change.filter(Boolean).map((state) => el("span", { class: "before", text: `${state}→` })),
      el("span", { text: row.state ?? "" }),
      row.many ? el("span", { class: "many", text: "*", title: "Written together with the nodes below it" }) : null,
    ),
    el("span", { class: `result ${outcome}`, text: outcome }),
  );
}
