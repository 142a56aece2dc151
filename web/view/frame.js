// Drawing at most once per frame, however many events come in between.

import { unread } from "../model/shape.js";

/** Those that have failed. @type {WeakSet<() => void>} */
const failed = new WeakSet();
/** When each may run at the earliest. @type {Map<() => void, number>} */
const waiting = new Map();
/** When each ran last. @type {WeakMap<() => void, number>} */
const last = new WeakMap();
let frame = 0;
/** @type {ReturnType<typeof setTimeout> | 0} */
let timer = 0;

/**
 * Runs `draw` in the next frame, but not sooner than `everyMs` after its last run.
 * @param {() => void} draw
 */
export function onFrame(draw, everyMs = 0) {
  const due = (last.get(draw) ?? -Infinity) + everyMs;
  waiting.set(draw, Math.min(due, waiting.get(draw) ?? Infinity));
  ask();
}

function ask() {
  if (frame) return;
  clearTimeout(timer);
  const wait = Math.min(...waiting.values()) - performance.now();
  if (wait > 0) timer = setTimeout(askFrame, wait);
  else askFrame();
}

function askFrame() {
  frame = requestAnimationFrame(run);
}

function run() {
  frame = 0;
  const now = performance.now();
  for (const [draw, due] of waiting) {
    if (due > now) continue;
    waiting.delete(draw);
    last.set(draw, now);
    try {
      draw();
    } catch (error) {
      // The other parts of the page go on.
      console.warn("a part of the page was not drawn", error);
      if (!failed.has(draw)) unread.add();
      failed.add(draw);
    }
  }
  if (waiting.size) ask();
}
