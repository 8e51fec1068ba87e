/**
 * Something that stopped a call, as a code that `advice.js` has words for.
 *
 * Codes are the server's failure strings as they come over the wire, the DOM's error names for devices
 * (`NotAllowedError` and so on), or the page's own: `unreachable`, `not_an_answer`, `ice_failed`, `dtls_failed`,
 * `connection_lost`, `no_webrtc`.
 */
export class Problem extends Error {
  /**
   * @param {string} code
   * @param {{status?: number, limit?: number, detail?: string, retryAfterMs?: number, udp?: string[]}} [facts]
   */
  constructor(code, facts = {}) {
    super(facts.detail ? `${code}: ${facts.detail}` : code);
    this.name = "Problem";
    this.code = code;
    this.facts = facts;
  }

  /** Any thrown value as a Problem; a DOMException keeps its name as the code. */
  static from(error) {
    if (error instanceof Problem) return error;
    return new Problem(error?.name ?? "Error", { detail: error?.message ?? String(error) });
  }
}

/** Waits `ms` milliseconds; rejects with the signal's reason as soon as it is aborted. */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    signal.addEventListener("abort", onAbort, { once: true });
  });
}
