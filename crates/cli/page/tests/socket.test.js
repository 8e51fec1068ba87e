import assert from "node:assert/strict";
import { test } from "node:test";
import { CODECS } from "../app/pcm.js";
import { Playout } from "../app/playout.js";
import { Problem } from "../app/problem.js";
import { Resampler } from "../app/resampler.js";
import { Figures, comesBack, readFirst } from "../app/socket.js";

const sine = (hz, rate, length, amplitude = 0.5) => Float32Array.from({ length }, (_, i) => amplitude * Math.sin((2 * Math.PI * hz * i) / rate));
const rms = (samples) => Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);

/** Level of one frequency (Goertzel's sum by hand), as an amplitude. */
function amplitudeAt(hz, samples, rate) {
  let [re, im] = [0, 0];
  samples.forEach((x, i) => {
    re += x * Math.cos((2 * Math.PI * hz * i) / rate);
    im += x * Math.sin((2 * Math.PI * hz * i) / rate);
  });
  return (2 * Math.hypot(re, im)) / samples.length;
}

test("mu-law is that of G.711", () => {
  const { encode, decode } = CODECS.mulaw;
  const check = (sample, byte) => assert.equal(encode(Float32Array.of(sample / 32_768))[0], byte, `${sample}`);
  check(0, 0xff);
  check(-1, 0x7f);
  check(8, 0xfe);
  check(1_000, 0xce);
  check(-1_000, 0x4e);
  check(32_767, 0x80);
  check(-32_768, 0x00);
  const every = Uint8Array.from({ length: 256 }, (_, i) => i);
  const decoded = decode(every.buffer);
  assert.equal(decoded[0x80] * 32_768, 32_124);
  assert.equal(decoded[0x00] * 32_768, -32_124);
  // What was decoded encodes to itself; there are two zeros.
  encode(decoded).forEach((byte, i) => assert.equal(byte, i === 0x7f ? 0xff : i));
});

test("16-bit samples are little-endian and clipped", () => {
  const { encode, decode } = CODECS.pcm16;
  assert.deepEqual([...encode(Float32Array.of(0, 2 / 32_768, -1, 2, -2))], [0, 0, 2, 0, 0, 128, 255, 127, 0, 128]);
  assert.deepEqual([...decode(Uint8Array.of(2, 0, 0, 128, 9).buffer)], [2 / 32_768, -1], "an odd byte is none");
});

test("a resampled tone keeps pitch, level and length", () => {
  const check = (from, to, hz) => {
    const out = new Resampler(from, to).process(sine(hz, from, from));
    assert.ok(Math.abs(out.length - to) <= to * 0.006, `${from} to ${to}: ${out.length}`);
    const middle = out.subarray(to / 10, to / 10 + Math.round(to / 2));
    assert.ok(Math.abs(amplitudeAt(hz, middle, to) - 0.5) < 0.005, `${from} to ${to}: ${amplitudeAt(hz, middle, to)}`);
    assert.ok(Math.abs(rms(middle) - 0.5 / Math.SQRT2) < 0.005, `${from} to ${to}: nothing else`);
  };
  for (const [from, to] of [[48_000, 24_000], [48_000, 16_000], [48_000, 8_000], [44_100, 48_000], [44_100, 24_000], [24_000, 48_000], [24_000, 44_100], [48_000, 48_000]]) check(from, to, 1_000);
});

test("what the lower rate cannot carry does not fold back", () => {
  const out = new Resampler(48_000, 16_000).process(sine(10_000, 48_000, 24_000));
  assert.ok(rms(out.subarray(200)) < 0.0005, `${rms(out.subarray(200))}`);
});

test("how a stream is cut makes no difference", () => {
  for (const [from, to] of [[48_000, 24_000], [44_100, 16_000], [24_000, 44_100]]) {
    const samples = sine(700, from, 5_000);
    const whole = new Resampler(from, to).process(samples);
    const piecewise = new Resampler(from, to);
    const parts = [];
    for (let at = 0, size = 1; at < samples.length; at += size, size = (size * 7) % 311) parts.push(...piecewise.process(samples.slice(at, at + size)));
    assert.deepEqual(parts, [...whole]);
  }
});

const RATE = 48_000;
const frame = (value) => new Float32Array(960).fill(value);

