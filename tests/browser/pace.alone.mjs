// How soon the dashboard shows what happens, and how smoothly. These measure time: scripts/test runs them when nothing
// else does, and each takes the best of three, because a machine stands still now and then.

import assert from "node:assert/strict";
import { test } from "node:test";
import { close, eventually, open, server, state } from "./browser.mjs";
import { bar, row } from "./dashboard.mjs";
import { checkout, child } from "./made_up_runs.mjs";

test("what happens is on the page within one second", async () => {
  const page = await open();
  await state(page, "live");
  const times = { appears: [], running: [], done: [] };
  const timed = async (what, step) => {
    const begun = performance.now();
    await step();
    times[what].push(performance.now() - begun);
  };
  for (const branch of ["first", "second", "third"]) {
    const builds = () => bar(page, branch, "kbuild").getAttribute("aria-label");
    const root = await checkout(server, { tree: "next", branch });
    await timed("appears", () => row(page, branch).waitFor());
    const build = await child(server, root, "kbuild", "kbuild-gcc-14-arm64");
    await timed("running", () => eventually(builds, "Builds: 1 running"));
    await server.rpc("node.update", { id: build.id, set: { state: "done", result: "pass" } });
    await timed("done", () => eventually(builds, "Builds: 1 pass"));
  }
  for (const [what, taken] of Object.entries(times)) assert.ok(Math.min(...taken) < 1_000, `${what}: ${taken} ms`);
  await close(page);
});

test("a burst of events does not freeze the page", async () => {
  const page = await open();
  await state(page, "live");
  const root = await checkout(server, { branch: "bursts" });
  await row(page, "bursts").waitFor();
  await page.evaluate(() => {
    globalThis.longest = 0;
    let last = performance.now();
    setInterval(() => {
      const now = performance.now();
      globalThis.longest = Math.max(globalThis.longest, now - last);
      last = now;
    }, 20);
  });
  // The smoothest of three.
  let best = Infinity;
  for (let burst = 1; burst <= 3 && best >= 1_000; burst++) {
    await page.evaluate(() => (globalThis.longest = 0));
    let left = 500;
    const writer = async () => {
      while (left-- > 0) await child(server, root, "kbuild", "kbuild-burst", { state: "done", result: "pass" });
    };
    await Promise.all(Array.from({ length: 16 }, writer));
    await eventually(() => bar(page, "bursts", "kbuild").getAttribute("aria-label"), `Builds: ${500 * burst} pass`);
    assert.ok((await page.locator("#events .event").count()) <= 200);
    best = Math.min(best, await page.evaluate(() => globalThis.longest));
  }
  assert.ok(best < 1_000, `the page stood still for ${best} ms`);
  await close(page);
});
