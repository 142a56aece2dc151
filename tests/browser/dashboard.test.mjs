// The dashboard in a real browser on the real server.

import assert from "node:assert/strict";
import { test } from "node:test";
import { PHONE, SCREENSHOTS, close, eventually, fitsTheWindow, open, server, state } from "./browser.mjs";
import { bar, row } from "./dashboard.mjs";
import { busyDay, checkout, child, submitTests } from "./made_up_runs.mjs";

test("an empty server shows what to do", async () => {
  const page = await open();
  await state(page, "live");
  await page.getByText("No checkouts yet").waitFor();
  assert.match(await page.title(), /KernelCI API Server/);
  await close(page);
});

test("a node appears, and its run counts as it goes", async () => {
  const page = await open();
  await state(page, "live");
  const root = await checkout(server, { tree: "next", branch: "appears" });
  const build = await child(server, root, "kbuild", "kbuild-gcc-14-arm64");
  const builds = () => bar(page, "appears", "kbuild").getAttribute("aria-label");
  await eventually(builds, "Builds: 1 running");
  await server.rpc("node.update", { id: build.id, set: { state: "done", result: "pass" } });
  await eventually(builds, "Builds: 1 pass");
  const change = page.locator("#events .event", { hasText: "kbuild-gcc-14-arm64" }).first();
  await eventually(async () => /running\s*→\s*done/.test(await change.innerText()), true);

  // One event for the job and its tests: the page reads the run again.
  const job = await child(server, build, "job", "baseline-arm64");
  await submitTests(server, job, "fail", ["pass", "pass", "fail", "skip"]);
  await eventually(() => bar(page, "appears", "test").getAttribute("aria-label"), "Tests: 2 pass, 1 fail, 1 skip");
  await eventually(() => bar(page, "appears", "job").getAttribute("aria-label"), "Jobs: 1 fail");
  await close(page);
});

test("a run is read to its last page", async () => {
  const root = await checkout(server, { branch: "large" });
  const job = await child(server, root, "job", "ltp-syscalls");
  await submitTests(server, job, "pass", Array.from({ length: 1_200 }, () => "pass"));
  const page = await open();
  await eventually(() => bar(page, "large", "test").getAttribute("aria-label"), "Tests: 1200 pass");
  await close(page);
});

test("the details: outline, filter, node as JSON, and the way back", async () => {
  const page = await open();
  await row(page, "appears").getByRole("link").click();
  const outline = page.locator(".outline li");
  await page.getByRole("button", { name: "Failing" }).click();
  await eventually(() => outline.count(), 3); // the build, the job, its failed test
  await outline.getByRole("link", { name: "baseline-arm64" }).click();
  const json = JSON.parse(await page.locator(".json").innerText());
  assert.equal(json.result, "fail");
  await page.goBack();
  await outline.first().waitFor();
  await page.keyboard.press("Escape");
  await page.locator("#detail").waitFor({ state: "hidden" });
  await close(page);
});

test("the stream can be filtered and paused", async () => {
  const page = await open();
  await state(page, "live");
  const root = await checkout(server, { branch: "streams" });
  await child(server, root, "kbuild", "kbuild-one");
  await child(server, root, "kbuild", "kbuild-two");
  const events = page.locator("#events .event");
  const text = page.getByLabel("Filter events by text");
  await text.fill("streams");
  await eventually(() => events.count(), 3);
  await text.fill("kbuild-two");
  await eventually(() => events.count(), 1);
  await text.fill("streams");
  await page.getByLabel("Kind").selectOption("checkout");
  await eventually(() => events.count(), 1);
  await page.getByLabel("Kind").selectOption("");
  await page.getByRole("button", { name: "Pause" }).click();
  await child(server, root, "kbuild", "kbuild-three");
  await page.getByRole("button", { name: "Resume (1 new)" }).click();
  await eventually(() => events.count(), 4);
  await close(page);

  // Who comes later sees what was before.
  const later = await open();
  await later.locator("#events .event", { hasText: "kbuild-three" }).waitFor();
  await close(later);
});

