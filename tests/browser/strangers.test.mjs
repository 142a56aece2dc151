// A server that shows nothing to strangers: every page offers to sign in, and then shows what it has.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { close, open, state } from "./browser.mjs";
import { LiveServer } from "./live_server.mjs";
import { checkout } from "./made_up_runs.mjs";

const closed = new LiveServer({ ANONYMOUS_READ: "false" });
let node;
let token;

before(async () => {
  await closed.create();
  token = await closed.token();
  node = await checkout(closed, { tree: "mainline", branch: "master" });
});
after(() => closed.stop());

const signIn = async (page) => {
  const box = page.locator(".sign-in");
  await box.getByRole("textbox", { name: "Token" }).fill(token);
  await Promise.all([page.waitForEvent("load"), box.getByRole("button", { name: "Verify" }).click()]);
};
// The browser reports each answer that is an error.
const forgive = (page) => {
  page.problems = page.problems.filter((problem) => !problem.includes("status of 401"));
};

const PAGES = [
  ["/", (page) => page.locator("#checkouts", { hasText: "mainline" }).waitFor()],
  ["/viewer?view=day", (page) => page.locator("table", { hasText: "checkout" }).waitFor()],
  ["/dashboard?builds=1", (page) => state(page, "live")],
  ["/stats", (page) => state(page, "live")],
  ["/analytics", (page) => page.locator("main").waitFor()],
];

for (const [path, shows] of PAGES) {
  test(`${path} asks strangers to sign in`, async () => {
    const page = await open(path, {}, () => {}, closed);
    await signIn(page);
    await shows(page);
    assert.equal(await page.locator(".sign-in").count(), 0);
    forgive(page);
    await close(page);
  });
}

test("the same tab stays signed in, and a token that ends is asked for again", async () => {
  const page = await open("/manage", {}, () => {}, closed);
  await page.getByRole("textbox", { name: "Token" }).fill(token);
  await page.getByRole("button", { name: "Verify" }).click();
  await page.getByText("Signed in as admin").waitFor();
  await page.getByLabel("Tree and branch").locator("option", { hasText: "mainline / master" }).waitFor({ state: "attached" });
  await page.goto(`${closed.url}/viewer?node_id=${node.id}`);
  await page.getByRole("heading", { name: "checkout checkout" }).waitFor();
  assert.equal(await page.locator(".sign-in").count(), 0);
  await page.evaluate(() => sessionStorage.setItem("kernelci-token", "ended"));
  await page.reload();
  await signIn(page);
  await page.getByRole("heading", { name: "checkout checkout" }).waitFor();
  for (const text of [...page.asked, ...page.said]) assert.ok(!text.includes(token), "the token is in sight");
  forgive(page);
  await close(page);
});
