import assert from "node:assert/strict";
import { test } from "node:test";
import { Conversation } from "../app/conversation.js";

/** Plays events: `[at, "log text" | {kind, text}]`, and levels every 50 ms: loud in the given spans. */
function talk(events, loud, until) {
  const conversation = new Conversation();
  const waiting = [...events];
  for (let tick = 0; tick <= until * 20; tick++) {
    const at = tick / 20;
    while (waiting[0]?.[0] <= at) {
      const [when, what] = waiting.shift();
      conversation.hear(typeof what === "string" ? { kind: "log", text: what } : what, when);
    }
    conversation.level(loud.some(([from, to]) => at >= from && at < to) ? -20 : -90, at);
  }
  return conversation;
}

/** The turns without what is not known. */
const shown = ({ turns }) => turns.map(({ outputs, ...turn }) => ({ ...turn, ...(outputs.length > 0 ? { outputs } : {}) }));

test("a turn from the first word to the reply's last sound", () => {
  const conversation = talk(
    [[1, "started_talking"], [3, "pause_detected"], [3.1, "response_starting"], [3.1, { kind: "fetch_output", text: "" }], [3.1, { kind: "output", text: "7" }], [7, { kind: "end_stream", text: "bye" }]],
    [[3.2, 5]], 8,
  );
  assert.deepEqual(shown(conversation), [{ number: 1, startedAt: 1, pausedAt: 3, replyAt: 3.1, soundAt: 3.2, silentAt: 4.95, outputs: ["7"] }]);
  assert.deepEqual(conversation.end, { at: 7, text: "bye" });
});

test("a pause cuts off the reply before", () => {
  const turns = shown(talk(
    [[1, "started_talking"], [2, "pause_detected"], [2, "response_starting"], [3, "started_talking"], [5, "pause_detected"], [5, "response_starting"]],
    [[2, 7]], 8,
  ));
  assert.equal(turns[0].interruptedAt, 5);
  assert.equal(turns[0].silentAt, 5);
  assert.deepEqual(turns[1], { number: 2, startedAt: 3, pausedAt: 5, replyAt: 5, soundAt: 5, silentAt: 6.95 });
});

test("so do first words, if it falls silent at them", () => {
  const of = (silentAt) => shown(talk(
    [[1, "started_talking"], [2, "pause_detected"], [2, "response_starting"], [4, "started_talking"]],
    [[2, silentAt]], 8,
  ))[0].interruptedAt;
  assert.equal(of(4.2), 4);
  assert.equal(of(6), undefined, "it has gone on");
  assert.equal(of(3.5), undefined, "it was over");
});

test("a breath is no end", () => {
  const [turn] = shown(talk([[1, "pause_detected"], [1, "response_starting"]], [[1, 2], [2.5, 4]], 6));
  assert.equal(turn.silentAt, 3.95);
});

test("an output belongs to the turn that announced it, however early or late it comes", () => {
  const of = (...order) => {
    const at = { pause: "pause_detected", reply: "response_starting", told: { kind: "fetch_output", text: "" }, one: { kind: "output", text: "1" }, two: { kind: "output", text: "2" } };
    return talk(order.map((what, i) => [i + 1, at[what]]), [], order.length + 1).turns.map(({ outputs }) => outputs);
  };
  assert.deepEqual(of("pause", "told", "reply", "one", "pause", "told", "two"), [["1"], ["2"]]);
  assert.deepEqual(of("pause", "told", "reply", "pause", "told", "one", "two"), [["1"], ["2"]]);
  assert.deepEqual(of("pause", "told", "reply", "one", "two", "pause", "told"), [["1"], ["2"]]);
  assert.deepEqual(of("told", "one"), [["1"]], "a greeting's");
});

test("a greeting is turn 0, also when you have begun to talk before it", () => {
  assert.deepEqual(shown(talk([[0.5, "response_starting"], [3, "started_talking"]], [[0.5, 1]], 4)).map(({ number }) => number), [0, 1]);
  assert.deepEqual(shown(talk([[0.4, "started_talking"], [0.5, "response_starting"]], [[0.5, 1]], 4)).map(({ number }) => number), [0, 1]);
});

test("a reply that waits for arguments keeps its turn", () => {
  const turns = shown(talk(
    [[1, "started_talking"], [2, "pause_detected"], [2, { kind: "send_input", text: "" }], [3, "started_talking"], [4, "pause_detected"], [5, "response_starting"]],
    [], 6,
  ));
  assert.deepEqual(turns, [{ number: 1, startedAt: 1, pausedAt: 4, askedAt: 2, replyAt: 5 }]);
});

test("a reply that was asked for needs no words", () => {
  const turns = shown(talk([[1, "pause_detected"], [1, "response_starting"], [3, "pause_detected"], [3, "response_starting"]], [[1, 2], [3, 4]], 6));
  assert.deepEqual(turns.map(({ startedAt, pausedAt, interruptedAt }) => [startedAt, pausedAt, interruptedAt]), [[undefined, 1, undefined], [undefined, 3, undefined]]);
});

test("a conversation without end is bounded", () => {
  const conversation = new Conversation();
  for (let i = 0; i < 1_000; i++) {
    conversation.hear({ kind: "log", text: "started_talking" }, i);
    conversation.hear({ kind: "log", text: "pause_detected" }, i + 0.5);
  }
  assert.equal(conversation.turns.length, 100);
  assert.equal(conversation.turns.at(-1).number, 1_000);
});

test("what is not about turns changes nothing", () => {
  const conversation = new Conversation();
  for (const message of [{ kind: "log", text: "hello" }, { kind: "log", text: "toString" }, { kind: "constructor", text: "" }]) assert.equal(conversation.hear(message, 1), false, message.text);
  assert.deepEqual(conversation.turns, []);
});
