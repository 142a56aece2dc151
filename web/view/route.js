// What the address says is shown: #/checkout/<id>, #/node/<id>, or nothing. Links are plain links.

/** What the address names. @typedef {{kind: string, id: string}} Route */

/**
 * Calls `show` now and whenever the address changes.
 * @param {(route: Route | null) => unknown} show
 */
export function onRoute(show) {
  const read = () => {
    const found = /^#\/(checkout|node)\/([^/]+)$/.exec(location.hash);
    try {
      show(found && { kind: found[1], id: decodeURIComponent(found[2]) });
    } catch {
      show(null); // not a well-formed address
    }
  };
  addEventListener("hashchange", read);
  read();
}

/** Shows nothing, without an entry in the page's history. */
export function closeRoute() {
  history.replaceState(null, "", location.pathname);
  dispatchEvent(new HashChangeEvent("hashchange"));
}
