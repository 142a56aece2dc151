// JSON Schemas as tables that people read.

import { el } from "./dom.js";

const MOST_DEPTH = 6; // a schema may refer to itself

/** The type of a schema in a few words: "integer", "string or null", "array of Node". */
export function typeOf(schema, depth = 0) {
  if (schema === true || !schema || depth > MOST_DEPTH) return "any";
  if (schema.$ref) return refName(schema.$ref);
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return [...new Set(choices.map((choice) => typeOf(choice, depth + 1)))].join(" or ");
  if (schema.allOf?.length === 1) return typeOf(schema.allOf[0], depth + 1);
  const types = [].concat(schema.type ?? (schema.properties ? "object" : "any"));
  return types.map((type) => (type === "array" && schema.items ? `array of ${typeOf(schema.items, depth + 1)}` : type)).join(" or ");
}

/** Text in which `…` is code, as elements. */
export function prose(text) {
  return String(text ?? "").split("`").map((part, i) => (i % 2 ? el("code", { text: part }) : part));
}

/**
 * A schema as a table of its properties, or one line if it has none, with the definitions that it uses below.
 * `schemas` are all definitions by name. `demands` says whether it tells what is required: that matters of what one
 * sends.
 */
export function schemaView(schema, schemas, demands) {
  const root = schemas?.[refName(schema?.$ref)] ?? schema;
  const used = new Map();
  const view = [describe(root, root, schemas, used, demands)];
  // The list grows while it is walked: a definition may use further ones.
  const shown = new Set();
  for (let more = true; more; ) {
    more = false;
    for (const [name, definition] of used) {
      if (shown.has(name)) continue;
      shown.add(name);
      more = true;
      const body = describe(definition, root, schemas, used, demands);
      view.push(el("details", {}, el("summary", { text: name }), body));
    }
  }
  return view;
}

function describe(schema, root, schemas, used, demands) {
  collect(schema, schemas, used);
  const about = schema?.description ? el("p", {}, ...prose(schema.description)) : null;
  const required = new Set(demands ? schema?.required : []);
  const rows = Object.entries(schema?.properties ?? {}).map(([name, property]) => row(name, property, required.has(name)));
  if (rows.length) return el("div", { class: "scroll" }, schema === root ? null : about, table(rows));
  if (schema?.additionalProperties === false) return el("p", { class: "type", text: "none" });
  // A choice whose alternatives explain themselves.
  const choices = (schema?.anyOf ?? schema?.oneOf ?? []).filter((choice) => choice.description);
  if (choices.length) return el("div", { class: "scroll" }, about, table(choices.map(choiceRow)));
  return el("p", {}, el("span", { class: "type", text: typeOf(schema) }), about ? ": " : "", ...prose(schema?.description));
}

const table = (rows) => el("table", {}, el("tbody", {}, ...rows));

const choiceRow = (choice) => el("tr", {}, el("td", { class: "type", text: typeOf(choice) }), el("td", {}, ...prose(choice.description)));

function row(name, property, required) {
  const about = property && typeof property === "object" ? property : {};
  const limits = [
    about.default === undefined || about.default === null ? null : `default ${JSON.stringify(about.default)}`,
    about.minimum ? `at least ${about.minimum}` : null,
    about.maximum === undefined ? null : `at most ${about.maximum}`,
    about.maxLength === undefined ? null : `at most ${about.maxLength} characters`,
    about.maxItems === undefined ? null : `at most ${about.maxItems} items`,
  ];
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, el("code", { text: name }), required ? el("span", { class: "required", text: "required" }) : null),
    el("td", { class: "type", text: typeOf(property) }),
    el("td", {}, ...prose(about.description), el("span", { class: "limits", text: limits.filter(Boolean).join(", ") })),
  );
}

const refName = (ref) => decodeURIComponent(String(ref ?? "").split("/").pop());

// Notes the definitions that a schema refers to, in `used`.
function collect(schema, schemas, used, depth = 0) {
  if (!schema || typeof schema !== "object" || depth > MOST_DEPTH) return;
  if (schema.$ref) {
    const name = refName(schema.$ref);
    const definition = schemas?.[name];
    if (definition && !used.has(name)) used.set(name, definition);
  }
  const inner = [schema.items, schema.additionalProperties, ...Object.values(schema.properties ?? {})];
  for (const part of inner.concat(schema.anyOf, schema.oneOf, schema.allOf)) collect(part, schemas, used, depth + 1);
}
