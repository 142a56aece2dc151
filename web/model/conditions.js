// Conditions as people write them in searches: `created>=2026-01-01`, `data.arch = arm64`, `name__re=^ltp`.

const CONDITION = /^\s*([\w.-]+)\s*(>=|<=|!=|=|>|<)\s*(.*?)\s*$/s;
/** @type {Record<string, string>} */
const SUFFIX = { ">": "__gt", "<": "__lt", ">=": "__gte", "<=": "__lte", "!=": "__ne", "=": "" };

/**
 * The conditions as a filter in the form of a query string, which the server reads as it does for REST.
 * Throws if one is none. Empty ones are left out.
 * @param {string[]} conditions
 */
export function filterOf(conditions) {
  const query = new URLSearchParams();
  for (const text of conditions) {
    if (!text.trim()) continue;
    const found = CONDITION.exec(text);
    if (!found) throw new Error(`“${text}” is no condition: expected a field, one of > < >= <= != = and a value`);
    const [, key, operator, value] = found;
    query.append(key + SUFFIX[operator], value);
  }
  return query.toString();
}
