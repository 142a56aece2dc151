// What the pipeline's telemetry says: how labs and trees fare, what stands out, the last errors.

/** @import { Group } from "../model/telemetry.js" */
/** @import { Column } from "../view/table.js" */

import { age, dateTime, parseTime } from "../format.js";
import { percent } from "../model/breakdown.js";
import { OUTCOMES, health, outcomes, severity, sum } from "../model/telemetry.js";
import { barList, ring, stackedBar } from "../view/chart.js";
import { el } from "../view/dom.js";
import { nodeHref } from "../view/links.js";
import { fillIn, note } from "../view/notes.js";
import { read } from "../view/sign_in.js";
import { table } from "../view/table.js";

/**
 * A group as /telemetry/stats answers it: its sums, and under the name of the field what they are of.
 * @typedef {Required<Group> & Record<string, any>} Named
 */
/** An event of telemetry. @typedef {Record<string, any>} Event */
/** What is asked for: fields of events and their values. @typedef {Record<string, any>} Filter */

const MOST_ERRORS = 50;
const MOST_EVENTS = 100;
const MOST_ROWS = 100;

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const form = /** @type {HTMLFormElement} */ (byId("choices"));
const fields = form.elements;
/** What is shown. @type {Filter} */
let shown = {};

for (const [name, value] of new URLSearchParams(location.search)) {
  const select = fields.namedItem(name);
  if (!(select instanceof HTMLSelectElement)) continue;
  // Runtimes and trees are known only later.
  if (["runtime", "tree"].includes(name) && value) select.append(el("option", { value, text: value }));
  if ([...select.options].some((option) => option.value === value)) select.value = value;
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  show();
});
form.addEventListener("change", () => show());

/** @param {string} group @param {Filter} filter @returns {Promise<Named[]>} */
const stats = (group, filter) => read("/latest/telemetry/stats", { group_by: group, ...filter });

function show() {
  const wish = /** @type {Record<string, string>} */ (Object.fromEntries(new FormData(form)));
  history.replaceState(null, "", `?${new URLSearchParams(Object.entries(wish).filter(([, value]) => value))}`);
  const since = new Date(Date.now() - parseInt(wish.window, 10) * 3_600_000).toISOString();
  const filter = { since, runtime: wish.runtime, tree: wish.tree, kind: wish.kind };
  shown = filter;
  const groups = Object.fromEntries(["runtime", "tree", "device_type", "kind"].map((name) => [name, stats(name, filter)]));
  // A failure is shown in each place that waits for it; here it only must not count as unhandled.
  for (const answer of Object.values(groups)) answer.catch(() => {});

  fillIn(byId("cards"), async () => cards(sum(await groups.kind)));
  fillIn(byId("results"), async () => {
    const all = sum(await groups.kind);
    return [all.total ? ring(all, "Results", OUTCOMES) : note("No events.")];
  });
  fillIn(byId("kinds"), async () => bars(await groups.kind, "kind"));
  fillIn(byId("health"), async () => healthBars(await groups.runtime));
  fillIn(byId("runtimes"), async () => groupTable("Runtimes", await groups.runtime, "runtime"));
  fillIn(byId("trees"), async () => groupTable("Trees", await groups.tree, "tree"));
  fillIn(byId("devices"), async () => groupTable("Device types", await groups.device_type, "device_type"));
  fillIn(byId("anomalies"), async () => anomalies(await read("/latest/telemetry/anomalies", { window: wish.window, threshold: wish.threshold })));
  fillIn(byId("errors"), async () => {
    const events = await newest({ ...filter, is_infra_error: "true" }, MOST_ERRORS);
    return [events.length ? eventTable("Recent infrastructure errors", events) : note("No infrastructure errors.")];
  });
  offer("runtime", wish.runtime || wish.tree || wish.kind ? stats("runtime", { since }) : groups.runtime);
  offer("tree", wish.runtime || wish.tree || wish.kind ? stats("tree", { since }) : groups.tree);
}

/**
 * The last events that match. The server lists the oldest first, so their number has to be known.
 * @param {Filter} query
 * @param {number} most
 * @returns {Promise<Event[]>}
 */
async function newest(query, most) {
  const page = await read("/latest/telemetry", { ...query, limit: most });
  if (page.total <= most) return page.items.reverse();
  const { items } = await read("/latest/telemetry", { ...query, limit: most, offset: page.total - most });
  return items.reverse();
}

/** @param {string} name @param {Promise<Named[]>} answer */
async function offer(name, answer) {
  const select = /** @type {HTMLSelectElement} */ (fields.namedItem(name));
  try {
    const chosen = select.value;
    const known = (await answer).map((group) => group[name]).filter((value) => typeof value === "string" && value);
    const values = [...new Set([...known, ...(chosen ? [chosen] : [])])].sort();
    select.replaceChildren(el("option", { value: "", text: "all" }), ...values.map((value) => el("option", { value, text: value, selected: value === chosen })));
  } catch {
    // The places that show these groups say why.
  }
}

/** @param {Record<string, number>} all */
function cards(all) {
  /** @param {string} name @param {string} text @param {number} count */
  const card = (name, text, count) =>
    el("div", { class: `card ${name}` }, el("b", { text: count.toLocaleString() }), el("span", { text }), el("span", { class: "muted", text: name ? percent(count, all.total) : "" }));
  return [
    card("", "events", all.total),
    card("pass", "pass", all.pass),
    card("fail", "fail", all.fail),
    card("incomplete", "incomplete", all.incomplete),
    card("skip", "skip", all.skip),
    card("infra", "infrastructure errors", all.infra_error),
  ];
}

