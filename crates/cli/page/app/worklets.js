/** What runs on the browser's audio thread: the two ends of a WebSocket's sound. */
import { Playout } from "./playout.js";

/** Sent at a time, s. */
const FRAME_S = 0.02;

/** How often the page is told how much waits, s. */
const REPORT_EVERY_S = 0.1;

/** Posts what it hears, a frame at a time. */
class Capture extends AudioWorkletProcessor {
  #frame = new Float32Array(Math.round(sampleRate * FRAME_S));
  #filled = 0;
  #live = true;

  constructor() {
    super();
    this.port.onmessage = () => (this.#live = false);
  }

  process([[samples]]) {
    // A source that is gone is silence: the server goes on hearing in real time.
    const heard = samples ?? new Float32Array(128);
    for (let at = 0; at < heard.length; ) {
      const part = heard.subarray(at, at + this.#frame.length - this.#filled);
      this.#frame.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#filled === this.#frame.length) {
        this.port.postMessage(this.#frame, [this.#frame.buffer]);
        this.#frame = new Float32Array(Math.round(sampleRate * FRAME_S));
        this.#filled = 0;
      }
    }
    return this.#live;
  }
}

/** Plays the samples that it is posted. Words: `clear`, `finish`, `stop`. Posts `{queued}`, s, and `{drained}` once. */
class Player extends AudioWorkletProcessor {
  #playout = new Playout(sampleRate);
  #live = true;
  #told = 0;

  constructor() {
    super();
    const words = {
      clear: () => this.#playout.clear(),
      finish: () => this.#playout.finish(),
      stop: () => (this.#live = false),
    };
    this.port.onmessage = ({ data }) => (typeof data === "string" ? words[data]() : this.#playout.push(data));
  }

  process(_, [[out]]) {
    this.#playout.pull(out);
    if (this.#playout.drained) {
      this.port.postMessage({ drained: true });
      return false;
    }
    if (currentTime - this.#told >= REPORT_EVERY_S) {
      this.#told = currentTime;
      this.port.postMessage({ queued: this.#playout.queued });
    }
    return this.#live;
  }
}

registerProcessor("capture", Capture);
registerProcessor("player", Player);
