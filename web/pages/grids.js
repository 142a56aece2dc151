// Results by commit: builds, test suites, tests. The address says which, of what branch and since when:
// ?builds=1&tree=…&branch=…&timeframe=<hours>.

import { session } from "../net/server.js";
import { connectionBadge } from "../view/badge.js";
import { nodeHref, searchHref } from "../view/links.js";
import { ResultsView } from "../view/results.js";

const KINDS = { builds: "kbuild", testsuites: "job", tests: "test" };

const query = new URLSearchParams(location.search);
// Older addresses of one node, and of the builds of one commit.
if (query.get("showknode")) {
  location.replace(nodeHref(query.get("showknode")));
} else if (query.get("displaycommit")) {
  location.replace(searchHref(["kind=kbuild", `data.kernel_revision.commit=${query.get("displaycommit")}`]));
} else {
  const view = Object.keys(KINDS).find((name) => query.has(name)) ?? "builds";
  const links = document.querySelectorAll("[data-view]");
  const link = (name) => [...links].find((one) => one.dataset.view === name);
  link(view).setAttribute("aria-current", "page");
  // What is chosen stays chosen when the kind changes.
  for (const one of links) {
    one.addEventListener("click", () => {
      const wish = new URLSearchParams(location.search);
      Object.keys(KINDS).forEach((name) => wish.delete(name));
      one.href = `dashboard?${new URLSearchParams([[one.dataset.view, "1"], ...wish])}`;
    });
  }
  document.title = `KernelCI · ${link(view).textContent}`;

  const rpc = session("results");
  rpc.onState = connectionBadge(document.getElementById("connection"), rpc);
  new ResultsView(rpc, KINDS[view], { [view]: "1" }).start(document.getElementById("view"));
  rpc.start();
}
