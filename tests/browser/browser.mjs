// A real browser on a real server, and what every test asks of its pages.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { after } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { LiveServer } from "./live_server.mjs";

/** Where pictures of pages go. */
export const SCREENSHOTS = fileURLToPath(new URL("../../target/screenshots/", import.meta.url));
/** The window of a computer, and of a phone. */
export const DESKTOP = { viewport: { width: 1440, height: 900 } };
export const PHONE = { viewport: { width: 400, height: 860 }, deviceScaleFactor: 2 };
const ARGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

/** The server of this file's tests. */
export const server = new LiveServer();
let browser;

// At once and not in a hook, so that hooks of tests can fill the store.
try {
  await mkdir(SCREENSHOTS, { recursive: true });
  await server.create();
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ARGS });
} catch (error) {
  await server.stop();
  throw error;
}
after(async () => {
  await browser.close();
  await server.stop();
});

/**
 * Opens a page; `page.problems` collects what the browser complains about and what leaves the server, `page.said` what
 * is in the console, `page.asked` the addresses that were asked for. `prepare(page)` runs before the page is loaded;
 * `from` is another server than that of the file.
 */
export async function open(path = "/", options = {}, prepare = () => {}, from = server) {
  const context = await browser.newContext({ ...DESKTOP, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  Object.assign(page, { problems: [], said: [], asked: [] });
  page.on("pageerror", (error) => page.problems.push(`exception: ${error.message}`));
  page.on("console", (message) => {
    page.said.push(message.text());
    if (["error", "warning"].includes(message.type())) page.problems.push(`${message.type()}: ${message.text()}`);
  });
  page.on("dialog", (dialog) => {
    page.problems.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  const asked = (address) => {
    page.asked.push(address);
    if (new URL(address).host !== new URL(from.url).host) page.problems.push(`asks elsewhere: ${address}`);
  };
  page.on("request", (request) => request.url().startsWith("data:") || asked(request.url()));
  page.on("websocket", (socket) => asked(socket.url()));
  await prepare(page);
  await page.goto(from.url + path);
  return page;
}

/** Closes a page that must not have had a problem. */
export async function close(page) {
  assert.deepEqual(page.problems, []);
  await page.context().close();
}

/** Waits until the session of the page is in this state. */
export async function state(page, name) {
  try {
    await page.locator(`#connection[data-state="${name}"]`).waitFor({ timeout: 60_000 });
  } catch (error) {
    throw new Error(`not ${name} (${page.problems.join("; ") || "the browser reports nothing"})`, { cause: error });
  }
}

/** Waits until `read` answers what is wanted. */
export async function eventually(read, wanted, ms = 60_000) {
  const end = Date.now() + ms;
  let got;
  do {
    got = await read();
    if (got === wanted) return;
    await new Promise((wake) => setTimeout(wake, 25));
  } while (Date.now() < end);
  assert.equal(got, wanted);
}

/** The page may scroll down, not sideways. */
export async function fitsTheWindow(page, name) {
  const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(content <= window, `${name} is ${content} px wide in a window of ${window} px`);
}
