// Runs in the page: a plain client of the offer route, as FastRTC's users write it, with the instruments to judge what comes
// back. Injected before the page's own scripts; the page is empty and on the server's origin, so no CORS rule is in play.
"use strict";

globalThis.client = (() => {
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const until = async (what, limitMs, test) => {
    const deadline = performance.now() + limitMs;
    for (;;) {
      const value = test();
      if (value) return value;
      if (performance.now() > deadline) throw new Error(`${what}: not within ${limitMs} ms`);
      await sleep(20);
    }
  };

  // Long enough to tell 440 Hz from its neighbours by 6 Hz, short enough (0.17 s) to follow a change of tone.
  const FFT_SIZE = 8192;

  class Ear {
    constructor(context, node) {
      this.rate = context.sampleRate;
      this.analyser = new AnalyserNode(context, { fftSize: FFT_SIZE, smoothingTimeConstant: 0, minDecibels: -140 });
      node.connect(this.analyser);
    }
    // Level of everything (RMS, dBFS), the strongest frequency, and how far the rest lies under the tone (power ratio, dB).
    measure(hz) {
      const samples = new Float32Array(FFT_SIZE);
      this.analyser.getFloatTimeDomainData(samples);
      const rms = Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / FFT_SIZE);
      const bins = new Float32Array(FFT_SIZE / 2);
      this.analyser.getFloatFrequencyData(bins);
      const width = this.rate / FFT_SIZE;
      let [peak, tone, rest] = [0, 0, 1e-14];
      bins.forEach((db, i) => {
        if (db > bins[peak]) peak = i;
        // The Blackman window spreads a tone over six bins; 60 Hz also holds the codec's side lobes. Below 50 Hz is no sound.
        if (Math.abs(i * width - hz) <= 60) tone += 10 ** (db / 10);
        else if (i * width > 50) rest += 10 ** (db / 10);
      });
      return { peak_hz: peak * width, level_db: 20 * Math.log10(rms + 1e-9), over_rest_db: 10 * Math.log10(tone / rest) };
    }
  }

  class Voice {
    constructor() {
      this.context = new AudioContext({ sampleRate: 48000 });
      this.oscillator = new OscillatorNode(this.context, { frequency: 440 });
      const gain = new GainNode(this.context, { gain: 0.25 });
      const out = new MediaStreamAudioDestinationNode(this.context, { channelCount: 1 });
      this.oscillator.connect(gain).connect(out);
      this.oscillator.start();
      this.stream = out.stream;
      this.mouth = new Ear(this.context, gain);
    }
    hear(stream) {
      // Chromium decodes a remote track only when an element plays it; the analyser then gets it from the stream.
      const player = new Audio();
      player.muted = true;
      player.srcObject = stream;
      player.play().catch(() => {});
      this.ear = new Ear(this.context, new MediaStreamAudioSourceNode(this.context, { mediaStream: stream }));
    }
    async tone(hz) {
      this.oscillator.frequency.value = hz;
      const started = performance.now();
      const heard = () => this.ear && Math.abs(this.ear.measure(hz).peak_hz - hz) < 15 && this.ear.measure(hz).level_db > -60;
      await until(`hearing ${hz} Hz`, 15000, heard);
      const switch_ms = performance.now() - started;
      // The window must hold nothing of the tone before, nor of the decoder's start.
      await sleep(700);
      // A machine that stood still for a moment is heard in one window, and what is wrong with the sound in all of them.
      const windows = [];
      for (let n = 0; n < 5; n++) {
        windows.push(this.ear.measure(hz));
        await sleep(200);
      }
      windows.sort((a, b) => a.level_db - b.level_db);
      return { hz, switch_ms, sent: this.mouth.measure(hz), received: windows[2] };
    }
  }

  class Picture {
    constructor() {
      this.canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 240 });
      this.paint = this.canvas.getContext("2d");
      this.colour = [0, 0, 0];
      this.frame = 0;
      // A moving bar makes every frame differ, as a camera's do; the middle, which is measured, has the colour alone.
      this.timer = setInterval(() => {
        this.paint.fillStyle = `rgb(${this.colour})`;
        this.paint.fillRect(0, 0, 320, 240);
        this.paint.fillStyle = "white";
        this.paint.fillRect((this.frame++ * 7) % 320, 0, 16, 40);
      }, 50);
      this.stream = this.canvas.captureStream(20);
      this.screen = Object.assign(document.createElement("video"), { muted: true, autoplay: true, playsInline: true });
      this.probe = Object.assign(document.createElement("canvas"), { width: 16, height: 16 }).getContext("2d", { willReadFrequently: true });
    }
    see(stream) {
      this.screen.srcObject = stream;
      this.screen.play().catch(() => {});
    }
    middle() {
      const { videoWidth: width, videoHeight: height } = this.screen;
      if (!width) return null;
      this.probe.drawImage(this.screen, width * 0.375, height * 0.375, width * 0.25, height * 0.25, 0, 0, 16, 16);
      const { data } = this.probe.getImageData(0, 0, 16, 16);
      const sum = [0, 0, 0];
      for (let i = 0; i < data.length; i += 4) for (let c = 0; c < 3; c++) sum[c] += data[i + c];
      return sum.map((value) => Math.round(value / 256));
    }
    async show(colour) {
      this.colour = colour;
      const started = performance.now();
      const near = () => {
        const seen = this.middle();
        return seen && seen.every((value, i) => Math.abs(value - colour[i]) <= 48) && seen;
      };
      const received = await until(`seeing ${colour}, not ${this.middle()}`, 15000, near);
      return { sent: colour, received, ms: performance.now() - started };
    }
  }

  const post = async (url, body) => {
    const response = await fetch(`${url}/webrtc/offer`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const text = await response.text();
    try {
      return { status: response.status, body: JSON.parse(text) };
    } catch {
      throw new Error(`${response.status}, not JSON: ${text}`);
    }
  };

  // relay_only: by the TURN servers that the service names, and no other way.
  // shape: "complete" waits for gathering, "trickle" posts each candidate by itself, "none" sends no candidate at all.
  async function connect({ url, id, shape, audio, video, relay_only }) {
    const configuration = relay_only
      ? { ...(await (await fetch(`${url}/rtc_configuration`)).json()), iceTransportPolicy: "relay" }
      : { iceServers: [] };
    const pc = new RTCPeerConnection(configuration);
    const call = { pc, messages: [], states: [], trickled: [], voice: null, picture: null };
    const started = performance.now();
    const at = () => Math.round(performance.now() - started);
    pc.onconnectionstatechange = () => call.states.push([pc.connectionState, at()]);
    pc.ontrack = ({ track, streams }) => {
      const stream = streams[0] ?? new MediaStream([track]);
      call.streamed = streams.length > 0;
      (track.kind === "audio" ? call.voice.hear : call.picture.see).call(track.kind === "audio" ? call.voice : call.picture, stream);
    };
    if (audio) {
      call.voice = new Voice();
      call.voice.stream.getTracks().forEach((track) => pc.addTrack(track, call.voice.stream));
    }
    if (video) {
      call.picture = new Picture();
      const transceiver = pc.addTransceiver(call.picture.stream.getVideoTracks()[0], { direction: "sendrecv", streams: [call.picture.stream] });
      const codecs = RTCRtpSender.getCapabilities("video").codecs.filter(({ mimeType }) => mimeType.toLowerCase() === `video/${video}`.toLowerCase());
      if (!codecs.length) throw new Error(`this browser has no ${video}`);
      transceiver.setCodecPreferences(codecs);
    }
    call.channel = pc.createDataChannel("text");
    call.channel.onmessage = ({ data }) => call.messages.push(data);
    call.channel.onclose = () => call.states.push(["channel closed", at()]);

    const replies = [];
    if (shape === "trickle") {
      // May overtake the offer, as it does in the snippet that FastRTC's users copy.
      pc.onicecandidate = ({ candidate }) => {
        if (!candidate) return;
        call.trickled.push(candidate.candidate);
        replies.push(post(url, { candidate: candidate.toJSON(), webrtc_id: id, type: "ice-candidate" }));
      };
    }
    const offer = await pc.createOffer();
    await pc.setLocalDescription(offer);
    if (shape === "complete" && pc.iceGatheringState !== "complete") {
      await new Promise((resolve) => { pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && resolve(); });
    }
    const { sdp, type } = shape === "complete" ? pc.localDescription : offer;
    const offered = (sdp.match(/^a=candidate:/gm) ?? []).length;
    const offered_ms = at();
    const answer = await post(url, { sdp, type, webrtc_id: id });
    const answered_ms = at();
    if (answer.body.status === "failed" || answer.status !== 200) throw new Error(`refused: ${JSON.stringify(answer)}`);
    await pc.setRemoteDescription(answer.body);
    await until(`connected, states ${JSON.stringify(call.states)}`, 15000, () => pc.connectionState === "connected" && call.channel.readyState === "open");
    call.replies = await Promise.all(replies);
    globalThis.call = call;
    return {
      offered, offered_ms, answered_ms, connected_ms: at(), streamed: call.streamed ?? null, resume: answer.body.resume ?? null,
      candidates_answered: (answer.body.sdp.match(/^a=candidate:/gm) ?? []).length,
      trickled: call.trickled, replies: call.replies, way: relay_only ? await way(pc) : null,
    };
  }

  // Our end of the pair of candidates that media takes: of which type it is, and how its TURN server is talked to.
  async function way(pc) {
    const report = await pc.getStats();
    const all = [...report.values()];
    const pair = report.get(all.find(({ type }) => type === "transport")?.selectedCandidatePairId);
    const local = report.get(pair?.localCandidateId);
    return { candidate: local?.candidateType ?? null, protocol: local?.relayProtocol ?? null };
  }

  // Sends a text and waits for the message that answers it.
  async function say(text) {
    const before = call.messages.length;
    call.channel.send(text);
    await until(`an answer to ${text}`, 10000, () => call.messages.length > before);
    return call.messages.slice(before);
  }

  // Waits for the server to end the call, however it says so.
  async function closed(limitMs) {
    const over = () => call.states.some(([state]) => ["channel closed", "closed", "failed"].includes(state));
    await until(`the end, states ${JSON.stringify(call.states)}`, limitMs, over);
    return { states: call.states, messages: call.messages };
  }

  // What the browser counted on its inbound streams, by kind.
  async function inbound() {
    const report = [...(await call.pc.getStats()).values()];
    return Object.fromEntries(report.filter(({ type }) => type === "inbound-rtp").map((stream) => [stream.kind, {
      codec: report.find(({ id }) => id === stream.codecId)?.mimeType ?? null,
      packets: stream.packetsReceived, lost: stream.packetsLost, frames: stream.framesDecoded ?? null, keyframes: stream.keyFramesDecoded ?? null,
      concealed: stream.concealedSamples ?? null, samples: stream.totalSamplesReceived ?? null,
    }]));
  }

  return { connect, say, closed, inbound, tone: (hz) => call.voice.tone(hz), show: (colour) => call.picture.show(colour) };
})();
