/** The demo page: wires a call, its sound, its turns and its figures to the document. */
import { adviceFor } from "./app/advice.js";
import { Call } from "./app/call.js";
import { loadChoices, loadConfig, saveChoices, takesAudio, takesVideo } from "./app/config.js";
import { Conversation } from "./app/conversation.js";
import { diagnostics } from "./app/diagnostics.js";
import { Latency, measureDelay } from "./app/latency.js";
import { Problem } from "./app/problem.js";
import { Sound } from "./app/sound.js";
import { camera, devicesAllowed, microphone, microphones, testPicture } from "./app/source.js";
import { CLOSE_S, Trace, WIDE_S } from "./app/trace.js";
import { clearTurns, explainTurns, showTurns } from "./app/turns.js";
import * as view from "./app/view.js";

/** How often getStats is read, ms. */
const FIGURES_EVERY_MS = 1_000;

/** How often the latency is looked for, ms: a few tries see each sweep of the test tone. */
const LATENCY_EVERY_MS = 400;

/** Nothing back for this long after connecting is worth a word, ms: a jitter buffer is far below. */
const NOTHING_BACK_MS = 5_000;

/** Not to find the own sound says something only after so long, ms: three sweeps of the test tone. */
const LISTEN_FOR_MS = 6_000;

/** One step of a 16-bit sample is -90 dBFS; below that there is nothing at all. */
const DIGITAL_SILENCE_DB = -95;

/** Digital silence for this long is a switched-off microphone, not a pause, ms. */
const SILENCE_SENT_MS = 8_000;

const { elements } = view;
const trace = new Trace(elements.trace);

let config = { handlers: [], default: "" };
let sound;
/** What is sent at present. @type {{audio?: import("./app/source.js").Source, video?: import("./app/source.js").Source}} */
let media = {};
let call;
let run;

/** One call's own bookkeeping; a new one for every start, so that nothing of the last call leaks in. */
function freshRun() {
  return { conversation: new Conversation(), startedAt: performance.now(), connectedAt: null, source: "active", sourceName: "", figures: {}, memory: {}, latency: new Latency(), listeningSince: 0, timers: [], log: [], loudAt: null, hinted: new Set() };
}

async function begin() {
  if (call?.live || run?.starting) return;
  const handler = currentHandler();
  if (!handler) return;
  run = freshRun();
  const mine = run;
  mine.starting = true;
  call = undefined;
  view.showNotice(null);
  view.clearFigures();
  view.clearMessages();
  clearTurns();
  trace.spread(handler.pauses ? WIDE_S : CLOSE_S);
  view.showPane(handler.pauses ? "turns" : "messages");
  view.showLive(true);
  view.showState("preparing", "Asking for the microphone", "Your browser may show a question. Answer “Allow”.");
  showProgress();
  try {
    if (transport() === "webrtc" && typeof RTCPeerConnection !== "function") throw new Problem("no_webrtc");
    sound ??= new Sound();
    // Not awaited: without a sound card it would hold the call, and the call needs only the clicked gesture.
    sound.resume().catch(() => {});
    const taken = await takeMedia(handler);
    if (run !== mine) return releaseAll(taken);
    media = taken;
  } catch (error) {
    if (run === mine) fail(Problem.from(error));
    return;
  }
  mine.starting = false;
  onSource();
  elements.videoIn.srcObject = media.video ? new MediaStream([media.video.track]) : null;
  view.showPictures(Boolean(media.video));
  refreshDevices();

  call = new Call();
  const started = call;
  const ours = (act) => (event) => started === call && run === mine && act(event.detail);
  started.addEventListener("state", ours(onState));
  started.addEventListener("progress", ours(showProgress));
  started.addEventListener("message", ours(onMessage));
  started.addEventListener("stream", ours(onStream));
  started.addEventListener("worker", ours(view.showWorker));
  mine.timers.push(setInterval(onSecond, FIGURES_EVERY_MS), setInterval(lookForLatency, LATENCY_EVERY_MS));
  requestAnimationFrame(function frame(now) {
    if (run !== mine || mine.over) return;
    drawLevels(now);
    requestAnimationFrame(frame);
  });
  const tracks = { audio: media.audio?.track, video: media.video?.track };
  const { path, rates } = handler;
  await started.start({ transport: transport(), path, rates, tracks, sound, candidates: elements.candidates.value, codec: elements.codec.value });
}

