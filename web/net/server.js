// The server that this page came from.

/** @import { ApiNode } from "../model/tree.js" */
/** @import { Caller } from "./rpc.js" */

import { readAnswer } from "../model/shape.js";
import { Rpc } from "./rpc.js";
import { token } from "./token.js";

/** A session that passes over nodes which the pages cannot read. */
class Session extends Rpc {
  /** @override @param {string} method @param {object} [params] @returns {Promise<any>} */
  async call(method, params) {
    return readAnswer(method, await super.call(method, params));
  }
}

/**
 * A session with it, in the name of whoever signed in in this tab; `client` is what the page calls itself. To be started.
 * @param {string} client
 */
export function session(client) {
  const url = new URL("/latest/ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const rpc = new Session({ url: url.href, client, token: () => token.get() });
  addEventListener("online", () => rpc.hurry());
  document.addEventListener("visibilitychange", () => document.hidden || rpc.hurry());
  return rpc;
}

const PAGE = 1000;

/**
 * Reads nodes page by page until there are no more of them or `most` were read; `onPage(items)` is called for each.
 * Resolves with whether there are more. `wanted()` says whether anybody still waits for them.
 * @param {Caller} rpc
 * @param {object} params
 * @param {number} most
 * @param {(items: ApiNode[]) => void} onPage
 */
export async function readNodes(rpc, params, most, onPage, wanted = () => true) {
  let left = most;
  let after;
  do {
    const limit = Math.min(left, PAGE);
    const page = await rpc.call("node.find", { ...params, limit, ...(after && { after }) });
    if (!wanted()) return true;
    onPage(page.items);
    left -= page.items.length;
    after = page.next;
  } while (after && left > 0);
  return Boolean(after);
}
