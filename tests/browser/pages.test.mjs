// Viewer, results and statistics in a real browser on the real server.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { DESKTOP, PHONE, SCREENSHOTS, close, eventually, fitsTheWindow, open, server } from "./browser.mjs";
import { checkout, child, submitTests } from "./made_up_runs.mjs";

const hostile = `<img src=x onerror="alert(1)"><script>alert(2)</script>`;
const hoursAgo = (hours) => new Date(Date.now() - hours * 3_600_000).toISOString().slice(0, 19);
const done = (result) => ({ state: "done", result });

// Three commits of a branch, the last one still running.
const commits = ["a", "b", "c"].map((digit) => digit.repeat(40));
const nodes = {};

before(async () => {
  for (const [i, commit] of commits.entries()) {
    const created = hoursAgo(60 - 24 * i);
    const root = await checkout(server, { branch: "history", commit }, { created, state: "available" });
    const build = (name, fields) => child(server, root, "kbuild", name, { created, ...fields });
    const last = i === 2;
    const good = await build("kbuild-gcc-14-arm64", done("pass"));
    await build("kbuild-gcc-14-x86", last ? {} : done(i ? "fail" : "pass"));
    const data = { platform: "bcm2711-rpi-4-b", runtime: "lava-collabora", job_id: "4711", error_msg: i ? "no boot" : null };
    for (const result of ["pass", i ? "fail" : "pass"]) {
      const job = await child(server, good, "job", "baseline-arm64", { created, group: "baseline-arm64", data });
      await server.rpc("node.update", { id: job.id, set: done(result) });
      nodes.job = job;
    }
    const { kernel_revision } = root.data;
    const fields = { created, group: "baseline-arm64", data: { kernel_revision } };
    await child(server, nodes.job, "test", "login", { ...fields, ...done("pass") });
    await child(server, nodes.job, "test", "dmesg", { ...fields, ...done(i ? "fail" : "pass") });
    Object.assign(nodes, { root, good });
  }
});

const texts = (locator) => locator.allInnerTexts();

test("the viewer shows a node: where it stands, what belongs to it, all of it", async () => {
  const artifacts = { lava_log: "https://files.example.org/log.txt" };
  await server.rpc("node.update", { id: nodes.job.id, set: { artifacts } });
  const page = await open(`/viewer?node_id=${nodes.job.id}`);
  await page.getByRole("heading", { name: "job baseline-arm64" }).waitFor();
  await eventually(async () => (await texts(page.locator(".path a"))).join(), "checkout,kbuild-gcc-14-arm64");
  const href = (name) => page.getByRole("link", { name, exact: true }).getAttribute("href");
  assert.equal(await href("LAVA job"), "https://lava.collabora.dev/scheduler/job/4711");
  assert.equal(await href("lava_log"), artifacts.lava_log);
  assert.equal(await href("Raw node"), `/latest/node/${nodes.job.id}`);
  assert.match(await page.locator(".json-tree").innerText(), /error_msg\s+no boot/);
  assert.equal(JSON.parse(await page.locator("details.raw pre").textContent()).id, nodes.job.id);

  await page.getByRole("link", { name: "Children (2)" }).click();
  await eventually(() => page.locator("tbody tr").count(), 2);
  await page.goBack();
  await page.getByRole("link", { name: "Parent", exact: true }).click();
  await page.getByRole("heading", { name: "kbuild kbuild-gcc-14-arm64" }).waitFor();
  await close(page);
});

test("the page of a node follows what happens to it", async () => {
  const build = await child(server, await checkout(server, { branch: "followed" }), "kbuild", "kbuild-followed");
  const page = await open(`/viewer?node_id=${build.id}`);
  await page.locator(".title .chip", { hasText: "running" }).waitFor();
  await page.getByRole("link", { name: "No children" }).waitFor();
  await submitTests(server, build, "fail", ["fail"]);
  await page.locator(".title .chip", { hasText: "fail" }).waitFor();
  await page.getByRole("link", { name: "Children (1)" }).waitFor();
  await close(page);
});

test("what is no node is said to be none", async () => {
  for (const [id, words] of [["68f000000000000000000000", /not found/i], ["zz%3Cb%3E", /“zz<b>” is no node/]]) {
    const page = await open(`/viewer?node_id=${id}`);
    await page.locator("#view .note", { hasText: words }).waitFor();
    await close(page);
  }
});

