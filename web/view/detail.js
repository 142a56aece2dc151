// The panel beside the list: a checkout's run or one node, as the address says.

/** @import { Follow } from "../model/follow.js" */
/** @import { ApiNode } from "../model/tree.js" */
/** @import { Caller } from "../net/rpc.js" */
/** @import { Route } from "./route.js" */

import { el, setText } from "./dom.js";
import { onFrame } from "./frame.js";
import { showNode } from "./node.js";
import { closeRoute } from "./route.js";
import { RunView } from "./run.js";

export class DetailView {
  #panel;
  #title;
  #body;
  #rpc;
  #follow;
  /** @type {Route | null} */
  #route = null;
  /** While a run is shown. @type {RunView | null} */
  #run = null;
  /** The node that is shown. @type {ApiNode | null} */
  #node = null;
  #wait = 0;

  /**
   * @param {{panel: HTMLElement, title: Element, body: Element, close: Element}} parts
   * @param {Caller} rpc
   * @param {Follow} follow
   */
  constructor({ panel, title, body, close }, rpc, follow) {
    this.#panel = panel;
    this.#title = title;
    this.#body = body;
    this.#rpc = rpc;
    this.#follow = follow;
    close.addEventListener("click", closeRoute);
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#route) closeRoute();
    });
  }

  /**
   * Shows what `route` names, or closes.
   * @param {Route | null} route
   */
  async show(route) {
    const wait = ++this.#wait; // an answer that comes after another click is for nobody
    this.#route = route;
    this.#run = this.#node = null;
    this.#panel.hidden = !route;
    document.body.classList.toggle("has-detail", Boolean(route));
    if (!route) return this.#follow.pin(null);
    setText(this.#title, route.kind);
    this.#body.replaceChildren(el("p", { class: "note", text: "Loading…" }));
    this.#panel.scrollTop = 0;
    const listed = route.kind === "checkout" && this.#follow.checkouts.get(route.id);
    let node;
    try {
      node = listed || (await this.#rpc.call("node.get", { id: route.id }));
    } catch (/** @type {any} */ error) {
      if (wait === this.#wait) this.#body.replaceChildren(el("p", { class: "note", text: error.message }));
      return;
    }
    if (wait !== this.#wait) return;
    if (!node) return this.#body.replaceChildren(el("p", { class: "note", text: "There is no such node." }));
    if (route.kind === "checkout") {
      const { tree, branch } = node.data?.kernel_revision ?? {};
      setText(this.#title, tree ? `${tree} / ${branch}` : String(node.name));
      this.#run = new RunView(this.#follow, node, this.#body);
    } else {
      this.#node = node;
      this.#drawNode();
    }
  }

  /**
   * The nodes of a run changed.
   * @param {string} treeid
   */
  treeChanged(treeid) {
    this.#run?.treeChanged(treeid);
  }

  /**
   * A node as an event brought it; it may be the one that is shown.
   * @param {ApiNode} node
   */
  nodeChanged(node) {
    if (!this.#node || node.id !== this.#node.id || (node.revision ?? 0) < (this.#node.revision ?? 0)) return;
    this.#node = node;
    onFrame(this.#drawNode, 250);
  }

  #drawNode = () => {
    if (!this.#node) return;
    setText(this.#title, `${this.#node.kind} ${this.#node.name}`);
    showNode(this.#node, this.#follow.checkouts.ofTree(this.#node.treeid), this.#body);
  };
}
