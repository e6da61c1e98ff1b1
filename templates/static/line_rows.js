/**
 * What lines look like: those of a store, as a terminal would have left them.
 */

import { Screen } from "./screen.js";
import { BLOCK_LINES } from "./line_store.js";

/** What came of the lines of a block, as far as they were fed to `screen` after those of `before`. */
class Drawn {
  fed = 0;
  runs = new Map();
  hidden = new Set();

  constructor(before, screen) {
    this.before = before;
    this.screen = screen;
  }

  /** Whether these lines say how row `number` looks, or that there is none. */
  knows(number) {
    return this.runs.has(number) || this.hidden.has(number);
  }
}

/** Turns the blocks of `store` into rows, each block once. */
export class LineRows {
  #store;
  #known = new WeakMap();

  constructor(store) {
    this.#store = store;
  }

  /**
   * The row of line `number`: `{runs, hidden}`, null while the line isn't here. `hidden`: a later
   * line has drawn over it.
   */
  row(number) {
    const block = this.#store.blockOf(number);
    if (!block || block.lines[number - block.first] === undefined) {
      return null;
    }
    const after = this.#store.block(block.index + 1);
    const later = after && this.#drawsOver(after) ? this.#screened(after) : null;
    const { runs, hidden } = later?.knows(number) ? later : this.#screened(block);
    return { runs: runs.get(number) ?? [], hidden: hidden.has(number) };
  }

  /**
   * What the line being written, after the last one, changes: `{runs, changed, hidden}`, where
   * `changed` maps numbers of earlier lines to their runs.
   */
  tentative(text) {
    const next = this.#store.total + 1;
    const { screen } = this.#tail(next);
    const { rows, changed: redrawn, superseded } = screen.tentative(text, next);
    const changed = new Map([...redrawn, ...rows].map((row) => [row.number, row.runs]));
    const runs = changed.get(next) ?? rows.at(-1)?.runs ?? [];
    return { runs, changed, hidden: new Set(superseded) };
  }

  #tail(next) {
    const block = this.#store.blockOf(next) ?? this.#store.blockOf(next - 1);
    const isWhole = block && block.first + block.lines.length === next;
    return isWhole ? this.#screened(block) : { screen: new Screen("") };
  }

  // Also one whose first lines may go on with what the block before was drawing over.
  #drawsOver(block) {
    return block.redraws || Boolean(this.#store.block(block.index - 1)?.redraws);
  }

  #screened(block) {
    const before = this.#drawsOver(block) ? this.#store.block(block.index - 1) : null;
    let known = this.#known.get(block);
    if (!known || known.before !== before) {
      known = new Drawn(before, new Screen((before ?? block).style));
      if (before?.lines.length === BLOCK_LINES) {
        known.screen.feed(before.lines, before.first);
      }
      this.#known.set(block, known);
    }
    if (known.fed < block.lines.length) {
      this.#feed(known, block);
    }
    return known;
  }

  #feed(known, block) {
    const lines = known.fed ? block.lines.slice(known.fed) : block.lines;
    const { rows, changed, superseded } = known.screen.feed(lines, block.first + known.fed);
    known.fed = block.lines.length;
    for (const row of [...rows, ...changed]) {
      known.runs.set(row.number, row.runs);
      known.hidden.delete(row.number); // one that was drawn over may get content again
    }
    for (const number of superseded) {
      known.hidden.add(number);
    }
  }
}
