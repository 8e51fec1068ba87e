/**
 * What has come over a socket and waits to be heard: a small jitter buffer. Pure; time is the number of samples pulled.
 *
 * The server sends in real time, at most 200 ms ahead. Playing begins when a little is there, so that a frame that is
 * late finds the one before it still sounding.
 */

/** Held back before playing begins, s: three frames of the server's. */
const AHEAD_S = 0.06;

/** The most that waits, s: the server's 200 ms and a network that held as much back. What is older is dropped. */
const MOST_S = 0.5;

/** What is thrown away fades this long, s, so that it does not click. */
const FADE_S = 0.004;

export class Playout {
  #rate;
  #blocks = [];
  #queued = 0;
  #playing = false;
  #finishing = false;
  /** Samples pulled while something waited. */
  #waited = 0;

  /** @param {number} rate Hz */
  constructor(rate) {
    this.#rate = rate;
  }

  /** What waits, s. */
  get queued() {
    return this.#queued / this.#rate;
  }

  /** Nothing waits, and nothing more is to come. */
  get drained() {
    return this.#finishing && this.#queued === 0;
  }

  /** @param {Float32Array} samples */
  push(samples) {
    if (samples.length === 0) return;
    this.#blocks.push(samples);
    this.#queued += samples.length;
    this.#drop(this.#queued - Math.round(MOST_S * this.#rate));
  }

  /** Nothing follows: what there is need not wait for more. */
  finish() {
    this.#finishing = true;
  }

  /** Forgets what has not been heard. */
  clear() {
    const fade = new Float32Array(this.#playing ? Math.min(this.#queued, Math.round(FADE_S * this.#rate)) : 0);
    this.#take(fade);
    fade.forEach((sample, i) => (fade[i] = sample * (1 - (i + 1) / fade.length)));
    this.#blocks = fade.length > 0 ? [fade] : [];
    this.#queued = fade.length;
  }

  /** Fills `out` with what is due, and silence where there is nothing. */
  pull(out) {
    if (!this.#playing) {
      this.#waited = this.#queued > 0 ? this.#waited + out.length : 0;
      const ahead = AHEAD_S * this.#rate;
      // A sound shorter than what is held back is not held back for ever.
      this.#playing = this.#queued > 0 && (this.#queued >= ahead || this.#waited >= ahead || this.#finishing);
    }
    const taken = this.#playing ? this.#take(out) : 0;
    out.fill(0, taken);
    if (this.#queued === 0) {
      this.#playing = false;
      this.#waited = 0;
    }
  }

  /** The oldest samples, as many as fit. @returns {number} how many */
  #take(out) {
    let taken = 0;
    while (taken < out.length && this.#blocks.length > 0) {
      const [first] = this.#blocks;
      const part = first.subarray(0, out.length - taken);
      out.set(part, taken);
      taken += part.length;
      if (part.length === first.length) this.#blocks.shift();
      else this.#blocks[0] = first.subarray(part.length);
    }
    this.#queued -= taken;
    return taken;
  }

  #drop(count) {
    if (count > 0) this.#take(new Float32Array(count));
  }
}
