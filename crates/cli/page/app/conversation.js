/**
 * A conversation as turns, from what the server says of it and from what is heard. Pure; times are seconds of the call.
 *
 * The server says `started_talking`, `pause_detected`, `send_input`, `response_starting`. How long a reply lasts, and that
 * it fell silent, nobody says: that is heard.
 */

/** Louder than this is a reply's sound, dBFS: comfort noise and codecs' dither are below. */
const SOUND_DB = -55;

/** Silence of this length is the end of a reply, not a breath in it, s. */
const BREATH_S = 0.6;

/** A reply that falls silent so soon after somebody has begun to talk was cut off, s. */
const CUT_WITHIN_S = 0.8;

/** Turns that are kept; the page shows the last of them. */
const TURNS_MAX = 100;

/**
 * @typedef {object} Turn
 * @property {number} number from 1; 0 for what is said before anybody has spoken
 * @property {number} [startedAt] you began to talk
 * @property {number} [pausedAt] you paused, or asked for the reply
 * @property {number} [askedAt] the handler asked for input
 * @property {number} [replyAt] the server says that the reply begins
 * @property {number} [soundAt] its first sound was heard
 * @property {number} [silentAt] its last sound was heard
 * @property {number} [interruptedAt] you cut it off
 * @property {string[]} outputs
 */

export class Conversation {
  /** @type {Turn[]} */
  turns = [];
  /** How the handler ended it. @type {{at: number, text: string} | undefined} */
  end;
  #count = 0;
  #loudAt;
  /** Turns whose outputs were announced and have not come yet, and outputs that overtook their announcement. */
  #announced = [];
  #early = [];

  /** Takes a message of the server. @returns {boolean} whether anything has changed */
  hear({ kind, text }, at) {
    const word = kind === "log" ? text : kind;
    const acts = {
      started_talking: () => this.#startedTalking(at),
      pause_detected: () => this.#paused(at),
      send_input: () => ((this.#asked() ?? this.#open({})).askedAt = at),
      response_starting: () => this.#replying(at),
      fetch_output: () => this.#announce(this.#answered() ?? this.#greeting({})),
      output: () => this.#output(text),
      end_stream: () => (this.end = { at, text }),
    };
    if (!Object.hasOwn(acts, word)) return false;
    acts[word]();
    return true;
  }

  /** Takes the level of what is heard. @returns {boolean} whether anything has changed */
  level(db, at) {
    const turn = this.#sounding();
    if (!turn) return false;
    if (db > SOUND_DB) {
      this.#loudAt = at;
      const began = turn.soundAt === undefined;
      turn.soundAt ??= at;
      return began;
    }
    if (turn.soundAt === undefined || at - this.#loudAt < BREATH_S) return false;
    turn.silentAt = this.#loudAt;
    const over = this.turns.find(({ startedAt }) => startedAt > turn.soundAt && startedAt <= turn.silentAt);
    if (over && turn.silentAt - over.startedAt < CUT_WITHIN_S) turn.interruptedAt = over.startedAt;
    return true;
  }

  /** Nothing more is heard: what still sounds ends here. */
  close() {
    const turn = this.#sounding();
    if (turn?.soundAt !== undefined) turn.silentAt = this.#loudAt;
  }

  /** Whether you are the one who talks. */
  get talking() {
    const last = this.turns.at(-1);
    return last?.startedAt !== undefined && last.pausedAt === undefined;
  }

  /** The turn whose reply has begun and not been heard to end. */
  #sounding() {
    return this.turns.findLast(({ replyAt, silentAt }) => replyAt !== undefined && silentAt === undefined);
  }

  #startedTalking(at) {
    const last = this.turns.at(-1);
    // More words before a reply that waits for its arguments belong to the same turn.
    if (this.talking || (last && last.askedAt !== undefined && last.replyAt === undefined)) return;
    this.#open({ startedAt: at });
  }

  #paused(at) {
    this.#cut(at);
    const last = this.turns.at(-1);
    const waiting = last && last.number > 0 && last.replyAt === undefined && last.interruptedAt === undefined;
    (waiting ? last : this.#open({})).pausedAt = at;
  }

  /** A pause ends the reply that is under way. */
  #cut(at) {
    const turn = this.#sounding();
    if (!turn) return;
    turn.interruptedAt ??= at;
    turn.silentAt = at;
  }

  #replying(at) {
    const turn = this.#asked();
    if (turn) turn.replyAt = at;
    else this.#greeting({ replyAt: at });
  }

  /** The turn that has paused and has no reply yet. */
  #asked() {
    return this.turns.findLast(({ pausedAt, replyAt }) => pausedAt !== undefined && replyAt === undefined);
  }

  /** Outputs come by a way of their own, which may be the faster one; their order is that of the announcements. */
  #announce(turn) {
    if (this.#early.length > 0) turn.outputs.push(this.#early.shift());
    else this.#announced.push(turn);
    if (this.#announced.length > TURNS_MAX) this.#announced.shift();
  }

  #output(text) {
    if (this.#announced.length > 0) this.#announced.shift().outputs.push(text);
    else this.#early.push(text);
    if (this.#early.length > TURNS_MAX) this.#early.shift();
  }

  /** The turn that an output is about. */
  #answered() {
    return this.turns.findLast(({ number, pausedAt }) => number === 0 || pausedAt !== undefined);
  }

  #greeting(known) {
    const turn = { number: 0, outputs: [], ...known };
    // You may have begun to talk meanwhile; what greets you is older.
    if (this.talking) this.turns.splice(-1, 0, turn);
    else this.turns.push(turn);
    return turn;
  }

  #open(known) {
    this.#count += 1;
    const turn = { number: this.#count, outputs: [], ...known };
    this.turns.push(turn);
    if (this.turns.length > TURNS_MAX) this.turns.shift();
    return turn;
  }
}
