/**
 * Copying from a log: its text as it is shown, without numbers and times, each line whole.
 */

import { formatCount, formatQuantity } from "./format.js";
import { Screen, textOf } from "./screen.js";

const MAX_COPIED_LINES = 100_000;
const MAX_CHARS = 100_000_000;
const WINDOW_LINES = 10_000;

/**
 * Copies what is selected when the reader asks for it, and lines when `copyLines` does; what isn't
 * among `rows` is fetched from `source`. The view tells
 *
 * - `total()`: how many complete lines there are; `partial()`: the text of the one after them;
 * - `shownPieces()`: all lines that are shown; `pieces(first, last)`: those that a selection from
 *   one to the other means; as [first, last] each;
 * - `isChanged(number)`: whether a row shows something else than the text of its line;
 * - `say(sentence)`: shows it to the reader.
 */
export class LogCopier {
  #source;
  #rows;
  #selection;
  #view;

  constructor({ source, rows, selection, view }) {
    this.#source = source;
    this.#rows = rows;
    this.#selection = selection;
    this.#view = view;
    document.addEventListener("copy", (event) => this.#copied(event));
  }

  /** Copies the text of the lines `first` to `last`. */
  copyLines(first, last) {
    this.#copy([[first, Math.min(last, this.#view.total())]]);
  }

  /** Copies the address of this page, with `hash`. */
  async copyLink(hash) {
    try {
      await navigator.clipboard.writeText(location.origin + location.pathname + hash);
      this.#view.say("Copied the link.");
    } catch (error) {
      this.#view.say(`The link could not be copied: ${error.message}`);
    }
  }

  #copied(event) {
    if (event.target.closest?.("input, textarea, dialog")) {
      return;
    }
    const range = this.#selection.range;
    if (!range && !this.#selection.all) {
      return;
    }
    event.preventDefault();
    const { pieces, trim } = this.#selected(range);
    const text = linesIn(pieces) <= MAX_COPIED_LINES ? textHere(this.#rows, pieces) : null;
    if (text !== null) {
      event.clipboardData.setData("text/plain", trim(text));
    } else {
      this.#copy(pieces, trim);
    }
  }

  // What is to be copied: pieces of whole lines, and how their text is cut at both ends.
  #selected(range) {
    const partial = this.#view.partial();
    if (this.#selection.all) {
      return { pieces: this.#view.shownPieces(), trim: (text) => text + partial };
    }
    const [start, end] = range;
    const pieces = this.#view.pieces(start.number, Math.min(end.number, this.#view.total()));
    return { pieces, trim: (text) => this.#cut(text, start, end, partial) };
  }

  #cut(text, start, end, partial) {
    const total = this.#view.total();
    if (start.number > total) {
      return partial.slice(start.column, end.column);
    }
    let kept = text;
    if (end.number > total) {
      kept += partial.slice(0, end.column);
    } else if (end.column !== Infinity && !this.#view.isChanged(end.number)) {
      const lastLine = text.lastIndexOf("\n", text.length - 2) + 1;
      kept = text.slice(0, lastLine + end.column);
    }
    return this.#view.isChanged(start.number) ? kept : kept.slice(start.column);
  }

  async #copy(pieces, trim = (text) => text) {
    const lines = linesIn(pieces);
    if (lines > MAX_COPIED_LINES) {
      this.#view.say(`These are ${formatQuantity(lines, "line")}; up to ${formatCount(MAX_COPIED_LINES)} can be copied. The raw log has them all.`);
      return;
    }
    this.#view.say(`Copying ${formatQuantity(lines, "line")}…`);
    try {
      const here = textHere(this.#rows, pieces);
      const text = here ?? (await fetchText((query) => this.#source.lines(query), pieces));
      await navigator.clipboard.writeText(trim(text));
      this.#view.say(`Copied ${formatQuantity(lines, "line")}.`);
    } catch (error) {
      this.#view.say(`They could not be copied: ${error.message}`);
    }
  }
}

function linesIn(pieces) {
  return pieces.reduce((sum, [first, last]) => sum + last - first + 1, 0);
}

// The text of the lines in `pieces` from `rows`; null if any isn't here.
function textHere(rows, pieces) {
  const lines = [];
  for (const [first, last] of pieces) {
    for (let number = first; number <= last; number += 1) {
      const row = rows.row(number);
      if (!row) {
        return null;
      }
      if (!row.hidden) {
        lines.push(`${textOf(row.runs)}\n`);
      }
    }
  }
  return lines.join("");
}

// The same, fetched. Raises ApiError; a RangeError where it is too much to be held.
async function fetchText(fetchLines, pieces) {
  const texts = [];
  let chars = 0;
  let page = null;
  for (const [first, last] of pieces) {
    for (let next = first; next <= last; ) {
      if (!page || !page.has(next)) {
        page = await fetchPage(fetchLines, next, Math.max(last - next + 1, 1000));
      }
      if (page.end < next) {
        return texts.join(""); // the log is shorter by now
      }
      const end = Math.min(last, page.end);
      const text = page.text(next, end);
      chars += text.length;
      if (chars > MAX_CHARS) {
        throw new RangeError("That is more text than a clipboard should hold. The raw log has it all.");
      }
      texts.push(text);
      next = end + 1;
    }
  }
  return texts.join("");
}

async function fetchPage(fetchLines, from, count) {
  const { lines, style } = await fetchLines({ from, count: Math.min(count, WINDOW_LINES) });
  const { rows, changed, superseded } = new Screen(style ?? "").feed(lines, from);
  const texts = new Map(rows.map((row) => [row.number, textOf(row.runs)]));
  changed.forEach((row) => texts.set(row.number, textOf(row.runs)));
  superseded.forEach((number) => texts.delete(number));
  const end = from + lines.length - 1;
  return {
    end,
    has: (number) => number >= from && number <= end,
    text: (first, last) => {
      const found = [];
      for (let number = first; number <= last; number += 1) {
        if (texts.has(number)) {
          found.push(`${texts.get(number)}\n`);
        }
      }
      return found.join("");
    },
  };
}
