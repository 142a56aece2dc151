// Values as people read them.

/**
 * Milliseconds of a timestamp; stored times carry no zone and are UTC. NaN if it is none.
 * @param {unknown} text
 */
export function parseTime(text) {
  if (typeof text !== "string") return NaN;
  return Date.parse(/(Z|[+-]\d\d:?\d\d)$/i.test(text) ? text : `${text}Z`);
}

/**
 * How long ago: "now", "42 s", "7 min", "3 h", "5 d".
 * @param {number} ms
 */
export function age(ms, now = Date.now()) {
  if (Number.isNaN(ms)) return "";
  const seconds = Math.max(0, Math.round((now - ms) / 1000));
  if (seconds < 5) return "now";
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 2 * 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** @param {number} number */
const pad = (number) => String(number).padStart(2, "0");

/**
 * Local time of day, "14:03:59".
 * @param {number} ms
 */
export function clock(ms) {
  const date = new Date(ms);
  return Number.isNaN(ms) ? "" : [date.getHours(), date.getMinutes(), date.getSeconds()].map(pad).join(":");
}

/**
 * Local date and time.
 * @param {number} ms
 */
export function dateTime(ms) {
  return Number.isNaN(ms) ? "" : new Date(ms).toLocaleString();
}

/**
 * A number in at most five characters: "1234", "12.3k", "1.2M".
 * @param {number} number
 */
export function short(number) {
  if (number < 10_000) return String(number);
  const [value, unit] = number < 1_000_000 ? [number / 1000, "k"] : [number / 1_000_000, "M"];
  return (value < 100 ? value.toFixed(1) : String(Math.round(value))) + unit;
}

/**
 * The first twelve digits of a commit.
 * @param {unknown} text
 */
export function commit(text) {
  return typeof text === "string" ? text.slice(0, 12) : "";
}

/**
 * The address if it is a http(s) one, else null: nothing else becomes a link.
 * @param {string} text
 */
export function httpUrl(text) {
  try {
    const url = new URL(text);
    return ["http:", "https:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}
