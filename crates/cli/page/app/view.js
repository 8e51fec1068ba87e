/** The document: finds its elements once and shows what it is told. Decides nothing. */
import { height } from "./trace.js";

const id = (name) => document.getElementById(name);

/** Messages that are kept; a handler that logs every frame must not fill the page's memory. */
const MESSAGES_MAX = 200;

/** A minute of seconds in a spark line. */
const SPARK_POINTS = 60;

export const elements = Object.fromEntries(
  [
    ["start", "start"], ["muteIn", "mute-in"], ["muteOut", "mute-out"], ["copy", "copy"], ["clear", "clear"],
    ["handler", "handler"], ["device", "device"], ["candidates", "candidates"], ["compose", "compose"],
    ["composeKind", "compose-kind"], ["composeText", "compose-text"], ["soundOut", "sound-out"], ["videoIn", "video-in"],
    ["videoOut", "video-out"], ["trace", "trace"], ["noticeClose", "notice-close"], ["source", "source"], ["picture", "picture"],
    ["transport", "transport"], ["codec", "codec"], ["trigger", "trigger"], ["panes", "panes"],
  ].map(([key, name]) => [key, id(name)]),
);

/** @param {string} state becomes `data-state` @param {string} title @param {string} detail */
export function showState(state, title, detail) {
  id("state").dataset.state = state;
  setText(id("state"), title);
  setText(id("state-detail"), detail);
}

/** @param {import("./advice.js").Advice & {code: string} | null} advice */
export function showNotice(advice) {
  const notice = id("notice");
  notice.hidden = !advice;
  if (!advice) return;
  notice.dataset.weight = advice.weight;
  notice.dataset.code = advice.code;
  setText(id("notice-title"), advice.title);
  id("notice-steps").replaceChildren(...advice.steps.map((step) => element("li", {}, step)));
}

/** Takes a notice away when what it tells is over; any other stays. */
export function clearNotice(code) {
  if (id("notice").dataset.code === code) showNotice(null);
}

/** @param {boolean} live a call is up or coming up */
export function showLive(live) {
  elements.start.dataset.live = live ? "yes" : "no";
  setText(id("start-label"), live ? "Stop" : "Start");
  const groups = [...elements.picture.querySelectorAll("input"), ...elements.transport.querySelectorAll("input")];
  for (const control of [elements.handler, elements.candidates, elements.codec, ...groups]) control.disabled = live;
  elements.muteIn.disabled = !live;
}

/**
 * What can be sent now.
 * @param {{messages: boolean, inputs: boolean}} ways texts beside the sound; arguments, by HTTP
 */
export function showWays({ messages, inputs }) {
  elements.composeText.disabled = !messages && !inputs;
  id("compose-send").disabled = elements.composeText.disabled;
  elements.trigger.disabled = !inputs;
}

/** @param {"webrtc" | "websocket"} transport which steps, figures and settings there are */
export function showTransport(transport) {
  for (const part of document.querySelectorAll("[data-transport]")) part.hidden = part.dataset.transport !== transport;
  // A WebSocket has no place for a client's texts.
  const message = elements.composeKind.querySelector('[value="message"]');
  message.disabled = transport === "websocket";
  elements.composeKind.value = message.disabled ? "input" : "message";
}

/** @param {"turns" | "messages"} pane */
export function showPane(pane) {
  choose("pane", pane);
  for (const name of ["turns", "messages"]) id(`pane-body-${name}`).hidden = name !== pane;
}

const STATUS_WORDS = { pending: "not yet", active: "in progress", done: "done", closed: "closed", failed: "failed" };

/** @param {Record<string, {status: string, detail: string}>} steps */
export function showSteps(steps) {
  for (const [name, { status, detail }] of Object.entries(steps)) {
    const item = id("steps").querySelector(`[data-step="${name}"]`);
    if (!item) continue;
    item.dataset.status = status;
    setText(item.querySelector(".step-detail"), detail || STATUS_WORDS[status]);
  }
}

/** @param {"in" | "out"} side @param {import("./sound.js").Level} level */
export function showLevel(side, level) {
  const meter = id(`level-${side}`);
  meter.firstElementChild.style.setProperty("--level", height(level.rmsDb).toFixed(3));
  const db = Math.round(level.rmsDb);
  if (meter.dataset.dbfs === String(db)) return;
  meter.dataset.dbfs = String(db);
  meter.setAttribute("aria-valuenow", String(Math.max(db, -60)));
  setText(id(`db-${side}`), db <= -60 ? "silent" : `${db} dBFS`.replace("-", "−"));
}

/** @param {number | null} seconds */
export function showClock(seconds) {
  const clock = id("clock");
  clock.hidden = seconds === null;
  if (seconds !== null) setText(clock, `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`);
}

const sparks = { rtt: [], jitter: [], loss: [] };

