// What the dashboard knows and how it follows, without a browser.

import assert from "node:assert/strict";
import { test } from "node:test";
import { age, httpUrl, parseTime, short } from "../../web/format.js";
import { Checkouts, MAX_CHECKOUTS } from "../../web/model/checkouts.js";
import { Follow } from "../../web/model/follow.js";
import { History } from "../../web/model/history.js";
import { outline } from "../../web/model/outline.js";
import { Tree } from "../../web/model/tree.js";
import { RpcError } from "../../web/net/rpc_error.js";
import { Subscriptions } from "../../web/net/subscriptions.js";

const node = (id, fields) => ({ id, kind: "kbuild", name: id, parent: null, state: "running", result: null, revision: 1, ...fields });
const settle = () => new Promise((wake) => setTimeout(wake, 5));

test("counts follow revisions, in whatever order snapshot and events come", () => {
  const tree = new Tree();
  tree.put(node("a", { revision: 2, state: "done", result: "pass" }));
  tree.put(node("a", { revision: 1 })); // an older page of the snapshot
  tree.put(node("a", { revision: 2, state: "done", result: "pass" }));
  assert.deepEqual(tree.counts.kbuild, { pass: 1, fail: 0, incomplete: 0, skip: 0, running: 0 });
  tree.put(node("b", { state: "done" }));
  assert.equal(tree.counts.kbuild.incomplete, 1);
});

test("a complete snapshot forgets what is gone, but not what an event just brought", () => {
  const tree = new Tree();
  tree.put(node("gone"));
  tree.beginSnapshot();
  tree.put(node("kept"));
  tree.put(node("new", { kind: "job" }));
  tree.endSnapshot(false);
  assert.deepEqual([...tree.nodes.keys()], ["kept", "new"]);
  assert.equal(tree.counts.kbuild.running, 1);
});

test("the newest checkouts stay, newest first", () => {
  const list = new Checkouts();
  for (let i = 0; i < MAX_CHECKOUTS + 5; i++) list.put({ id: `c${i}`, created: `2026-01-01T00:${10 + i}:00` });
  assert.equal(list.items.length, MAX_CHECKOUTS);
  assert.equal(list.items[0].id, `c${MAX_CHECKOUTS + 4}`);
  assert.equal(list.get("c0"), undefined);
  list.put({ id: "c20", created: "2026-01-01T00:30:00", revision: 3 });
  assert.equal(list.put({ id: "c20", created: "2026-01-01T00:30:00", revision: 2 }), false);
  assert.equal(list.items.filter((item) => item.id === "c20").length, 1);
  // A snapshot that was read before the newest event keeps what the event brought.
  list.reset([{ id: "c20", created: "2026-01-01T00:30:00", revision: 1 }]);
  assert.equal(list.get("c20").revision, 3);
  assert.equal(list.items[0].id, `c${MAX_CHECKOUTS + 4}`);
});

test("the outline survives parents that are missing or form a circle", () => {
  const tree = new Tree();
  tree.put(node("build", { state: "done", result: "pass" }));
  tree.put(node("job", { kind: "job", parent: "build", state: "done", result: "fail" }));
  tree.put(node("test", { kind: "test", parent: "job", state: "done", result: "fail" }));
  tree.put(node("orphan", { kind: "job", parent: "elsewhere" }));
  tree.put(node("x", { parent: "y" }));
  tree.put(node("y", { parent: "x" }));
  const names = (wish) => outline(tree, wish).lines.map((line) => line.node.id);
  assert.deepEqual(names({ only: "all", open: new Set() }), ["build", "orphan"]);
  assert.deepEqual(names({ only: "all", open: new Set(["build"]) }), ["build", "job", "orphan"]);
  assert.deepEqual(names({ only: "fail", open: new Set() }), ["build", "job", "test"]);
  assert.deepEqual(outline(tree, { only: "all", open: new Set() }).lines[0].below, { fail: 2 });
});

test("the history is bounded and can be searched", () => {
  const history = new History();
  for (let i = 0; i < 5000; i++) {
    history.add({ time: "", data: { id: `${i}`, kind: i % 2 ? "job" : "test", name: `n${i}` } }, null, { seq: i });
  }
  assert.equal(history.select({ kind: "", text: "" }, 200).length, 200);
  assert.equal(history.select({ kind: "job", text: "n4999" }, 200)[0].seq, 4999);
  assert.equal(history.select({ kind: "", text: "n5" }, 200).some((row) => row.name === "n5"), false);
  history.add({ data: "BEEP", type: "x" }, null, { seq: 1 });
});

