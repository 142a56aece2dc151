// Subscriptions that outlive connections: each one remembers its position (epoch, seq) and resumes behind it, so that
// every event is handed on once and in order. When the server cannot fill a hole, `onReset` says so.

import { RpcError } from "./rpc_error.js";

export class Subscriptions {
  #rpc;
  #subs = new Map();

  constructor(rpc) {
    this.#rpc = rpc;
  }

  /**
   * Follows `channel`, beginning with the last `replay` events; call before the connection is started.
   * @param {{channel: string, include?: string[], filter?: object}} wish
   * @param {{onEvent: Function, onReset: Function, replay?: number}} handlers
   *   onEvent(event, node, {seq, past}) for each event, `past` if it is one of the replayed ones;
   *   onReset({reason, from, to}) when a snapshot has to be (re)loaded: reason is start, lost or gap, and from…to
   *   are the sequence numbers that were missed, where they are known.
   */
  add(wish, { onEvent, onReset, replay = 0 }) {
    const sub = this.#subs.size + 1;
    this.#subs.set(sub, { sub, wish, onEvent, onReset, replay, epoch: null, seq: 0, start: 0 });
  }

  /** Takes all subscriptions up again in a new session. */
  async resume() {
    await Promise.all([...this.#subs.values()].map((sub) => this.#subscribe(sub)));
  }

  /** Handles a notification of the session. */
  notify(method, params) {
    const sub = this.#subs.get(params.sub);
    if (!sub) return;
    if (method === "event") {
      if (params.seq <= sub.seq) return; // seen before the connection broke
      sub.seq = params.seq;
      sub.onEvent(params.event, params.node ?? null, { seq: params.seq, past: params.seq <= sub.start });
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

  async #subscribe(sub) {
    const resumed = sub.epoch !== null;
    const from = resumed ? { epoch: sub.epoch, seq: sub.seq } : await this.#firstPosition(sub);
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
  async #firstPosition(sub) {
    if (!sub.replay) return "now";
    const probe = this.#subs.size + sub.sub;
    const { position } = await this.#ask({ ...sub, sub: probe }, "now");
    await this.#rpc.callNow("event.unsubscribe", { sub: probe });
    sub.start = position.seq;
    return { epoch: position.epoch, seq: Math.max(0, position.seq - sub.replay) };
  }

  #ask({ sub, wish }, from) {
    return this.#rpc.callNow("event.subscribe", { sub, ...wish, from });
  }
}