test("hostile names are text", async () => {
  const hostile = `<img src=x onerror="alert(1)"><script>alert(2)</script>`;
  const root = await checkout(server, { tree: hostile, branch: hostile, describe: hostile });
  const data = { error_msg: hostile };
  const build = await child(server, root, "kbuild", hostile, { data, artifacts: { [hostile]: "https://example.org/a" } });
  const page = await open();
  await state(page, "live");
  await server.rpc("node.update", { id: build.id, set: { state: "done", result: "fail" } });
  await page.locator("#events .event", { hasText: "<img src=x" }).first().waitFor();
  await row(page, "<script>alert(2)</script>").getByRole("link").click();
  await page.locator(".outline a", { hasText: "<img src=x" }).click();
  await page.locator(".artifacts a", { hasText: "<img src=x" }).waitFor();
  assert.equal(await page.locator(".artifacts a").getAttribute("rel"), "noopener noreferrer");
  assert.equal(await page.locator("main img, main script, aside img").count(), 0);
  await close(page);
});

const restart = (signal) => async () => {
  const branch = `restarts-${signal}`;
  const page = await open();
  await state(page, "live");
  const root = await checkout(server, { branch });
  const before = await child(server, root, "kbuild", "kbuild-before");
  await eventually(() => bar(page, branch, "kbuild").getAttribute("aria-label"), "Builds: 1 running");
  const newest = page.locator("#events .event").first();
  await newest.getByText("kbuild-before").waitFor();
  const last = Number(await newest.getAttribute("data-seq"));

  await server.kill(signal);
  await state(page, "reconnecting");
  await page.locator(".badge-text", { hasText: /reconnecting… \d+ s/ }).waitFor();
  await server.start();
  // Whether the page is back before these are written or not, it must show them once.
  await server.rpc("node.update", { id: before.id, set: { state: "done", result: "pass" } });
  for (const name of ["one", "two", "three"]) await child(server, root, "kbuild", `kbuild-after-${name}`);
  await state(page, "live");
  await child(server, root, "kbuild", "kbuild-after-four");

  await eventually(() => bar(page, branch, "kbuild").getAttribute("aria-label"), "Builds: 1 pass, 4 running");
  await newest.getByText("kbuild-after-four").waitFor();
  const seen = await page.locator("#events .event").evaluateAll((rows) => rows.map((row) => Number(row.dataset.seq)));
  assert.deepEqual(seen.slice(0, 6), [5, 4, 3, 2, 1, 0].map((n) => last + n));
  assert.equal(new Set(seen).size, seen.length);
  assert.equal(await page.locator("#events .gap").count(), 0);
  assert.equal(await row(page, branch).count(), 1);

  // The browser itself reports each attempt that was refused.
  page.problems = page.problems.filter((problem) => !/WebSocket connection to .* failed/.test(problem));
  await close(page);
};

test("the server is killed and comes back: nothing is missing, nothing is there twice", restart("SIGKILL"));
test("the server is replaced by another one: the same", restart("SIGTERM"));

test("screenshots: light, dark, narrow", async () => {
  await busyDay(server);
  const views = {
    "desktop-light": {},
    "desktop-dark": { colorScheme: "dark", detail: true },
    mobile: PHONE,
    "mobile-dark-detail": { ...PHONE, colorScheme: "dark", detail: true },
  };
  for (const [name, { detail, ...options }] of Object.entries(views)) {
    const page = await open("/", options);
    await state(page, "live");
    await page.locator("#checkouts li:first-child .bar-cell.test:not(.loading)").waitFor();
    if (detail) await row(page, "linux-6.12.y").getByRole("link").click();
    await page.waitForTimeout(500);
    await fitsTheWindow(page, name);
    await page.screenshot({ path: `${SCREENSHOTS}${name}.png` });
    await close(page);
  }
});