function end() {
  if (call?.live) return call.stop();
  // Still waiting for the permission: whatever is granted later is given back.
  run = undefined;
  view.showLive(false);
  view.showState("idle", "Ready", "Choose a handler, press Start and speak.");
}

/** @returns {Promise<typeof media>} */
async function takeMedia(handler) {
  const taken = {};
  try {
    if (takesAudio(handler)) taken.audio = await takeSound();
    if (takesVideo(handler) && transport() === "webrtc") taken.video = await takePicture(handler);
  } catch (error) {
    releaseAll(taken);
    throw error;
  }
  return taken;
}

async function takeSound() {
  if (view.chosen("source") === "tone") return sound.tone();
  const source = await microphone(elements.device.value);
  source.track.addEventListener("ended", () => source === media.audio && hint("microphone_gone"));
  return source;
}

async function takePicture(handler) {
  const wish = view.chosen("picture");
  if (wish === "camera") return camera();
  // A handler for pictures alone cannot do without one.
  return wish === "pattern" || !takesAudio(handler) ? testPicture() : undefined;
}

function releaseAll(sources) {
  for (const source of Object.values(sources)) source?.stop();
}

/** Another source in the middle of a call: swapped without a new offer. */
async function changeSource() {
  remember();
  view.showNotice(null);
  describeSource();
  if (!call?.live || !media.audio) return;
  const mine = run;
  let taken;
  try {
    taken = await takeSound();
    await call.replaceTrack("audio", taken.track);
  } catch (error) {
    taken?.stop();
    view.choose("source", mine.sourceName);
    describeSource();
    return showAdvice(Problem.from(error));
  }
  if (run !== mine || !call.live) return taken.stop();
  media.audio.stop();
  media = { ...media, audio: taken };
  listenAnew();
  mine.loudAt = null;
  onSource();
  showProgress();
}

/** What was measured belongs to another sound or another path. */
function listenAnew() {
  run.latency = new Latency();
  run.listeningSince = performance.now();
}

/** After the sent sound has changed. */
function onSource() {
  run.source = "done";
  run.sourceName = view.chosen("source");
  if (media.audio) sound.hearSent(new MediaStream([media.audio.track]));
  applyMute();
}

const TITLES = {
  offering: ["Calling", "Telling the server what this browser can do."],
  connecting: ["Connecting", "The server answered. Looking for a path and agreeing on keys."],
  connected: ["Connected", ""],
  interrupted: ["Interrupted", "No sign from the server for a few seconds. Waiting for the path to come back."],
  ending: ["Ending", "The handler has hung up. Its last sound is still on its way."],
  reconnecting: ["Moving", "Offering the same session again. The present connection goes on until the new one stands."],
};

const ENDS = {
  you: "You ended the call.",
  server_closed: "The server closed the call.",
  end_stream: "The handler ended the conversation.",
};

function onState({ state, reason, text, problem }) {
  run.log.push({ at: elapsed(), state, reason, problem: problem?.message });
  if (state === "failed") return fail(problem);
  if (state === "ended") {
    finish();
    showProgress();
    view.showState("ended", "Ended", [ENDS[reason] ?? reason, text && text !== "Stream closed" ? `It said: ${text}` : ""].filter(Boolean).join(" "));
    return;
  }
  const [title, detail] = TITLES[state];
  if (state === "connected") run.connectedAt ??= performance.now();
  view.showState(state, title, detail || advertised(currentHandler()));
  showProgress();
}

function advertised(handler) {
  if (handler.pauses) return `Speak, then pause: “${handler.title}” replies when you have. Headphones keep its reply out of your microphone.`;
  if (media.audio && view.chosen("source") === "tone") return `The test tone goes to “${handler.title}”. What it sends back hangs below the line.`;
  return `You and “${handler.title}” are connected. Headphones keep its sound out of your microphone.`;
}

