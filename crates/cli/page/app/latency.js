/**
 * How long ago was sent what is heard now?
 *
 * The last moments of the received sound are looked for in the sent sound by normalised cross-correlation. An answer
 * is given only when the match is close and stands alone: a handler that does not send back what it got, a steady
 * tone or silence gives none. Pure functions over sample arrays.
 */

/** Correlation runs at about this rate (Hz): speech below 2 kHz is enough, and the cost falls with its square. */
const WORKING_RATE_HZ = 4_000;

/** Length of received sound that is looked for, s: long enough to hold a syllable's change or the tone's sweep. */
const NEEDLE_S = 0.45;

/** Quieter than this (RMS, full scale 1) is silence: noise correlates with noise. */
const SILENCE_RMS = 0.002;

/** Least correlation that counts as the same sound after a lossy codec. */
const LEAST_MATCH = 0.6;

/** A second-best match this near to the best makes the answer a guess. */
const RIVAL = 0.75;

/** Matches nearer than this (s) are one peak, not rivals: a voice's pitch period is up to 12 ms. */
const SAME_PEAK_S = 0.015;

/**
 * @param {Float32Array} sent the sent sound, oldest first, ending now
 * @param {Float32Array} received the received sound, ending now; only its end is used
 * @param {number} rate sample rate of both, Hz
 * @returns {{delayMs: number, match: number} | null}
 */
export function measureDelay(sent, received, rate) {
  const step = Math.max(1, Math.round(rate / WORKING_RATE_HZ));
  const workingRate = rate / step;
  const hay = sharpen(decimate(sent, step));
  const heard = decimate(received, step);
  const length = Math.round(NEEDLE_S * workingRate);
  if (heard.length <= length || hay.length < length) return null;
  if (Math.sqrt(energy(heard.subarray(-length)) / length) < SILENCE_RMS) return null;
  const needle = sharpen(heard).subarray(-length);

  const scores = correlate(hay, needle);
  let best = 0;
  for (let lag = 1; lag < scores.length; lag++) if (scores[lag] > scores[best]) best = lag;
  if (!(scores[best] >= LEAST_MATCH)) return null;
  const near = Math.round(SAME_PEAK_S * workingRate);
  for (let lag = 0; lag < scores.length; lag++) {
    if (Math.abs(lag - best) > near && scores[lag] > RIVAL * scores[best]) return null;
  }
  return { delayMs: (best / workingRate) * 1000, match: scores[best] };
}

/** scores[lag]: similarity (-1..1) of the needle to the sound that was sent `lag` samples before now. */
function correlate(hay, needle) {
  const last = hay.length - needle.length;
  const dots = slidingDots(hay, needle);
  const needleEnergy = energy(needle);
  const scores = new Float32Array(last + 1);
  let windowEnergy = energy(hay.subarray(last));
  for (let start = last; start >= 0; start--) {
    if (start < last) windowEnergy += hay[start] ** 2 - hay[start + needle.length] ** 2;
    const scale = Math.sqrt(Math.max(windowEnergy, 0) * needleEnergy);
    scores[last - start] = scale > 1e-6 ? dots[start] / scale : 0;
  }
  return scores;
}

/** dots[start]: the needle's scalar product with the hay from `start` on; by Fourier transform, a tenth of the direct way's cost. */
function slidingDots(hay, needle) {
  const size = 2 ** Math.ceil(Math.log2(hay.length + needle.length));
  const [a, b] = [new Float64Array(size), new Float64Array(size)];
  const [ai, bi] = [new Float64Array(size), new Float64Array(size)];
  a.set(hay);
  b.set(needle);
  transform(a, ai);
  transform(b, bi);
  for (let i = 0; i < size; i++) {
    // hay times the conjugate of needle; conjugated once more, so that the same transform leads back.
    const [re, im] = [a[i] * b[i] + ai[i] * bi[i], ai[i] * b[i] - a[i] * bi[i]];
    a[i] = re / size;
    ai[i] = -im / size;
  }
  transform(a, ai);
  return a;
}

/** Radix-2 Fourier transform in place (Cooley and Tukey 1965); the length is a power of two. */
function transform(re, im) {
  const size = re.length;
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [re[i], re[j]] = [re[j], re[i]];
      [im[i], im[j]] = [im[j], im[i]];
    }
  }
  for (let span = 2; span <= size; span *= 2) {
    const half = span / 2;
    const angle = (-2 * Math.PI) / span;
    for (let k = 0; k < half; k++) {
      const [cos, sin] = [Math.cos(angle * k), Math.sin(angle * k)];
      for (let i = k; i < size; i += span) {
        const j = i + half;
        const xr = re[j] * cos - im[j] * sin;
        const xi = re[j] * sin + im[j] * cos;
        re[j] = re[i] - xr;
        im[j] = im[i] - xi;
        re[i] += xr;
        im[i] += xi;
      }
    }
  }
}

/** Low-pass (windowed sinc, cut at 0.45 of the new rate) and keep every `step`-th sample. */
function decimate(samples, step) {
  if (step === 1) return samples;
  const half = step * 4;
  const taps = Float32Array.from({ length: half * 2 + 1 }, (_, i) => {
    const x = (i - half) / step;
    const sinc = x === 0 ? 0.9 : Math.sin(0.9 * Math.PI * x) / (Math.PI * x);
    return (sinc * (0.54 + 0.46 * Math.cos((Math.PI * (i - half)) / half))) / step;
  });
  const out = new Float32Array(Math.max(0, Math.floor((samples.length - taps.length) / step)));
  // Aligned to the end, so that both ends mean "now".
  const shift = samples.length - taps.length - (out.length - 1) * step;
  for (let o = 0; o < out.length; o++) {
    let sum = 0;
    for (let t = 0; t < taps.length; t++) sum += samples[shift + o * step + t] * taps[t];
    out[o] = sum;
  }
  return out;
}

/** First difference: takes away the weight of low hum, which makes every lag look alike. */
function sharpen(samples) {
  const out = new Float32Array(Math.max(0, samples.length - 1));
  for (let i = 0; i < out.length; i++) out[i] = samples[i + 1] - 0.9 * samples[i];
  return out;
}

function energy(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return sum;
}

/** Measurements older than this no longer describe the call, ms. */
const FRESH_MS = 12_000;

/** More would follow a change of the path too slowly. */
const KEPT = 7;

/** So many of the recent measurements must say the same, or chance and repeating sounds would be taken for an answer. */
const AGREEING = 3;

/** Measurements this near to each other say the same, ms: a jitter buffer moves by a frame at most between two looks. */
const SAME_MS = 25;

/** The shown latency: the median of recent measurements, when most of them agree. */
export class Latency {
  #kept = [];

  add(delayMs, now) {
    this.#kept.push({ delayMs, at: now });
    if (this.#kept.length > KEPT) this.#kept.shift();
  }

  /** @returns {number | undefined} ms; undefined when nothing could be measured lately */
  value(now) {
    const fresh = this.#kept.filter(({ at }) => now - at <= FRESH_MS).map(({ delayMs }) => delayMs);
    fresh.sort((a, b) => a - b);
    const median = fresh[fresh.length >> 1];
    const agreeing = fresh.filter((delayMs) => Math.abs(delayMs - median) <= SAME_MS).length;
    return agreeing >= AGREEING && agreeing * 2 > fresh.length ? median : undefined;
  }
}