/** Stands for an Rpc: answers event.subscribe as `answers` say and keeps what was asked. */
function session(...answers) {
  const asked = [];
  const callNow = async (method, params) => {
    asked.push(params.from);
    const answer = answers.shift();
    if (answer instanceof Error) throw answer;
    return { sub: params.sub, ...answer };
  };
  return { asked, callNow, restart() {} };
}

test("a subscription resumes behind the last event, and reports what cannot be filled", async () => {
  const rpc = session(
    { position: { epoch: "e", seq: 10 }, recovered: true },
    { position: { epoch: "e", seq: 12 }, recovered: true },
    { position: { epoch: "e", seq: 40 }, recovered: false },
    { position: { epoch: "f", seq: 3 }, recovered: false },
    new RpcError({ code: -32000, message: "bad request" }),
    { position: { epoch: "g", seq: 0 }, recovered: true },
  );
  const subscriptions = new Subscriptions(rpc);
  const seen = [];
  const resets = [];
  subscriptions.add({ channel: "node" }, { onEvent: (_, __, { seq }) => seen.push(seq), onReset: (why) => resets.push(why) });
  await subscriptions.resume();
  for (const seq of [11, 12, 12, 11]) subscriptions.notify("event", { sub: 1, seq, event: {} });
  subscriptions.notify("event", { sub: 9, seq: 99, event: {} });
  await subscriptions.resume();
  subscriptions.notify("progress", { sub: 1, seq: 20 });
  await subscriptions.resume();
  await subscriptions.resume();
  subscriptions.notify("gap", { sub: 1, from: 4, to: 8 });
  subscriptions.notify("gap", { sub: 1, from: 1, to: 2, epoch: "f2" });
  await subscriptions.resume();
  const at = (epoch, seq) => ({ epoch, seq });
  assert.deepEqual(seen, [11, 12]);
  assert.deepEqual(rpc.asked, ["now", at("e", 12), at("e", 20), at("e", 40), at("f2", 2), "now"]);
  assert.deepEqual(resets, [
    { reason: "start" }, { reason: "lost", from: 21, to: 40 }, { reason: "lost" }, { reason: "gap", from: 4, to: 8 },
    { reason: "gap", from: 1, to: 2 }, { reason: "lost" },
  ]);
});

test("a run is read page by page, and again after a hierarchy was written", async () => {
  const asked = [];
  const pages = { kbuild: [node("b1"), node("b2")], test: [node("t1", { kind: "test", state: "done", result: "pass" })] };
  const rpc = {
    async call(method, { filter, after }) {
      if (filter.kind === "checkout") return { items: [{ id: "c", kind: "checkout", treeid: "T", created: "2026", revision: 1 }], next: null };
      asked.push([filter.kind__in[0], after]);
      const items = pages[filter.kind__in[0]];
      return after || items.length < 2 ? { items: items.slice(-1), next: null } : { items: items.slice(0, 1), next: "p2" };
    },
  };
  const follow = new Follow(rpc);
  await follow.reload();
  follow.want("T");
  await settle();
  assert.deepEqual(asked, [["kbuild", undefined], ["kbuild", "p2"], ["test", undefined]]);
  const tree = follow.trees.get("T");
  assert.equal(tree.counts.kbuild.running, 2);
  assert.equal(tree.counts.test.pass, 1);

  const done = node("b1", { treeid: "T", state: "done", result: "pass", revision: 2 });
  follow.apply({ data: { id: "b1", is_hierarchy: true }, partitionkey: "T" }, done);
  follow.apply({ data: { id: "b1", is_hierarchy: true }, partitionkey: "T" }, done);
  assert.equal(tree.counts.kbuild.pass, 1);
  assert.equal(asked.length, 3); // not at once: hierarchies come in bursts
  await new Promise((wake) => setTimeout(wake, 3_000));
  assert.equal(asked.length, 6);
  assert.equal(tree.counts.kbuild.pass, 1); // the older revision in the page did not win
});

test("values as people read them", () => {
  assert.equal(parseTime("2026-01-01T00:00:00"), Date.UTC(2026, 0, 1));
  assert.equal(parseTime("2026-01-01T01:00:00.000000+01:00"), Date.UTC(2026, 0, 1));
  assert.ok(Number.isNaN(parseTime(null)));
  assert.deepEqual([0, 59_000, 600_000, 7_200_000].map((ms) => age(0, ms)), ["now", "59 s", "10 min", "2 h"]);
  assert.deepEqual([9999, 12_345, 250_000, 2_500_000].map(short), ["9999", "12.3k", "250k", "2.5M"]);
  assert.equal(httpUrl("javascript:alert(1)"), null);
  assert.equal(httpUrl("https://example.org/a b"), "https://example.org/a%20b");
});
