// A conversation on the demo page, with sentences as its microphone: opens it, presses start, and waits.
//   url, handler, transport: "webrtc" | "websocket", wav: the sentences
//   microphone: what is said in turn, again and again: seconds of silence, or [from, to] of the WAV file
//   turns: waits until that many replies were heard to their end, and presses stop; 0: waits until the handler ends the call
//   acts: what else the person does, in turn: [{ row?, wait_s, send?: { kind, text }, press? }]: waits for a row of the conversation
//     and some seconds, then sends a line as `kind` from the page, or presses the button `press`
//   tones: which notes of the replies are measured, Hz
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { dismissed, options, report, withPage } from "./chromium.mjs";
import { compose, echoed, levels, loud, notes, unpack } from "./hearing.mjs";

/** Louder than this is sound, dBFS: a decoder's comfort noise is below. */
const SOUND_DB = -50;
/** Quieter than this is a reply that falls silent: the notes that are interrupted are at -17 dBFS. */
const FALLEN_DB = -35;
/** Between two notes or words lies less, s. */
const BREATH_S = 0.8;
const TONES = options.tones ?? [784, 659, 523];

// The ear is a worklet of its own, which the page's policy would not let in. `demo.mjs` has that policy in force.
options.policy = "none";

async function prepare(folder) {
  options.microphone_file = join(folder, "microphone.wav");
  compose(options.wav, options.microphone, options.microphone_file);
}

await withPage(async (page) => {
  const { url, handler, transport, turns, acts = [] } = options;
  const gone = dismissed();
  const broken = [];
  page.on("response", (response) => response.status() >= 400 && broken.push(`${response.status()} ${response.url()}`));
  page.on("pageerror", (error) => broken.push(String(error)));
  await page.addInitScript({ path: fileURLToPath(new URL("ear.js", import.meta.url)) });
  await page.goto(`${url}/?handler=${handler}&transport=${transport}&source=microphone`);
  await page.waitForFunction((name) => document.querySelector("#handler").value === name, handler);
  await page.click("#start");
  await page.waitForFunction(() => document.querySelector("#state").dataset.state === "connected", null, { timeout: 60000 });
  report("connected", { chosen: await page.evaluate(() => document.querySelector("input[name=transport]:checked").value) });
  for (const { row, wait_s, send, press } of acts) {
    if (row) await page.waitForSelector(`#turns [data-event=${row}]`, { timeout: 60000 });
    await page.waitForTimeout(wait_s * 1000);
    if (send) {
      await page.selectOption("#compose-kind", send.kind);
      await page.fill("#compose-text", send.text);
      await page.click("#compose-send");
      await page.waitForFunction(() => document.querySelector("#compose-text").value === "", null, { timeout: 10000 });
    }
    if (press) await page.click(press);
  }
  if (turns > 0) {
    await page.waitForFunction((count) => document.querySelectorAll("#turns [data-event=silent], #turns [data-event=interrupted]").length >= count, turns, { timeout: 150000 });
    // The page takes a gap of a busy machine for the end; this waits until it must be.
    await page.waitForTimeout(1500);
    await page.click("#start");
  }
  await page.waitForFunction(() => document.querySelector("#state").dataset.state === "ended", null, { timeout: 150000 });
  // The recording's own last blocks.
  await page.waitForTimeout(300);
  const shown = await page.evaluate(() => ({
    state: document.querySelector("#state-detail").textContent,
    start: document.querySelector("#start-label").textContent,
    playing: document.querySelector("#sound-out").srcObject !== null,
    turns: [...document.querySelectorAll("#turns .turn")].map((turn) => ({
      title: turn.querySelector("h3").textContent,
      rows: [...turn.querySelectorAll("li")].map(({ dataset, textContent }) => ({ event: dataset.event, text: textContent })),
    })),
    messages: [...document.querySelectorAll("#messages li")].map((item) => ({ ...item.dataset, text: item.querySelector(".text").textContent })),
  }));
  const lost_s = await page.evaluate(() => ear.lost());
  report("talked", { ...figures(await page.evaluate(() => ear.take())), lost_s, shown, broken });
  report("done");
  await gone;
}, prepare);

function figures({ rate, marks, tracks, sent: sentText, received: receivedText }) {
  const [sent, received] = [unpack(sentText), unpack(receivedText)];
  const receivedLevels = levels(received, rate);
  const replies = loud(receivedLevels, SOUND_DB, BREATH_S);
  const said = marks.filter(({ from, what }) => from === "server" || what.startsWith("state "));
  // Replies that sounded when somebody began to talk: how long they went on, s, until they had fallen by 18 dB. A
  // browser fills the gap after the last packet with what it heard before, ever quieter.
  const sounding = loud(receivedLevels, FALLEN_DB, BREATH_S);
  const interruptions = said.filter(({ what }) => what === "started_talking").flatMap(({ at }) => {
    const reply = sounding.find(([from, to]) => from < at - 0.3 && to > at);
    return reply ? [{ at, fell_after: reply[1] - at, had_sounded: at - reply[0] }] : [];
  });
  const spans = replies.map((span) => ({ span, level_db: Math.max(...receivedLevels.slice(span[0] / 0.02, span[1] / 0.02)), ...echoed(sent, received, rate, span), notes: notes(received, rate, span, TONES) }));
  return { marks: said, tracks, replies: spans, interruptions, spoken: loud(levels(sent, rate), SOUND_DB, BREATH_S) };
}
