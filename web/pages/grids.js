// Results by commit: builds, test suites, tests. The address says which, of what branch and since when:
// ?builds=1&tree=…&branch=…&timeframe=<hours>.

import { session } from "../net/server.js";
import { connectionBadge } from "../view/badge.js";
import { nodeHref, searchHref } from "../view/links.js";
import { ResultsView } from "../view/results.js";

/** @type {Record<string, string>} */
const KINDS = { builds: "kbuild", testsuites: "job", tests: "test" };

const query = new URLSearchParams(location.search);
// Older addresses of one node, and of the builds of one commit.
const oneNode = query.get("showknode");
const oneCommit = query.get("displaycommit");
if (oneNode) {
  location.replace(nodeHref(oneNode));
} else if (oneCommit) {
  location.replace(searchHref(["kind=kbuild", `data.kernel_revision.commit=${oneCommit}`]));
} else {
  const view = Object.keys(KINDS).find((name) => query.has(name)) ?? "builds";
  /** @type {NodeListOf<HTMLAnchorElement>} */
  const links = document.querySelectorAll("[data-view]");
  const link = [...links].find((one) => one.dataset.view === view);
  link?.setAttribute("aria-current", "page");
  // What is chosen stays chosen when the kind changes.
  for (const one of links) {
    one.addEventListener("click", () => {
      const wish = new URLSearchParams(location.search);
      Object.keys(KINDS).forEach((name) => wish.delete(name));
      one.href = `dashboard?${new URLSearchParams([[one.dataset.view ?? "", "1"], ...wish])}`;
    });
  }
  document.title = `KernelCI · ${link?.textContent}`;

  const rpc = session("results");
  rpc.onState = connectionBadge(/** @type {HTMLElement} */ (document.getElementById("connection")), rpc);
  new ResultsView(rpc, KINDS[view], { [view]: "1" }).start(/** @type {HTMLElement} */ (document.getElementById("view")));
  rpc.start();
}