function fail(problem) {
  run.starting = false;
  if (run.source === "active") run.source = "failed";
  finish();
  showProgress();
  showAdvice(problem);
  view.showState("failed", run.connectedAt === null ? "Not connected" : "Call lost", "Nothing is sent any more. See below what to do, then start again.");
}

/** Gives everything back; the figures stay to be read. */
function finish() {
  run.over = true;
  run.conversation.close();
  showTurns(run.conversation);
  for (const timer of run.timers) clearInterval(timer);
  releaseAll(media);
  media = {};
  sound?.stopHearing();
  elements.soundOut.srcObject = elements.videoIn.srcObject = elements.videoOut.srcObject = null;
  view.showPictures(false);
  view.showLive(false);
  view.showWays({ messages: false, inputs: false });
  for (const side of ["in", "out"]) view.showLevel(side, { peakDb: -100, rmsDb: -100 });
  view.showClock(null);
  if (!run.shownLatency) view.showLatency(undefined, "Shown while the reply is your own sound.");
}

function showAdvice(problem) {
  const advice = adviceFor(problem.code, { ...problem.facts, origin: location.origin, path: currentHandler()?.path });
  view.showNotice({ ...advice, code: problem.code });
  return advice;
}

/** A hint is given once a call; it does not come back after it was closed. */
function hint(code) {
  if (run.hinted.has(code)) return;
  run.hinted.add(code);
  showAdvice(new Problem(code));
}

/** What the picture says of a message. */
const MARKS = {
  started_talking: ["you", "talking"],
  pause_detected: ["you", "pause"],
  response_starting: ["back", "reply"],
  send_input: ["back", "asks"],
  end_stream: ["back", "end"],
};

function onMessage(message) {
  view.showMessage(message, elapsed());
  if (message.from === "server" && run.conversation.hear(message, elapsed())) {
    showTurns(run.conversation);
    const word = message.kind === "log" ? message.text : message.kind;
    if (Object.hasOwn(MARKS, word)) trace.mark(performance.now() / 1000, ...MARKS[word]);
  }
  if (message.kind === "send_input") {
    elements.composeKind.value = "input";
    view.announce("The handler asks for input.");
  }
  if (message.from === "server" && message.kind === "warning") {
    view.announce(`Warning from the handler: ${message.text}`);
  }
}

function onStream(stream) {
  elements.soundOut.srcObject = stream;
  elements.soundOut.play().catch(() => hint("sound_blocked"));
  if (stream.getAudioTracks().length > 0) sound.hearReceived(stream);
  if (stream.getVideoTracks().length > 0) elements.videoOut.srcObject = new MediaStream(stream.getVideoTracks());
  listenAnew();
}

async function onSecond() {
  const mine = run;
  view.showClock(mine.connectedAt === null ? null : (performance.now() - mine.connectedAt) / 1000);
  const peer = call.peer;
  if (!peer || mine.connectedAt === null) return;
  let read;
  try {
    read = await peer.figures(mine.memory);
  } catch {
    return; // Closed in between.
  }
  if (run !== mine || mine.over) return;
  const { figures } = Object.assign(mine, read);
  view.showFigures(figures);
  showLatency();
  showProgress();
  watchMedia(figures);
}

function watchMedia(figures) {
  const since = performance.now() - run.connectedAt;
  const back = figures.packetsBack > 0 || figures.framesBack > 0;
  if (back && run.hinted.has("no_packets_back")) view.clearNotice("no_packets_back");
  // Whoever waits for a pause says nothing before it.
  if (!back && since > NOTHING_BACK_MS && !currentHandler().pauses) hint("no_packets_back");
  // Levels are read while the page is drawn: a hidden page hears nothing and must not complain.
  if (document.hidden) run.loudAt = performance.now();
  const listening = media.audio?.track.enabled && view.chosen("source") === "microphone";
  if (listening && performance.now() - (run.loudAt ?? run.connectedAt) > SILENCE_SENT_MS) hint("silence_sent");
}

function lookForLatency() {
  // A page in the background gets no timely timers: what it measured would be its own lateness.
  if (document.hidden || call?.state !== "connected") return;
  const heard = sound.snapshot();
  const found = heard && measureDelay(heard.sent, heard.received, heard.rate);
  if (found) run.latency.add(found.delayMs, performance.now());
}

