// The details of a checkout: its revision, its counts, and the outline of its builds, jobs and tests.

/** @import { Follow } from "../model/follow.js" */
/** @import { Line } from "../model/outline.js" */
/** @import { ApiNode } from "../model/tree.js" */

import { dateTime, httpUrl, parseTime } from "../format.js";
import { outline } from "../model/outline.js";
import { STATUSES } from "../model/tree.js";
import { SIGNS, createBars, updateBars } from "./bars.js";
import { el, setAttr, setText, showKeyed } from "./dom.js";
import { onFrame } from "./frame.js";

const CHOICES = { all: "All", fail: "Failing", running: "Running" };

export class RunView {
  #follow;
  #checkout;
  #only = "all";
  /** Ids of the nodes that were opened (or, with a filter, closed). @type {Set<string>} */
  #open = new Set();
  /** By id. @type {Map<string, HTMLLIElement>} */
  #elements = new Map();
  #bars = createBars();
  #list = el("ul", { class: "outline" });
  #note = el("p", { class: "note" });
  #choices;

  /**
   * Shows the run of `checkout` in `body`.
   * @param {Follow} follow
   * @param {ApiNode} checkout
   * @param {Element} body
   */
  constructor(follow, checkout, body) {
    this.#follow = follow;
    this.#checkout = checkout;
    follow.pin(checkout.treeid);
    this.#choices = Object.entries(CHOICES).map(([only, text]) =>
      el("button", { type: "button", "data-only": only, text, click: () => this.#choose(only) }),
    );
    body.replaceChildren(
      facts(checkout),
      el("div", { class: "bars" }, ...this.#bars),
      el("div", { class: "choices", role: "group", "aria-label": "Which nodes" }, ...this.#choices),
      this.#list,
      this.#note,
    );
    this.#choose("all");
  }

  /**
   * The nodes of a run changed; it may be this one.
   * @param {string} treeid
   */
  treeChanged(treeid) {
    // An outline of thousands need not follow every frame.
    if (treeid === this.#checkout.treeid) onFrame(this.#draw, 250);
  }

  /** @param {string} only */
  #choose(only) {
    this.#only = only;
    this.#open.clear();
    for (const button of this.#choices) setAttr(button, "aria-pressed", String(button.dataset.only === only));
    onFrame(this.#draw);
  }

  #draw = () => {
    const tree = this.#follow.trees.get(this.#checkout.treeid ?? "");
    updateBars(this.#bars, tree);
    if (!tree) return setText(this.#note, "This checkout has no tree id.");
    const { lines, left } = outline(tree, { only: this.#only, open: this.#open });
    showKeyed(this.#list, this.#elements, lines, {
      key: (line) => line.node.id,
      create: (line) => this.#create(line),
      update,
    });
    /** @type {Record<string, string>} */
    const none = { all: "No builds, jobs or tests yet.", fail: "Nothing failed.", running: "Nothing is running." };
    const many = left ? `${left} more lines are not shown.` : "";
    setText(this.#note, lines.length ? many : tree.loaded ? none[this.#only] : "Loading…");
  };

  /** @param {Line} line */
  #create({ node }) {
    const toggle = () => {
      if (!this.#open.delete(node.id)) this.#open.add(node.id);
      onFrame(this.#draw);
    };
    return el(
      "li",
      {},
      el("button", { class: "toggle", type: "button", "aria-label": `Show what is below ${node.name}`, click: toggle }),
      el("span", { class: "sign" }),
      el("a", { class: "name", href: `#/node/${encodeURIComponent(node.id)}` }),
      el("span", { class: "numbers" }),
      el("span", { class: "kind", text: node.kind }),
    );
  }
}

/** @param {HTMLElement} line @param {Line} state */
function update(line, { node, depth, has, isOpen, below }) {
  const [toggle, sign, name, numbers] = /** @type {HTMLElement[]} */ ([...line.children]);
  line.style.paddingInlineStart = `${Math.min(depth, 8) * 1.1}rem`;
  toggle.toggleAttribute("disabled", !has);
  setText(toggle, has ? (isOpen ? "▾" : "▸") : "");
  setAttr(toggle, "aria-expanded", String(isOpen));
  setAttr(sign, "class", `sign ${node.status}`);
  setAttr(sign, "title", [node.state, node.result].filter(Boolean).join(", "));
  setText(sign, SIGNS[node.status]);
  setText(name, node.name);
  const counts = STATUSES.filter((status) => below[status]);
  const key = counts.map((status) => status + below[status]).join();
  if (numbers.dataset.key === key) return;
  numbers.dataset.key = key;
  numbers.replaceChildren(
    ...counts.map((status) => el("span", { class: `num ${status}`, text: SIGNS[status] + below[status], title: status })),
  );
}

/** @param {ApiNode} checkout */
function facts(checkout) {
  const revision = checkout.data?.kernel_revision ?? {};
  const url = httpUrl(revision.url);
  /** @type {[string, any][]} */
  const rows = [
    ["commit", revision.commit && el("code", { text: revision.commit })],
    ["describe", revision.describe],
    ["message", revision.commit_message && String(revision.commit_message).split("\n")[0]],
    ["git", url ? el("a", { href: url, rel: "noopener noreferrer", target: "_blank", text: url }) : revision.url],
    ["created", dateTime(parseTime(checkout.created))],
    ["state", [checkout.state, checkout.result].filter(Boolean).join(", ")],
    ["error", [checkout.data?.error_code, checkout.data?.error_msg].filter(Boolean).join(": ")],
    ["node", el("a", { href: `#/node/${encodeURIComponent(checkout.id)}` }, el("code", { text: checkout.id }))],
  ];
  return factList(rows);
}

/**
 * A list of [term, text or element]; empty ones are left out.
 * @param {[string, any][]} rows
 */
export function factList(rows) {
  const filled = rows.filter(([, value]) => value);
  return el(
    "dl",
    { class: "facts" },
    ...filled.flatMap(([term, value]) => [
      el("dt", { text: term }),
      el("dd", {}, value instanceof Node ? value : String(value)),
    ]),
  );
}
