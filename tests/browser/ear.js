// Runs in the demo page before its own scripts: hears what its microphone gives and what its sound element plays, on one clock,
// and notes when the page shows a message or changes its state. Changes nothing that the page can see.
"use strict";

globalThis.ear = (() => {
  const RATE = 16000;
  const context = new AudioContext({ sampleRate: RATE });
  const [sent, received] = [[], []];
  const marks = [];
  const tracks = [];
  const sources = [];
  let node, began;

  // Seconds heard so far: what arrives with a message was heard with it, however late both are handled.
  const now = () => (received.length * 256) / RATE;

  // Posts both inputs, a block at a time: input 0 is what is sent, input 1 what is received.
  const worklet = `registerProcessor("ear", class extends AudioWorkletProcessor {
    blocks = [new Float32Array(256), new Float32Array(256)];
    filled = 0;
    process(inputs) {
      inputs.forEach(([samples], i) => this.blocks[i].set(samples ?? new Float32Array(128), this.filled));
      this.filled += 128;
      if (this.filled === 256) {
        this.port.postMessage(this.blocks);
        this.blocks = [new Float32Array(256), new Float32Array(256)];
        this.filled = 0;
      }
      return true;
    }
  })`;
  const ready = context.audioWorklet.addModule(URL.createObjectURL(new Blob([worklet], { type: "text/javascript" }))).then(() => {
    node = new AudioWorkletNode(context, "ear", { numberOfInputs: 2, numberOfOutputs: 1, channelCount: 1, channelCountMode: "explicit" });
    node.port.onmessage = ({ data }) => {
      began ??= performance.now();
      sent.push(data[0]);
      received.push(data[1]);
    };
    node.connect(context.destination);
  });
  const listen = async (stream, input) => {
    await ready;
    if (!stream?.getAudioTracks().length) return;
    sources[input]?.disconnect();
    sources[input] = new MediaStreamAudioSourceNode(context, { mediaStream: stream });
    sources[input].connect(node, 0, input);
  };

  const devices = navigator.mediaDevices;
  const getUserMedia = devices.getUserMedia.bind(devices);
  devices.getUserMedia = async (constraints) => {
    const stream = await getUserMedia(constraints);
    tracks.push(...stream.getTracks());
    listen(stream, 0);
    return stream;
  };
  const { get, set } = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, "srcObject");
  Object.defineProperty(HTMLMediaElement.prototype, "srcObject", {
    get,
    set(stream) {
      set.call(this, stream);
      if (this.id === "sound-out") listen(stream, 1);
    },
  });

  addEventListener("DOMContentLoaded", () => {
    const messages = document.getElementById("messages");
    const state = document.getElementById("state");
    new MutationObserver((changes) => {
      for (const { addedNodes } of changes) for (const item of addedNodes) {
        const text = item.querySelector(".text").textContent;
        marks.push({ at: now(), from: item.dataset.from, what: item.dataset.kind === "log" ? text : item.dataset.kind, text });
      }
    }).observe(messages, { childList: true });
    new MutationObserver(() => marks.push({ at: now(), from: "page", what: `state ${state.dataset.state}`, text: state.textContent })).observe(state, { attributeFilter: ["data-state"] });
  });

  // Both recordings as 16-bit samples in base64: an evaluation's result is JSON.
  const packed = (blocks) => {
    const samples = Int16Array.from(blocks.flatMap((block) => [...block]), (x) => Math.max(-32768, Math.min(32767, x * 32768)));
    const bytes = new Uint8Array(samples.buffer);
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    return btoa(text);
  };
  // Seconds that passed without sound: a browser whose cores are busy plays and records nothing, and never makes up for it.
  const lost = () => (performance.now() - began) / 1000 - now();
  return {
    marks,
    lost,
    take: () => ({ rate: RATE, marks, tracks: tracks.map(({ readyState }) => readyState), sent: packed(sent), received: packed(received) }),
  };
})();
