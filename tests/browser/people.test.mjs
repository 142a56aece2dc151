// Pages that work with a token: submitting a checkout, inviting people.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { close, eventually, open, server } from "./browser.mjs";
import { checkout, child } from "./made_up_runs.mjs";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
let token;

before(async () => {
  token = await server.token();
  const root = await checkout(server, { tree: "next", branch: "pending" });
  await checkout(server, { tree: "mainline", branch: "master" });
  await child(server, root, "kbuild", "kbuild-gcc-14-arm64");
  await child(server, root, "job", "baseline-arm64");
});

const signIn = async (page, text) => {
  await page.getByRole("textbox", { name: "Token" }).fill(text);
  await page.getByRole("button", { name: "Verify" }).click();
};
/** The token must be in no address, not in the console, and nowhere that outlives the tab. */
const keepsTheSecret = async (page, secret) => {
  const kept = await page.evaluate(() => JSON.stringify({ ...localStorage }) + document.cookie + document.documentElement.outerHTML);
  for (const text of [...page.asked, ...page.said, page.url(), kept]) assert.ok(!text.includes(secret), "the token is in sight");
};
// The browser reports each answer that is an error.
const forgive = (page, status) => {
  page.problems = page.problems.filter((problem) => !problem.includes(`status of ${status}`));
};

test("a checkout is submitted with a token that stays secret", async () => {
  const page = await open("/manage");
  const submit = page.getByRole("button", { name: "Submit" });
  assert.ok(await submit.isDisabled());
  await signIn(page, "no-token");
  await page.getByText("This token is not valid").waitFor();
  forgive(page, 401);
  await signIn(page, "nö tøken");
  await page.getByText("This is no token.").waitFor();
  await signIn(page, `Bearer ${token} `);
  await page.getByText("Signed in as admin (superuser)").waitFor();

  await page.getByLabel("Tree and branch").selectOption({ label: "next / pending" });
  await page.getByLabel("Commit").fill(COMMIT);
  await page.getByLabel("Add a name").selectOption("kbuild-gcc-14-arm64");
  await page.getByLabel("Add a name").selectOption("baseline-arm64");
  assert.equal(await page.getByLabel("Job filter").inputValue(), "kbuild-gcc-14-arm64,baseline-arm64");
  await submit.click();
  const href = await page.getByRole("link", { name: "checkout of next / pending" }).getAttribute("href");
  const node = await server.rpc("node.get", { id: new URLSearchParams(href.split("?")[1]).get("node_id") });
  assert.deepEqual([node.kind, node.path, node.owner, node.state], ["checkout", ["checkout"], "admin", "running"]);
  assert.deepEqual(node.jobfilter, ["kbuild-gcc-14-arm64", "baseline-arm64"]);
  const { tree, branch, commit, url } = node.data.kernel_revision;
  assert.deepEqual([tree, branch, commit], ["next", "pending", COMMIT]);
  assert.match(url, /^https:/);
  assert.match(node.treeid, /^[0-9a-f]{64}$/);

  // The same tab keeps the token over a reload; the form comes back when it is asked for.
  await page.reload();
  await page.getByText("Signed in as admin").waitFor();
  await page.getByRole("button", { name: "Restore previous" }).click();
  assert.equal(await page.getByLabel("Commit").inputValue(), COMMIT);
  assert.equal(await page.getByLabel("Job filter").inputValue(), "kbuild-gcc-14-arm64,baseline-arm64");
  assert.equal(await page.getByLabel("Tree and branch").locator("option:checked").innerText(), "next / pending");
  await keepsTheSecret(page, token);

  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("textbox", { name: "Token" }).waitFor();
  assert.ok(await submit.isDisabled());
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await close(page);
});

test("a refused checkout says why", async () => {
  const page = await open("/manage");
  await signIn(page, token);
  await page.getByLabel("Commit").fill(COMMIT);
  await page.getByLabel("Job filter").fill(" , ");
  await page.getByRole("button", { name: "Submit" }).click();
  await page.getByText("The job filter names no job.").waitFor();
  // The token ends in between.
  await page.evaluate(() => sessionStorage.setItem("kernelci-token", "ended"));
  await page.getByLabel("Job filter").fill("baseline-arm64");
  await page.getByRole("button", { name: "Submit" }).click();
  await page.locator("#answer .error", { hasText: "Unauthorized" }).waitFor();
  await page.getByRole("textbox", { name: "Token" }).waitFor();
  forgive(page, 401);
  await close(page);
});

test("an administrator invites a person, who sets a password", async () => {
  const page = await open("/user/invite");
  assert.ok(await page.getByRole("button", { name: "Invite" }).isDisabled());
  await signIn(page, token);
  await page.locator("#base", { hasText: "/user/accept-invite" }).waitFor();
  await page.getByLabel("Username").fill("newcomer");
  await page.getByLabel("E-mail").fill("newcomer@example.org");
  await page.getByRole("button", { name: "Invite" }).click();
  await page.getByText("newcomer is invited.").waitFor();
  const made = JSON.parse(await page.locator("#answer pre").innerText());
  assert.equal(made.user.username, "newcomer");
  await page.getByRole("button", { name: "Invite" }).click();
  await page.locator("#answer .error", { hasText: "User already exists" }).waitFor();
  forgive(page, 400);
  await keepsTheSecret(page, token);
  await close(page);

  const { pathname, search } = new URL(made.invite_url);
  const guest = await open(pathname + search);
  await guest.getByRole("textbox", { name: "Password" }).fill("a password for a newcomer");
  await guest.getByLabel("Once more").fill("another one");
  await guest.getByRole("button", { name: "Set the password" }).click();
  await guest.getByText("The two passwords differ.").waitFor();
  await guest.getByLabel("Once more").fill("a password for a newcomer");
  await guest.getByRole("button", { name: "Set the password" }).click();
  await guest.getByText("Welcome, newcomer.").waitFor();
  assert.ok(!guest.url().includes("token"), "the invitation stays out of the address");
  await close(guest);

  const login = new URLSearchParams({ username: "newcomer", password: "a password for a newcomer" });
  assert.equal((await fetch(`${server.url}/latest/user/login`, { method: "POST", body: login })).status, 200);
  const again = await open(pathname + search);
  await again.getByRole("textbox", { name: "Password" }).fill("yet another password");
  await again.getByLabel("Once more").fill("yet another password");
  await again.getByRole("button", { name: "Set the password" }).click();
  await eventually(() => again.locator("#answer .error").innerText(), "Invite already accepted");
  forgive(again, 400);
  await close(again);
});
