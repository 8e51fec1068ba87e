/**
 * A call's connection over a WebSocket, with the words and events of a {@link import("./peer.js").Peer}.
 *
 * Sound goes as binary messages at the handler's own rates; text messages are those of the data channel. There is no
 * way for a client to send texts of its own: arguments go by HTTP.
 */
import { CODECS } from "./pcm.js";
import { Problem } from "./problem.js";
import { Resampler } from "./resampler.js";
import { readReply } from "./signalling.js";

/** Handshake and `start` together; the server gives up after as long. */
const CONNECT_WITHIN_MS = 15_000;

/** How often the way there and back is measured, ms. */
const PING_EVERY_MS = 1_000;

/** No answer for this long is worth a word, ms; three pings are lost then. */
const INTERRUPTED_AFTER_MS = 3_500;

/** Sound that waits in the browser for the network, s; what is newer is not sent, or the server would hear the past. */
const UNSENT_MAX_S = 1;

/** The handler's last sound is on its way to the ear for so long after it has left the queue, ms. */
const TO_THE_EAR_MS = 120;

/** The longest that waits to be played is half a second; a sound card that stands still must not hold the end, ms. */
const PLAY_OUT_WITHIN_MS = 1_500;

/** Between two frames of one sound lies less, ms. */
const PAUSE_MS = 200;

/** Close codes that say "not here, not now" (RFC 6455, 7.4.1): the session may go on over another socket. */
const COME_BACK = new Set([1001, 1006, 1012, 1013]);

/** Whether the session may go on over another socket. A router says with 1011 that a worker has died: another one has its data. */
export const comesBack = (code, reason) => COME_BACK.has(code) || (code === 1011 && reason === "worker_lost");

export class SocketPeer extends EventTarget {
  #sound;
  #session;
  #socket;
  #codec;
  #tracks;
  #capture;
  #player;
  #open = "pending";
  #accepted = "pending";
  #closed = false;
  #refusal;
  #timers = [];
  #figures = new Figures();

  /**
   * @param {import("./sound.js").Sound} sound
   * @param {{audio?: MediaStreamTrack}} tracks
   * @param {{path: string, id: string, codec: string, rates: {input: number, output: number}}} session
   */
  constructor(sound, tracks, session) {
    super();
    this.#sound = sound;
    this.#tracks = tracks;
    this.#session = session;
    this.#codec = CODECS[session.codec];
  }