/** @param {Named} group @param {string} by @returns {string} */
const named = (group, by) => group[by] ?? "–";

/** @param {Named[]} groups @param {string} by */
function bars(groups, by) {
  if (!groups.length) return [note("No events.")];
  const rows = groups.slice(0, MOST_ROWS).map((group) => ({
    label: named(group, by).replaceAll("_", " "), counts: outcomes(group), total: group.total, onClick: group[by] ? () => drill({ [by]: group[by] }) : null,
  }));
  return [barList(rows, OUTCOMES)];
}

/** @param {Named[]} groups */
function healthBars(groups) {
  const judged = groups.filter((group) => health(group) !== null);
  if (!judged.length) return [note("No results.")];
  const names = ["pass", "fail", "incomplete"];
  const rows = judged
    .sort((a, b) => (health(a) ?? 0) - (health(b) ?? 0))
    .slice(0, 30)
    .map((group) => ({
      label: named(group, "runtime"), counts: outcomes(group), total: group.total, text: percent(health(group) ?? 0, 1),
      onClick: group.runtime ? () => drill({ runtime: group.runtime }) : null,
    }));
  return [barList(rows, names, { even: true })];
}

/** @param {string} caption @param {Named[]} groups @param {string} by */
function groupTable(caption, groups, by) {
  if (!groups.length) return [note("No events.")];
  const name = (/** @type {Named} */ group) =>
    group[by] ? el("button", { type: "button", class: "link", text: group[by], click: () => drill({ [by]: group[by] }) }) : "–";
  /** @type {Column<Named>[]} */
  const columns = [
    { title: "Name", class: "name", cell: name },
    { title: "Events", class: "end", cell: (group) => group.total },
    { title: "Pass", class: "end", cell: (group) => group.pass },
    { title: "Fail", class: "end", cell: (group) => group.fail + group.incomplete },
    { title: "Infra", class: "end", cell: (group) => group.infra_error },
    { title: "Health", class: "bar-column", cell: (group) => (health(group) === null ? "" : stackedBar(outcomes(group), named(group, by), ["pass", "fail", "incomplete"])) },
  ];
  const left = groups.length - MOST_ROWS;
  return [table(caption, columns, groups.slice(0, MOST_ROWS)), ...(left > 0 ? [note(`${left} more.`)] : [])];
}

/** @param {any} found */
function anomalies({ result_anomalies: results, error_anomalies: errors, window, threshold }) {
  if (!results.length && !errors.length) return [note(`Nothing stands out in the last ${window} (from ${percent(threshold, 1)} on).`)];
  const lines = results.map((/** @type {any} */ one) => {
    const words = [
      `${percent(one.fail_rate, 1)} failing, ${percent(one.infra_rate, 1)} infrastructure errors, of ${one.total}`,
      one.constant_infra_failure ? "nothing but infrastructure errors" : one.constant_failure ? "nothing passes" : "",
      [one.latest_error_type, one.latest_error_msg].filter(Boolean).join(": "),
    ].filter(Boolean);
    const where = { runtime: one.runtime, ...(one.device_type && { device_type: one.device_type }) };
    return anomaly(severity(one), [one.runtime, one.device_type, one.device_id].filter(Boolean).join(" · "), words, where, one.last_seen);
  });
  for (const { runtime, error_type: type, count } of errors) {
    lines.push(anomaly("incomplete", runtime, [`${count} × ${type ?? "an error without a type"}`], { runtime, ...(type && { error_type: type }) }));
  }
  return [el("ul", { class: "anomalies" }, ...lines)];
}

/** @param {string} status @param {string} name @param {string[]} words @param {Filter} where @param {string} [seen] */
function anomaly(status, name, words, where, seen) {
  return el("li", { class: status }, el("button", { type: "button", class: "link", text: name, click: () => drill(where) }), el("span", { text: words.join(" · ") }),
    seen ? el("span", { class: "muted", text: `last ${age(parseTime(seen))}` }) : null);
}

/** @param {string} caption @param {Event[]} events */
function eventTable(caption, events) {
  /** @type {Column<Event>[]} */
  const columns = [
    { title: "Time", cell: ({ ts }) => el("time", { title: dateTime(parseTime(ts)), text: age(parseTime(ts)) }) },
    { title: "Runtime", class: "clip", cell: (event) => [event.runtime, event.device_type].filter(Boolean).join(" · ") },
    { title: "Result", cell: (event) => (event.result ? el("span", { class: `chip ${event.result}`, text: event.result }) : "") },
    { title: "Error", class: "wide", cell: (event) => [event.error_type, event.error_msg].filter(Boolean).join(": ") },
    { title: "Job", class: "clip", cell: (event) => (event.node_id ? el("a", { href: nodeHref(event.node_id), text: event.job_name ?? event.node_id }) : event.job_name) },
    { title: "Kind", cell: (event) => String(event.kind).replaceAll("_", " ") },
  ];
  const filled = columns.filter(({ title, cell }) => !["Result", "Error"].includes(title) || events.some(cell));
  return table(caption, filled, events);
}

/**
 * Shows the last events of a group.
 * @param {Filter} where
 */
function drill(where) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("events"));
  byId("events-title").textContent = `Events: ${Object.values(where).join(" · ")}`;
  dialog.showModal();
  fillIn(byId("events-body"), async () => {
    const events = await newest({ ...shown, ...where }, MOST_EVENTS);
    return [events.length ? eventTable("The last events", events) : note("No events.")];
  });
}

show();
