// Choosing a tree and a branch out of those that there were checkouts of.

/** @import { Branch } from "../model/grid.js" */
/** @import { ApiNode } from "../model/tree.js" */
/** @import { Caller } from "../net/rpc.js" */

import { hoursAgo } from "../model/times.js";
import { branchesOf } from "../model/grid.js";
import { readNodes } from "../net/server.js";
import { el } from "./dom.js";

const MOST_CHECKOUTS = 6_000;
const FIELDS = ["id", "data.kernel_revision.tree", "data.kernel_revision.branch", "data.kernel_revision.url"];

/**
 * Branches that had a checkout in the last `days` days, and the one with the newest.
 * @param {Caller} rpc
 * @param {number} days
 * @returns {Promise<{branches: Branch[], newest: Branch | null}>}
 */
export async function recentBranches(rpc, days) {
  const filter = { kind: "checkout", created__gt: hoursAgo(24 * days) };
  /** @type {ApiNode[]} */
  const checkouts = [];
  await readNodes(rpc, { filter, fields: FIELDS, sort: ["-created"] }, MOST_CHECKOUTS, (items) => checkouts.push(...items));
  const branches = branchesOf(checkouts);
  const { tree, branch } = checkouts.find(({ data }) => branchesOf([{ data }]).length)?.data.kernel_revision ?? {};
  return { branches, newest: branches.find((one) => one.tree === tree && one.branch === branch) ?? null };
}

/**
 * Fills `select` with branches by tree; the value of an option is the branch's index.
 * @param {HTMLSelectElement} select
 * @param {Branch[]} branches
 * @param {Branch | null | undefined} chosen
 */
export function showBranches(select, branches, chosen) {
  /** @type {Map<string, HTMLOptGroupElement>} */
  const groups = new Map();
  branches.forEach((one, i) => {
    let group = groups.get(one.tree);
    if (!group) groups.set(one.tree, (group = el("optgroup", { label: one.tree })));
    const selected = one.tree === chosen?.tree && one.branch === chosen?.branch;
    group.append(el("option", { value: String(i), selected, text: `${one.tree} / ${one.branch}` }));
  });
  select.replaceChildren(...groups.values());
}
