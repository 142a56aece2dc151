// A node with a page of its own: where it stands, its facts, all of it as a tree. It follows what happens to it.

/** @import { ApiNode } from "../model/tree.js" */
/** @import { Rpc } from "../net/rpc.js" */

import { age, dateTime, parseTime } from "../format.js";
import { lavaJob } from "../model/lava.js";
import { Subscriptions } from "../net/subscriptions.js";
import { el } from "./dom.js";
import { jsonTree } from "./json.js";
import { chip, nodeHref, nodeLink, searchHref } from "./links.js";
import { artifacts, nodeFacts } from "./node.js";
import { fillIn, note } from "./notes.js";

const MOST_ANCESTORS = 12;
const ID = /^[0-9a-f]{24}$/i;

export class NodeView {
  #rpc;
  #id;
  #place;
  #ancestors = el("nav", { class: "path", "aria-label": "Above this node" });
  #children = el("a", { class: "button", text: "Children" });
  /** The parent that #ancestors were read for. @type {string | null | undefined} */
  #around = "";

  /**
   * Shows the node in `place`; to be made before `rpc` is started.
   * @param {Rpc} rpc
   * @param {Element} place
   * @param {string} id
   */
  constructor(rpc, place, id) {
    this.#rpc = rpc;
    this.#id = id.toLowerCase();
    this.#place = place;
    if (!ID.test(id)) {
      place.replaceChildren(note(`“${id}” is no node: expected 24 hex digits.`));
      return;
    }
    const subscriptions = new Subscriptions(rpc);
    subscriptions.add({ channel: "node", filter: { "data.id": this.#id }, include: ["node"] }, {
      onEvent: (_event, node) => node && this.#show(node),
      onReset: () => this.#load(),
    });
    rpc.onSession = () => subscriptions.resume();
    rpc.onNotification = (method, params) => subscriptions.notify(method, params);
    fillIn(place, async () => null);
  }

  #load() {
    return fillIn(this.#place, async (wanted) => {
      const node = await this.#rpc.call("node.get", { id: this.#id });
      if (wanted()) this.#show(node);
      return null;
    });
  }

  /** @param {ApiNode} node */
  #show(node) {
    document.title = `KernelCI · ${node.kind} ${node.name}`;
    this.#children.setAttribute("href", searchHref([`parent=${node.id}`]));
    const lava = lavaJob(node);
    const outside = { rel: "noopener noreferrer", target: "_blank" };
    const open = [...this.#place.querySelectorAll("details.raw[open]")].length > 0;
    this.#place.replaceChildren(
      this.#ancestors,
      el("div", { class: "title" }, el("h2", {}, el("span", { class: "kind", text: `${node.kind} ` }), String(node.name)), chip(node),
        el("span", { class: "muted", title: dateTime(parseTime(node.created)), text: age(parseTime(node.created)) })),
      el(
        "div",
        { class: "actions" },
        node.parent ? el("a", { class: "button", href: nodeHref(node.parent), text: "Parent" }) : null,
        this.#children,
        node.treeid ? el("a", { class: "button", href: searchHref([`treeid=${node.treeid}`]), text: "Whole run" }) : null,
        lava ? el("a", { class: "button", href: lava, ...outside, text: "LAVA job" }) : null,
        el("a", { class: "button", href: `/latest/node/${node.id}`, text: "Raw node" }),
      ),
      el("section", { class: "panel" }, nodeFacts(node, nodeHref), ...artifacts(node.artifacts ?? {})),
      el("section", { class: "panel" }, el("h3", { text: "All of it" }), jsonTree(node)),
      el("details", { class: "panel raw", open }, el("summary", { text: "JSON" }),
        el("pre", { class: "json", tabindex: "0", text: JSON.stringify(node, null, 2) })),
    );
    this.#countChildren();
    if (this.#around !== node.parent) this.#readAncestors(node.parent);
  }

  async #countChildren() {
    try {
      const { count } = await this.#rpc.call("node.count", { filter: { parent: this.#id } });
      this.#children.textContent = count ? `Children (${count})` : "No children";
    } catch {
      // The link works without a number.
    }
  }

  /** @param {string | null | undefined} parent */
  async #readAncestors(parent) {
    this.#around = parent;
    /** @type {Element[]} */
    const links = [];
    const seen = new Set([this.#id]);
    try {
      for (let id = parent; id && !seen.has(id) && links.length < MOST_ANCESTORS; ) {
        seen.add(id);
        const node = await this.#rpc.call("node.get", { id, fields: ["id", "name", "kind", "parent"] });
        links.unshift(nodeLink(node));
        id = node.parent;
      }
    } catch {
      // An ancestor is gone: the path begins below it.
    }
    if (this.#around === parent) this.#ancestors.replaceChildren(...links);
  }
}
