import assert from "node:assert/strict";
import { test } from "node:test";
import { Latency, measureDelay } from "../app/latency.js";

const RATE = 48_000;
const WINDOW = 32_768;
const HISTORY = 63_968;

/** Seeded chance (xorshift32), so that a failure repeats. */
function random(seed) {
  let x = seed;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 32 - 0.5;
  };
}

/** Noise with a slow envelope: about as tonal as speech is not. */
function babble(seed, length) {
  const next = random(seed);
  let smooth = 0;
  return Float32Array.from({ length }, (_, i) => {
    smooth = 0.9 * smooth + 0.1 * next();
    return smooth * (1 + Math.sin(i / 3000));
  });
}

const tone = (length) => Float32Array.from({ length }, (_, i) => 0.2 * Math.sin((2 * Math.PI * 440 * i) / RATE));

function echoOf(sent, delayMs, change = (sample) => sample) {
  const delay = Math.round((delayMs / 1000) * RATE);
  return Float32Array.from({ length: WINDOW }, (_, i) => change(sent[sent.length - WINDOW - delay + i] ?? 0, i));
}

function check(sent, received, expected, slackMs = 1) {
  const found = measureDelay(sent, received, RATE);
  if (expected === null) assert.equal(found, null);
  else assert.ok(found && Math.abs(found.delayMs - expected) <= slackMs, `${JSON.stringify(found)} instead of ${expected} ms`);
}

test("an echo is found at its delay", () => {
  for (const delayMs of [0.5, 20, 61, 148.5, 400, 640]) check(babble(7, HISTORY), echoOf(babble(7, HISTORY), delayMs), delayMs);
});

test("gain, inversion of nothing, noise and clipping leave it found", () => {
  const sent = babble(11, HISTORY);
  const noise = random(5);
  check(sent, echoOf(sent, 80, (sample) => sample * 0.2), 80);
  check(sent, echoOf(sent, 80, (sample) => sample + 0.01 * noise()), 80);
  check(sent, echoOf(sent, 80, (sample) => Math.max(Math.min(sample, 0.1), -0.1)), 80);
});

test("what is not an echo gives no answer", () => {
  const sent = babble(3, HISTORY);
  check(sent, babble(4, WINDOW), null);
  check(sent, new Float32Array(WINDOW), null);
  check(sent, tone(WINDOW), null);
  check(new Float32Array(HISTORY), echoOf(sent, 50), null);
  check(sent, new Float32Array(10), null);
  check(new Float32Array(0), new Float32Array(0), null);
});

test("a sound that repeats could be any of its repetitions: no answer", () => {
  const sent = tone(HISTORY);
  check(sent, echoOf(sent, 50), null);
  const beeps = Float32Array.from({ length: HISTORY }, (_, i) => (i % 12_000 < 960 ? 0.5 * Math.sin(i / 20) : 0));
  check(beeps, echoOf(beeps, 50), null);
});

test("the shown latency needs three that agree, lately", () => {
  const shown = (...measured) => {
    const latency = new Latency();
    for (const [delayMs, at] of measured) latency.add(delayMs, at);
    return latency.value(20_000);
  };
  assert.equal(shown(), undefined);
  assert.equal(shown([60, 19_000], [61, 19_400]), undefined);
  assert.equal(shown([60, 19_000], [61, 19_400], [59, 19_800]), 60);
  assert.equal(shown([60, 19_000], [561, 19_200], [61, 19_400], [59, 19_800]), 61);
  assert.equal(shown([60, 19_000], [561, 19_200], [300, 19_400], [59, 19_800]), undefined);
  assert.equal(shown([60, 1_000], [61, 1_400], [59, 1_800]), undefined);
});
