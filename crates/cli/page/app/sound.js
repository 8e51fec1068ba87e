/**
 * The WebAudio side: the test tone, taps on what is sent and on what comes back, and both ends of a WebSocket's sound. All
 * but the last works without a secure context.
 */
import { Problem } from "./problem.js";

/** Longest window an AnalyserNode gives: 0.68 s at 48 kHz. */
const WINDOW = 32_768;

/** The second tap looks this much further back, s; with the first one the history covers a delay of up to 1 s. */
const FURTHER_BACK_S = 0.65;

/** Levels are taken over the last samples of the short tap: 1024 at 48 kHz are 21 ms, a little more than one frame. */
const LEVEL_WINDOW = 1_024;

/** The test tone: A4. Each second it swells and fades (peaks of -12 and -24 dBFS), so that the eye finds it again too. */
const TONE_HZ = 440;
const LOUD_GAIN = 0.25;
const SOFT_GAIN = 0.0625;

/** One sweep about each second lets the tone be recognised when it comes back; neighbours differ, or one would do for another. */
const SWEEPS = [
  [300, 1_600],
  [1_500, 350],
  [600, 1_800],
  [1_700, 800],
  [350, 1_100],
];
const SWEEP_S = 0.18;
const SWEEP_EVERY_S = 0.97;

export class Sound {
  #context = new (globalThis.AudioContext ?? globalThis.webkitAudioContext)({ latencyHint: "interactive" });
  #sent;
  #received;
  #worklets;

  /** Samples a second of `capture` and `player`, Hz. */
  get rate() {
    return this.#context.sampleRate;
  }

