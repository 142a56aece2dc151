// A place to sign in, on pages that show nothing to strangers.

/** @import { Rpc } from "../net/rpc.js" */

import { ask } from "../net/rest.js";
import { token } from "../net/token.js";
import { el } from "./dom.js";
import { TokenBox } from "./token.js";

let shown = false;

/** Shows it above everything else, once. */
function showSignIn() {
  if (shown) return;
  shown = true;
  const place = el("div", {});
  const box = el("section", { class: "sign-in", "aria-labelledby": "sign-in-title" }, el("h2", { id: "sign-in-title", text: "Sign in to see this" }), place);
  document.querySelector("main")?.before(box);
  // What is on the page was asked for by a stranger: begin anew.
  new TokenBox(place, (user) => {
    if (user) location.reload();
  }).start();
}

/**
 * Shows it as soon as the server wants to know who `rpc` is.
 * @param {Rpc} rpc
 */
export function offerSignIn(rpc) {
  rpc.onSignIn = ({ refused }) => {
    if (refused) token.forget();
    showSignIn();
  };
}

/**
 * Reads `path` as whoever signed in in this tab, and shows it if that is not enough.
 * @param {string} path
 * @param {Record<string, any>} query
 */
export async function read(path, query) {
  try {
    return await ask("GET", path, { query, token: token.get() });
  } catch (/** @type {any} */ error) {
    if (error.status === 401) showSignIn();
    throw error;
  }
}
