import assert from "node:assert/strict";
import { test } from "node:test";
import { KNOWN_CODES, adviceFor } from "../app/advice.js";
import { parseMessage } from "../app/call.js";
import { udpCandidates, withoutCandidates } from "../app/peer.js";
import { readReply } from "../app/signalling.js";

test("replies become an answer or a problem with the wire's own word", () => {
  const check = (status, retryAfter, text, expected) => {
    let got;
    try {
      got = { json: readReply(status, retryAfter, text) };
    } catch ({ code, facts }) {
      got = { code, ...facts };
    }
    for (const [key, value] of Object.entries(expected)) assert.deepEqual(got[key], value, `${text}: ${key}`);
  };
  const failed = (meta) => JSON.stringify({ status: "failed", meta });
  check(200, null, '{"sdp":"v=0","type":"answer"}', { json: { sdp: "v=0", type: "answer" } });
  check(200, null, failed({ error: "concurrency_limit_reached", limit: 3 }), { code: "concurrency_limit_reached", limit: 3 });
  check(503, "2", failed({ error: "no_capacity" }), { code: "no_capacity", retryAfterMs: 2_000 });
  check(503, "86400", failed({ error: "no_capacity" }), { retryAfterMs: 60_000 });
  check(429, "Fri, 01 Jan 2027 00:00:00 GMT", failed({ error: "rate_limited" }), { code: "rate_limited", retryAfterMs: undefined });
  check(400, null, failed({ error: "invalid_offer", detail: "no m-line" }), { code: "invalid_offer", detail: "no m-line" });
  check(422, null, '{"detail":[{"type":"missing","loc":["body","webrtc_id"],"msg":"Field required"}]}', { code: "unprocessable", detail: "body.webrtc_id: Field required" });
  check(502, null, "<h1>Bad Gateway</h1>", { code: "not_an_answer", detail: "HTTP 502" });
  check(404, null, "{}", { code: "not_an_answer" });
  check(200, null, "null", { json: null });
  check(200, null, '{"status":"failed"}', { code: "not_an_answer" });
});

test("every failure string of the protocol has words of its own", () => {
  const strings = [
    "connection_already_exists", "concurrency_limit_reached", "invalid_offer", "unauthorized", "forbidden", "invalid_metadata",
    "user_limit_reached", "rate_limited", "payload_too_large", "no_capacity", "service_not_found", "draining", "upstream_unavailable", "not_a_reply_on_pause",
  ];
  for (const code of strings) assert.ok(KNOWN_CODES.includes(code), code);
  for (const code of [...KNOWN_CODES, "something_new", "toString"]) {
    const { title, steps, weight } = adviceFor(code, { origin: "http://192.0.2.7:8080" });
    assert.ok(title && steps.length > 0 && ["hint", "problem"].includes(weight), code);
    assert.doesNotMatch(`${title} ${steps.join(" ")}`, /undefined|NaN|\[object/, code);
  }
});

test("a failed path names the port", () => {
  const { steps } = adviceFor("ice_failed", { origin: "http://192.0.2.7:8080", udp: ["127.0.0.1:5000"] });
  assert.match(steps[0], /UDP 127\.0\.0\.1:5000/);
  assert.match(steps[1], /loopback/);
});

test("data-channel texts", () => {
  const check = (text, kind, shown) => {
    const message = parseMessage(text);
    assert.deepEqual([message.kind, message.text], [kind, shown], text);
  };
  check('{"type":"log","data":"pause_detected"}', "log", "pause_detected");
  check('{"type":"error","message":"boom"}', "error", "boom");
  check('{"type":"fetch_output","data":[]}', "fetch_output", "");
  check('{"type":"end_stream","data":"Stream closed"}', "end_stream", "Stream closed");
  check('{"type":"reconnect","data":{"after_ms":5}}', "reconnect", '{"after_ms":5}');
  check('{"no":"type"}', "text", '{"no":"type"}');
  check('{"type":7}', "text", '{"type":7}');
  check("plain", "text", "plain");
  check("null", "text", "null");
});

test("candidates in an SDP", () => {
  const sdp = [
    "v=0", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host", "a=candidate:1 1 UDP 2130706430 2001:db8::1 5001 typ host",
    "a=candidate:2 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active", "a=end-of-candidates", "m=video 9 UDP/TLS/RTP/SAVPF 96",
    "a=candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host", "",
  ].join("\r\n");
  assert.deepEqual(udpCandidates(sdp), ["192.0.2.1:5000", "[2001:db8::1]:5001"]);
  assert.equal(withoutCandidates(sdp), "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n");
});
