// The connection badge: live, connecting, or for how long it has been trying to come back.

/** @import { Rpc } from "../net/rpc.js" */

import { setAttr, setText } from "./dom.js";
import { offerSignIn } from "./sign_in.js";
import { tellUnread } from "./unread.js";

/**
 * Shows the state of `rpc` in `badge` from now on, says what could not be read, and offers to sign in where the server wants that. Returns a function to
 * call when the state changes.
 * @param {Element} badge
 * @param {Rpc} rpc
 */
export function connectionBadge(badge, rpc) {
  offerSignIn(rpc);
  tellUnread();
  const text = /** @type {Element} */ (badge.querySelector(".badge-text"));
  const draw = () => {
    const { name, since } = rpc.state;
    const seconds = Math.floor((Date.now() - since) / 1000);
    const degraded = name === "live" && rpc.away.length > 0;
    setAttr(badge, "data-state", degraded ? "degraded" : name);
    if (degraded) setText(text, `without ${rpc.away.join(" and ")}`);
    else setText(text, name === "live" ? "live" : seconds ? `${name}… ${seconds} s` : `${name}…`);
  };
  setInterval(draw, 1_000);
  draw();
  return draw;
}
