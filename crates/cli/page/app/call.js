/**
 * A call: one session id over one or, while it moves, two connections, WebRTC's or a WebSocket's.
 *
 * Speaks FastRTC's messages, which are the same on both. When the server asks to `reconnect`, or the path is lost, the same id is
 * offered again with its resume token; the old connection stays until the new one stands.
 */
import { Peer } from "./peer.js";
import { Problem, pause } from "./problem.js";
import { postInputs, postTrigger, readSession, rtcConfiguration } from "./signalling.js";
import { SocketPeer } from "./socket.js";

/** Waits between tries, ms. The sum outlasts the server's own clearing up after a client that vanished. */
const BACK_OFF_MS = [500, 1_000, 2_000, 4_000, 8_000];

/** A server may take a connection down before its last message is read: the message decides the reason. */
const LAST_WORDS_MS = 600;

/** An id that is still held frees itself; nothing else gets better by asking again at the start of a call. */
const WORTH_WAITING_AT_START = new Set(["connection_already_exists"]);

/** While moving, the fleet may be between two pods. */
const WORTH_WAITING_IN_CALL = new Set([
  ...WORTH_WAITING_AT_START,
  "draining",
  "no_capacity",
  "upstream_unavailable",
  "rate_limited",
  "unreachable",
  "ice_failed",
  "socket_failed",
  "socket_closed",
]);

/**
 * Waits until it is asked, and asked again, which worker has the session, ms. A session that moves is its new worker's in the
 * fleet's eyes a moment after its client has arrived there, and until then its old one may be gone.
 */
const LOCATE_AFTER_MS = [0, 1_500, 2_500];

/** Nothing was reachable: the network is to blame, not what was asked. */
const AWAY = new Set(["unreachable", "ice_failed", "socket_failed", "socket_closed"]);

/** @typedef {"idle" | "offering" | "connecting" | "connected" | "interrupted" | "reconnecting" | "ending" | "ended" | "failed"} State */

/**
 * How to reach a handler.
 * @typedef {object} Wanted
 * @property {"webrtc" | "websocket"} transport
 * @property {string} path
 * @property {{audio?: MediaStreamTrack, video?: MediaStreamTrack}} tracks
 * @property {"complete" | "trickle" | "none"} candidates
 * @property {"pcm16" | "mulaw"} codec of a WebSocket
 * @property {{input: number, output: number}} [rates] of the handler, Hz
 * @property {import("./sound.js").Sound} sound
 */

/**
 * Events: `state` (detail: {state, reason?, problem?}), `progress`, `stream` (detail: MediaStream), `worker` (detail: its name),
 * `message` (detail: {from: "server" | "page" | "you", kind, text}).
 */
export class Call extends EventTarget {
  state = "idle";
  id = "";
  /** The worker that serves the call, once it is known. */
  worker;
  /** @type {Wanted} */
  #wanted;
  #configuration = {};
  #resume;
  #peer;
  #coming;
  #abort = new AbortController();
  #outputs;
  #handlerError;
  #moving = false;
  /** While moving: the server has closed the old connection, because it knows that the new one is up, or because all is over. */
  #isLeft = false;

  /**
   * Starts; resolves when connected or failed (see the `state` event), never rejects.
   * @param {Wanted} wanted
   */
  async start(wanted) {
    this.#wanted = wanted;
    this.id = freshId();
    this.#set("offering");
    if (wanted.transport === "webrtc") this.#configuration = await rtcConfiguration(wanted.path, this.#abort.signal);
    await this.#establish(WORTH_WAITING_AT_START);
  }

  /** Hangs up. */
  stop() {
    this.#close("ended", { reason: "you" });
  }

  /** Sends a line over the data channel; false when there is none. */
  say(text) {
    const sent = this.#peer?.send(text) ?? false;
    if (sent) this.#note("you", "sent", text);
    return sent;
  }

