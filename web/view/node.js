// One node: the facts that people look for first, its artifacts, and all of it as JSON.

/** @import { ApiNode } from "../model/tree.js" */

import { dateTime, httpUrl, parseTime } from "../format.js";
import { el } from "./dom.js";
import { nodeHref } from "./links.js";
import { factList } from "./run.js";

/**
 * Shows `node` in `body`; `checkout` is the checkout of its run, if that is known.
 * @param {ApiNode} node
 * @param {ApiNode | undefined} checkout
 * @param {Element} body
 */
export function showNode(node, checkout, body) {
  const href = (/** @type {string} */ id) => `#/node/${encodeURIComponent(id)}`;
  body.replaceChildren(
    nodeFacts(node, href, checkout && `#/checkout/${encodeURIComponent(checkout.id)}`),
    ...artifacts(node.artifacts ?? {}),
    el("h3", {}, "Node ", el("a", { href: `/${nodeHref(node.id)}`, text: "as a page of its own" })),
    el("pre", { class: "json", tabindex: "0", text: JSON.stringify(node, null, 2) }),
  );
}

/**
 * What people look for first; `href(id)` is the address of a node, `run` that of the node's run if there is one.
 * @param {ApiNode} node
 * @param {(id: string) => string} href
 * @param {string | null} [run]
 */
export function nodeFacts(node, href, run = null) {
  const data = node.data ?? {};
  const link = (/** @type {string} */ id) => el("a", { href: href(id) }, el("code", { text: id }));
  const revision = data.kernel_revision ?? {};
  const name = [revision.tree, revision.branch, revision.describe].filter(Boolean).join(" · ");
  return factList([
    ["run", run ? el("a", { href: run, text: name || "this run" }) : name],
    ["path", (node.path ?? []).join(" / ")],
    ["state", [node.state, node.result].filter(Boolean).join(", ")],
    ["error", [data.error_code, data.error_msg].filter(Boolean).join(": ")],
    ["build", [data.arch, data.compiler, data.defconfig].filter(Boolean).join(" · ")],
    ["platform", [data.platform, data.device, data.runtime].filter(Boolean).join(" · ")],
    ["created", dateTime(parseTime(node.created))],
    ["updated", dateTime(parseTime(node.updated))],
    ["owner", [node.owner, node.submitter].filter(Boolean).join(" for ")],
    ["parent", node.parent && link(node.parent)],
  ]);
}

/**
 * The artifacts under a heading; only http(s) addresses become links.
 * @param {Record<string, string>} map
 */
export function artifacts(map) {
  const links = Object.entries(map).map(([name, address]) => {
    const href = httpUrl(address);
    return el(
      "li",
      {},
      href ? el("a", { href, rel: "noopener noreferrer", target: "_blank", text: name }) : `${name}: ${address}`,
    );
  });
  return links.length ? [el("h3", { text: "Artifacts" }), el("ul", { class: "artifacts" }, ...links)] : [];
}