  /** To be called in a click: browsers keep sound off until then. */
  async resume() {
    if (this.#context.state !== "running") await this.#context.resume();
  }

  /** Taps what is sent. */
  hearSent(stream) {
    this.#sent?.disconnect();
    this.#sent = this.#tap(stream);
  }

  /** Taps what comes back. Chromium gives silence here unless an element plays the same stream. */
  hearReceived(stream) {
    this.#received?.disconnect();
    this.#received = this.#tap(stream);
  }

  stopHearing() {
    this.#sent?.disconnect();
    this.#received?.disconnect();
    this.#sent = this.#received = undefined;
  }

  /** @returns {{sent: Level, received: Level}} */
  levels() {
    return { sent: this.#sent?.level() ?? SILENT, received: this.#received?.level() ?? SILENT };
  }

  /** Both sounds up to now, for the latency measurement; null while one is missing. */
  snapshot() {
    if (!this.#sent || !this.#received) return null;
    // The short one first: what is read later can only make the delay look shorter by the time between the two reads.
    const received = this.#received.recent();
    const sent = this.#sent.history();
    return { sent, received, rate: this.#context.sampleRate };
  }

  /** What the browser says the way from its mixer to the ear takes, ms. */
  outputDelayMs() {
    const seconds = this.#context.outputLatency ?? this.#context.baseLatency;
    return Number.isFinite(seconds) ? seconds * 1000 : undefined;
  }

  /** The test tone, until it is stopped. @returns {{track: MediaStreamTrack, stop: () => void}} */
  tone() {
    const context = this.#context;
    const oscillator = new OscillatorNode(context, { frequency: TONE_HZ });
    const gain = new GainNode(context, { gain: SOFT_GAIN });
    const out = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
    oscillator.connect(gain).connect(out);
    let sweep = 0;
    let at = context.currentTime + SWEEP_EVERY_S / 2;
    // Sweeps are written ahead: timers of a page in the background run once a second at best.
    const schedule = () => {
      for (; at < context.currentTime + 5; at += SWEEP_EVERY_S, sweep++) {
        const [from, to] = SWEEPS[sweep % SWEEPS.length];
        oscillator.frequency.setValueAtTime(from, at);
        oscillator.frequency.exponentialRampToValueAtTime(to, at + SWEEP_S);
        oscillator.frequency.setValueAtTime(TONE_HZ, at + SWEEP_S);
        gain.gain.setValueAtTime(SOFT_GAIN, at);
        gain.gain.exponentialRampToValueAtTime(LOUD_GAIN, at + SWEEP_S);
        gain.gain.exponentialRampToValueAtTime(SOFT_GAIN, at + SWEEP_EVERY_S);
      }
    };
    schedule();
    const timer = setInterval(schedule, 2_000);
    oscillator.start();
    const [track] = out.stream.getAudioTracks();
    const stop = () => {
      clearInterval(timer);
      oscillator.stop();
      track.stop();
    };
    return { track, stop };
  }

  /** Loads what `capture` and `player` need. Browsers have it only where they also have a microphone. */
  async prepare() {
    if (!this.#context.audioWorklet) throw new Problem("no_worklets");
    this.#worklets ??= this.#context.audioWorklet.addModule(new URL("worklets.js", import.meta.url));
    await this.#worklets;
  }

  /** Gives a track's samples, 20 ms at a time. After `prepare`. @param {(frame: Float32Array) => void} onFrame */
  capture(track, onFrame) {
    const source = new MediaStreamAudioSourceNode(this.#context, { mediaStream: new MediaStream([track]) });
    const node = new AudioWorkletNode(this.#context, "capture", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    node.port.onmessage = ({ data }) => onFrame(data);
    source.connect(node);
    const stop = () => {
      node.port.onmessage = null;
      node.port.postMessage("stop");
      source.disconnect();
    };
    return { stop };
  }

  /** Plays samples that come one after the other, as a stream. After `prepare`. @param {(seconds: number) => void} onQueued */
  player(onQueued) {
    const node = new AudioWorkletNode(this.#context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    const out = new MediaStreamAudioDestinationNode(this.#context, { channelCount: 1 });
    node.connect(out);
    let drained;
    const finished = new Promise((resolve) => (drained = resolve));
    node.port.onmessage = ({ data }) => (data.drained ? drained() : onQueued(data.queued));
    const say = (word) => node.port.postMessage(word);
    return {
      stream: out.stream,
      play: (samples) => node.port.postMessage(samples, samples.length > 0 ? [samples.buffer] : []),
      clear: () => say("clear"),
      finished: () => (say("finish"), finished),
      stop: () => (say("stop"), node.disconnect()),
    };
  }

  #tap(stream) {
    const context = this.#context;
    const source = new MediaStreamAudioSourceNode(context, { mediaStream: stream });
    const level = new AnalyserNode(context, { fftSize: LEVEL_WINDOW });
    const near = new AnalyserNode(context, { fftSize: WINDOW });
    const far = new AnalyserNode(context, { fftSize: WINDOW });
    const delay = new DelayNode(context, { maxDelayTime: 1, delayTime: FURTHER_BACK_S });
    source.connect(level);
    source.connect(near);
    source.connect(delay).connect(far);
    return new Tap(source, delay, { level, near, far, overlap: WINDOW - Math.round(FURTHER_BACK_S * context.sampleRate) });
  }
}

/** @typedef {{peakDb: number, rmsDb: number}} Level dBFS, from -100 */
const SILENT = { peakDb: -100, rmsDb: -100 };

class Tap {
  #source;
  #delay;
  #taps;
  #samples = new Float32Array(LEVEL_WINDOW);

  constructor(source, delay, taps) {
    this.#source = source;
    this.#delay = delay;
    this.#taps = taps;
  }

  level() {
    this.#taps.level.getFloatTimeDomainData(this.#samples);
    let peak = 0;
    let sum = 0;
    for (const sample of this.#samples) {
      peak = Math.max(peak, Math.abs(sample));
      sum += sample * sample;
    }
    return { peakDb: decibels(peak), rmsDb: decibels(Math.sqrt(sum / this.#samples.length)) };
  }

  recent() {
    const samples = new Float32Array(WINDOW);
    this.#taps.near.getFloatTimeDomainData(samples);
    return samples;
  }

  /** Both windows as one, oldest first. */
  history() {
    const { near, far, overlap } = this.#taps;
    const fresh = WINDOW - overlap;
    const samples = new Float32Array(WINDOW + fresh);
    near.getFloatTimeDomainData(samples.subarray(fresh));
    const older = new Float32Array(WINDOW);
    far.getFloatTimeDomainData(older);
    samples.set(older.subarray(0, fresh));
    return samples;
  }

  disconnect() {
    this.#source.disconnect();
    this.#delay.disconnect();
  }
}

/** Amplitude (full scale 1) as dBFS, not below -100. */
export function decibels(amplitude) {
  return amplitude > 1e-5 ? 20 * Math.log10(amplitude) : -100;
}
