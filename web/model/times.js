// Spans of time in addresses and conditions.

/**
 * The moment that is so many hours ago, as stored times are written.
 * @param {number} hours
 */
export function hoursAgo(hours, now = Date.now()) {
  return new Date(now - hours * 3_600_000).toISOString().slice(0, 19);
}

/**
 * Hours of a `timeframe` in an address: a number of hours, or days as `7d`.
 * @param {string | null} text
 */
export function hoursOf(text) {
  const found = /^(\d{1,5})([hd]?)$/.exec(text ?? "");
  const hours = found ? Number(found[1]) * (found[2] === "d" ? 24 : 1) : 168;
  return Math.min(Math.max(hours, 1), 24 * 180);
}
