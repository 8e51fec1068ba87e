/** The turns of a conversation, as a list in the document. Decides nothing. */
import { element, setText } from "./view.js";

const list = document.getElementById("turns");
const empty = document.getElementById("turns-empty");

/** What is shown already, by turn, so that only what has changed is made anew. */
let shown = new Map();

/** @param {import("./conversation.js").Conversation} conversation */
export function showTurns({ turns, end }) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const now = new Map();
  for (const turn of turns) {
    const key = JSON.stringify(turn);
    const before = shown.get(turn);
    now.set(turn, before?.key === key ? before : { key, item: itemOf(turn) });
  }
  const items = [...now.values()].map(({ item }) => item);
  if (end) items.push(element("li", { class: "turn-end" }, element("span", {}, `The handler ended it: ${end.text || "Stream closed"}`), time(end.at)));
  shown = now;
  list.replaceChildren(...items);
  empty.hidden = items.length > 0;
  if (atEnd) list.scrollTop = list.scrollHeight;
}

export function clearTurns() {
  showTurns({ turns: [] });
}

/** What an empty list says. */
export function explainTurns(text) {
  setText(empty, text);
}

/** @param {import("./conversation.js").Turn} turn */
function itemOf(turn) {
  const rows = [];
  const row = (side, event, text, at) => rows.push(element("li", { "data-side": side, "data-event": event, "data-at": at.toFixed(3) }, element("span", {}, text), time(at)));
  const span = (from, to) => `${Math.max(to - from, 0).toFixed(1)} s`;
  if (turn.startedAt !== undefined) row("you", "started_talking", "You began to talk", turn.startedAt);
  if (turn.pausedAt !== undefined) {
    row("you", "pause_detected", turn.startedAt === undefined ? "You asked for a reply" : `You paused, after ${span(turn.startedAt, turn.pausedAt)}`, turn.pausedAt);
  }
  if (turn.askedAt !== undefined) row("back", "send_input", "The handler asks for input", turn.askedAt);
  if (turn.replyAt !== undefined) {
    const late = turn.pausedAt === undefined ? "" : `, ${Math.round((turn.replyAt - turn.pausedAt) * 1000)} ms later`;
    row("back", "response_starting", `${turn.number === 0 ? "The handler greets you" : "The reply began"}${late}`, turn.replyAt);
  }
  if (turn.interruptedAt !== undefined) {
    row("you", "interrupted", `You interrupted it; silent ${Math.round((turn.silentAt - turn.interruptedAt) * 1000)} ms later`, turn.interruptedAt);
  } else if (turn.silentAt !== undefined) {
    row("back", "silent", `You heard it to its end, ${span(turn.soundAt ?? turn.replyAt, turn.silentAt)} long`, turn.silentAt);
  }
  const outputs = turn.outputs.map((text) => element("li", { "data-side": "back", "data-event": "output" }, element("code", {}, text)));
  const title = turn.number === 0 ? "Greeting" : `Turn ${turn.number}`;
  return element("li", { class: "turn" }, element("h3", { class: "turn-title" }, title), element("ol", { class: "turn-rows" }, ...rows, ...outputs));
}

const time = (at) => element("time", {}, `${at.toFixed(1)} s`);
