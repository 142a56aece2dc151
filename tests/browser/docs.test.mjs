// The docs page in a real browser on the real server.

import assert from "node:assert/strict";
import { test } from "node:test";
import { PHONE, SCREENSHOTS, close, fitsTheWindow, open, server } from "./browser.mjs";

const json = async (path) => (await fetch(server.url + path)).json();

async function docs(path = "/docs", options = {}) {
  const page = await open(path, options);
  await page.locator("#methods .method").first().waitFor();
  return page;
}

test("every method, notification, type, error, close code and example is there", async () => {
  const page = await docs("/latest/docs");
  const catalogue = await json("/latest/methods.json");
  const names = (locator) => page.locator(locator).allInnerTexts();
  assert.deepEqual(await names("#methods h3 code"), catalogue.methods.map(({ name }) => name));
  assert.deepEqual(await names("#notifications h3 code"), catalogue.notifications.map(({ name }) => name));
  const routes = catalogue.methods.flatMap((method) => method.routes.map((route) => `${route.method}${route.path}`));
  const shown = await page.locator(".routes li").evaluateAll((items) => items.map((item) => item.querySelector(".verb").textContent + item.querySelector("code").textContent));
  assert.deepEqual(shown, routes);
  assert.equal(await page.locator("#errors tbody tr").count(), catalogue.errors.length);
  assert.equal(await page.locator("#close-codes tbody tr").count(), catalogue.close_codes.length);
  assert.equal(await page.locator(".example").count(), (await json("/static/examples.json")).length);
  // Whatever is linked to is there.
  const dangling = await page
    .locator('a[href^="#"]')
    .evaluateAll((links) => links.map((link) => link.getAttribute("href").slice(1)).filter((id) => !document.getElementById(id)));
  assert.deepEqual(dangling, []);
  for (const name of ["openapi.json", "asyncapi.json"]) assert.ok(await json(await page.getByRole("link", { name }).first().getAttribute("href")));
  await page.screenshot({ path: `${SCREENSHOTS}docs.png` });
  await close(page);
});

test("a method is found by its route, and by its address", async () => {
  const page = await docs("/docs#method-node.count");
  await page.waitForFunction(() => scrollY > 1000);
  await page.getByLabel("Find a method or a route").fill("/whoami");
  assert.deepEqual(await page.locator("#methods .method:visible h3 code").allInnerTexts(), ["user.whoami"]);
  assert.deepEqual(await page.locator("#contents a:visible").allInnerTexts(), ["whoami"]);
  await close(page);
});

test("it reads well on a phone and in the dark", async () => {
  const page = await docs("/docs", { ...PHONE, colorScheme: "dark" });
  await fitsTheWindow(page, "docs");
  await page.screenshot({ path: `${SCREENSHOTS}docs-mobile.png` });
  await close(page);
});
