/** One RTCPeerConnection from its offer to its close, with the states that a person wants to see. */
import { Problem } from "./problem.js";
import { postCandidate, postOffer } from "./signalling.js";
import { summarise } from "./stats.js";

/** Gathering is cut off here: a STUN server that does not answer holds it for up to 40 s in some browsers. */
const GATHER_WITHIN_MS = 3_000;

/** ICE and DTLS together; half of the server's 30 s, so that the page speaks first. */
const CONNECT_WITHIN_MS = 15_000;

/** The browser's jitter buffer holds the last sound this long, ms; well below the 700 ms after which the server closes. */
const LAST_SOUND_MS = 350;

/** @typedef {"pending" | "active" | "done" | "closed" | "failed"} Step */

/**
 * Events: `progress`, `message` (detail: text), `remoteclose` (the other side said goodbye), `lost` (ICE gave up),
 * `interrupted`, `restored`, `candidatefailed` (detail: Problem).
 */
export class Peer extends EventTarget {
  #pc;
  #channel;
  #id;
  #path;
  #candidates;
  #offerStep = "pending";
  #closed = false;
  #opened = false;
  #senders = new Map();

  /**
   * @param {RTCConfiguration} configuration
   * @param {{audio?: MediaStreamTrack, video?: MediaStreamTrack}} tracks
   * @param {{path: string, id: string, candidates: "complete" | "trickle" | "none"}} session `candidates`: how the server gets
   * ours; `none` leaves it to peer-reflexive checks
   */
  constructor(configuration, tracks, { path, id, candidates }) {
    super();
    this.#path = path;
    this.#candidates = candidates;
    this.#id = id;
    this.#pc = new RTCPeerConnection(configuration);
    for (const [kind, track] of Object.entries(tracks)) {
      if (track) this.#senders.set(kind, this.#pc.addTransceiver(track, { direction: "sendrecv" }).sender);
    }
    this.#channel = this.#pc.createDataChannel("text");
    this.#channel.onopen = () => {
      this.#opened = true;
      this.#emit("progress");
    };
    this.#channel.onmessage = ({ data }) => this.#emit("message", String(data));
    this.#channel.onclose = () => {
      this.#emit("progress");
      this.#emit("remoteclose");
    };
    this.#pc.oniceconnectionstatechange = () => this.#emit("progress");
    this.#pc.onconnectionstatechange = () => this.#onConnectionState();
  }

  /**
   * Offers and applies the answer.
   * @returns {Promise<string | undefined>} the resume token
   */
  async offer(resume, signal) {
    const candidates = this.#candidates;
    this.#offerStep = "active";
    this.#emit("progress");
    const session = { id: this.#id, signal };
    try {
      if (candidates === "trickle") {
        this.#pc.onicecandidate = ({ candidate }) => {
          if (!candidate?.candidate || this.#closed) return;
          postCandidate(this.#path, { ...session, candidate }).catch((error) => {
            if (!signal.aborted) this.#emit("candidatefailed", Problem.from(error));
          });
        };
      }
      await this.#pc.setLocalDescription();
      if (candidates === "complete") await this.#gathered();
      const description = this.#pc.localDescription;
      const sdp = candidates === "none" ? withoutCandidates(description.sdp) : description.sdp;
      const answer = await postOffer(this.#path, { ...session, description: { type: description.type, sdp }, resume });
      await this.#pc.setRemoteDescription({ type: answer.type, sdp: answer.sdp });
      this.#offerStep = "done";
      return answer.resume;
    } catch (error) {
      this.#offerStep = "failed";
      throw error;
    } finally {
      this.#emit("progress");
    }
  }

  /** Resolves when ICE and DTLS are up; else rejects with `ice_failed` or `dtls_failed`, naming the server's UDP ports. */
  connected(signal) {
    return new Promise((resolve, reject) => {
      const settle = (done, value) => {
        clearTimeout(timer);
        this.removeEventListener("progress", look);
        signal.removeEventListener("abort", aborted);
        done(value);
      };
      const fail = () => {
        const code = this.steps().ice === "done" ? "dtls_failed" : "ice_failed";
        settle(reject, new Problem(code, { udp: this.serverPorts() }));
      };
      const look = () => {
        if (this.#pc.connectionState === "connected") settle(resolve);
        else if (this.#pc.connectionState === "failed") fail();
      };
      const aborted = () => settle(reject, signal.reason);
      const timer = setTimeout(fail, CONNECT_WITHIN_MS);
      this.addEventListener("progress", look);
      signal.addEventListener("abort", aborted, { once: true });
      look();
    });
  }

  /** @returns {{offer: Step, ice: Step, dtls: Step, channel: Step}} */
  steps() {
    const pc = this.#pc;
    const ice = { new: "pending", checking: "active", connected: "done", completed: "done" }[pc.iceConnectionState] ?? "failed";
    const dtlsStates = { connected: "done", failed: "failed", closed: "failed" };
    const dtls = dtlsStates[pc.connectionState] ?? (ice === "done" ? "active" : "pending");
    const channelStates = { open: "done", connecting: dtls === "done" ? "active" : "pending" };
    return {
      offer: this.#offerStep,
      ice: this.#offerStep === "done" ? ice : "pending",
      // A DTLS failure behind a failed ICE path is not news.
      dtls: ice === "failed" ? "pending" : dtls,
      channel: channelStates[this.#channel.readyState] ?? (this.#opened ? "closed" : "pending"),
    };
  }

  /** What comes back, as one stream. */
  remoteStream() {
    return new MediaStream(this.#pc.getReceivers().map(({ track }) => track));
  }

  /** Swaps what is sent without a new offer. */
  replaceTrack(kind, track) {
    return this.#senders.get(kind)?.replaceTrack(track);
  }

  /** Sends a text over the data channel; false when it is not open. */
  send(text) {
    if (this.#channel.readyState !== "open") return false;
    this.#channel.send(text);
    return true;
  }

  /** What the browser keeps between the network and the ear is its own: it hears of interruptions by silence. */
  forget() {}

  /** Resolves when the last sound that came has been heard. */
  playedOut() {
    return new Promise((resolve) => setTimeout(resolve, LAST_SOUND_MS));
  }

  stats() {
    return this.#pc.getStats();
  }

  /** @returns {Promise<{figures: import("./stats.js").Figures, memory: object}>} */
  async figures(memory) {
    return summarise((await this.stats()).values(), memory);
  }

  /** The address:port pairs that the answer named, which is what a firewall must let through. */
  serverPorts() {
    return udpCandidates(this.#pc.remoteDescription?.sdp ?? "");
  }

  /** Both descriptions without their secrets. */
  descriptions() {
    const clean = (sdp) => sdp?.replace(/^a=(ice-pwd|crypto|fingerprint):.*$/gm, "a=$1:removed").split(/\r?\n/);
    return { offer: clean(this.#pc.localDescription?.sdp), answer: clean(this.#pc.remoteDescription?.sdp) };
  }

  states() {
    const { connectionState, iceConnectionState, iceGatheringState, signalingState } = this.#pc;
    return { connectionState, iceConnectionState, iceGatheringState, signalingState, channel: this.#channel.readyState };
  }

  close() {
    this.#closed = true;
    this.#pc.close();
  }

  async #gathered() {
    if (this.#pc.iceGatheringState === "complete") return;
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, GATHER_WITHIN_MS);
      this.#pc.addEventListener("icegatheringstatechange", () => {
        if (this.#pc.iceGatheringState !== "complete") return;
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #onConnectionState() {
    this.#emit("progress");
    const event = { connected: "restored", disconnected: "interrupted", failed: "lost", closed: "remoteclose" };
    const name = event[this.#pc.connectionState];
    if (name) this.#emit(name);
  }

  #emit(name, detail) {
    if (!this.#closed) this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** The offer as a client sends it that never waits for candidates. */
export function withoutCandidates(sdp) {
  return sdp.replace(/^a=(candidate:.*|end-of-candidates)\r?\n/gm, "");
}

/** `address:port` of every UDP candidate in an SDP (RFC 8839, 5.1), each once. */
export function udpCandidates(sdp) {
  const found = sdp.matchAll(/^a=candidate:\S+ \d+ udp \d+ (\S+) (\d+) /gim);
  return [...new Set([...found].map(([, address, port]) => (address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`)))];
}
