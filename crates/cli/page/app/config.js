/** What the server offers, and what the person last chose. */

/**
 * @typedef {object} Handler
 * @property {string} name
 * @property {string} title
 * @property {string} path
 * @property {string} modality
 * @property {string} description
 * @property {boolean} pauses it replies when somebody has paused
 * @property {{input: number, output: number} | undefined} rates of a WebSocket, Hz; without them only WebRTC reaches it
 */

/** @returns {Promise<{handlers: Handler[], default: string}>} */
export async function loadConfig() {
  const reply = await fetch("/_demo/config.json", { cache: "no-store" });
  if (!reply.ok) throw new Error(`HTTP ${reply.status}`);
  const config = await reply.json();
  const handlers = (config.handlers ?? []).map(({ name, title, path, modality, description, replies, rates }) => ({
    name: String(name),
    title: String(title ?? name),
    path: String(path ?? "").replace(/\/+$/, ""),
    modality: String(modality ?? "audio"),
    description: String(description ?? ""),
    pauses: replies === "on-pause",
    rates: [rates?.input, rates?.output].every(Number.isInteger) ? rates : undefined,
  }));
  return { handlers, default: config.default };
}

/** @param {Handler} handler */
export const takesVideo = (handler) => handler.modality.includes("video");

/** @param {Handler} handler */
export const takesAudio = (handler) => handler.modality !== "video";

const KEY = "streamfleet.demo";
const CHOICES = {
  handler: () => true,
  transport: (value) => ["webrtc", "websocket"].includes(value),
  source: (value) => ["microphone", "tone"].includes(value),
  picture: (value) => ["off", "camera", "pattern"].includes(value),
  candidates: (value) => ["complete", "trickle", "none"].includes(value),
  codec: (value) => ["pcm16", "mulaw"].includes(value),
};

/** Choices from the address (`?handler=echo&source=tone`) before those of the last visit. */
export function loadChoices() {
  let stored = {};
  try {
    stored = JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    // Storage may be switched off, or hold something old: defaults do.
  }
  const asked = Object.fromEntries(new URLSearchParams(location.search));
  const valid = (from) => Object.fromEntries(Object.entries(CHOICES).filter(([key, ok]) => typeof from[key] === "string" && ok(from[key])).map(([key]) => [key, from[key]]));
  return { ...valid(stored), ...valid(asked) };
}

export function saveChoices(choices) {
  try {
    localStorage.setItem(KEY, JSON.stringify(choices));
  } catch {
    // See loadChoices.
  }
}
