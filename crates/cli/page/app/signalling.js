/**
 * FastRTC's HTTP side: offers and trickled candidates by POST to `{path}/webrtc/offer`.
 *
 * Logical failures come as HTTP 200 with `{"status":"failed","meta":{"error":E}}`, others with a status of their
 * own; both become a {@link Problem} whose code is `E`.
 */
import { Problem } from "./problem.js";

/** A server that has not answered an offer by then will not; a browser's own limit would be minutes. */
const ANSWER_WITHIN_MS = 15_000;

/** Longest `Retry-After` that is honoured, so that a wrong header cannot park the page for a day. */
const RETRY_AFTER_MAX_MS = 60_000;

/**
 * Posts an offer.
 * @returns {Promise<{sdp: string, type: "answer", resume?: string}>}
 */
export async function postOffer(path, { description, id, resume, signal }) {
  const body = { sdp: description.sdp, type: description.type, webrtc_id: id };
  if (resume) body.resume = resume;
  const answer = await post(`${path}/webrtc/offer`, body, signal);
  if (typeof answer?.sdp !== "string") throw new Problem("not_an_answer", { detail: "no SDP in the reply" });
  return answer;
}

/** Posts one candidate; candidates may overtake their offer, the server keeps them for it. */
export function postCandidate(path, { candidate, id, signal }) {
  return post(`${path}/webrtc/offer`, { candidate: candidate.toJSON(), type: "ice-candidate", webrtc_id: id }, signal);
}

/** Sends the arguments that a handler asked for by `send_input`. */
export function postInputs(path, { inputs, id, signal }) {
  return post(`${path}/input_hook`, { webrtc_id: id, inputs }, signal);
}

/** Asks a handler that waits for pauses to reply now. */
export function postTrigger(path, { id, signal }) {
  return post(`${path}/trigger_response`, { webrtc_id: id }, signal);
}

/**
 * A session as its own client may see it, with the session's token.
 * @returns {Promise<{worker?: string} | undefined>} nothing where the server does not show it
 */
export async function readSession(path, { id, token, signal }) {
  try {
    const headers = { Authorization: `Bearer ${token}` };
    const reply = await fetch(`${path}/sessions/${encodeURIComponent(id)}`, { headers, signal: within(signal) });
    return reply.ok ? await reply.json() : undefined;
  } catch {
    return undefined;
  }
}

/** The service's ICE servers. A server without the route gets the browser's defaults: the offer tells what is wrong. */
export async function rtcConfiguration(path, signal) {
  try {
    const reply = await fetch(`${path}/rtc_configuration`, { signal: within(signal) });
    return reply.ok ? await reply.json() : {};
  } catch {
    return {};
  }
}

async function post(url, body, signal) {
  let reply;
  try {
    reply = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: within(signal),
    });
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw new Problem("unreachable", { detail: error.message });
  }
  const text = await reply.text();
  return readReply(reply.status, reply.headers.get("Retry-After"), text);
}

/**
 * The reply's JSON, or a {@link Problem}.
 * @param {number} status HTTP status
 * @param {string | null} retryAfter the header; only its form in seconds is used
 * @param {string} text the body
 */
export function readReply(status, retryAfter, text) {
  const facts = { status, ...waitFrom(retryAfter) };
  let json;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Problem("not_an_answer", { ...facts, detail: `HTTP ${status}` });
  }
  if (json?.status === "failed") {
    const { error = "not_an_answer", limit, detail } = json.meta ?? {};
    throw new Problem(String(error), { ...facts, limit, detail });
  }
  if (status === 422) {
    const detail = json?.detail?.map?.(({ loc, msg }) => `${loc?.join?.(".")}: ${msg}`).join("; ");
    throw new Problem("unprocessable", { ...facts, detail });
  }
  if (status < 200 || status > 299) throw new Problem("not_an_answer", { ...facts, detail: `HTTP ${status}` });
  return json;
}

function waitFrom(retryAfter) {
  const seconds = Number.parseFloat(retryAfter ?? "");
  return seconds >= 0 ? { retryAfterMs: Math.min(seconds * 1000, RETRY_AFTER_MAX_MS) } : {};
}

/** `signal`, and the time limit; `AbortSignal.any` is too young to count on. */
function within(signal) {
  const both = new AbortController();
  const timer = setTimeout(() => both.abort(new Problem("unreachable", { detail: "no answer in time" })), ANSWER_WITHIN_MS);
  both.signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
  if (signal.aborted) both.abort(signal.reason);
  else signal.addEventListener("abort", () => both.abort(signal.reason), { once: true });
  return both.signal;
}
