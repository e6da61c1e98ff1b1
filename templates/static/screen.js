/**
 * What a terminal would show of a log: lines as they come over the wire, turned into rows of styled
 * text. Pure: no DOM.
 *
 *     const screen = new Screen(style);         // the style in force where the first line begins
 *     const { rows, superseded, changed } = screen.feed(lines, firstLineNumber);
 *
 * A line is drawn in a row of its own, as of a terminal so wide that none wraps. One that moves the
 * cursor up (as docker, npm, pip and cargo do) draws over the rows of earlier lines. A row has the
 * number of the line that wrote it last; where one line wrote several, those above its last have the
 * numbers next below, so that numbers ascend and none occurs twice. The number of a row only ever
 * grows. Lines that have no row any more are superseded.
 *
 * As many rows can be drawn over as a tall terminal has; what is above is forgotten. Of lines before
 * the first that was fed, nothing is known but that each has a row.
 */

import { Cells } from "./cells.js";
import { PLAIN, styleOf, withLink, withSgr } from "./text_style.js";

const HEIGHT = 100;
const KEPT_ROWS = 3 * HEIGHT;
const MAX_JUMP_COLUMN = 1000; // no terminal is wider, and anybody may write a number
const AT_END = -1;

const CONTROL = /[\x00-\x08\x0a-\x1f\x7f-\x9f]/;
const NEXT_CONTROL = /[\x00-\x08\x0a-\x1f\x7f-\x9f]/g;
// ECMA-48: CSI with parameters, intermediates and a final byte; OSC up to BEL or ST; DCS, SOS, PM
// and APC up to ST; escapes of two or three bytes. A string that its line doesn't end ends there.
const CSI = /\x1b\[([0-?]*)([ -/]*)([@-~])/y;
const CUT_CSI = /\x1b\[[0-?]*[ -/]*/y;
const OSC = /\x1b\]([^\x07\x1b]*)(\x07|\x1b\\)?/y;
const STRING = /\x1b[PX^_][^\x1b]*(?:\x1b\\)?/y;
const SHORT = /\x1b([ -/]*[0-~])/y;
// A sequence that a line end cut goes on only if it is one of these: text is never taken for it.
const CUT_AND_WHOLE = /^\x1b(?:\[[\d;:]*[mK]|\][^\x07\x1b]*(?:\x07|\x1b\\))/;

/**
 * A piece of a row that looks the same throughout.
 *
 * `fg`, `bg`: one of the 16 colours by name (`red`, `bright-red`), any other as `rgb(1 2 3)`, null
 * for the default. `inverse` is for the reader of the run to apply. `href`: an http(s) address or
 * null. `style`: the escape sequences that bring all this about.
 */
function makeRun(text, style) {
  return {
    text,
    bold: style.bold,
    faint: style.faint,
    italic: style.italic,
    underline: style.underline,
    inverse: style.inverse,
    strike: style.strike,
    fg: style.fg,
    bg: style.bg,
    href: style.href,
    style: style.escapes,
  };
}

/** The text of runs. */
export function textOf(runs) {
  return runs.length === 1 ? runs[0].text : runs.map(({ text }) => text).join("");
}

class Row {
  cells = null; // while it is being drawn
  reported = 0; // the number under which it was handed out; 0: it wasn't yet

  constructor(number) {
    this.number = number;
    this.writer = number; // the line that wrote it last
    this.runs = [];
  }

  copy() {
    return Object.assign(new Row(this.number), this);
  }

  /** Makes `cells` of its runs. */
  open() {
    this.cells = new Cells();
    let column = 0;
    for (const { text, style } of this.runs) {
      column = this.cells.write(column, text, styleOf(style));
    }
  }

  /** Its characters as runs, which are never changed again. */
  close() {
    const { chars, styles } = this.cells;
    this.cells = null;
    this.runs = [];
    for (let start = 0; start < chars.length; ) {
      let end = start + 1;
      while (end < chars.length && (chars[end] === "" || styles[end] === styles[start])) {
        end += 1;
      }
      this.runs.push(makeRun(chars.slice(start, end).join(""), styles[start]));
      start = end;
    }
  }
}

/** See above. `style`: what is in force where the first line begins, as escape sequences. */
export class Screen {
  #rows = [];
  #row = 0; // where the cursor is, as an index; the row after the last isn't there yet
  #column = AT_END; // AT_END: at the end of a new row, whose columns nobody had to know yet
  #bottom = 0; // the lowest row that the cursor has been in
  #ceiling = 0; // the highest row that it can get to: below 0, it is one of before the first line
  #saved = null;
  #isAway = false; // at an absolute place of the screen: no row of the log's
  #style;
  #pending = ""; // the beginning of an escape sequence that the last line ended with
  #line = 1; // the number of the line that is being drawn
  #open = []; // rows whose cells are being drawn
  #made = []; // rows that were made since the last report
  #touched = new Set(); // older rows that were changed since
  #gone = []; // numbers of rows that were erased since

  constructor(style = "") {
    this.#style = styleOf(style);
  }

  /** The style after the last line, as escape sequences; "" is the default. */
  get style() {
    return this.#style.escapes;
  }

  /**
   * Draws whole lines. `rows`: those of these lines, `{number, runs}`, ascending; `changed`: rows of
   * earlier lines with new content; `superseded`: numbers of lines, of these and earlier ones, that
   * have no row now.
   */
  feed(lines, firstLineNumber = this.#line) {
    this.#goTo(firstLineNumber);
    for (const line of lines) {
      if (this.#column === AT_END && !this.#pending && !CONTROL.test(line)) {
        this.#append(line);
      } else {
        this.#draw(line);
      }
      this.#endLine();
    }
    return this.#report(firstLineNumber);
  }

  /**
   * The same for the line that is being written, `number` (the next), as far as there is one;
   * forgotten at once.
   */
  tentative(text, number = this.#line) {
    const copy = this.#copy();
    copy.#goTo(number);
    copy.#draw(text);
    copy.#closeRows();
    copy.#line += 1;
    return copy.#report(number);
  }

  #copy() {
    const copy = new Screen();
    copy.#rows = this.#rows.map((row) => row.copy());
    copy.#row = this.#row;
    copy.#column = this.#column;
    copy.#bottom = this.#bottom;
    copy.#ceiling = this.#ceiling;
    copy.#saved = this.#saved;
    copy.#style = this.#style;
    copy.#pending = this.#pending;
    copy.#line = this.#line;
    return copy;
  }

  #goTo(line) {
    if (line !== this.#line) {
      this.#rows = [];
      this.#row = this.#bottom = 0;
      this.#ceiling = Math.max(1 - HEIGHT, 1 - line);
      this.#column = AT_END;
      this.#saved = null;
      this.#pending = "";
      this.#line = line;
    }
  }

  // --- Drawing -----------------------------------------------------------------------------------

  #draw(wireLine) {
    const line = this.#withPending(wireLine);
    let at = 0;
    while (at < line.length) {
      NEXT_CONTROL.lastIndex = at;
      const next = NEXT_CONTROL.exec(line)?.index ?? line.length;
      if (next > at) {
        this.#put(at === 0 && next === line.length ? line : line.slice(at, next));
      }
      at = next < line.length ? this.#control(line, next) : next;
    }
  }

  #withPending(line) {
    const whole = this.#pending + line;
    const isWhole = this.#pending && CUT_AND_WHOLE.test(whole);
    this.#pending = "";
    return isWhole ? whole : line;
  }

  #put(text) {
    if (this.#isAway) {
      return;
    }
    if (this.#column === AT_END) {
      this.#append(text);
    } else {
      this.#column = this.#cells().write(this.#column, text, this.#style);
    }
  }

  #append(text) {
    const { runs } = this.#here();
    if (this.#style.paints && text.includes("\t")) {
      // A tab moves: it paints nothing.
      for (const part of text.split(/(\t+)/)) {
        if (part) {
          runs.push(makeRun(part, part[0] === "\t" ? PLAIN : this.#style));
        }
      }
    } else if (runs.length > 0 && runs.at(-1).style === this.#style.escapes) {
      runs.at(-1).text += text;
    } else if (text) {
      runs.push(makeRun(text, this.#style));
    }
  }

  /** The row where the cursor is, which counts as written. */
  #here() {
    let row = this.#rows[this.#row];
    if (!row) {
      row = new Row(this.#line);
      this.#rows.push(row);
      this.#made.push(row);
    } else if (row.writer !== this.#line) {
      row.writer = this.#line;
      this.#touched.add(row);
    }
    return row;
  }

  #cells() {
    const row = this.#here();
    if (!row.cells) {
      row.open();
      this.#open.push(row);
    }
    return row.cells;
  }

  /** The column where the cursor is. */
  #locate() {
    if (this.#column === AT_END) {
      this.#column = this.#rows[this.#row] ? this.#cells().chars.length : 0;
    }
    return this.#column;
  }

  /** Does what the control character at index `at` of `line` asks for; the index after it. */
  #control(line, at) {
    const char = line[at];
    if (char === "\x1b") {
      return this.#escape(line, at);
    }
    if (!this.#isAway && char === "\r") {
      this.#column = this.#rows[this.#row] ? 0 : this.#column;
    } else if (!this.#isAway && char === "\b") {
      this.#column = Math.max(0, this.#locate() - 1);
    }
    return at + 1;
  }

  #escape(line, at) {
    const kind = line[at + 1];
    if (kind === "[") {
      return this.#controlSequence(line, at);
    }
    if (kind === "]") {
      const [whole, text, end] = matchAt(OSC, line, at);
      if (end && text.startsWith("8;")) {
        this.#style = withLink(this.#style, text);
      }
      return at + whole.length;
    }
    const string = matchAt(STRING, line, at);
    if (string) {
      return at + string[0].length;
    }
    if (kind === undefined) {
      this.#pending = "\x1b";
    }
    const short = matchAt(SHORT, line, at);
    this.#shortEscape(short?.[1]);
    return at + (short?.[0].length ?? 1);
  }

  #shortEscape(kind) {
    if (kind === "7") {
      this.#saved = { row: this.#row, column: this.#locate() };
    } else if (kind === "8" && this.#saved) {
      this.#row = Math.max(this.#ceiling, Math.min(this.#saved.row, this.#bottom));
      this.#column = this.#saved.column;
      this.#isAway = false;
    } else if (!this.#isAway && (kind === "M" || kind === "D" || kind === "E")) {
      this.#move(kind === "M" ? -1 : 1);
      this.#column = kind === "E" ? 0 : this.#column;
    }
  }

  #controlSequence(line, at) {
    const match = matchAt(CSI, line, at);
    if (!match) {
      const [cut] = matchAt(CUT_CSI, line, at);
      this.#pending = at + cut.length === line.length ? cut : "";
      return at + cut.length;
    }
    const [whole, codes, between, final] = match;
    if (final === "m") {
      this.#style = between || codes >= "<" ? this.#style : withSgr(this.#style, codes);
    } else if (final === "H" || final === "f" || final === "d") {
      this.#isAway = this.#saved !== null;
    } else if ((final === "s" || final === "u") && !codes) {
      this.#shortEscape(final === "s" ? "7" : "8");
    } else if (!between && !this.#isAway && /^\d*$/.test(codes)) {
      this.#moveOrErase(final, Math.min(Number(codes), 1e6));
    }
    return at + whole.length;
  }

  #moveOrErase(final, number) {
    const count = Math.max(1, number);
    if (final === "K") {
      this.#erase(number);
    } else if (final === "J" && number === 0) {
      this.#eraseBelow();
    } else if (final === "X") {
      this.#blank(this.#locate(), this.#jump(this.#column + count));
    } else if (final === "C" || final === "a") {
      this.#column = this.#jump(this.#locate() + count);
    } else if (final === "D") {
      this.#column = Math.max(0, this.#locate() - count);
    } else if (final === "G" || final === "`") {
      this.#column = this.#jump(count - 1);
    } else if ("ABEFe".includes(final)) {
      this.#move(final === "A" || final === "F" ? -count : count);
      this.#column = final === "E" || final === "F" ? 0 : this.#column;
    }
  }

  #jump(column) {
    const length = this.#rows[this.#row]?.cells?.chars.length ?? 0;
    return Math.min(column, Math.max(MAX_JUMP_COLUMN, this.#column, length));
  }

  #erase(which) {
    if (which === 1) {
      this.#blank(0, this.#locate() + 1);
    } else if (this.#rows[this.#row] && (which === 2 || (which === 0 && this.#column !== AT_END))) {
      this.#locate();
      this.#cells().cut(which === 2 ? 0 : this.#column);
    }
  }

  // Where no row is yet, there is nothing to erase.
  #blank(start, end) {
    if (this.#rows[this.#row]) {
      this.#cells().blank(start, end);
    }
  }

  #eraseBelow() {
    this.#erase(0);
    for (const row of this.#rows.splice(this.#row + 1)) {
      this.#touched.delete(row);
      if (row.reported) {
        this.#gone.push(row.reported);
      }
      row.writer = 0;
    }
    this.#bottom = this.#row;
  }

  // --- Rows --------------------------------------------------------------------------------------

  #move(count) {
    this.#locate();
    this.#row = Math.min(this.#row + count, this.#bottom);
    this.#row = Math.max(this.#row, this.#ceiling);
    while (this.#row < 0) {
      this.#addUnknown((this.#rows[0]?.number ?? this.#line) - 1);
    }
  }

  /** Adds the row of a line before the first that was fed: its content is not known. */
  #addUnknown(number) {
    const row = new Row(number);
    row.reported = number;
    this.#rows.unshift(row);
    this.#shift(1);
  }

  #shift(count) {
    this.#row += count;
    this.#bottom += count;
    this.#ceiling += count;
    if (this.#saved) {
      this.#saved = { ...this.#saved, row: this.#saved.row + count };
    }
  }

  #endLine() {
    this.#here();
    if (this.#open.length > 0) {
      this.#closeRows();
    }
    this.#isAway = false;
    this.#line += 1;
    this.#row += 1;
    this.#bottom = Math.max(this.#bottom, this.#row);
    this.#ceiling = Math.max(this.#ceiling, this.#bottom - HEIGHT + 1);
    this.#column = this.#row === this.#rows.length ? AT_END : 0;
    if (this.#rows.length > KEPT_ROWS) {
      this.#forget();
    }
  }

  #closeRows() {
    for (const row of this.#open) {
      row.close();
    }
    this.#open = [];
  }

  #forget() {
    this.#settle();
    const count = Math.min(this.#ceiling, this.#row);
    this.#rows.splice(0, count);
    this.#shift(-count);
  }

  /** Numbers the rows: each as the line that wrote it last, or just less than the row below. */
  #settle() {
    if (this.#touched.size === 0 && this.#gone.length === 0) {
      return;
    }
    let limit = Infinity;
    for (const row of this.#rows.toReversed()) {
      row.number = Math.min(row.writer, limit);
      limit = row.number - 1;
      if (row.reported && row.reported !== row.number) {
        this.#touched.add(row);
      }
    }
  }

  #report(first) {
    this.#settle();
    const isPlain = this.#touched.size === 0 && this.#gone.length === 0;
    const shown = this.#made.filter((row) => row.writer > 0);
    const before = this.#gone;
    for (const row of this.#touched) {
      if (row.reported) {
        shown.push(row);
        before.push(row.reported);
      }
    }
    this.#made = [];
    this.#touched.clear();
    this.#gone = [];
    const found = shown.map((row) => {
      row.reported = row.number;
      return { number: row.number, runs: row.runs };
    });
    return isPlain
      ? { rows: found, superseded: [], changed: [] }
      : sorted(found, before, first, this.#line);
  }
}

/** What `feed` returns, of the rows to be shown and the numbers that rows had before. */
function sorted(found, before, first, next) {
  found.sort((one, other) => one.number - other.number);
  const numbers = new Set(found.map(({ number }) => number));
  for (let number = first; number < next; number += 1) {
    before.push(number);
  }
  const superseded = [...new Set(before)].filter((number) => !numbers.has(number));
  return {
    rows: found.filter(({ number }) => number >= first),
    superseded: superseded.sort((one, other) => one - other),
    changed: found.filter(({ number }) => number < first),
  };
}

function matchAt(pattern, text, index) {
  pattern.lastIndex = index;
  return pattern.exec(text);
}
