// The telemetry dashboard in a real browser on the real server.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { PHONE, SCREENSHOTS, close, eventually, fitsTheWindow, open, server } from "./browser.mjs";

const hostile = `<img src=x onerror="alert(1)">`;

before(async () => {
  const events = [];
  const add = (count, fields) => events.push(...Array.from({ length: count }, () => ({ kind: "job_result", runtime: "lava-collabora", tree: "mainline", branch: "master", arch: "arm64", device_type: "bcm2711-rpi-4-b", job_name: "baseline-arm64", ...fields })));
  add(40, { result: "pass" });
  add(6, { result: "fail" });
  add(5, { runtime: "lava-broonie", device_type: "sun50i-h6-pine-h64", tree: "next", result: "pass" });
  // A lab whose boards are gone, and one that takes no jobs.
  const infra = { is_infra_error: true, error_type: "Infrastructure", error_msg: `no board: ${hostile}`, node_id: "68f000000000000000000000" };
  add(8, { runtime: "lava-baylibre", device_type: "meson-g12b-odroid-n2", tree: "stable", result: "incomplete", ...infra });
  add(4, { runtime: "lava-cip", device_type: null, kind: "runtime_error", result: null, error_type: "submit_error", error_msg: "503" });
  add(12, { kind: "job_submission", result: null });
  add(3, { runtime: hostile, tree: hostile, device_type: hostile, result: "fail" });
  const headers = { "content-type": "application/json", authorization: `Bearer ${await server.token()}` };
  const answer = await fetch(`${server.url}/latest/telemetry`, { method: "POST", headers, body: JSON.stringify(events) });
  assert.equal(answer.status, 200, await answer.text());
});

const choice = (page, name) => page.locator(`#choices [name=${name}]`);
const card = (page, name) => page.locator("#cards .card").filter({ hasText: name }).locator("b").first();

test("telemetry in numbers, pictures and tables, and what stands out", async () => {
  const page = await open("/analytics");
  await eventually(() => card(page, "events").innerText(), "78");
  assert.equal(await card(page, "pass").innerText(), "45");
  assert.equal(await card(page, "infrastructure").innerText(), "8");
  const row = page.locator("#runtimes tbody tr", { hasText: "lava-collabora" });
  assert.match(await row.innerText(), /58\s+40\s+6\s+0/);
  assert.equal(await page.locator("#trees tbody tr").count(), 4);
  await page.locator("#anomalies li", { hasText: "lava-baylibre · meson-g12b-odroid-n2" }).getByText("nothing but infrastructure errors").waitFor();
  await page.locator("#anomalies li", { hasText: "lava-cip" }).getByText("4 × submit_error").waitFor();
  await eventually(() => page.locator("#errors tbody tr").count(), 8);
  assert.match(await page.getByRole("img", { name: /^Results:/ }).getAttribute("aria-label"), /45 pass, 9 fail, 8 incomplete/);
  assert.equal(await page.locator("main img").count(), 0, "what events say stays text");

  // Down to the events, and back.
  await row.getByRole("button", { name: "lava-collabora" }).click();
  const dialog = page.getByRole("dialog");
  await eventually(() => dialog.locator("tbody tr").count(), 58);
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });

  await choice(page, "runtime").selectOption("lava-broonie");
  await eventually(() => card(page, "events").innerText(), "5");
  assert.match(page.url(), /runtime=lava-broonie/);
  await choice(page, "tree").selectOption("stable");
  await page.locator("#results").getByText("No events.").waitFor();
  await page.locator("#errors").getByText("No infrastructure errors.").waitFor();
  await close(page);
});

test("an address says what is shown, and it fits a phone", async () => {
  for (const [size, options] of Object.entries({ desktop: {}, phone: { ...PHONE, colorScheme: "dark" } })) {
    const page = await open("/latest/analytics?window=24h&threshold=0.3", options);
    await eventually(() => card(page, "events").innerText(), "78");
    assert.equal(await choice(page, "window").inputValue(), "24h");
    await page.locator("#main:not(:has([aria-busy]))").waitFor();
    await fitsTheWindow(page, size);
    await page.screenshot({ path: `${SCREENSHOTS}analytics-${size}.png`, fullPage: true });
    await close(page);
  }
});

test("a server that refuses is said to refuse", async () => {
  const page = await open("/analytics", {}, (page) => page.route("**/telemetry/anomalies*", (route) => route.fulfill({ status: 503, body: "" })));
  await page.locator("#anomalies .error", { hasText: "status 503" }).waitFor();
  await eventually(() => card(page, "events").innerText(), "78");
  page.problems = page.problems.filter((problem) => !problem.includes("503"));
  await close(page);
});