  /**
   * Connects and starts the session.
   * @returns {Promise<string | undefined>} the resume token
   */
  async offer(resume, signal) {
    const { path, rates } = this.#session;
    this.#open = "active";
    this.#emit("progress");
    await this.#sound.prepare();
    if (signal.aborted || this.#closed) throw signal.reason ?? new Problem("unreachable");
    this.#player = this.#sound.player((seconds) => (this.#figures.queued = seconds));
    this.#figures.resampler = new Resampler(rates.output, this.#sound.rate);
    const socket = new WebSocket(new URL(`${path}/websocket/offer`, location.href.replace(/^http/, "ws")));
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    try {
      return await this.#started(socket, resume, signal);
    } catch (error) {
      if (this.#open !== "done") this.#open = "failed";
      else this.#accepted = "failed";
      throw error;
    } finally {
      this.#emit("progress");
    }
  }

  #started(socket, resume, signal) {
    return new Promise((resolve, reject) => {
      const fail = (problem) => {
        this.#refusal = problem;
        reject(problem);
      };
      const timer = setTimeout(() => fail(new Problem("unreachable", { detail: "no answer in time" })), CONNECT_WITHIN_MS);
      const aborted = () => fail(signal.reason);
      signal.addEventListener("abort", aborted, { once: true });
      const settled = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", aborted);
      };
      socket.onopen = () => {
        this.#open = "done";
        this.#accepted = "active";
        this.#emit("progress");
        const { id, codec } = this.#session;
        socket.send(JSON.stringify({ event: "start", websocket_id: id, codec, framing: "binary", resume: resume ?? true }));
      };
      socket.onmessage = ({ data }) => {
        if (this.#accepted === "done") return this.#hear(data);
        const first = readFirst(data);
        settled();
        if (first instanceof Problem) return fail(first);
        this.#accepted = "done";
        this.#begin();
        resolve(first);
      };
      socket.onclose = ({ code, reason }) => {
        settled();
        // A browser does not say why a handshake failed, not even its status.
        fail(this.#open === "done" ? new Problem("socket_closed", { detail: reason || `code ${code}` }) : new Problem("socket_failed"));
        this.#over(code, reason);
      };
    });
  }

  /** A session that has begun is connected. */
  async connected() {
    this.#emit("progress");
  }

  #begin() {
    this.#listen(this.#tracks.audio);
    this.#timers.push(setInterval(() => this.#ping(), PING_EVERY_MS));
    this.#ping();
  }

  /** Sends what a track has, from now on. */
  #listen(track) {
    this.#capture?.stop();
    const { input } = this.#session.rates;
    const resampler = new Resampler(this.#sound.rate, input);
    const mostBytes = UNSENT_MAX_S * input * this.#codec.bytes;
    this.#capture = track && this.#sound.capture(track, (frame) => {
      const samples = resampler.process(frame);
      if (this.#socket.readyState !== WebSocket.OPEN || this.#socket.bufferedAmount > mostBytes) return;
      const bytes = this.#codec.encode(samples);
      this.#figures.sent(bytes.length);
      this.#socket.send(bytes);
    });
  }

  #hear(data) {
    if (typeof data !== "string") {
      this.#figures.received(data.byteLength, performance.now());
      this.#player?.play(this.#figures.resampler.process(this.#codec.decode(data)));
      if (this.#figures.frames === 1) this.#emit("progress");
      return;
    }
    if (isPong(data)) {
      if (this.#figures.pong(performance.now())) this.#emit("restored");
      return;
    }
    this.#emit("message", data);
  }

  #ping() {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    const now = performance.now();
    if (this.#figures.silent(now) > INTERRUPTED_AFTER_MS && !this.#figures.interrupted) {
      this.#figures.interrupted = true;
      this.#emit("interrupted");
    }
    this.#figures.ping(now);
    this.#socket.send('{"event":"ping"}');
  }

  #over(code, reason) {
    this.#quiet();
    if (this.#accepted !== "done") return;
    if (!comesBack(code, reason)) return this.#emit("remoteclose");
    this.#open = this.#accepted = "closed";
    this.#emit("progress");
    this.#emit("lost");
  }

  /** Nothing more is sent; what came is still played. */
  #quiet() {
    for (const timer of this.#timers) clearInterval(timer);
    this.#capture?.stop();
  }

  /** What was said before an interruption and has not been heard: the server has stopped, and what is here goes too. */
  forget() {
    this.#player?.clear();
  }

