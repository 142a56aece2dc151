// Subscriptions that outlive connections: each one remembers its position (epoch, seq) and resumes behind it, so that
// every event is handed on once and in order. When the server cannot fill a hole, `onReset` says so. What nobody could read
// is passed over.

/** @import { ApiNode } from "../model/tree.js" */
/** @import { Rpc } from "./rpc.js" */

import { isEvent, isNode, readable, unread } from "../model/shape.js";
import { RpcError } from "./rpc_error.js";

/**
 * An event as the server sends it; what is in `data` depends on its channel.
 * @typedef {{
 *   id?: string, type?: string, time?: string, subject?: string, partitionkey?: string, data?: any,
 * }} CloudEvent
 */
/**
 * Where an event stands: its number, and whether it is one of the replayed ones.
 * @typedef {{seq: number, past: boolean}} Place
 */
/** The numbers of events that were missed, where they are known. @typedef {{from?: number, to?: number}} Gap */
/** @typedef {{channel: string, include?: string[], filter?: object}} Wish */
/**
 * @typedef {object} Handlers
 * @property {(event: CloudEvent, node: ApiNode | null, place: Place) => unknown} onEvent called with each event
 * @property {(why: {reason: "start" | "lost" | "gap"} & Gap) => unknown} onReset called when a snapshot has to be
 *   (re)loaded
 */
/** @typedef {Handlers & {sub: number, wish: Wish, replay: number, epoch: string | null, seq: number, start: number}} Sub */
/** @typedef {{epoch: string, seq: number} | "now"} Position */

export class Subscriptions {
  /** What it needs of a session. @type {Pick<Rpc, "callNow" | "restart">} */
  #rpc;
  /** @type {Map<number, Sub>} */
  #subs = new Map();

  /** @param {Pick<Rpc, "callNow" | "restart">} rpc */
  constructor(rpc) {
    this.#rpc = rpc;
  }

  /**
   * Follows `channel`, beginning with the last `replay` events; call before the connection is started.
   * @param {Wish} wish
   * @param {Handlers & {replay?: number}} handlers
   */
  add(wish, { onEvent, onReset, replay = 0 }) {
    const sub = this.#subs.size + 1;
    this.#subs.set(sub, { sub, wish, onEvent, onReset, replay, epoch: null, seq: 0, start: 0 });
  }

  /** Takes all subscriptions up again in a new session. */
  async resume() {
    await Promise.all([...this.#subs.values()].map((sub) => this.#subscribe(sub)));
  }

  /**
   * Handles a notification of the session.
   * @param {string} method
   * @param {any} params
   */
  notify(method, params) {
    const sub = this.#subs.get(params.sub);
    if (!sub) return;
    if (method === "event") {
      if (params.seq <= sub.seq) return; // seen before the connection broke
      sub.seq = params.seq;
      this.#show(sub, params);
    } else if (method === "progress") {
      sub.seq = Math.max(sub.seq, params.seq);
    } else if (method === "gap") {
      // With an epoch, history was lost and numbers begin anew.
      sub.seq = params.epoch ? params.to : Math.max(sub.seq, params.to);
      sub.epoch = params.epoch ?? sub.epoch;
      sub.onReset({ reason: "gap", from: params.from, to: params.to });
    } else if (method === "unsubscribed") {
      this.#rpc.restart();
    }
  }

  /** Hands an event on, unless it cannot be read. @param {Sub} sub @param {any} params */
  #show(sub, { event, node = null, seq }) {
    const is = sub.wish.channel === "node" ? readable(event, isEvent) && (node === null || readable(node, isNode)) : true;
    if (!is) return;
    try {
      sub.onEvent(event, node, { seq, past: seq <= sub.start });
    } catch (error) {
      // One event must not keep the others from being shown.
      console.warn("an event was passed over", error);
      unread.add();
    }
  }

  /** @param {Sub} sub */
  async #subscribe(sub) {
    const resumed = sub.epoch !== null;
    const from = sub.epoch !== null ? { epoch: sub.epoch, seq: sub.seq } : await this.#firstPosition(sub);
    let answer;
    try {
      answer = await this.#ask(sub, from);
    } catch (error) {
      // A position that the server refuses outright is a lost one; everything else is tried again later.
      if (from === "now" || !(error instanceof RpcError) || error.temporary) throw error;
      answer = { ...(await this.#ask(sub, "now")), recovered: false };
    }
    const { epoch, seq } = answer.position;
    if (!resumed) {
      sub.epoch = epoch;
      sub.seq = Math.max(sub.seq, seq);
      sub.onReset({ reason: "start" });
    } else if (answer.recovered === false || epoch !== sub.epoch) {
      const missed = epoch === sub.epoch && seq > sub.seq ? { from: sub.seq + 1, to: seq } : {};
      sub.epoch = epoch;
      sub.seq = seq;
      sub.onReset({ reason: "lost", ...missed });
    }
  }

  // The position from which the last `replay` events come first. Only a subscription tells where the log stands; it
  // gets a number of its own, so that its events are nobody's.
  /** @param {Sub} sub @returns {Promise<Position>} */
  async #firstPosition(sub) {
    if (!sub.replay) return "now";
    const probe = this.#subs.size + sub.sub;
    const { position } = await this.#ask({ ...sub, sub: probe }, "now");
    await this.#rpc.callNow("event.unsubscribe", { sub: probe });
    sub.start = position.seq;
    return { epoch: position.epoch, seq: Math.max(0, position.seq - sub.replay) };
  }

  /** @param {Pick<Sub, "sub" | "wish">} sub @param {Position} from */
  #ask({ sub, wish }, from) {
    return this.#rpc.callNow("event.subscribe", { sub, ...wish, from });
  }
}
