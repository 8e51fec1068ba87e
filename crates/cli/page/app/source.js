/** Where the sent media comes from: microphone or tone, camera or a drawn test picture. */
import { Problem } from "./problem.js";

/** Whether this page may ask for a microphone at all (https, or http from the machine itself). */
export function devicesAllowed() {
  return globalThis.isSecureContext && Boolean(navigator.mediaDevices?.getUserMedia);
}

/** A source in use. @typedef {{track: MediaStreamTrack, stop: () => void}} Source */

/** @returns {Promise<Source>} */
export async function microphone(deviceId) {
  const wish = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: { ideal: 1 } };
  if (deviceId) wish.deviceId = { exact: deviceId };
  return device((await devices({ audio: wish })).getAudioTracks()[0]);
}

/** @returns {Promise<Source>} */
export async function camera() {
  const stream = await devices({ video: { width: { ideal: 640 }, height: { ideal: 360 }, frameRate: { ideal: 24, max: 30 } } });
  return device(stream.getVideoTracks()[0]);
}

const device = (track) => ({ track, stop: () => track.stop() });

/** Microphones with their names; names are empty until permission was given once. */
export async function microphones() {
  if (!devicesAllowed()) return [];
  const all = await navigator.mediaDevices.enumerateDevices();
  return all.filter(({ kind, deviceId }) => kind === "audioinput" && deviceId);
}

async function devices(constraints) {
  if (!devicesAllowed()) throw new Problem("insecure_context");
  try {
    return await navigator.mediaDevices.getUserMedia(constraints);
  } catch (error) {
    const problem = Problem.from(error);
    problem.facts.device = constraints.audio ? "microphone" : "camera";
    throw problem;
  }
}

/** Pictures per second of the test picture. */
const PICTURE_RATE = 15;

/** A drawn picture with a running clock, for machines without a camera. @returns {Source} */
export function testPicture() {
  const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 360 });
  const context = canvas.getContext("2d");
  const bars = ["#e8ecec", "#d8b14a", "#3aa6a0", "#4f9a5b", "#a8557f", "#c8553d", "#3b5f8a"];
  const draw = () => {
    const now = performance.now() / 1000;
    bars.forEach((colour, i) => {
      context.fillStyle = colour;
      context.fillRect((i * 640) / bars.length, 0, 640 / bars.length + 1, 270);
    });
    context.fillStyle = "#10202b";
    context.fillRect(0, 270, 640, 90);
    context.fillStyle = "#ffffff";
    context.fillRect(20 + ((now % 4) / 4) * 580, 262, 20, 16);
    context.font = "600 44px ui-monospace, monospace";
    context.fillText(`${now.toFixed(2)} s`, 24, 332);
  };
  draw();
  const timer = setInterval(draw, 1000 / PICTURE_RATE);
  const [track] = canvas.captureStream(PICTURE_RATE).getVideoTracks();
  const stop = () => {
    clearInterval(timer);
    track.stop();
  };
  return { track, stop };
}
