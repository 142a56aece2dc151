// Submitting a checkout with an API token.

/** @import { Branch } from "../model/grid.js" */
/** @import { User } from "../view/token.js" */

import { hoursAgo } from "../model/times.js";
import { ask } from "../net/rest.js";
import { session } from "../net/server.js";
import { token } from "../net/token.js";
import { recentBranches, showBranches } from "../view/branches.js";
import { el } from "../view/dom.js";
import { nodeHref } from "../view/links.js";
import { failure, note } from "../view/notes.js";
import { TokenBox, enable } from "../view/token.js";

const OFFERED_DAYS = 30;
// What was submitted last: no secret, so it may stay for the next visit.
const PREVIOUS = "kernelci-checkout";

const form = /** @type {HTMLFormElement} */ (document.getElementById("checkout"));
/** @typedef {Record<"commit" | "jobfilter", HTMLInputElement> & {branch: HTMLSelectElement}} Fields */
const fields = /** @type {HTMLFormControlsCollection & Fields} */ (form.elements);
const answer = /** @type {HTMLElement} */ (document.getElementById("answer"));
const names = /** @type {HTMLSelectElement} */ (document.getElementById("names"));
const restore = /** @type {HTMLButtonElement} */ (document.getElementById("restore"));
const rpc = session("manage");
/** @type {Branch[]} */
let branches = [];
/** @type {User | null} */
let user = null;

const box = new TokenBox(/** @type {HTMLElement} */ (document.getElementById("token")), (found) => {
  const changed = found?.id !== user?.id;
  user = found;
  update();
  // The choices may be for signed-in people only.
  if (found && changed && !branches.length) showChoices();
});

function update() {
  enable(form, Boolean(user) && branches.length > 0);
  restore.disabled ||= !previous();
}

function previous() {
  try {
    const { tree, branch, commit, jobfilter } = JSON.parse(localStorage.getItem(PREVIOUS) ?? "{}") ?? {};
    return typeof commit === "string" && Array.isArray(jobfilter) ? { tree, branch, commit, jobfilter } : null;
  } catch {
    return null;
  }
}

const jobfilter = () => fields.jobfilter.value.split(",").map((name) => name.trim()).filter(Boolean);

names.addEventListener("change", () => {
  if (names.value) fields.jobfilter.value = [...new Set([...jobfilter(), names.value])].join(",");
  names.value = "";
});

restore.addEventListener("click", () => {
  const last = previous();
  if (!last) return; // another tab may have removed it
  const { tree, branch, commit, jobfilter } = last;
  const index = branches.findIndex((one) => one.tree === tree && one.branch === branch);
  if (index >= 0) fields.branch.value = String(index);
  fields.commit.value = commit;
  fields.jobfilter.value = jobfilter.join(",");
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { tree, branch, url } = branches[Number(fields.branch.value)];
  const commit = fields.commit.value.trim().toLowerCase();
  const wanted = jobfilter();
  if (!wanted.length) return answer.replaceChildren(failure(new Error("The job filter names no job.")));
  const node = {
    kind: "checkout", name: "checkout", path: ["checkout"], treeid: newTreeId(), jobfilter: wanted,
    data: { kernel_revision: { tree, branch, url, commit } },
  };
  localStorage.setItem(PREVIOUS, JSON.stringify({ tree, branch, commit, jobfilter: wanted }));
  enable(form, false);
  answer.replaceChildren(note("Submitting…"));
  try {
    const made = await ask("POST", "/latest/node", { token: token.get(), body: node });
    answer.replaceChildren(el("p", { class: "note good" }, "Submitted: ", el("a", { href: nodeHref(made.id), text: `checkout of ${tree} / ${branch}` })));
  } catch (/** @type {any} */ error) {
    answer.replaceChildren(failure(error));
    if (error.status === 401) box.refused(error);
  }
  update();
});

// What all nodes of the run will have in common. (randomUUID is for pages over https only.)
const newTreeId = () => [...crypto.getRandomValues(new Uint8Array(32))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

async function readChoices() {
  const found = await recentBranches(rpc, OFFERED_DAYS);
  branches = found.branches;
  showBranches(fields.branch, branches, found.newest);
  update();
  if (!branches.length) answer.replaceChildren(note(`No checkouts in the last ${OFFERED_DAYS} days, so there is no branch to choose.`));
  const filter = { kind__in: ["kbuild", "job"], created__gt: hoursAgo(24 * 7) };
  const { items } = await rpc.call("node.find", { filter, fields: ["name"], sort: ["-created"], limit: 1000 });
  const known = [...new Set(items.map((/** @type {{name: string}} */ node) => String(node.name)))].sort();
  names.replaceChildren(el("option", { value: "", text: "choose…" }), ...known.map((name) => el("option", { text: name, value: name })));
}

function showChoices() {
  if (rpc.session && !rpc.session.user && token.get()) rpc.restart();
  readChoices().then(() => answer.querySelector(".error")?.remove(), (error) => answer.replaceChildren(failure(error)));
}

update();
box.start();
rpc.start();
showChoices();
