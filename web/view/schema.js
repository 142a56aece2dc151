// JSON Schemas as tables that people read. What they refer to stands once, under its name.

import { el } from "./dom.js";

/** A JSON Schema. @typedef {any} Schema */
/** @typedef {Record<string, Schema>} Schemas */

const MOST_DEPTH = 6; // a schema may hold itself

/**
 * The address of a named schema on the page.
 * @param {string} name
 */
export const typeId = (name) => `type-${name}`;

/** @param {string} ref @returns {string} */
const refName = (ref) => decodeURIComponent(String(ref).split("/").pop() ?? "");

/**
 * Text in which `…` is code, as elements.
 * @param {string | null | undefined} text
 * @returns {(Node | string)[]}
 */
export function prose(text) {
  return String(text ?? "").split("`").map((part, i) => (i % 2 ? el("code", { text: part }) : part));
}

/**
 * The type of a schema in a few words, as elements: "integer", "string or null", "array of Node".
 * @param {Schema} schema
 * @returns {(Node | string)[]}
 */
export function typeOf(schema, depth = 0) {
  if (schema === true || !schema || depth > MOST_DEPTH) return ["any"];
  if (schema.$ref) return [el("a", { href: `#${typeId(refName(schema.$ref))}`, text: refName(schema.$ref) })];
  if ("const" in schema) return [JSON.stringify(schema.const)];
  if (schema.enum) return [schema.enum.map((/** @type {unknown} */ value) => JSON.stringify(value)).join(" or ")];
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices && !schema.properties) return alternatives(choices.map((/** @type {Schema} */ choice) => typeOf(choice, depth + 1)));
  /** @type {string[]} */
  const types = [].concat(schema.type ?? (schema.properties ? "object" : "any"));
  return alternatives(types.map((type) => (type === "array" && schema.items ? ["array of ", ...typeOf(schema.items, depth + 1)] : [type])));
}

// Joined with "or", each only once.
/** @param {(Node | string)[][]} types @returns {(Node | string)[]} */
function alternatives(types) {
  /** @param {(Node | string)[]} type */
  const words = (type) => type.map((part) => (part instanceof Node ? part.textContent : part)).join("");
  const different = types.filter((type, i) => types.findIndex((other) => words(other) === words(type)) === i);
  return different.flatMap((type, i) => (i ? [" or ", ...type] : type));
}

/**
 * A schema as a table of its properties, or one line if it has none. `schemas` are those that have a name. `demands`
 * says whether it tells what is required: that matters of what one sends.
 * @param {Schema} schema
 * @param {Schemas} schemas
 * @param {boolean} demands
 */
export function schemaView(schema, schemas, demands) {
  // Results have a name of their own, but stand nowhere else.
  const own = schema?.$ref && refName(schema.$ref);
  const shown = own && own.includes(".") ? schemas[own] : schema;
  const required = new Set(demands ? shown.required : []);
  const rows = Object.entries(shown.properties ?? {}).map(([name, property]) => row(name, property, required.has(name)));
  if (rows.length) return table(rows);
  if (shown.additionalProperties === false) return el("p", { class: "type", text: "none" });
  // A choice whose alternatives explain themselves.
  const choices = (shown.anyOf ?? shown.oneOf ?? []).filter((/** @type {Schema} */ choice) => choice.description);
  if (choices.length) return table(choices.map(choiceRow));
  return el("p", { class: "type" }, ...typeOf(shown));
}

/**
 * A schema that has a name, with what it says of itself.
 * @param {string} name
 * @param {Schema} schema
 * @param {Schemas} schemas
 */
export function typeView(name, schema, schemas) {
  const about = schema.description ? el("p", {}, ...prose(schema.description)) : null;
  return el("section", { id: typeId(name), class: "method" }, el("h3", {}, el("code", { text: name })), about, schemaView(schema, schemas, true));
}

/** @param {Node[]} rows */
const table = (rows) => el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, ...rows)));

/** @param {Schema} choice */
const choiceRow = (choice) => el("tr", {}, el("td", { class: "type" }, ...typeOf(choice)), el("td", {}, ...prose(choice.description)));

/** @param {string} name @param {Schema} property @param {boolean} required */
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
    el("td", { class: "type" }, ...typeOf(property)),
    el("td", {}, ...prose(about.description), el("span", { class: "limits", text: limits.filter(Boolean).join(", ") })),
  );
}