  /** Resolves when the last sound that came has been heard. */
  async playedOut() {
    const late = new Promise((resolve) => setTimeout(resolve, PLAY_OUT_WITHIN_MS));
    await Promise.race([this.#player?.finished(), late]);
    await new Promise((resolve) => setTimeout(resolve, TO_THE_EAR_MS));
  }

  steps() {
    return { socket: this.#open, session: this.#accepted };
  }

  remoteStream() {
    return this.#player.stream;
  }

  async replaceTrack(kind, track) {
    if (kind !== "audio") return;
    this.#tracks = { ...this.#tracks, audio: track };
    if (this.#accepted === "done") this.#listen(track);
  }

  /** A client has no texts to send here. */
  send() {
    return false;
  }

  async figures(memory) {
    const { codec, rates } = this.#session;
    const kilo = (rate) => rate / 1000;
    const { hostname, port, protocol } = new URL(this.#socket.url);
    return this.#figures.summary(memory, {
      codec: `${CODECS[codec].title}, ${kilo(rates.input)} / ${kilo(rates.output)} kHz`,
      path: { protocol: protocol.replace(":", ""), address: hostname, port: port || (protocol === "wss:" ? "443" : "80") },
    });
  }

  async stats() {
    return new Map();
  }

  descriptions() {
    return undefined;
  }

  states() {
    const readyState = ["connecting", "open", "closing", "closed"][this.#socket?.readyState ?? 3];
    const alive = readyState === "open" && !this.#figures.interrupted;
    return { connectionState: alive ? "connected" : readyState, readyState, refusal: this.#refusal?.code };
  }

  close() {
    this.#closed = true;
    this.#quiet();
    this.#player?.stop();
    const socket = this.#socket;
    if (socket?.readyState === WebSocket.OPEN) socket.send('{"event":"stop"}');
    socket?.close(1000);
  }

  #emit(name, detail) {
    if (!this.#closed) this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** What is counted, and what follows from it. */
export class Figures {
  frames = 0;
  queued = 0;
  interrupted = false;
  resampler;
  #bytesSent = 0;
  #bytesBack = 0;
  #pingedAt;
  #pongAt;
  #roundTripMs;
  #cameAt;
  #gapMs;
  #jitterMs = 0;

  sent(bytes) {
    this.#bytesSent += bytes;
  }

  /** A frame has come. Its lateness counts as in RFC 3550, 6.4.1, where a frame follows the other. */
  received(bytes, now) {
    this.frames += 1;
    this.#bytesBack += bytes;
    const gap = this.#cameAt === undefined ? Infinity : now - this.#cameAt;
    this.#cameAt = now;
    // A pause of the handler's is no jitter.
    if (this.#gapMs !== undefined && gap < PAUSE_MS) this.#jitterMs += (Math.abs(gap - this.#gapMs) - this.#jitterMs) / 16;
    this.#gapMs = gap < PAUSE_MS ? gap : undefined;
  }

  ping(now) {
    this.#pingedAt ??= now;
    this.#pongAt ??= now;
  }

  /** @returns {boolean} whether this ends an interruption */
  pong(now) {
    this.#roundTripMs = now - (this.#pingedAt ?? now);
    this.#pingedAt = undefined;
    this.#pongAt = now;
    const restored = this.interrupted;
    this.interrupted = false;
    return restored;
  }

  /** How long the server has said nothing, ms. */
  silent(now) {
    return now - (this.#pongAt ?? now);
  }

  /** In the words of {@link import("./stats.js").summarise}. */
  summary(memory, { codec, path }) {
    const now = performance.now();
    const seconds = memory.at === undefined ? undefined : (now - memory.at) / 1000;
    const rate = (bytes, before) => (seconds === undefined ? undefined : ((bytes - before) * 8) / seconds);
    const figures = {
      roundTripMs: this.#roundTripMs,
      jitterMs: this.frames > 1 ? this.#jitterMs : undefined,
      bufferMs: this.frames > 0 ? this.queued * 1000 : undefined,
      bitsSent: rate(this.#bytesSent, memory.bytesSent),
      bitsBack: rate(this.#bytesBack, memory.bytesBack),
      packetsBack: this.frames,
      framesBack: 0,
      codec,
      path,
    };
    return { figures, memory: { at: now, bytesSent: this.#bytesSent, bytesBack: this.#bytesBack } };
  }
}

/**
 * The server's first word: that the session has begun, with its token, or why not.
 * @returns {string | undefined | Problem}
 */
export function readFirst(data) {
  if (typeof data !== "string") return undefined;
  try {
    const message = readReply(200, null, data);
    if (message?.type === "error") return new Problem("unprocessable", { detail: message.message });
    return message?.type === "session" ? message.data?.resume : undefined;
  } catch (error) {
    return Problem.from(error);
  }
}

function isPong(text) {
  return text.length < 32 && /^\s*\{\s*"event"\s*:\s*"pong"\s*\}\s*$/.test(text);
}
