// The docs page: what /latest/methods.json says, as a page. The server makes that file from its table of operations.

import { el, setText } from "./view/dom.js";
import { prose, schemaView } from "./view/schema.js";

const byId = (id) => document.getElementById(id);

const TALK = [
  ["→", { jsonrpc: "2.0", id: 1, method: "session.hello", params: { client: "example/1" } }],
  ["←", { jsonrpc: "2.0", id: 1, result: { session: "…", user: null, epoch: "9f2c", ping_ms: 25000, limits: {} } }],
  ["→", { jsonrpc: "2.0", id: 2, method: "event.subscribe",
    params: { sub: 1, channel: "node", filter: { "data.kind": "job", "data.state": "done" }, include: ["node"] } }],
  ["←", { jsonrpc: "2.0", id: 2, result: { sub: 1, position: { epoch: "9f2c", seq: 12345 }, recovered: true } }],
  ["→", { jsonrpc: "2.0", id: 3, method: "node.find",
    params: { filter: { kind: "kbuild", result: "fail" }, sort: ["-created"], limit: 20 } }],
  ["←", { jsonrpc: "2.0", method: "event", params: { sub: 1, seq: 12346, event: { specversion: "1.0" }, node: { kind: "job" } } }],
  ["←", { jsonrpc: "2.0", id: 3, result: { items: [{ kind: "kbuild" }], next: null } }],
];

function talk() {
  byId("talk").append(
    ...TALK.map(([side, message]) =>
      el("div", { class: side === "→" ? "client" : "server" }, el("b", { text: side }), el("code", { text: JSON.stringify(message) })),
    ),
  );
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "node.find", params: { filter: { kind: "checkout" }, limit: 1 } });
  setText(byId("curl"), `curl -s ${location.origin}/latest/rpc -H 'Content-Type: application/json' \\\n  -d '${body}'`);
}

const methodId = (name) => `method-${name}`;

function method({ name, summary, access, routes, params, result }, schemas) {
  return el(
    "section",
    { id: methodId(name), class: "method" },
    el("h3", {}, el("code", { text: name }), el("span", { class: "access", text: access ?? "" })),
    el("p", {}, ...prose(summary)),
    routes?.length ? el("p", { class: "routes" }, ...routes.map((route) => el("code", { text: route }))) : null,
    el("h4", { text: "Parameters" }),
    ...schemaView(params, schemas, true),
    el("h4", { text: "Result" }),
    ...schemaView(result, schemas, false),
  );
}

function contents(methods) {
  const groups = new Map();
  for (const { name } of methods) {
    const group = name.split(".")[0];
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push(el("li", {}, el("a", { href: `#${methodId(name)}`, text: name })));
  }
  return [...groups.values()].map((items) => el("li", {}, el("ul", {}, ...items)));
}

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

const code = (text) => el("code", { text: String(text) });

function show({ methods = [], errors = [], close_codes: closeCodes = [], notifications = [], components = {} }) {
  const schemas = components.schemas ?? {};
  byId("contents").replaceChildren(...contents(methods));
  byId("methods").replaceChildren(...methods.map((row) => method(row, schemas)));
  byId("notifications").append(
    table(
      ["name", "parameters", "meaning"],
      notifications.map(({ name, params, meaning }) => [code(name), schemaView(params, schemas, false), prose(meaning)]),
    ),
  );
  byId("errors").append(
    table(
      ["code", "HTTP", "message", "try again?"],
      errors.map((row) => [code(row.code), String(row.status), String(row.message), row.temporary ? "later" : "no"]),
    ),
  );
  byId("close-codes").append(
    table(["code", "name", "meaning"], closeCodes.map((row) => [code(row.code), String(row.name ?? ""), prose(row.meaning)])),
  );
}

// Shows only the methods whose name or summary has what was typed.
function search(methods) {
  byId("search").addEventListener("input", ({ target }) => {
    const text = target.value.trim().toLowerCase();
    for (const { name, summary } of methods) {
      const hidden = !`${name} ${summary}`.toLowerCase().includes(text);
      byId(methodId(name)).hidden = hidden;
      document.querySelector(`nav a[href="#${CSS.escape(methodId(name))}"]`).parentElement.hidden = hidden;
    }
  });
}

talk();
try {
  const response = await fetch("/latest/methods.json");
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  const catalogue = await response.json();
  show(catalogue);
  search(catalogue.methods ?? []);
  byId("state").hidden = true;
  // The address may name what was not there when the page was opened.
  if (location.hash) byId(location.hash.slice(1))?.scrollIntoView();
} catch (error) {
  setText(byId("state"), `The methods could not be loaded: ${error.message}`);
}
