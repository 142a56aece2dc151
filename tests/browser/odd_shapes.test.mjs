// Nodes and events of other shapes than they should have: pages pass over them and say so.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Follow } from "../../web/model/follow.js";
import { History } from "../../web/model/history.js";
import { isEvent, isNode, readAnswer, unread } from "../../web/model/shape.js";
import { Subscriptions } from "../../web/net/subscriptions.js";
import { close, eventually, open, server, state } from "./browser.mjs";
import { checkout, child } from "./made_up_runs.mjs";

const node = { id: "a", kind: "kbuild", name: "n", path: ["c", "n"], state: "done", result: null, data: { kernel_revision: { tree: "t" } } };
/** Becomes no text: it throws where it is shown. */
const HOSTILE = { toString: 1, valueOf: 1 };
const ODD = {
  id: [1], kind: 5, name: HOSTILE, path: 5, state: {}, result: ["pass"], parent: {}, treeid: 1, created: {}, artifacts: ["x"], revision: "1", data: "text",
};

test("whatever a member of a node is, it is either shown or passed over", () => {
  assert.ok(isNode(node) && isNode({}) && isNode({ ...node, artifacts: null, data: null, other: HOSTILE }));
  assert.ok(isEvent({ data: { ...node, op: "created" } }) && isEvent({ data: "BEEP" }) && isEvent({ data: null }));
  for (const [name, value] of Object.entries(ODD)) {
    const odd = { ...node, [name]: value };
    assert.equal(isNode(odd), false, name);
    assert.equal(isEvent({ data: odd }), false, name);
  }
  for (const data of [{ platform: HOSTILE }, { kernel_revision: "v6" }, { kernel_revision: { commit: HOSTILE } }, { error_msg: [] }]) {
    assert.equal(isNode({ ...node, data }), false, JSON.stringify(data));
  }
  for (const value of [null, undefined, 5, "x", []]) assert.equal(isNode(value), false);
  assert.equal(isEvent({ time: 5 }) || isEvent(null), false);
});

test("lists leave out what cannot be read, and one node says so", () => {
  const before = unread.count;
  const items = [node, { ...node, name: HOSTILE }, null];
  assert.deepEqual(readAnswer("node.find", { items, next: "x" }), { items: [node], next: "x" });
  assert.equal(unread.count, before + 2);
  assert.equal(readAnswer("node.get", node), node);
  assert.equal(readAnswer("node.get", null), null);
  assert.throws(() => readAnswer("node.get", { ...node, path: 5 }), /another shape/);
});

test("what cannot be read keeps nothing else from being shown", async () => {
  const rpc = { callNow: async (_, { sub }) => ({ sub, position: { epoch: "e", seq: 0 }, recovered: true }), restart() {} };
  const subscriptions = new Subscriptions(rpc);
  const [follow, history] = [new Follow({ call: async () => ({ items: [] }) }), new History()];
  subscriptions.add({ channel: "node" }, {
    onEvent(event, now, place) {
      history.add(event, now, place);
      follow.apply(event, now);
      if (event.data.name === "fails") throw new Error("a mistake of the page's");
    },
    onReset() {},
  });
  await subscriptions.resume();
  const before = unread.count;
  let seq = 0;
  const tell = (event, now) => subscriptions.notify("event", { sub: 1, seq: ++seq, event, node: now });
  for (const [name, value] of Object.entries(ODD)) {
    tell({ data: { ...node, [name]: value } });
    tell({ data: node }, { ...node, [name]: value });
  }
  tell({ data: { ...node, name: "fails" } });
  tell({ data: { ...node, name: "last" } }, node);
  assert.equal(unread.count, before + 2 * Object.keys(ODD).length + 1);
  assert.deepEqual(history.select({ kind: "", text: "" }, 9).map((row) => row.name), ["last", "fails"]);
});

test("the dashboard goes on behind an event that it cannot read, and says so", async () => {
  const spoil = (page) =>
    page.routeWebSocket("**/latest/ws", (socket) => {
      const behind = socket.connectToServer();
      behind.onMessage((text) => {
        const message = JSON.parse(text);
        const { event, node: now } = message.method === "event" ? message.params : {};
        if (event?.data?.name === "odd") Object.assign(event.data, { path: 5, name: HOSTILE });
        if (now?.name === "odd too") now.data = { kernel_revision: { tree: HOSTILE } };
        socket.send(JSON.stringify(message));
      });
    });
  const page = await open("/", {}, spoil);
  await state(page, "live");
  const root = await checkout(server, { branch: "odd" });
  await child(server, root, "kbuild", "odd");
  await child(server, root, "kbuild", "odd too");
  await child(server, root, "kbuild", "good");
  const events = page.locator("#events .event");
  await eventually(() => events.filter({ hasText: "good" }).count(), 1);
  await page.getByText("2 things that came from the server could not be read").waitFor();
  assert.equal(await events.filter({ hasText: "odd too" }).count(), 0);
  await close(page);
});
