/**
 * The picture of a call: what you send grows upwards from the middle line, what comes back hangs below it, so that the
 * way there and back is the distance between a shape and its reflection.
 */

/** Time across the whole width, s: an echo's delay can be seen in the first, the turns of a conversation in the second. */
export const CLOSE_S = 5;
export const WIDE_S = 20;

/** So many columns fill the width. */
const COLUMNS = 250;

/** Marks that are kept: as many as anybody can make in the width's time. */
const MARKS_MAX = 40;

/** Level that is drawn as nothing and level that fills a lane, dBFS. */
const FLOOR_DB = -60;
const TOP_DB = -6;

/** With reduced motion the picture stands still for this long between two drawings, ms. */
const STILL_MS = 1_000;

export class Trace {
  /** The measured way there and back, ms, drawn to scale; undefined draws nothing. @type {number | undefined} */
  delayMs;
  #span = CLOSE_S;
  #marks = [];
  #canvas;
  #context;
  #columns = [];
  #colours = {};
  #still = matchMedia("(prefers-reduced-motion: reduce)");
  #drawnAt = 0;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    const recolour = () => {
      const style = getComputedStyle(canvas);
      for (const name of ["you", "back", "line", "faint", "ink"]) this.#colours[name] = style.getPropertyValue(`--${name}`).trim();
      this.draw();
    };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
    new ResizeObserver(() => this.#fit()).observe(canvas);
    recolour();
    this.#fit();
  }

  clear() {
    this.delayMs = undefined;
    this.#columns = [];
    this.#marks = [];
    this.draw();
  }

  /** @param {number} seconds across the whole width; for `clear`ed pictures */
  spread(seconds) {
    this.#span = seconds;
    this.clear();
  }

  /** A line with a word, where something happened. @param {number} now s @param {"you" | "back"} side @param {string} word */
  mark(now, side, word) {
    this.#marks.push({ column: this.#column(now), side, word });
    if (this.#marks.length > MARKS_MAX) this.#marks.shift();
  }

  #column(now) {
    return Math.floor((now / this.#span) * COLUMNS);
  }

  /** @param {number} now s; columns in between are filled, so that a late frame leaves no hole */
  add(now, sentDb, receivedDb) {
    const column = this.#column(now);
    const newest = this.#columns.at(-1);
    // Several frames fall into one column: its loudest is what the eye looks for.
    if (newest?.column === column) {
      newest.sent = Math.max(newest.sent, height(sentDb));
      newest.received = Math.max(newest.received, height(receivedDb));
    }
    const last = this.#columns.at(-1)?.column ?? column - 1;
    for (let missing = Math.max(last + 1, column - COLUMNS); missing <= column; missing++) {
      this.#columns.push({ column: missing, sent: height(sentDb), received: height(receivedDb) });
    }
    while (this.#columns.length > COLUMNS) this.#columns.shift();
  }

  /** Draws; with reduced motion at most once a second. @param {number} now ms */
  tick(now) {
    if (this.#still.matches && now - this.#drawnAt < STILL_MS) return;
    this.#drawnAt = now;
    this.draw();
  }

  draw() {
    const { width, height: tall } = this.#canvas;
    if (width === 0) return;
    const context = this.#context;
    const ratio = devicePixelRatio || 1;
    const middle = Math.round(tall / 2);
    const lane = middle - 10 * ratio;
    context.clearRect(0, 0, width, tall);

    context.fillStyle = this.#colours.faint;
    for (let second = 1; second < this.#span; second++) context.fillRect(Math.round((width * second) / this.#span), 0, ratio, tall);

    const step = width / COLUMNS;
    const bar = Math.max(step - ratio, ratio);
    const first = COLUMNS - this.#columns.length;
    const paint = (key, colour, top) => {
      context.fillStyle = colour;
      this.#columns.forEach((column, i) => {
        const size = Math.max(column[key] * lane, ratio);
        context.fillRect((first + i) * step, top(size), bar, size);
      });
    };
    paint("sent", this.#colours.you, (size) => middle - 2 * ratio - size);
    paint("received", this.#colours.back, () => middle + 2 * ratio);
    context.fillStyle = this.#colours.line;
    context.fillRect(0, middle - ratio / 2, width, ratio);
    this.#words(width, tall, step, ratio);
    if (this.delayMs) this.#dimension(this.delayMs, width, tall, ratio);
  }

  /** What happened: your side's words above, the reply's below. A word that has no room is left out, not its line. */
  #words(width, tall, step, ratio) {
    const context = this.#context;
    const newest = this.#columns.at(-1)?.column ?? 0;
    const free = { you: 0, back: 0 };
    context.font = `${11 * ratio}px system-ui, sans-serif`;
    context.textAlign = "left";
    for (const { column, side, word } of this.#marks) {
      const x = Math.round(width - (newest - column + 0.5) * step);
      if (x < 0) continue;
      const half = tall / 2;
      context.fillStyle = this.#colours[side];
      context.fillRect(x, side === "you" ? 0 : half, Math.max(ratio, 1), half);
      const length = context.measureText(word).width + 6 * ratio;
      const from = x + length > width ? x - length : x + 4 * ratio;
      if (from < free[side]) continue;
      context.fillStyle = this.#colours.ink;
      context.fillText(word, from, side === "you" ? 12 * ratio : tall - 5 * ratio);
      free[side] = from + length;
    }
  }

  /** A dimension line as in a drawing: the latency at the picture's own scale. */
  #dimension(delayMs, width, tall, ratio) {
    const context = this.#context;
    const length = (delayMs / 1000 / this.#span) * width;
    const y = tall - 12 * ratio;
    const right = width - 8 * ratio;
    context.fillStyle = this.#colours.line;
    context.fillRect(right - length, y, length, 1.5 * ratio);
    for (const x of [right - length, right]) context.fillRect(x - ratio / 2, y - 4 * ratio, 1.5 * ratio, 9.5 * ratio);
    context.font = `${11 * ratio}px ui-monospace, monospace`;
    context.textAlign = "right";
    context.fillText(`${Math.round(delayMs)} ms`, right - length - 6 * ratio, y + 4.5 * ratio);
  }

  #fit() {
    const ratio = devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.#canvas;
    this.#canvas.width = Math.round(clientWidth * ratio);
    this.#canvas.height = Math.round(clientHeight * ratio);
    this.draw();
  }
}

/** A level as a fraction (0..1) of a lane. */
export function height(db) {
  return Math.min(Math.max((db - FLOOR_DB) / (TOP_DB - FLOOR_DB), 0), 1);
}