function showLatency() {
  const way = run.latency.value(performance.now());
  if (way === undefined) {
    const why = performance.now() - run.listeningSince < LISTEN_FOR_MS ? "Listening for your own sound." : "Not measurable: the reply is not your own sound, repeats itself or is too quiet.";
    trace.delayMs = undefined;
    return view.showLatency(undefined, why);
  }
  const speaker = sound.outputDelayMs() ?? 0;
  const mouth = (media.audio?.track.getSettings().latency ?? 0) * 1000;
  trace.delayMs = way;
  run.shownLatency = { totalMs: way + speaker + mouth, wayMs: way, speakerMs: speaker, microphoneMs: mouth };
  const device = media.audio && run.sourceName === "microphone" ? "microphone and speaker" : "speaker";
  view.showLatency(way + speaker + mouth, `${Math.round(way)} ms there and back, measured, and ${Math.round(speaker + mouth)} ms that the browser states for the ${device}`);
}

function drawLevels(now) {
  const { sent, received } = sound.levels();
  if (sent.peakDb > DIGITAL_SILENCE_DB) run.loudAt = performance.now();
  view.showLevel("in", sent);
  view.showLevel("out", received);
  if (run.conversation.level(received.rmsDb, elapsed())) showTurns(run.conversation);
  trace.add(now / 1000, sent.rmsDb, received.rmsDb);
  trace.tick(now);
}

const SOURCE_WORDS = { microphone: "microphone", tone: "test tone" };

const NO_STEPS = {
  webrtc: { offer: "pending", ice: "pending", dtls: "pending", channel: "pending" },
  websocket: { socket: "pending", session: "pending" },
};

