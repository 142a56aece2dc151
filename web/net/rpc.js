// A JSON-RPC 2.0 session over one WebSocket that comes back by itself.
//
// Only reads go through it: a call that was under way when the connection broke is sent again on the next one, so
// callers never see a broken connection, only an answer, an error of the server, or a timeout.

import { RpcError } from "./rpc_error.js";

const SUBPROTOCOL = "kernelci.v1.json";
const HELLO_MS = 10_000;
const CALL_MS = 60_000;
const BACKOFF_MS = { first: 400, most: 15_000 };
const STEADY_MS = 5_000; // a session that lasted this long was a good one: start over with short delays
const PROBE_MS = 10_000;

/** Whatever answers calls. @typedef {{call(method: string, params?: object): Promise<any>}} Caller */
/**
 * A call that waits for its answer; one that is made `once` belongs to the connection that it went out on.
 * @typedef {{
 *   text: string, resolve: (result: any) => void, reject: (error: Error) => void, sent: boolean, deadline: number,
 *   once?: boolean,
 * }} Call
 */
/** @typedef {ReturnType<typeof setTimeout> | 0} Timer */

export class Rpc {
  #url;
  #client;
  #WebSocket;
  #token;
  /** @type {WebSocket | null} */
  #socket = null;
  #ready = false; // hello was answered
  /** By id, in the order in which they were made. @type {Map<number, Call>} */
  #pending = new Map();
  #inflight = 0;
  #nextId = 1;
  #attempt = 0;
  /** @type {Timer} */
  #retryTimer = 0;
  /** @type {Timer} */
  #helloTimer = 0;
  #since = 0;
  #heard = 0;
  #probing = 0; // when it asked whether the connection still lives; 0: it did not
  /** The last session.closing. @type {{after_ms?: number, jitter_ms?: number} | null} */
  #advice = null;

  /** What hello answered: limits, ping_ms, user, epoch. @type {any} */
  session = null;
  /** `name` is connecting, live or reconnecting; `since` (ms) is when that began. */
  state = { name: "connecting", since: Date.now() };
  /** Parts of the server that are away, as it has last told. @type {string[]} */
  away = [];
  /** Called with the new state. @type {(state: {name: string, since: number}) => void} */
  onState = () => {};
  /** Called with a notification. @type {(method: string, params: any) => void} */
  onNotification = () => {};
  /**
   * Called with each new session, before it counts as live; a rejected promise drops the connection.
   * @type {(session: any) => Promise<void>}
   */
  onSession = async () => {};

  /**
   * Called when the server refuses the token, or what only somebody with a token may see.
   * @type {(why: {refused: boolean}) => void}
   */
  onSignIn = () => {};

  /**
   * `token()` is the token to say hello with, or null.
   * @param {{url: string, client: string, token?: () => string | null, WebSocket?: typeof globalThis.WebSocket}} wish
   */
  constructor({ url, client, token = () => null, WebSocket = globalThis.WebSocket }) {
    this.#url = url;
    this.#token = token;
    this.#client = client;
    this.#WebSocket = WebSocket;
  }

  start() {
    setInterval(() => this.#watch(), 5_000);
    this.#connect();
  }

  /**
   * Asks for `method`; resolves with the result, rejects with RpcError or after a minute.
   * @param {string} method
   * @param {object} [params]
   * @returns {Promise<any>}
   */
  call(method, params = {}) {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      const text = JSON.stringify({ jsonrpc: "2.0", id, method, params });
      this.#pending.set(id, { text, resolve, reject, sent: false, deadline: Date.now() + CALL_MS });
      if (this.#ready) this.#flush();
    });
  }

