// What a recording of both sides of a call says: when it is loud, which words come back, which notes were played. Pure.
import { readFileSync, writeFileSync } from "node:fs";

const WINDOW_S = 0.02;

/** Samples of full scale 1 from an evaluation's base64. */
export function unpack(text) {
  const bytes = Buffer.from(text, "base64");
  return Float32Array.from({ length: bytes.length / 2 }, (_, i) => bytes.readInt16LE(i * 2) / 32768);
}

/** Levels of windows of 20 ms, dBFS. */
export function levels(samples, rate) {
  const size = rate * WINDOW_S;
  return Array.from({ length: Math.floor(samples.length / size) }, (_, i) => decibels(samples.subarray(i * size, (i + 1) * size)));
}

const decibels = (samples) => 10 * Math.log10(samples.reduce((sum, x) => sum + x * x, 0) / samples.length + 1e-10);

/** The stretches louder than `db`, [from, to] in seconds; a gap shorter than `breath` does not end one. */
export function loud(levels, db, breath) {
  const spans = [];
  levels.forEach((level, i) => {
    if (level <= db) return;
    const at = i * WINDOW_S;
    const last = spans.at(-1);
    if (last && at - last[1] < breath) last[1] = at + WINDOW_S;
    else spans.push([at, at + WINDOW_S]);
  });
  return spans;
}

/**
 * Do the words of `span` (of `received`) come from `sent`? Each piece of 0.4 s is looked for in what was sent up to six seconds
 * before. A jitter buffer stretches time, and on a busy machine play-out pauses, so that a whole sentence would not match,
 * while a piece does.
 * @returns pieces looked for, the share of them found where they follow the piece before, their median correlation and delay (s), and by how
 *   much the found ones are louder than what was sent (dB)
 */
export function echoed(sent, received, rate, [from, to]) {
  const step = 4;
  const slow = rate / step;
  const [hay, heard] = [decimate(sent, step), decimate(received, step)];
  const size = Math.round(0.4 * slow);
  const found = [];
  for (let start = Math.round(from * slow); start + size <= to * slow; start += size / 2) {
    const needle = heard.subarray(start, start + size);
    if (decibels(needle) < -45) continue;
    let best = { match: -1 };
    for (let lag = 0; lag <= 6 * slow && lag <= start; lag++) {
      const match = correlation(needle, hay.subarray(start - lag, start - lag + size));
      if (match > best.match) best = { match, delay: lag / slow, gain: decibels(needle) - decibels(hay.subarray(start - lag, start - lag + size)) };
    }
    found.push(best);
  }
  const delay = median(found.map((piece) => piece.delay));
  const inOrder = found.filter((piece, i) => {
    const later = piece.delay - (found[i - 1] ?? found[1] ?? piece).delay;
    return later > -0.3 && later < 0.6;
  });
  return {
    pieces: found.length,
    in_order: inOrder.length / found.length,
    match: median(found.map((piece) => piece.match)),
    delay,
    gain_db: median(inOrder.map((piece) => piece.gain)),
  };
}

/** How long each of these tones is the strongest and most of what is heard, ms, within a span. */
export function notes(received, rate, [from, to], tones) {
  const size = rate * WINDOW_S;
  const lengths = Object.fromEntries(tones.map((hz) => [hz, 0]));
  for (let start = Math.round(from * rate); start + size <= Math.round(to * rate); start += size) {
    const window = received.subarray(start, start + size);
    const energy = window.reduce((sum, x) => sum + x * x, 0);
    if (energy / size < 1e-5) continue;
    const shares = tones.map((hz) => share(window, hz, rate, energy));
    const best = shares.indexOf(Math.max(...shares));
    if (shares[best] > 0.5) lengths[tones[best]] += 1000 * WINDOW_S;
  }
  return lengths;
}

/** The share of a window's energy at one frequency. */
function share(window, hz, rate, energy) {
  let [re, im] = [0, 0];
  window.forEach((x, i) => {
    re += x * Math.cos((2 * Math.PI * hz * i) / rate);
    im += x * Math.sin((2 * Math.PI * hz * i) / rate);
  });
  return (2 * (re * re + im * im)) / window.length / energy;
}

function correlation(a, b) {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return aa * bb > 0 ? ab / Math.sqrt(aa * bb) : 0;
}

const decimate = (samples, step) => Float32Array.from({ length: Math.floor(samples.length / step) }, (_, i) => {
  let sum = 0;
  for (let k = 0; k < step; k++) sum += samples[i * step + k];
  return sum / step;
});

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? null;

/**
 * Writes a WAV file that is said again and again: `parts` are seconds of silence, or [from, to] in seconds of the WAV file at
 * `source` (mono, 16 bits).
 */
export function compose(source, parts, target) {
  const file = readFileSync(source);
  const rate = file.readUInt32LE(24);
  const data = file.indexOf("data") + 8;
  const at = (seconds) => data + 2 * Math.round(seconds * rate);
  const body = Buffer.concat(parts.map((part) => (typeof part === "number" ? Buffer.alloc(2 * Math.round(part * rate)) : file.subarray(at(part[0]), at(part[1])))));
  const head = Buffer.from(file.subarray(0, 36));
  head.writeUInt32LE(36 + body.length, 4);
  head.writeUInt32LE(16, 16);
  const size = Buffer.alloc(8);
  size.write("data");
  size.writeUInt32LE(body.length, 4);
  writeFileSync(target, Buffer.concat([head, size, body]));
}
