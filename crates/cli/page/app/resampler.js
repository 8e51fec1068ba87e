/** Changes the rate of a stream of samples: a windowed sinc at every phase between two samples. Pure. */

/** Zero crossings of the sinc on each side: 0.4 ms at 48 kHz, and what would fold back is 60 dB down. */
const CROSSINGS = 20;

/** The pass band, of the lower of both Nyquist frequencies; the rest is the filter's slope. */
const PASS = 0.92;

export class Resampler {
  #up;
  #down;
  #half;
  /** The filter at each phase. @type {Float32Array[]} */
  #phases;
  /** Samples that later output still needs. */
  #kept;
  /** The next output's place in `#kept`, in steps of 1/up of a sample. */
  #at;

  /** @param {number} from Hz @param {number} to Hz; both whole */
  constructor(from, to) {
    const common = greatestCommon(from, to);
    this.#up = to / common;
    this.#down = from / common;
    const narrow = Math.min(1, to / from);
    const half = Math.ceil(CROSSINGS / narrow);
    this.#half = half;
    this.#phases = Array.from({ length: this.#up }, (_, phase) => filter(phase / this.#up, half, narrow * PASS));
    this.#kept = new Float32Array(half - 1);
    this.#at = (half - 1) * this.#up;
  }

  /**
   * The next samples; how the stream is cut makes no difference to what comes out.
   * @param {Float32Array} samples
   * @returns {Float32Array} late by half a filter
   */
  process(samples) {
    if (this.#up === this.#down) return samples;
    const all = new Float32Array(this.#kept.length + samples.length);
    all.set(this.#kept);
    all.set(samples, this.#kept.length);
    const half = this.#half;
    const ready = (all.length - half) * this.#up - this.#at;
    const out = new Float32Array(Math.max(0, Math.ceil(ready / this.#down)));
    for (let o = 0; o < out.length; o++, this.#at += this.#down) {
      const first = Math.floor(this.#at / this.#up) - half + 1;
      const taps = this.#phases[this.#at % this.#up];
      let sum = 0;
      for (let t = 0; t < taps.length; t++) sum += all[first + t] * taps[t];
      out[o] = sum;
    }
    const done = Math.min(Math.floor(this.#at / this.#up) - half + 1, all.length);
    this.#kept = all.slice(done);
    this.#at -= done * this.#up;
    return out;
  }
}

/** The filter for a place `fraction` of a sample behind its middle; a constant stays what it is. */
function filter(fraction, half, cut) {
  const taps = Float32Array.from({ length: half * 2 }, (_, t) => {
    const x = t - half + 1 - fraction;
    const sinc = x === 0 ? cut : Math.sin(Math.PI * cut * x) / (Math.PI * x);
    // Blackman's window.
    const turn = (Math.PI * x) / half;
    return Math.abs(x) >= half ? 0 : sinc * (0.42 + 0.5 * Math.cos(turn) + 0.08 * Math.cos(2 * turn));
  });
  const sum = taps.reduce((total, tap) => total + tap, 0);
  return taps.map((tap) => tap / sum);
}

function greatestCommon(a, b) {
  return b === 0 ? a : greatestCommon(b, a % b);
}
