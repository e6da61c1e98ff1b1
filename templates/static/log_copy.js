/**
 * The text of lines, to be copied: as it is shown, without numbers and times, each line whole.
 */

import { Screen, textOf } from "./screen.js";

/** More lines are not copied. */
export const MAX_COPIED_LINES = 100_000;
const MAX_CHARS = 100_000_000;
const WINDOW_LINES = 10_000;

/** The text of the lines in `pieces` ([first, last] each) from `rows`; null if any isn't here. */
export function textHere(rows, pieces) {
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

/** The same, fetched. Raises ApiError; a RangeError where it is too much to be held. */
export async function fetchText(fetchLines, pieces) {
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
