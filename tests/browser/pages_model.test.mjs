// What the pages beside the dashboard know, without a browser.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Breakdown, percent } from "../../web/model/breakdown.js";
import { filterOf } from "../../web/model/conditions.js";
import { Grid, branchesOf, commitsOf, inWords, rowName, verdict } from "../../web/model/grid.js";
import { lavaJob } from "../../web/model/lava.js";
import { health, outcomes, severity, sum } from "../../web/model/telemetry.js";
import { hoursAgo, hoursOf } from "../../web/model/times.js";
import { describe } from "../../web/net/rest.js";
import { readNodes } from "../../web/net/server.js";

test("conditions become a filter in the form of a query string", () => {
  const filter = (...conditions) => filterOf(conditions);
  assert.equal(filter("kind=job", " result != pass ", ""), "kind=job&result__ne=pass");
  assert.equal(filter("created>=2026-01-01T00:00:00", "created < 2026-02-01"), "created__gte=2026-01-01T00%3A00%3A00&created__lt=2026-02-01");
  assert.equal(filter("data.kernel_revision.tree = a b"), "data.kernel_revision.tree=a+b");
  assert.equal(filter("name__re=^kbuild-.*&x"), "name__re=%5Ekbuild-.*%26x");
  assert.equal(filter("parent=null", "name="), "parent=null&name=");
  assert.equal(filter("path==x"), "path=%3Dx");
  assert.equal(filter(), "");
  for (const bad of ["kind", "=x", "a b=c", "<img>", "kind ~ x"]) assert.throws(() => filter(bad), /is no condition/, bad);
});

test("spans of time", () => {
  assert.equal(hoursAgo(24, Date.UTC(2026, 0, 2, 3, 4, 5, 678)), "2026-01-01T03:04:05");
  assert.deepEqual(["24", "7d", "36h", null, "x", "0", "99999", "-5"].map(hoursOf), [24, 168, 36, 168, 168, 1, 4320, 168]);
});

const node = (kind, name, result, fields) => ({ id: `${kind}-${name}`, kind, name, state: result ? "done" : "running", result, ...fields });

test("a grid counts by name and commit", () => {
  const grid = new Grid();
  grid.add("c1", node("job", "boot", "pass"));
  grid.add("c1", node("job", "boot", "fail"));
  grid.add("c1", node("job", "boot", null));
  grid.add("c2", node("job", "boot", "pass"));
  grid.add("c2", node("job", "ltp", "skip"));
  const { rows, left } = grid.select({}, 1);
  assert.deepEqual([rows.map((row) => row.name), left, grid.size], [["boot"], 1, 2]);
  const cell = rows[0].cells.get("c1");
  assert.deepEqual(verdict(cell), { worst: "fail", share: 0.5 });
  assert.equal(inWords(cell), "1 pass, 1 fail, 1 running");
  assert.deepEqual(verdict(rows[0].cells.get("c2")), { worst: "pass", share: 0 });
  assert.deepEqual(grid.select({ text: " LT" }, 9).rows.map((row) => row.name), ["ltp"]);
  assert.deepEqual(grid.select({ failing: true }, 9).rows.map((row) => row.name), ["boot"]);
});

test("rows of tests are named by what is below the job", () => {
  assert.equal(rowName(node("kbuild", "kbuild-x", "pass", { path: ["checkout", "kbuild-x"] })), "kbuild-x");
  const path = ["checkout", "kbuild-x", "ltp", "syscalls", "open01"];
  assert.equal(rowName(node("test", "open01", "pass", { path, group: "ltp" })), "ltp / syscalls / open01");
  assert.equal(rowName(node("test", "open01", "pass", { path })), "syscalls / open01");
  assert.equal(rowName(node("test", "open01", "pass", { path: null })), "open01");
});

