// Requests over REST, for what is asked with a token that the page should not keep a session for.

const MOST_MS = 60_000;

/** An answer that is no success. */
export class RestError extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/**
 * Asks `method path`; resolves with the JSON of the answer. Throws RestError, whose message is what the server said.
 * @param {string} method
 * @param {string} path
 * @param {{token?: string | null, body?: object, query?: Record<string, any>}} [more] `query` leaves out what is empty
 * @returns {Promise<any>}
 */
export async function ask(method, path, { token, body, query } = {}) {
  const url = new URL(path, location.href);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  /** @type {Record<string, string>} */
  const headers = { accept: "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(url, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "omit",
      cache: "no-store",
      signal: AbortSignal.timeout(MOST_MS),
    });
  } catch (/** @type {any} */ error) {
    throw new RestError(0, error.name === "TimeoutError" ? "no answer within a minute" : "the server cannot be reached");
  }
  const text = await response.text();
  let answer = null;
  try {
    answer = JSON.parse(text);
  } catch {
    // Not JSON: a proxy's page, or nothing.
  }
  if (!response.ok) throw new RestError(response.status, describe(answer) || `status ${response.status}`);
  return answer;
}

/**
 * What the body of an error says, in one line.
 * @param {any} answer
 * @returns {string}
 */
export function describe(answer) {
  const detail = answer?.detail ?? answer?.message;
  if (typeof detail === "string") return detail;
  if (Array.isArray(detail)) {
    return detail.map((item) => [item?.loc?.slice?.(1).join("."), item?.msg].filter(Boolean).join(": ")).join("; ");
  }
  return detail ? JSON.stringify(detail) : "";
}
