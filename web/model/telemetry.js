// Sums of telemetry, as /telemetry/stats answers them.

/**
 * How many events of a group there are, and how many of them ended how.
 * @typedef {{
 *   total?: number, pass?: number, fail?: number, incomplete?: number, skip?: number, infra_error?: number,
 * }} Group
 */

/** What is counted, in the order in which it is shown. `other` is what has no result, e.g. a submission. */
export const OUTCOMES = ["pass", "fail", "incomplete", "skip", "other"];

/**
 * One group as counts by outcome.
 * @param {Group} group
 * @returns {Record<string, number>}
 */
export function outcomes(group) {
  const counts = Object.fromEntries(/** @type {const} */ (["pass", "fail", "incomplete", "skip"]).map((name) => [name, group[name] ?? 0]));
  const known = Object.values(counts).reduce((sum, count) => sum + count, 0);
  return { ...counts, other: Math.max(0, (group.total ?? 0) - known) };
}

/**
 * All groups together: {total, infra_error, …outcomes}.
 * @param {Group[]} groups
 * @returns {Record<string, number>}
 */
export function sum(groups) {
  /** @type {Record<string, number>} */
  const all = { total: 0, infra_error: 0, ...Object.fromEntries(OUTCOMES.map((name) => [name, 0])) };
  for (const group of groups) {
    all.total += group.total ?? 0;
    all.infra_error += group.infra_error ?? 0;
    for (const [name, count] of Object.entries(outcomes(group))) all[name] += count;
  }
  return all;
}

/**
 * The share of passes among what has a verdict, 0 to 1; null if nothing has one.
 * @param {Group} group
 */
export function health(group) {
  const { pass, fail, incomplete } = outcomes(group);
  const judged = pass + fail + incomplete;
  return judged ? pass / judged : null;
}

/**
 * How bad an anomaly is.
 * @param {{infra_rate?: number, fail_rate?: number}} anomaly
 */
export function severity({ infra_rate: infra = 0, fail_rate: fail = 0 }) {
  const worst = Math.max(infra, fail);
  return worst >= 0.9 ? "fail" : worst >= 0.6 ? "incomplete" : "skip";
}