test("a search lists the newest first, and its conditions can be changed", async () => {
  const page = await open("/latest/viewer?search=kind%3Dkbuild&search=data.kernel_revision.branch=history&search=created>=2026-01-01");
  const rows = page.locator("tbody tr");
  await eventually(() => rows.count(), 6);
  const created = await rows.evaluateAll((list) => list.map((row) => row.querySelector("time").title)).then((all) => all.map(Date.parse));
  assert.deepEqual(created, created.toSorted((a, b) => b - a));
  assert.match(await rows.last().innerText(), /2 d/);

  await page.getByLabel("Condition").last().fill("result != pass");
  await page.getByRole("button", { name: "Search" }).click();
  await eventually(() => rows.count(), 2);
  assert.match(page.url(), /\/latest\/viewer\?.*result/);
  await rows.first().getByRole("link", { name: /^kbuild/ }).click();
  await page.locator(".json-tree").waitFor();
  await close(page);

  const wrong = await open("/viewer?search=kind");
  await wrong.locator(".note.error", { hasText: "“kind” is no condition" }).waitFor();
  await close(wrong);
  const refused = await open("/viewer?search=created>yesterday");
  await refused.locator(".note.error", { hasText: "Invalid isoformat string: 'yesterday'" }).waitFor();
  await close(refused);
  const nothing = await open("/viewer?search=name=nobody");
  await nothing.getByText("Nothing matches.").waitFor();
  await close(nothing);
});

test("the checkouts of a day and of a week", async () => {
  const page = await open("/viewer");
  await page.getByRole("link", { name: "Checkouts, 24 hours" }).click();
  const rows = page.locator("tbody tr", { hasText: "history" });
  await eventually(() => rows.count(), 1);
  await page.getByRole("link", { name: "Checkouts, one week" }).click();
  await eventually(() => rows.count(), 3);
  await close(page);
});

/** The cells of a grid by row: {name: "✓ ✗ •"}. */
const grid = async (page) => {
  const rows = await page.locator(".grid tbody tr").evaluateAll((list) =>
    list.map((row) => [...row.children].map((cell) => cell.innerText.trim())),
  );
  return rows.map((cells) => cells.join(" ")).join("; ");
};

test("a tree is a matrix of builds and commits", async () => {
  const page = await open("/viewer?view=trees");
  await page.locator(".grid").waitFor(); // the branch of the newest checkout
  await page.getByLabel("Branch").selectOption({ label: "mainline / history" });
  await eventually(() => grid(page), "kbuild-gcc-14-arm64 ✓ ✓ ✓; kbuild-gcc-14-x86 • ✗ ✓");
  assert.equal(new URL(page.url()).searchParams.get("branch"), "history");
  assert.deepEqual(await texts(page.locator(".grid thead code")), commits.toReversed().map((commit) => commit.slice(0, 8)));
  await page.locator(".grid").getByRole("link", { name: "kbuild-gcc-14-x86: 1 fail" }).click();
  await page.getByRole("heading", { name: "kbuild kbuild-gcc-14-x86" }).waitFor();
  await page.goBack();
  await page.getByLabel("Commits of the").selectOption("24");
  await eventually(() => grid(page), "kbuild-gcc-14-arm64 ✓; kbuild-gcc-14-x86 •");
  await close(page);
});

test("results as heat grids: builds, test suites, tests", async () => {
  const page = await open("/dashboard?builds=1&tree=mainline&branch=history");
  await eventually(() => grid(page), "kbuild-gcc-14-arm64 ✓ ✓ ✓; kbuild-gcc-14-x86 • ✗ ✓");
  await page.getByRole("link", { name: "Test suites" }).click();
  await eventually(() => grid(page), "baseline-arm64 1/2 1/2 ✓ 2");
  await page.getByRole("link", { name: "Tests", exact: true }).click();
  await eventually(() => grid(page), "baseline-arm64 / dmesg ✗ ✗ ✓; baseline-arm64 / login ✓ ✓ ✓");
  await page.getByLabel("only with failures").check();
  await eventually(() => grid(page), "baseline-arm64 / dmesg ✗ ✗ ✓");
  await page.getByLabel("Rows").fill("nothing like this");
  await page.getByText("No row matches.").waitFor();
  assert.match(page.url(), /tests=1.*branch=history/);
  await page.goto(`${server.url}/dashboard?testsuites=1&tree=mainline&branch=history&timeframe=24`);
  await page.locator(".cell", { hasText: "1/2" }).click(); // leads to both
  await eventually(() => page.locator("tbody tr").count(), 2);
  await close(page);

  // A branch that has nothing, and older addresses.
  const empty = await open("/dashboard?builds=1&tree=nowhere&branch=none");
  await empty.getByText("No checkouts of nowhere / none in this time.").waitFor();
  await empty.goto(`${server.url}/dashboard?displaycommit=${commits[0]}`);
  await eventually(() => empty.locator("tbody tr").count(), 2);
  await empty.goto(`${server.url}/dashboard?showknode=${nodes.good.id}`);
  await empty.getByRole("heading", { name: "kbuild kbuild-gcc-14-arm64" }).waitFor();
  await close(empty);
});

