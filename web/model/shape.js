// What comes from outside, as pages can read it. Old databases and other programs hold nodes and events of other shapes:
// those are passed over, and counted, so that the page can say so.

/** @typedef {(value: unknown) => boolean} Is */

/** @type {Is} */
const isText = (value) => typeof value === "string";
/** @type {Is} */
const isPlain = (value) => ["string", "number", "boolean"].includes(typeof value);
/** @param {unknown} value @returns {value is Record<string, unknown>} */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
/** @type {(is: Is) => Is} */
const orNone = (is) => (value) => value === undefined || value === null || is(value);
/** @type {(is: Is) => Is} */
const listOf = (is) => (value) => Array.isArray(value) && value.every(is);
/** @type {(is: Is) => Is} */
const mapOf = (is) => (value) => isObject(value) && Object.values(value).every(is);
/** An object whose members of these names, if they are there, are as said. @type {(members: Record<string, Is>) => Is} */
const having = (members) => (value) =>
  isObject(value) && Object.entries(members).every(([name, is]) => orNone(is)(Object.hasOwn(value, name) ? value[name] : undefined));

/** @type {(names: string[], is: Is) => Record<string, Is>} */
const all = (names, is) => Object.fromEntries(names.map((name) => [name, is]));

/** What pages show of `data`; whatever else is in it they do not look at, or show as JSON. */
const isData = having({
  ...all(["error_code", "error_msg", "arch", "compiler", "defconfig", "platform", "device", "runtime", "job_id"], isPlain),
  kernel_revision: having(all(["tree", "branch", "commit", "describe", "url", "commit_message"], isPlain)),
});

const NODE = {
  ...all(["id", "kind", "name", "group", "state", "result", "parent", "treeid", "created", "updated", "owner", "submitter"], isText),
  path: listOf(isText),
  artifacts: mapOf(isText),
  revision: (/** @type {unknown} */ value) => typeof value === "number",
  data: isData,
};

/** A node, or the part of one that was asked for. */
export const isNode = having(NODE);

/** An event of the channel `node`; one whose payload is no object says nothing of a node. */
export const isEvent = having({
  ...all(["id", "type", "time", "subject", "partitionkey"], isText),
  data: (value) => !isObject(value) || having({ ...NODE, ...all(["op", "previous_state", "previous_result"], isText) })(value),
});

/** What was passed over on this page: how many things, and whom to tell. */
export const unread = {
  count: 0,
  onChange: () => {},
  add() {
    this.count++;
    this.onChange();
  },
};

/**
 * Whether the value is as said; if not, it is counted as passed over.
 * @param {unknown} value
 * @param {Is} is
 */
export function readable(value, is) {
  const good = is(value);
  if (!good) unread.add();
  return good;
}

/**
 * The answer of a method, without the nodes that cannot be read.
 * @param {string} method
 * @param {any} answer
 */
export function readAnswer(method, answer) {
  if (method === "node.find" && Array.isArray(answer?.items)) {
    return { ...answer, items: answer.items.filter((/** @type {unknown} */ node) => readable(node, isNode)) };
  }
  if (method === "node.get" && answer !== null && !readable(answer, isNode)) {
    throw new Error("This node has another shape than nodes have: the page cannot show it.");
  }
  return answer;
}
