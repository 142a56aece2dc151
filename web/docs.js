// The docs page: what /latest/methods.json says, as a page. The server makes that file from its table of operations.

/** @import { Example } from "./view/example.js" */
/** @import { Schema, Schemas } from "./view/schema.js" */

import { el, setText } from "./view/dom.js";
import { exampleView, stepLines, stepsByMethod } from "./view/example.js";
import { prose, schemaView, typeView } from "./view/schema.js";

/** @typedef {{method: string, path: string, how: string}} Route */
/**
 * A method as the server describes it.
 * @typedef {{
 *   name: string, summary: string, access?: string, routes: Route[], params: Schema, result: Schema,
 * }} Method
 */

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** @param {unknown} text */
const code = (text) => el("code", { text: String(text) });
/** @param {string} name */
const methodId = (name) => `method-${name}`;

/** @param {Route} route */
function route({ method, path, how }) {
  return el("li", {}, el("span", { class: `verb ${method.toLowerCase()}`, text: method }), code(path), el("span", { class: "how" }, ...prose(how)));
}

/** @param {Method} method @param {Schemas} schemas @param {Pick<Example, "id" | "title" | "steps"> | undefined} example */
function method({ name, summary, access, routes, params, result }, schemas, example) {
  return el(
    "section",
    { id: methodId(name), class: "method" },
    el("h3", {}, el("a", { href: `#${methodId(name)}` }, code(name)), el("span", { class: "access", text: access ?? "" })),
    el("p", {}, ...prose(summary)),
    routes?.length ? el("ul", { class: "routes" }, ...routes.map(route)) : null,
    el("h4", { text: "Parameters" }),
    schemaView(params, schemas, true),
    el("h4", { text: "Result" }),
    schemaView(result, schemas, false),
    example
      ? el(
          "details",
          {},
          el("summary", { text: "Example" }),
          el("div", { class: "talk" }, ...example.steps.flatMap(stepLines)),
          el("p", {}, "Out of ", el("a", { href: `#example-${example.id}`, text: example.title }), "."),
        )
      : null,
  );
}

/** @param {Method[]} methods */
function contents(methods) {
  /** @type {Map<string, Node[]>} */
  const groups = new Map();
  for (const { name } of methods) {
    const [group, verb] = name.split(/\.(.*)/);
    let items = groups.get(group);
    if (!items) groups.set(group, (items = []));
    items.push(el("li", {}, el("a", { href: `#${methodId(name)}`, title: name, text: verb })));
  }
  return [...groups].map(([group, items]) => el("li", {}, el("span", { class: "group", text: group }), el("ul", {}, ...items)));
}

/** @param {string[]} head @param {(Node | string | (Node | string)[])[][]} rows */
function table(head, rows) {
  return el(
    "div",
    { class: "scroll" },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col", text })))),
      el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, ...[cell].flat()))))),
    ),
  );
}

/** @param {{name: string, meaning: string, params: Schema}} row @param {Schemas} schemas */
function notification({ name, meaning, params }, schemas) {
  return el("section", { class: "method" }, el("h3", {}, code(name)), el("p", {}, ...prose(meaning)), schemaView(params, schemas, false));
}

/** @param {any} catalogue @param {Example[]} examples */
function show(catalogue, examples) {
  const { methods, notifications, errors, close_codes: closeCodes, limits } = catalogue;
  const schemas = catalogue.components.schemas;
  const shown = stepsByMethod(examples);
  byId("contents").replaceChildren(...contents(methods));
  byId("example-list").replaceChildren(...examples.map(exampleView));
  byId("methods").replaceChildren(...methods.map((/** @type {Method} */ row) => method(row, schemas, shown.get(row.name))));
  byId("notifications").append(...notifications.map((/** @type {any} */ row) => notification(row, schemas)));
  // Results of methods stand with their methods.
  const types = Object.entries(schemas).filter(([name]) => !name.includes("."));
  byId("types").append(...types.map(([name, schema]) => typeView(name, schema, schemas)));
  byId("errors").append(
    table(
      ["code", "HTTP", "message", "try again?"],
      errors.map((/** @type {any} */ row) => [code(row.code), String(row.status), row.message, row.temporary ? "later" : "no"]),
    ),
  );
  byId("close-codes").append(
    table(["code", "name", "meaning"], closeCodes.map((/** @type {any} */ row) => [code(row.code), row.name, prose(row.meaning)])),
  );
  byId("limits").append(
    table(["what", "at most"], limits.map((/** @type {any} */ { what, most, unit }) => [prose(what), `${most.toLocaleString("en")} ${unit}`])),
  );
}

// Shows only the methods whose name, summary or routes have what was typed.
/** @param {Method[]} methods */
function search(methods) {
  const field = /** @type {HTMLInputElement} */ (byId("search"));
  field.addEventListener("input", () => {
    const text = field.value.trim().toLowerCase();
    document.body.classList.toggle("searching", text !== "");
    for (const { name, summary, routes } of methods) {
      const words = [name, summary, ...routes.map(({ method, path }) => `${method} ${path}`)].join("\n").toLowerCase();
      const hidden = !words.includes(text);
      byId(methodId(name)).hidden = hidden;
      const entry = document.querySelector(`#contents a[href="#${CSS.escape(methodId(name))}"]`)?.closest("li");
      if (entry) entry.hidden = hidden;
    }
    const groups = /** @type {Iterable<HTMLElement>} */ (byId("contents").children);
    for (const group of groups) group.hidden = !group.querySelector("li:not([hidden])");
  });
}

/** @param {string} address */
async function load(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address}: the server answered ${response.status}`);
  return response.json();
}

setText(
  byId("first"),
  `curl -s '${location.origin}/latest/nodes?result=fail&limit=3'\ncurl -N '${location.origin}/latest/events/feed?data.result=fail'`,
);
try {
  const [catalogue, examples] = await Promise.all([load("/latest/methods.json"), load("/static/examples.json")]);
  show(catalogue, examples);
  search(catalogue.methods);
  byId("state").hidden = true;
  // The address may name what was not there when the page was opened.
  if (location.hash) byId(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
} catch (/** @type {any} */ error) {
  setText(byId("state"), `The methods could not be loaded: ${error.message}`);
}