test("statistics: how many ended how, and which", async () => {
  const page = await open("/stats?duration=7d&kind=job&limit=777");
  const card = (name) => page.locator("button.card", { hasText: name });
  await eventually(() => card("pass").locator("b").innerText(), "4");
  assert.equal(await card("fail").locator("b").innerText(), "2");
  assert.match(await page.locator("tbody tr", { hasText: "baseline-arm64" }).innerText(), /6\s+4\s+2/);
  assert.equal(await page.getByLabel("At most").inputValue(), "777");
  await card("fail").click();
  await eventually(() => page.locator("tbody tr").count(), 2);
  assert.match(page.url(), /result=fail/);
  await page.getByLabel("Kind").selectOption("regression");
  await page.getByRole("button", { name: "Show" }).click();
  await page.getByText("No nodes in this time.").waitFor();
  await close(page);
});

test("what nodes say stays text, on every page", async () => {
  const revision = { tree: hostile, branch: hostile, describe: hostile, url: "javascript:alert(3)", commit: "d".repeat(40) };
  const root = await checkout(server, revision, { submitter: hostile });
  const data = { error_msg: hostile, platform: hostile, runtime: "__proto__", job_id: "1", misc: { [hostile]: "javascript:alert(4)" } };
  const build = await child(server, root, "kbuild", hostile, { data, ...done("fail"), artifacts: { [hostile]: "https://example.org/a" } });
  const job = await child(server, build, "job", hostile, { group: hostile, data, ...done("fail") });
  await submitTests(server, await child(server, build, "job", `${hostile}-x`, { data }), "fail", ["fail", "fail"]);
  const where = new URLSearchParams({ tree: hostile, branch: hostile });
  const search = (...conditions) => new URLSearchParams(conditions.map((text) => ["search", text]));
  const shown = `#main :text("<img src=x")`;
  const page = await open();
  for (const [path, place] of [
    [`/viewer?node_id=${root.id}`, ".facts"],
    [`/viewer?node_id=${job.id}`, ".title"],
    [`/viewer?node_id=${encodeURIComponent(hostile)}`, shown],
    [`/viewer?${search(hostile)}`, ".note.error"],
    [`/viewer?${search(`name=${hostile}`, "kind=job")}`, "tbody th"],
    [`/viewer?view=trees&${where}`, ".grid tbody th"],
    [`/dashboard?testsuites=1&${where}`, ".grid tbody th"],
    ["/stats?kind=job", "tbody th"],
    ["/stats?kind=kbuild&result=fail", "tbody th"],
    ["/manage", "option"],
    [`/user/accept-invite?${new URLSearchParams({ token: hostile })}`, "#accept"],
  ]) {
    await page.goto(server.url + path);
    const found = page.locator(place);
    await (place === "#accept" ? found : found.filter({ hasText: "<img src=x" })).first().waitFor({ state: "attached" });
    assert.equal(await page.locator("main img, main script").count(), 0, path);
    const links = await page.locator("a[href]").evaluateAll((all) => all.map((link) => link.protocol));
    assert.deepEqual(links.filter((protocol) => !/^https?:$/.test(protocol)), [], path);
  }
  await close(page);
});

test("every page fits a phone, and the old addresses of scripts and styles load", async () => {
  const pages = {
    viewer: `/viewer?node_id=${nodes.job.id}`, search: "/viewer?search=kind=kbuild", trees: "/viewer?view=trees&tree=mainline&branch=history",
    results: "/dashboard?testsuites=1&tree=mainline&branch=history", stats: "/stats", manage: "/manage", invite: "/user/invite", accept: "/v0/user/accept-invite",
  };
  const page = await open();
  for (const [name, path] of Object.entries(pages)) {
    for (const [size, { viewport, colorScheme }] of Object.entries({ desktop: DESKTOP, phone: { ...PHONE, colorScheme: "dark" } })) {
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme: colorScheme ?? "light" });
      if (size === "desktop") await page.goto(server.url + path);
      await page.locator(`#main:not(:has([aria-busy]))`).waitFor();
      await fitsTheWindow(page, `${name} (${size})`);
      await page.screenshot({ path: `${SCREENSHOTS}${name}-${size}.png` });
    }
  }
  await page.goto(`${server.url}/viewer`);
  await page.evaluate(() => import("/static/js/viewer.js"));
  await page.addStyleTag({ url: "/static/css/viewer.css" });
  await close(page);
});
