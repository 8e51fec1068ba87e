import assert from "node:assert/strict";
import { test } from "node:test";
import { summarise } from "../app/stats.js";

const audio = (second, more) => ({
  id: "in", type: "inbound-rtp", kind: "audio", timestamp: second * 1000, codecId: "c", jitter: 0.004, packetsLost: 0, packetsReceived: 50 * second,
  bytesReceived: 4_000 * second, jitterBufferDelay: 1_920 * second, jitterBufferEmittedCount: 48_000 * second, concealedSamples: 0, totalSamplesReceived: 48_000 * second, ...more,
});
const codec = { id: "c", type: "codec", mimeType: "audio/opus" };

function near(got, expected, what) {
  assert.ok(Math.abs(got - expected) < 1e-6, `${what}: ${got} instead of ${expected}`);
}

test("figures of an interval", () => {
  const { memory } = summarise([audio(1), codec]);
  const { figures } = summarise([audio(2, { packetsLost: 10, packetsReceived: 90, concealedSamples: 4_800 }), codec], memory);
  near(figures.lossDown, 0.2, "loss");
  near(figures.bufferMs, 40, "buffer");
  near(figures.jitterMs, 4, "jitter");
  near(figures.concealed, 0.1, "concealed");
  near(figures.bitsBack, 32_000, "bits");
  assert.equal(figures.codec, "audio/opus");
});

test("the selected pair, as each browser tells it", () => {
  const remote = { id: "r", type: "remote-candidate", address: "192.0.2.1", port: 5000, protocol: "udp", candidateType: "host" };
  const idle = { id: "p0", type: "candidate-pair", currentRoundTripTime: 9, state: "succeeded", remoteCandidateId: "r" };
  const pair = { id: "p1", type: "candidate-pair", currentRoundTripTime: 0.03, remoteCandidateId: "r" };
  const check = (...entries) => {
    const { figures } = summarise([remote, idle, ...entries]);
    near(figures.roundTripMs, 30, "round trip");
    assert.equal(figures.path.address, "192.0.2.1");
  };
  check(pair, { id: "t", type: "transport", selectedCandidatePairId: "p1" });
  check({ ...pair, selected: true });
  check({ ...pair, nominated: true, state: "succeeded" });
});

test("nothing known is undefined, never zero or NaN", () => {
  for (const report of [[], [audio(1)]]) {
    const { figures } = summarise(report);
    for (const key of ["roundTripMs", "lossDown", "lossUp", "bufferMs", "concealed", "bitsBack"]) assert.equal(figures[key], undefined, key);
  }
});

test("late packets that lower the count of lost ones are no loss below zero", () => {
  const { memory } = summarise([audio(1, { packetsLost: 5 })]);
  near(summarise([audio(2, { packetsLost: 2 })], memory).figures.lossDown, 0, "loss");
});

test("an interval without packets keeps the buffer's last figure", () => {
  const first = summarise([audio(1)]);
  const second = summarise([audio(2)], first.memory);
  const still = summarise([audio(2, { timestamp: 3_000 })], second.memory);
  near(still.figures.bufferMs, 40, "buffer");
  assert.equal(still.figures.lossDown, undefined);
});
