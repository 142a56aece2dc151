/** An error that the server answered. */
export class RpcError extends Error {
  /** @param {{code: number, message: string, data?: any}} error */
  constructor({ code, message, data }) {
    const detail = data?.detail;
    super(detail ? `${message}: ${typeof detail === "string" ? detail : JSON.stringify(detail)}` : String(message));
    this.code = code;
    this.status = data?.status ?? 0;
    this.temporary = Boolean(data?.temporary);
    this.retryAfterMs = data?.retry_after_ms ?? 0;
  }
}
