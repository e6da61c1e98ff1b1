/**
 * A row of a terminal, column by column.
 *
 * `chars[column]` is the character that begins there with its marks; "" in the further columns of
 * one that takes several: wide characters, and tabs, which stay what they were as long as nothing
 * is written into them. `styles[column]` is how it looks.
 */

import { PLAIN } from "./text_style.js";

const TAB_COLUMNS = 8;
const MAX_CELL_CHARS = 32; // a character with its marks

// Characters of one column each: nearly all that bars are drawn with.
const EVEN =
  /^[ -~\xa0-\xac\xae-\u02ff\u2010-\u2027\u2030-\u205e\u2190-\u2319\u2500-\u25fc\u2800-\u28ff\ufffd]*$/;
const MARK = /^[\p{Mn}\p{Me}\p{Cf}\u1160-\u11ff]$/u;
// East Asian Wide and Fullwidth (UAX #11). Emoji that are shown as such are wide too.
const WIDE = new RegExp(
  String.raw`^(?:(?!\p{Regional_Indicator})\p{Emoji_Presentation}|[\u1100-\u115f\u2329\u232a` +
    String.raw`\u2e80-\u303e\u3041-\u3247\u3250-\u4dbf\u4e00-\ua4cf\ua960-\ua97c\uac00-\ud7a3` +
    String.raw`\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6b\uff01-\uff60\uffe0-\uffe6` +
    String.raw`\u{16fe0}-\u{18cff}\u{18d00}-\u{18d08}\u{1aff0}-\u{1b2fb}\u{1f200}-\u{1f265}` +
    String.raw`\u{20000}-\u{2fffd}\u{30000}-\u{3fffd}])$`,
  "u",
);
const widths = new Map();

/** How many columns a character takes: 0, 1 or 2. The server has the same rule (sse.py). */
export function charWidth(char) {
  let width = widths.get(char);
  if (width === undefined) {
    width = MARK.test(char) && char !== "\xad" ? 0 : WIDE.test(char) ? 2 : 1;
    widths.set(char, width);
    if (widths.size > 4096) {
      widths.clear();
    }
  }
  return width;
}

/** Whether the two make one emoji: after a zero-width joiner, or with a skin colour. */
function joins(before, char) {
  return before.endsWith("\u200d") || (char >= "\u{1f3fb}" && char <= "\u{1f3ff}");
}

export class Cells {
  chars = [];
  styles = [];
  #isUneven = false;

  /** Writes `text`, which has no control characters but tabs; the column after it. */
  write(column, text, style) {
    if (EVEN.test(text)) {
      this.#put(column, text, style);
      return column + text.length;
    }
    this.#isUneven = true;
    let at = column;
    for (const [index, part] of text.split("\t").entries()) {
      at = index > 0 ? this.#tab(at) : at;
      at = part ? this.#writeUneven(at, part, style) : at;
    }
    return at;
  }

  /** Blanks the columns from `start` to before `end`. */
  blank(start, end) {
    this.#put(start, " ".repeat(end - start), PLAIN);
  }

  /** Leaves nothing from `column` on. */
  cut(column) {
    this.#part(column);
    if (column < this.chars.length) {
      this.chars.length = column;
      this.styles.length = column;
    }
  }

  #writeUneven(column, text, style) {
    const cells = [];
    let before = this.#before(column);
    let lead = ""; // marks with nothing to stand on precede the next character
    for (const char of text) {
      const width = charWidth(char);
      if (width > 0 && !(width === 2 && before && joins(before, char))) {
        cells.push(lead + char);
        if (width === 2) {
          cells.push("");
        }
        [before, lead] = [char, ""];
      } else if (before) {
        appendMark(cells.length > 0 ? cells : this.chars, cells.length || column, char);
        before = char;
      } else {
        lead += char;
      }
    }
    this.#put(column, cells, style);
    return column + cells.length;
  }

  #before(column) {
    let at = column - 1;
    while (at >= 0 && this.chars[at] === "") {
      at -= 1;
    }
    const char = this.chars[at] ?? "";
    return char === "\t" ? "" : char;
  }

  // A tab moves; one at the row's end leaves its trace, so that it can be copied.
  #tab(column) {
    const width = TAB_COLUMNS - (column % TAB_COLUMNS);
    if (column >= this.chars.length) {
      this.#put(column, ["\t", ...Array(width - 1).fill("")], PLAIN);
    }
    return column + width;
  }

  #put(column, chars, style) {
    while (this.chars.length < column) {
      this.chars.push(" ");
      this.styles.push(PLAIN);
    }
    const end = column + chars.length;
    this.#part(column);
    this.#part(end);
    for (let at = column; at < end; at += 1) {
      this.chars[at] = chars[at - column];
      this.styles[at] = style;
    }
  }

  // Half of a wide character is none: blanks both halves where `column` parts them.
  #part(column) {
    if (!this.#isUneven || this.chars[column] !== "") {
      return;
    }
    let at = column;
    while (this.chars[at] === "") {
      at -= 1;
    }
    do {
      this.chars[at] = " ";
      at += 1;
    } while (this.chars[at] === "");
  }
}

function appendMark(chars, column, mark) {
  let at = column - 1;
  while (chars[at] === "") {
    at -= 1;
  }
  if (chars[at].length < MAX_CELL_CHARS) {
    chars[at] += mark;
  }
}
