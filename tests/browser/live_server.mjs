// The real server as a process that a test starts, kills and starts again.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const binary = resolve(
  root,
  process.env.KERNELCI_LIVE_BIN ?? process.env.KERNELCI_LIVE ?? "target/debug/kernelci-live",
);
const PASSWORD = "a password for the browser test";
const START_MS = 60_000;

export class LiveServer {
  #process = null;
  #settings;
  #data;
  #token;
  /** `http://127.0.0.1:<port>`; the port stays the same over restarts. */
  url = "http://127.0.0.1:0";

  /** With these environment variables. */
  constructor(settings = {}) {
    this.#settings = settings;
  }

  /** Starts it with an empty store. */
  async create() {
    this.#data = await mkdtemp(join(tmpdir(), "kernelci-live-browser-"));
    await this.start();
  }

  async start() {
    const listen = new URL(this.url).host;
    const child = spawn(binary, ["serve", "--listen", listen, "--data", this.#data], {
      cwd: root,
      // Settings of the embedded default and no others, whatever the environment says.
      env: { PATH: process.env.PATH, KCI_INITIAL_PASSWORD: PASSWORD, ...this.#settings },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#process = child;
    this.url = await new Promise((found, failed) => {
      let text = "";
      const timer = setTimeout(() => failed(new Error(`no address after ${START_MS} ms: ${text}`)), START_MS);
      const read = (part) => {
        text += part;
        const address = /http:\/\/127\.0\.0\.1:\d+/.exec(text);
        if (!address) return;
        clearTimeout(timer);
        found(address[0]);
      };
      child.stdout.on("data", read);
      child.stderr.on("data", read);
      child.once("error", failed);
      child.once("exit", (code) => failed(new Error(`the server ended with ${code}: ${text}`)));
    });
    await this.#answers();
  }

  /** Ends it: without a chance to say goodbye, or with SIGTERM. */
  async kill(signal = "SIGKILL") {
    const child = this.#process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.kill(signal);
    await once(child, "exit");
  }

  /** Ends it and removes its data. */
  async stop() {
    await this.kill();
    if (this.#data) await rm(this.#data, { recursive: true, force: true });
  }

  /** Calls a method as the administrator. */
  async rpc(method, params) {
    const token = await this.token();
    const response = await fetch(`${this.url}/latest/rpc`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
    });
    const answer = await response.json();
    if (!("result" in answer)) throw new Error(`${method}: ${JSON.stringify(answer)}`);
    return answer.result;
  }

  /** A token of the administrator. */
  async token() {
    return (this.#token ??= await this.#login());
  }

  async #login() {
    const form = new URLSearchParams({ username: "admin", password: PASSWORD });
    const response = await fetch(`${this.url}/latest/user/login`, { method: "POST", body: form });
    if (!response.ok) throw new Error(`login: ${response.status} ${await response.text()}`);
    return (await response.json()).access_token;
  }

  // The address may be printed before the first connection is taken.
  async #answers() {
    const end = Date.now() + START_MS;
    for (;;) {
      try {
        if ((await fetch(`${this.url}/`)).ok) return;
      } catch (error) {
        if (Date.now() > end) throw error;
      }
      await new Promise((wake) => setTimeout(wake, 50));
    }
  }
}
