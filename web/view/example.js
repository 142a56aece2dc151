// The examples of the docs page: requests and answers as people read and copy them.

import { el } from "./dom.js";
import { prose } from "./schema.js";

/**
 * A request over HTTP.
 * @typedef {{
 *   method: string, path: string, headers?: Record<string, string>, form?: Record<string, string>, json?: any,
 * }} Request
 */
/** @typedef {{status: number, headers?: Record<string, string>, json?: any}} Answer */
/**
 * A message to or from the server, or a request with its answer.
 * @typedef {{send?: any, receive?: any, request?: Request, answer?: Answer}} Step
 */
/** @typedef {{id: string, title: string, about: string, steps: Step[]}} Example */

const WIDTH = 92;

/**
 * JSON over as many lines as it needs; what fits shares a line.
 * @param {any} value
 * @returns {string}
 */
export function pretty(value, indent = "", room = WIDTH) {
  const flat = oneLine(value);
  if (flat.length <= room - indent.length || value === null || typeof value !== "object") return flat;
  const inner = `${indent}  `;
  const list = Array.isArray(value);
  const parts = list
    ? value.map((item) => pretty(item, inner))
    : Object.entries(value).map(([key, item]) => member(key, () => pretty(item, inner, room - key.length - 4)));
  /** @type {string[]} */
  const lines = [];
  for (const part of parts) {
    const last = lines.at(-1);
    const joined = `${last}, ${part}`;
    const fits = last && !joined.includes("\n") && joined.length <= room - inner.length;
    if (fits) lines[lines.length - 1] = joined;
    else lines.push(part);
  }
  return `${list ? "[" : "{"}\n${inner}${lines.join(`,\n${inner}`)}\n${indent}${list ? "]" : "}"}`;
}

/** @param {any} value @returns {string} */
function oneLine(value) {
  if (Array.isArray(value)) return `[${value.map(oneLine).join(", ")}]`;
  if (value === null || typeof value !== "object") return value === "…" ? "…" : JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([key, item]) => member(key, () => oneLine(item)))
    .join(", ")}}`;
}

// The member named … stands for those that are not shown.
/** @param {string} key @param {() => string} value */
const member = (key, value) => (key === "…" ? "…" : `${JSON.stringify(key)}: ${value()}`);

/** @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/**
 * A request as a command line.
 * @param {Request} request
 * @param {string} origin
 */
export function curl({ method, path, headers = {}, form, json }, origin) {
  const parts = [`curl -s ${method === "GET" || form || (method === "POST" && json) ? "" : `-X ${method} `}${quoted(origin + path)}`];
  for (const [name, value] of Object.entries(headers)) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (json !== undefined) parts.push("-H 'Content-Type: application/json'");
  for (const [name, value] of Object.entries(form ?? {})) parts.push(`-d ${quoted(`${name}=${value}`)}`);
  if (json !== undefined) parts.push(`-d ${quoted(JSON.stringify(json))}`);
  return parts.join(" \\\n  ");
}

/** @param {string} side @param {string} mark @param {string} text */
const line = (side, mark, text) => el("div", { class: `line ${side}` }, el("b", { text: mark, "aria-hidden": "true" }), el("pre", { text }));

/** @param {Answer} answer */
function answered({ status, headers = {}, json }) {
  const head = [`HTTP ${status}`, ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`)].join("   ");
  return json === undefined ? head : `${head}\n${pretty(json)}`;
}

/**
 * The lines of one step.
 * @param {Step} step
 */
export function stepLines({ send, receive, request, answer }) {
  if (send) return [line("client", "→", pretty(send))];
  if (receive) return [line("server", "←", pretty(receive))];
  const [asked, got] = [/** @type {Request} */ (request), /** @type {Answer} */ (answer)];
  return [line("client", "$", curl(asked, location.origin)), line("server", "←", answered(got))];
}

/**
 * A whole example.
 * @param {Example} example
 */
export function exampleView({ id, title, about, steps }) {
  return el(
    "section",
    { id: `example-${id}`, class: "example" },
    el("h3", { text: title }),
    el("p", {}, ...prose(about)),
    el("div", { class: "talk" }, ...steps.flatMap(stepLines)),
  );
}

/**
 * The steps of the examples that show a method: a request and what it is answered, by method.
 * @param {Example[]} examples
 */
export function stepsByMethod(examples) {
  /** @type {Map<string, Pick<Example, "id" | "title" | "steps">>} */
  const found = new Map();
  for (const { id, title, steps } of examples) {
    for (const step of steps) {
      const asked = step.send ?? (step.request?.path === "/latest/rpc" ? step.request.json : null);
      if (!asked || found.has(asked.method)) continue;
      const reply = step.send && steps.find(({ receive }) => receive?.id === asked.id && !receive.method);
      found.set(asked.method, { id, title, steps: reply ? [step, reply] : [step] });
    }
  }
  return found;
}