  /** Sends arguments to the handler by HTTP. */
  async sendInputs(inputs) {
    try {
      await postInputs(this.#wanted.path, { inputs, id: this.id, signal: this.#abort.signal });
      this.#note("you", "input", JSON.stringify(inputs));
    } catch (error) {
      if (!this.#abort.signal.aborted) this.#note("page", "warning", `The input was not taken (${Problem.from(error).message}).`);
    }
  }

  /** Has the handler reply now, without a pause. */
  async trigger() {
    try {
      await postTrigger(this.#wanted.path, { id: this.id, signal: this.#abort.signal });
      this.#note("you", "trigger", "");
    } catch (error) {
      if (!this.#abort.signal.aborted) this.#note("page", "warning", `The handler was not asked to reply (${Problem.from(error).message}).`);
    }
  }

  replaceTrack(kind, track) {
    this.#wanted = { ...this.#wanted, tracks: { ...this.#wanted.tracks, [kind]: track } };
    return this.#peer?.replaceTrack(kind, track);
  }

  /** The connection whose states are of interest: the coming one until it stands. */
  get peer() {
    return this.#coming ?? this.#peer;
  }

  get live() {
    return !["idle", "ended", "failed"].includes(this.state);
  }

  async #establish(worthWaiting) {
    const { signal } = this.#abort;
    for (let attempt = 0; ; attempt++) {
      let peer;
      try {
        // The constructor itself refuses a bad ICE server.
        peer = this.#connection();
        this.#coming = peer;
        this.#listen(peer);
        const resume = await peer.offer(this.#resume, signal);
        // A token is good once: the used one must not be sent again.
        this.#resume = resume;
        if (this.state === "offering") this.#set("connecting");
        await peer.connected(signal);
        this.#promote(peer);
        return;
      } catch (error) {
        if (signal.aborted) {
          peer?.close();
          return;
        }
        const problem = Problem.from(error);
        const wait = problem.facts.retryAfterMs ?? BACK_OFF_MS[attempt];
        if (!worthWaiting.has(problem.code) || attempt >= BACK_OFF_MS.length) {
          this.#giveUp(peer, problem);
          return;
        }
        peer?.close();
        this.#note("page", "retry", `${problem.code}: next try in ${(wait / 1000).toFixed(1)} s (${attempt + 1} of ${BACK_OFF_MS.length}).`);
        try {
          await pause(wait, signal);
        } catch {
          return;
        }
      }
    }
  }

  #connection() {
    const { transport, path, tracks, candidates, codec, rates, sound } = this.#wanted;
    if (transport === "websocket") return new SocketPeer(sound, tracks, { path, id: this.id, codec, rates });
    return new Peer(this.#configuration, tracks, { path, id: this.id, candidates });
  }

  #promote(peer) {
    const old = this.#peer;
    this.#peer = peer;
    this.#coming = undefined;
    this.#moving = false;
    this.#isLeft = false;
    old?.close();
    this.#set("connected");
    this.#emit("stream", peer.remoteStream());
    this.#locate(peer);
  }

  /** Which worker of a fleet serves the call; a worker that stands alone has no name. */
  async #locate(peer) {
    const { signal } = this.#abort;
    for (const wait of LOCATE_AFTER_MS) {
      try {
        await pause(wait, signal);
      } catch {
        return;
      }
      if (peer !== this.#peer || !this.#resume || this.#moving) return;
      const session = await readSession(this.#wanted.path, { id: this.id, token: this.#resume, signal });
      if (peer !== this.#peer || signal.aborted) return;
      if (!session) continue;
      if (typeof session.worker !== "string") return;
      if (session.worker !== this.worker) {
        this.worker = session.worker;
        this.#emit("worker", session.worker);
      }
    }
  }

  /** A move that came to nothing leaves the call where it was, if that still stands. */
  #giveUp(coming, problem) {
    const was = this.#moving;
    if (was && this.#isLeft) {
      coming?.close();
      this.#finish("server_closed");
      return;
    }
    if (was && this.#peer.states().connectionState === "connected") {
      coming?.close();
      this.#coming = undefined;
      this.#moving = false;
      this.#note("page", "warning", `The move did not work (${problem.message}). The call goes on where it was.`);
      this.#set("connected");
      return;
    }
    const away = was && AWAY.has(problem.code);
    this.#fail(away ? new Problem("connection_lost", problem.facts) : problem);
  }

  #listen(peer) {
    const current = () => peer === this.#peer && this.live && this.state !== "ending";
    peer.addEventListener("progress", () => this.#emit("progress"));
    peer.addEventListener("message", ({ detail }) => this.#receive(detail, peer));
    peer.addEventListener("candidatefailed", ({ detail }) => this.#note("page", "warning", `A candidate was refused (${detail.message}).`));
    peer.addEventListener("interrupted", () => current() && !this.#moving && this.#set("interrupted"));
    peer.addEventListener("restored", () => current() && this.state === "interrupted" && this.#set("connected"));
    peer.addEventListener("lost", () => current() && this.#move("connection_lost", 0));
    peer.addEventListener("remoteclose", () => {
      if (!current() || this.#moving) return;
      setTimeout(() => {
        if (current() && !this.#moving) this.#finish("server_closed");
      }, LAST_WORDS_MS);
    });
  }

  /** Offers the same id again; the present connection goes on meanwhile. */
  async #move(reason, afterMs) {
    if (this.#moving || this.state === "ending") return;
    this.#moving = true;
    this.#note("page", "reconnect", `${reason}: offering session ${this.id} again.`);
    this.#set("reconnecting", { reason });
    try {
      await pause(afterMs, this.#abort.signal);
    } catch {
      return;
    }
    await this.#establish(WORTH_WAITING_IN_CALL);
  }

  #receive(text, peer) {
    const message = parseMessage(text);
    this.#note("server", message.kind, message.text);
    const act = {
      end_stream: () => this.#playOut(message.text),
      log: () => message.text === "pause_detected" && this.#peer?.forget(),
      update_connection: () => {
        if (message.text !== "closed" || this.state === "ending") return;
        if (this.#moving && peer === this.#peer) this.#isLeft = true;
        else this.#finish("server_closed");
      },
      error: () => (this.#handlerError = message.text),
      fetch_output: () => this.#readOutputs(),
      reconnect: () => {
        if (message.data?.resume) this.#resume = String(message.data.resume);
        const afterMs = Math.min(Math.max(Number(message.data?.after_ms) || 0, 0), 60_000);
        this.#move(String(message.data?.reason ?? "reconnect"), afterMs);
      },
    };
    if (Object.hasOwn(act, message.kind)) act[message.kind]();
  }

  /** The event stream stays open from the first output on; it resumes by itself and stops at the server's 204. */
  #readOutputs() {
    if (this.#outputs) return;
    const outputs = new EventSource(`${this.#wanted.path}/outputs?webrtc_id=${encodeURIComponent(this.id)}`);
    this.#outputs = outputs;
    outputs.addEventListener("output", ({ data }) => this.#note("server", "output", data));
    outputs.onerror = () => {
      if (outputs.readyState === EventSource.CLOSED) this.#note("page", "warning", "This server gives no additional outputs at /outputs.");
    };
  }

  /** The handler has ended it: what is still on its way to the ear is heard first. */
  async #playOut(text) {
    if (this.state === "ending" || !this.live) return;
    if (this.#handlerError === undefined) {
      this.#set("ending");
      await this.peer?.playedOut();
    }
    this.#finish("end_stream", text);
  }

  #finish(reason, text) {
    if (this.#handlerError !== undefined) this.#fail(new Problem("handler_error", { detail: this.#handlerError }));
    else this.#close("ended", { reason, text });
  }

  #fail(problem) {
    this.#close("failed", { problem });
  }

  #close(state, detail) {
    if (!this.live) return;
    // The states are told before the connections go, so that the page can still read how far they got.
    this.#set(state, detail);
    this.#abort.abort();
    this.#outputs?.close();
    this.#coming?.close();
    this.#peer?.close();
  }

  #set(state, detail = {}) {
    this.state = state;
    this.#emit("state", { state, ...detail });
  }

  #note(from, kind, text) {
    this.#emit("message", { from, kind, text });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/**
 * A data-channel text as {kind, text, data}. `error` and `warning` carry `message`, all others `data`; what is not a
 * message of the protocol is shown as it came.
 */
export function parseMessage(text) {
  let json;
  try {
    json = JSON.parse(text);
  } catch {
    return { kind: "text", text };
  }
  if (typeof json?.type !== "string") return { kind: "text", text };
  const data = json.data;
  const shown = json.message ?? data ?? "";
  const empty = Array.isArray(shown) && shown.length === 0;
  return { kind: json.type, text: empty ? "" : typeof shown === "string" ? shown : JSON.stringify(shown), data };
}

/** Eleven base-36 characters, as FastRTC's own clients make them, from the better source of chance. */
function freshId() {
  const bytes = crypto.getRandomValues(new Uint8Array(11));
  return Array.from(bytes, (byte) => (byte % 36).toString(36)).join("");
}