test("branches and commits of checkouts, each once", () => {
  const checkout = (id, kernel_revision) => ({ id, created: id, data: { kernel_revision } });
  const list = [
    checkout("4", { tree: "b", branch: "x", commit: "c2", describe: "d2" }), checkout("3", { tree: "a", branch: "y", commit: "c1" }),
    checkout("2", { tree: "b", branch: "x", commit: "c2" }), checkout("1", null), { id: "0" },
  ];
  assert.deepEqual(branchesOf(list).map(({ tree, branch }) => `${tree}/${branch}`), ["a/y", "b/x"]);
  assert.deepEqual(commitsOf(list, 9).map(({ commit, id, describe }) => [commit, id, describe]), [["c2", "4", "d2"], ["c1", "3", undefined]]);
  assert.equal(commitsOf(list, 1).length, 1);
});

test("a breakdown counts and lists", () => {
  const breakdown = new Breakdown();
  breakdown.add([node("job", "a", "pass"), node("job", "b", "fail")]);
  breakdown.add([node("job", "b", "incomplete"), node("job", "a", "pass"), node("job", "c", null)]);
  assert.deepEqual(breakdown.counts, { pass: 2, fail: 1, incomplete: 1, skip: 0, running: 1 });
  assert.deepEqual(breakdown.names(2).map((row) => [row.name, row.total]), [["b", 2], ["a", 2]]);
  assert.deepEqual(breakdown.nodes("pass", 1).map((one) => one.name), ["a"]);
  assert.deepEqual([percent(1, 8), percent(1, 2), percent(0, 5), percent(1, 0)], ["13 %", "50 %", "0 %", ""]);
  assert.equal(percent(1, 16), "6.3 %");
});

test("only labs that are known have addresses of jobs", () => {
  assert.equal(lavaJob({ data: { runtime: "lava-broonie", job_id: "12/3" } }), "https://lava.sirena.org.uk/scheduler/job/12%2F3");
  for (const data of [null, {}, { runtime: "lava-broonie" }, { runtime: "elsewhere", job_id: "1" }, { runtime: "toString", job_id: "1" }, { runtime: "lava-cip", job_id: {} }]) {
    assert.equal(lavaJob({ data }), null);
  }
});

test("telemetry is summed up", () => {
  const groups = [{ runtime: "a", total: 10, pass: 6, fail: 2, incomplete: 0, skip: 1, infra_error: 1 }, { runtime: "b", total: 3 }];
  assert.deepEqual(outcomes(groups[0]), { pass: 6, fail: 2, incomplete: 0, skip: 1, other: 1 });
  const all = sum(groups);
  assert.deepEqual([all.total, all.infra_error, all.other], [13, 1, 4]);
  assert.deepEqual(groups.map(health), [0.75, null]);
  assert.deepEqual([{ infra_rate: 1, fail_rate: 0 }, { infra_rate: 0, fail_rate: 0.7 }, {}].map(severity), ["fail", "incomplete", "skip"]);
});

test("errors of the server in one line", () => {
  assert.equal(describe({ detail: "Unauthorized" }), "Unauthorized");
  assert.equal(describe({ message: "Internal server error" }), "Internal server error");
  assert.equal(describe({ detail: [{ loc: ["body", "email"], msg: "Field required" }, { msg: "x" }] }), "email: Field required; x");
  assert.equal(describe({ detail: { code: 1 } }), '{"code":1}');
  assert.equal(describe(null), "");
});

test("nodes are read page by page, up to a number", async () => {
  const asked = [];
  const rpc = {
    async call(method, { limit, after }) {
      asked.push([method, limit, after]);
      return { items: Array.from({ length: limit }, () => ({})), next: asked.length < 3 ? `p${asked.length}` : null };
    },
  };
  let read = 0;
  const more = await readNodes(rpc, {}, 1500, (items) => (read += items.length));
  assert.deepEqual([asked, read, more], [[["node.find", 1000, undefined], ["node.find", 500, "p1"]], 1500, true]);
  assert.equal(await readNodes(rpc, {}, 10_000, () => {}), false);
});