function showProgress() {
  const steps = call?.peer?.steps() ?? NO_STEPS[transport()];
  const { path, packetsBack, framesBack, codec } = run.figures;
  const back = packetsBack > 0 || framesBack > 0;
  const media = back ? "done" : (steps.dtls ?? steps.session) === "done" ? "active" : "pending";
  const words = {
    source: SOURCE_WORDS[run.sourceName] ?? "",
    offer: "accepted",
    // A narrow column may break before the port, not within it.
    ice: path ? `${path.address ?? ""}:\u200b${path.port}` : "",
    dtls: "keys agreed",
    channel: "open",
    socket: "open",
    session: "begun",
    media: packetsBack > 0 ? (codec?.replace(/^audio\//, "").replace(/,.*$/, "") ?? "sound") : "picture",
  };
  const shown = Object.entries({ source: run.source, ...steps, media }).map(([name, status]) => [
    name,
    { status: settled(status), detail: status === "done" ? words[name] : "" },
  ]);
  view.showSteps(Object.fromEntries(shown));
  const open = !run.over && ["connected", "interrupted", "reconnecting"].includes(call?.state);
  view.showWays({ messages: open && steps.channel === "done", inputs: open });
}

/** When a call is over nothing is in progress any more: what was, is what failed, unless the person ended it. */
function settled(status) {
  if (status !== "active" || !run.over) return status;
  return call?.state === "ended" ? "pending" : "failed";
}

const elapsed = () => (performance.now() - run.startedAt) / 1000;
const currentHandler = () => config.handlers.find(({ name }) => name === elements.handler.value);

function applyMute() {
  const muted = elements.muteIn.getAttribute("aria-pressed") === "true";
  if (media.audio) media.audio.track.enabled = !muted;
}

function toggle(button) {
  const pressed = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(pressed));
  return pressed;
}

const transport = () => view.chosen("transport");

function choices() {
  return {
    handler: elements.handler.value,
    transport: transport(),
    source: view.chosen("source"),
    picture: view.chosen("picture"),
    candidates: elements.candidates.value,
    codec: elements.codec.value,
  };
}

function remember() {
  saveChoices(choices());
}

/** What there is to choose follows from the handler, and from the transport. */
function describe() {
  const handler = currentHandler();
  if (!handler) return;
  view.allow("transport", "websocket", Boolean(handler.rates));
  if (!handler.rates) view.choose("transport", "webrtc");
  view.showTransport(transport());
  view.showHandler(handler, { audio: takesAudio(handler), video: takesVideo(handler) && transport() === "webrtc" });
  const kilo = (rate) => `${rate / 1000} kHz`;
  if (handler.rates) view.showRates(`At the handler’s own rates: ${kilo(handler.rates.input)} there, ${kilo(handler.rates.output)} back.`);
  explainTurns(handler.pauses ? "Press Start, speak, and pause." : `“${handler.title}” does not wait for pauses: it has no turns.`);
  if (!call?.live && !run?.starting) view.showPane(handler.pauses ? "turns" : "messages");
}

let devices = [];
function describeSource() {
  const tone = view.chosen("source") === "tone";
  view.showSource(tone ? "440 Hz with a short sweep each second, by which the page knows it again." : "", tone ? [] : devices);
}

async function refreshDevices() {
  devices = await microphones().catch(() => []);
  describeSource();
}

async function copyDiagnostics() {
  const text = await diagnostics({ call, run, config, choices: choices() });
  try {
    await navigator.clipboard.writeText(text);
    view.announce("Diagnostics copied.");
    elements.copy.textContent = "Copied";
    setTimeout(() => (elements.copy.textContent = "Copy diagnostics"), 2_000);
  } catch {
    // No clipboard without a secure context.
    view.showSheet(text);
  }
}

async function sendComposed(event) {
  event.preventDefault();
  const text = elements.composeText.value;
  if (!text || !call?.live) return;
  if (elements.composeKind.value === "input") await call.sendInputs(asInputs(text));
  else if (!call.say(text)) return;
  elements.composeText.value = "";
}

function clearShown() {
  view.clearMessages();
  if (!run) return;
  run.conversation = new Conversation();
  showTurns(run.conversation);
}

/** A JSON array is the list of arguments; anything else is the only one. */
function asInputs(text) {
  try {
    const json = JSON.parse(text);
    return Array.isArray(json) ? json : [json];
  } catch {
    return [text];
  }
}

async function boot() {
  elements.start.addEventListener("click", () => (call?.live || run?.starting ? end() : begin()));
  elements.muteIn.addEventListener("click", () => (toggle(elements.muteIn), applyMute()));
  elements.muteOut.addEventListener("click", () => {
    elements.soundOut.muted = toggle(elements.muteOut);
    elements.soundOut.play().catch(() => {});
  });
  elements.noticeClose.addEventListener("click", () => view.showNotice(null));
  elements.clear.addEventListener("click", clearShown);
  elements.trigger.addEventListener("click", () => call?.live && call.trigger());
  elements.panes.addEventListener("change", () => view.showPane(view.chosen("pane")));
  elements.copy.addEventListener("click", copyDiagnostics);
  elements.compose.addEventListener("submit", sendComposed);
  elements.handler.addEventListener("change", () => (describe(), remember()));
  elements.transport.addEventListener("change", () => (describe(), remember()));
  elements.codec.addEventListener("change", remember);
  elements.candidates.addEventListener("change", remember);
  elements.source.addEventListener("change", changeSource);
  elements.device.addEventListener("change", changeSource);
  elements.picture.addEventListener("change", remember);
  navigator.mediaDevices?.addEventListener?.("devicechange", refreshDevices);
  addEventListener("pagehide", () => call?.live && call.stop());

  view.showOrigin(location.host);
  const last = loadChoices();
  for (const group of ["transport", "source", "picture"]) if (last[group]) view.choose(group, last[group]);
  for (const list of ["candidates", "codec"]) if (last[list]) elements[list].value = last[list];
  if (!devicesAllowed()) {
    view.allow("source", "microphone", false);
    view.allow("picture", "camera", false);
    view.choose("source", "tone");
    view.showNotice({ ...adviceFor("insecure_context", { origin: location.origin }), weight: "hint", code: "insecure_context" });
  }
  refreshDevices();
  try {
    config = await loadConfig();
  } catch (error) {
    elements.start.disabled = true;
    showAdvice(new Problem("unreachable", { detail: error.message }));
    view.showState("failed", "Not connected", "The list of handlers could not be read.");
    return;
  }
  const known = config.handlers.some(({ name }) => name === last.handler);
  view.showHandlers(config.handlers, known ? last.handler : config.default);
  describe();
}

boot();