function pull(playout, seconds) {
  const out = [];
  for (let i = 0; i < Math.round((seconds * RATE) / 128); i++) {
    const block = new Float32Array(128);
    playout.pull(block);
    out.push(...block);
  }
  return out;
}

test("play-out begins when three frames are there and loses none", () => {
  const playout = new Playout(RATE);
  playout.push(frame(0.1));
  playout.push(frame(0.2));
  assert.deepEqual(new Set(pull(playout, 0.02)), new Set([0]));
  playout.push(frame(0.3));
  const heard = pull(playout, 0.1).filter((x) => x !== 0);
  assert.deepEqual(heard, [...frame(0.1), ...frame(0.2), ...frame(0.3)]);
});

test("a sound shorter than that is heard, a little later", () => {
  const playout = new Playout(RATE);
  playout.push(frame(0.1));
  const heard = pull(playout, 0.2);
  assert.equal(heard.filter((x) => x !== 0).length, 960);
  assert.ok(heard.findIndex((x) => x !== 0) <= 0.062 * RATE);
});

test("at most half a second waits, and the oldest goes", () => {
  const playout = new Playout(RATE);
  for (let i = 1; i <= 100; i++) playout.push(frame(i / 1_000));
  assert.ok(Math.abs(playout.queued - 0.5) < 1e-6);
  assert.ok(Math.abs(pull(playout, 0.02)[0] - 0.076) < 1e-6);
});

test("what is cleared fades, and what follows is whole", () => {
  const playout = new Playout(RATE);
  for (let i = 0; i < 10; i++) playout.push(frame(0.5));
  pull(playout, 0.02);
  playout.clear();
  const heard = pull(playout, 0.1);
  assert.ok(heard.filter((x) => x !== 0).length <= 0.004 * RATE);
  for (let i = 1; i < heard.length; i++) assert.ok(heard[i] <= heard[i - 1] + 1e-6, "it only falls");
  for (let i = 0; i < 3; i++) playout.push(frame(0.2));
  assert.equal(pull(playout, 0.2).filter((x) => x !== 0).length, 3 * 960);
});

test("the end is told when the last sample is out", () => {
  const playout = new Playout(RATE);
  playout.push(frame(0.5));
  assert.equal(playout.drained, false);
  playout.finish();
  assert.equal(playout.drained, false);
  assert.equal(pull(playout, 0.03).filter((x) => x !== 0).length, 960, "nothing is waited for");
  assert.equal(playout.drained, true);
});

test("after which ends of a socket a session may go on", () => {
  const check = (code, reason, expected) => assert.equal(comesBack(code, reason), expected, `${code} ${reason}`);
  for (const code of [1001, 1006, 1012, 1013]) check(code, "", true);
  check(1011, "worker_lost", true);
  check(1011, "internal_error", false);
  check(1000, "worker_lost", false);
  check(1008, "", false);
});

test("the first word of a server", () => {
  const check = (text, expected) => {
    const first = readFirst(text);
    assert.deepEqual(first instanceof Problem ? { code: first.code, limit: first.facts.limit } : first, expected, text);
  };
  check('{"type":"session","data":{"resume":"ab"}}', "ab");
  check('{"status":"failed","meta":{"error":"concurrency_limit_reached","limit":2}}', { code: "concurrency_limit_reached", limit: 2 });
  check('{"type":"error","message":"no"}', { code: "unprocessable", limit: undefined });
  check('{"type":"log","data":"hi"}', undefined);
  check("<html>", { code: "not_an_answer", limit: undefined });
  check(new ArrayBuffer(4), undefined);
});

test("figures of a socket", () => {
  const figures = new Figures();
  figures.ping(1_000);
  assert.equal(figures.pong(1_012), false);
  for (let at = 0; at < 1_000; at += 20) figures.received(960, at);
  const { figures: steady } = figures.summary({}, {});
  assert.equal(steady.roundTripMs, 12);
  assert.equal(steady.jitterMs, 0);
  assert.equal(steady.packetsBack, 50);
  assert.equal(steady.bitsBack, undefined, "one reading is no rate");
  for (let at = 5_000; at < 6_000; at += 40) {
    figures.received(960, at);
    figures.received(960, at + 10);
  }
  const { jitterMs } = figures.summary({}, {}).figures;
  assert.ok(jitterMs > 10 && jitterMs <= 20, `${jitterMs}: the pause before counts for nothing`);
  assert.equal(figures.silent(5_000), 3_988);
});