  /**
   * Like `call`, for onSession: goes out at once and belongs to this connection only.
   * @param {string} method
   * @param {object} params
   */
  async callNow(method, params) {
    if (!this.#socket) throw new Error("connection lost");
    const answer = this.call(method, params);
    const call = /** @type {Call} */ (this.#pending.get(this.#nextId - 1));
    call.once = true;
    if (!call.sent) this.#send(call);
    return answer;
  }

  /** Connects at once if it is waiting to (the network is back, the page is looked at again). */
  hurry() {
    if (this.#socket || this.state.name === "live") return;
    this.#connect();
  }

  /** Drops the connection and makes a new one. */
  restart() {
    this.#lost();
  }

  #connect() {
    clearTimeout(this.#retryTimer);
    const socket = new this.#WebSocket(this.#url, SUBPROTOCOL);
    this.#socket = socket;
    this.#helloTimer = setTimeout(() => this.#lost(), HELLO_MS);
    /** @type {(handle: (event: any) => void) => (event: Event) => void} */
    const mine = (handle) => (event) => socket === this.#socket && handle(event);
    socket.onopen = mine(() => this.#hello());
    socket.onmessage = mine((event) => this.#receive(event.data));
    socket.onclose = mine(() => this.#lost());
  }

  async #hello() {
    const socket = this.#socket;
    const token = this.#token();
    try {
      this.session = await this.callNow("session.hello", { client: this.#client, ...(token && { token }) });
      await this.onSession(this.session);
    } catch (/** @type {any} */ error) {
      if (error.status === 401) this.onSignIn({ refused: Boolean(token) && !this.session?.user });
      if (socket === this.#socket) this.#lost();
      return;
    }
    if (socket !== this.#socket) return;
    clearTimeout(this.#helloTimer);
    this.#since = Date.now();
    this.#ready = true;
    this.#setState("live");
    this.#flush();
  }

  /** @param {Call} call */
  #send(call) {
    call.sent = true;
    this.#inflight++;
    this.#socket?.send(call.text);
  }

  #flush() {
    // Half of what the server allows, so that one page never runs into its own limit.
    const most = Math.max(1, Math.floor((this.session?.limits?.inflight ?? 16) / 2));
    for (const call of this.#pending.values()) {
      if (this.#inflight >= most) return;
      if (!call.sent) this.#send(call);
    }
  }

  /** @param {string} text */
  #receive(text) {
    this.#heard = Date.now();
    this.#probing = 0;
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return this.#lost();
    }
    if (message.id === undefined || message.id === null) {
      if (message.method === "session.closing") this.#advice = message.params;
      if (message.method === "session.degraded") this.#setAway(message.params.parts);
      if (message.method === "session.recovered") this.#setAway([]);
      if (message.method) this.onNotification(message.method, message.params ?? {});
      return;
    }
    const call = this.#pending.get(message.id);
    if (!call) return;
    this.#pending.delete(message.id);
    this.#inflight--;
    if (message.error) {
      const error = new RpcError(message.error);
      if (this.#ready && error.status === 401) this.onSignIn({ refused: false });
      call.reject(error);
    } else call.resolve(message.result);
    if (this.#ready) this.#flush();
  }

  #lost() {
    clearTimeout(this.#helloTimer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    if (this.#ready && Date.now() - this.#since > STEADY_MS) this.#attempt = 0;
    this.#ready = false;
    this.#probing = 0;
    this.#inflight = 0;
    for (const [id, call] of this.#pending) {
      call.sent = false;
      if (!call.once) continue;
      this.#pending.delete(id);
      call.reject(new Error("connection lost"));
    }
    if (this.state.name === "live") this.#setState("reconnecting");
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.#connect(), this.#delay());
  }

  // Jitter, so that ten thousand pages do not come back in the same moment.
  #delay() {
    const { first, most } = BACKOFF_MS;
    const backoff = Math.min(most, first * 2 ** this.#attempt++) * (0.5 + Math.random() / 2);
    const advice = this.#advice;
    this.#advice = null;
    return Math.max(backoff, (advice?.after_ms ?? 0) + Math.random() * (advice?.jitter_ms ?? 0));
  }

  /** @param {string[]} parts */
  #setAway(parts) {
    this.away = parts;
    this.onState(this.state);
  }

  /** @param {string} name */
  #setState(name) {
    this.state = { name, since: Date.now() };
    if (name !== "live") this.away = [];
    this.onState(this.state);
  }

  // A connection can die without a word (suspended laptop, lost route): when it is silent, ask something small.
  #watch() {
    const now = Date.now();
    for (const [id, call] of this.#pending) {
      if (call.deadline > now) continue;
      this.#pending.delete(id);
      if (call.sent) this.#inflight--;
      call.reject(new Error("no answer within a minute"));
    }
    if (!this.#ready) return;
    if (this.#probing) {
      if (now - this.#probing > PROBE_MS) this.#lost();
    } else if (now - this.#heard > 2 * (this.session?.ping_ms ?? 25_000)) {
      this.#probing = now;
      this.call("node.find", { limit: 1, fields: ["id"] }).catch(() => {});
    }
  }
}
