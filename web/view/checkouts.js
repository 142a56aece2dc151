// The list of checkouts with the progress of their runs.

/** @import { Follow } from "../model/follow.js" */
/** @import { ApiNode } from "../model/tree.js" */

import { age, commit, dateTime, parseTime } from "../format.js";
import { createBars, updateBars } from "./bars.js";
import { el, setAttr, setText, showKeyed } from "./dom.js";
import { onFrame } from "./frame.js";

export class CheckoutsView {
  #list;
  #empty;
  #follow;
  /** Rows by the id of the checkout. @type {Map<string, HTMLElement>} */
  #elements = new Map();
  /** What changes in a row. @type {WeakMap<Element, any>} */
  #parts = new WeakMap();
  /** @type {Set<string>} */
  #changed = new Set();
  /** @type {string | null} */
  #selected = null;
  #seen;

  /** @param {{list: HTMLElement, empty: HTMLElement}} parts @param {Follow} follow */
  constructor({ list, empty }, follow) {
    this.#list = list;
    this.#empty = empty;
    this.#follow = follow;
    // Only runs that somebody has scrolled to are read.
    this.#seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (isIntersecting) this.#follow.want(this.#parts.get(target)?.treeid);
      }
    });
    follow.onCheckouts = () => onFrame(this.#draw);
    list.addEventListener("keydown", (event) => this.#move(event));
    setInterval(() => onFrame(this.#drawAges), 5_000);
  }

  /**
   * The nodes of this run changed.
   * @param {string} treeid
   */
  treeChanged(treeid) {
    this.#changed.add(treeid);
    onFrame(this.#drawChanged, 100);
  }

  /**
   * Marks the checkout whose details are shown.
   * @param {string | null} id
   */
  select(id) {
    this.#selected = id;
    onFrame(this.#draw);
  }

  #draw = () => {
    const items = this.#follow.checkouts.items;
    this.#empty.hidden = !this.#follow.loaded || items.length > 0;
    for (const [id, row] of this.#elements) if (!this.#follow.checkouts.get(id)) this.#seen.unobserve(row);
    showKeyed(this.#list, this.#elements, items, {
      key: (item) => item.id,
      create: (item) => this.#create(item),
      update: (row, item) => this.#update(row, item),
    });
  };

  #drawChanged = () => {
    for (const row of this.#elements.values()) {
      const parts = this.#parts.get(row);
      if (this.#changed.has(parts.treeid)) updateBars(parts.bars, this.#follow.trees.get(parts.treeid));
    }
    this.#changed.clear();
  };

  #drawAges = () => {
    for (const row of this.#elements.values()) {
      const { when, created } = this.#parts.get(row);
      setText(when, age(created));
    }
  };

  /** @param {ApiNode} item */
  #create(item) {
    /** @type {any} */
    const parts = {
      tree: el("b"),
      branch: el("span", { class: "branch" }),
      commit: el("code"),
      describe: el("span", { class: "describe" }),
      when: el("time", { class: "when" }),
      dot: el("i", { class: "dot" }),
      bars: createBars(),
    };
    parts.link = el(
      "a",
      { class: "checkout", href: `#/checkout/${encodeURIComponent(item.id)}` },
      parts.dot,
      el("span", { class: "names" }, parts.tree, parts.branch),
      el("span", { class: "revision" }, parts.describe, parts.commit),
      ...parts.bars,
      parts.when,
    );
    const row = el("li", {}, parts.link);
    this.#parts.set(row, parts);
    this.#seen.observe(row);
    return row;
  }

  /** @param {HTMLElement} row @param {ApiNode} item */
  #update(row, item) {
    const parts = this.#parts.get(row);
    const revision = item.data?.kernel_revision ?? {};
    parts.treeid = item.treeid;
    parts.created = parseTime(item.created);
    setText(parts.tree, String(revision.tree ?? item.name ?? ""));
    setText(parts.branch, String(revision.branch ?? ""));
    setText(parts.commit, commit(revision.commit));
    setText(parts.describe, String(revision.describe ?? ""));
    setText(parts.when, age(parts.created));
    setAttr(parts.when, "title", dateTime(parts.created));
    setAttr(parts.dot, "class", `dot ${item.result ?? item.state}`);
    setAttr(parts.dot, "title", [item.state, item.result].filter(Boolean).join(", "));
    if (item.id === this.#selected) setAttr(parts.link, "aria-current", "true");
    else parts.link.removeAttribute("aria-current");
    updateBars(parts.bars, this.#follow.trees.get(item.treeid ?? ""));
  }

  /** @param {KeyboardEvent} event */
  #move(event) {
    const row = document.activeElement?.closest("li");
    const other = event.key === "ArrowDown" ? row?.nextElementSibling : event.key === "ArrowUp" ? row?.previousElementSibling : null;
    const next = other?.firstElementChild;
    if (!(next instanceof HTMLElement)) return;
    event.preventDefault();
    next.focus();
  }
}