/** @param {import("./stats.js").Figures} figures */
export function showFigures(figures) {
  quantity("stat-rtt", figures.roundTripMs, "ms");
  quantity("stat-jitter", figures.jitterMs, "ms");
  quantity("stat-loss", percent(figures.lossDown), "%");
  spark("rtt", figures.roundTripMs, 5);
  spark("jitter", figures.jitterMs, 5);
  spark("loss", percent(figures.lossDown), 2);
  row("stat-loss-up", percent(figures.lossUp), "%");
  row("stat-buffer", figures.bufferMs, "ms");
  row("stat-concealed", percent(figures.concealed), "%");
  const kilobits = (bits) => (bits === undefined ? "—" : Math.round(bits / 1000));
  setText(id("stat-bits"), figures.bitsSent === undefined && figures.bitsBack === undefined ? "—" : `${kilobits(figures.bitsSent)} / ${kilobits(figures.bitsBack)} kbit/s`);
  const picture = figures.picture && `${figures.picture.width} × ${figures.picture.height}, ${Math.round(figures.picture.perSecond ?? 0)} a second`;
  setText(id("stat-codec"), [figures.codec?.replace(/^audio\//, ""), picture].filter(Boolean).join("; ") || "—");
  const { path } = figures;
  setText(id("stat-path"), path ? `${path.protocol} to ${path.address ?? "?"}:${path.port}` : "—");
}

/** @param {number | undefined} ms @param {string} note */
export function showLatency(ms, note) {
  quantity("stat-latency", ms, "ms");
  setText(id("stat-latency-note"), note);
}

/** @param {string | undefined} name of the worker that serves the call; a worker that stands alone has none */
export function showWorker(name) {
  id("row-worker").hidden = name === undefined;
  setText(id("stat-worker"), name ?? "—");
}

export function clearFigures() {
  showWorker(undefined);
  for (const points of Object.values(sparks)) points.length = 0;
  showFigures({});
  for (const name of Object.keys(sparks)) id(`spark-${name}`).replaceChildren();
}

/** @param {{from: string, kind: string, text: string}} message @param {number} seconds since the start of the call */
export function showMessage({ from, kind, text }, seconds) {
  const list = id("messages");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const who = { server: "from the server", you: "from you", page: "from this page" }[from];
  list.append(
    element("li", { "data-from": from, "data-kind": kind },
      element("span", { class: "kind" }, kind),
      element("span", { class: "who" }, who),
      element("time", {}, `${seconds.toFixed(1)} s`),
      element("span", { class: "text" }, text)),
  );
  while (list.childElementCount > MESSAGES_MAX) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
  id("messages-empty").hidden = true;
}

export function clearMessages() {
  id("messages").replaceChildren();
  id("messages-empty").hidden = false;
}

/** @param {import("./config.js").Handler[]} handlers @param {string} chosen */
export function showHandlers(handlers, chosen) {
  elements.handler.replaceChildren(...handlers.map(({ name, title }) => element("option", { value: name }, title)));
  elements.handler.value = chosen;
}

/** @param {import("./config.js").Handler} handler @param {{audio: boolean, video: boolean}} takes */
export function showHandler(handler, takes) {
  setText(id("handler-description"), handler.description);
  elements.source.hidden = !takes.audio;
  elements.picture.hidden = !takes.video;
  elements.trigger.hidden = !handler.pauses;
}

/** What a WebSocket carries, as its help. */
export function showRates(text) {
  setText(id("codec-help"), text);
}

/** @param {string} help @param {MediaDeviceInfo[]} devices shown when there is a choice */
export function showSource(help, devices) {
  setText(id("source-help"), help);
  id("device-field").hidden = devices.length < 2;
  const chosen = elements.device.value;
  elements.device.replaceChildren(...devices.map(({ deviceId, label }, i) => element("option", { value: deviceId }, label || `Microphone ${i + 1}`)));
  if (devices.some(({ deviceId }) => deviceId === chosen)) elements.device.value = chosen;
}

/** @param {boolean} shown */
export function showPictures(shown) {
  id("pictures").hidden = !shown;
}

export function showOrigin(text) {
  setText(id("origin"), text);
}

/** The value of a radio group. */
export function chosen(group) {
  return document.querySelector(`input[name="${group}"]:checked`)?.value;
}

export function choose(group, value) {
  const input = id(`${group}-${value}`);
  if (input) input.checked = true;
}

export function allow(group, value, allowed) {
  id(`${group}-${value}`).disabled = !allowed;
}

/** Tells assistive technology, without moving anything on the page. */
export function announce(text) {
  setText(id("announce"), text);
}

export function showSheet(text) {
  id("sheet-text").value = text;
  id("sheet").showModal();
  id("sheet-text").select();
}

function quantity(name, value, unit) {
  const target = id(name);
  if (value === undefined) return setText(target, "—");
  target.replaceChildren(format(value), element("span", { class: "unit" }, unit));
}

function row(name, value, unit) {
  setText(id(name), value === undefined ? "—" : `${format(value)} ${unit}`);
}

/** Two digits that matter: 0.4, 12, 140. */
function format(value) {
  return value < 9.95 && value !== 0 ? value.toFixed(1) : String(Math.round(value));
}

const percent = (fraction) => (fraction === undefined ? undefined : fraction * 100);

/** @param {number} least upper end of the scale, so that noise near zero stays flat */
function spark(name, value, least) {
  const points = sparks[name];
  points.push(value);
  if (points.length > SPARK_POINTS) points.shift();
  const known = points.filter((point) => point !== undefined);
  if (known.length < 2) return;
  const top = Math.max(least, ...known);
  const y = (point) => (20 - (point / top) * 18).toFixed(1);
  const x = (i) => (((i + SPARK_POINTS - points.length) / (SPARK_POINTS - 1)) * 100).toFixed(1);
  const path = points.map((point, i) => (point === undefined ? "" : `${i === 0 || points[i - 1] === undefined ? "M" : "L"}${x(i)} ${y(point)}`)).join("");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 22");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  line.setAttribute("vector-effect", "non-scaling-stroke");
  svg.append(line);
  id(`spark-${name}`).replaceChildren(svg);
}

/** Text is set only when it changes: live regions would speak it again. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

export function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
