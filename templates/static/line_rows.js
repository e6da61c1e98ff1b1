/**
 * What lines look like: those of a store, as a terminal would have left them.
 */

import { Screen } from "./screen.js";
import { BLOCK_LINES } from "./line_store.js";

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
    const later = after?.redraws ? this.#screened(after) : null;
    const own = this.#screened(block);
    const runs = later?.runs.get(number) ?? own.runs.get(number) ?? [];
    return { runs, hidden: Boolean(own.hidden.has(number) || later?.hidden.has(number)) };
  }

  /**
   * What the line being written, after the last one, changes: `{runs, changed, hidden}`, where
   * `changed` maps numbers of earlier lines to their runs.
   */
  tentative(text) {
    const next = this.#store.total + 1;
    const { screen } = this.#tail(next);
    const { rows, changed: redrawn, superseded } = screen.tentative(text);
    const changed = new Map([...redrawn, ...rows].map((row) => [row.number, row.runs]));
    const runs = changed.get(next) ?? rows.at(-1)?.runs ?? [];
    return { runs, changed, hidden: new Set(superseded) };
  }

  #tail(next) {
    const block = this.#store.blockOf(next) ?? this.#store.blockOf(next - 1);
    const isWhole = block && block.first + block.lines.length === next;
    return isWhole ? this.#screened(block) : { screen: new Screen("") };
  }

  #screened(block) {
    const before = block.redraws ? this.#store.block(block.index - 1) : null;
    let known = this.#known.get(block);
    if (!known || known.before !== before) {
      known = { before, screen: null, fed: 0, runs: new Map(), hidden: new Set() };
      known.screen = new Screen((before ?? block).style);
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
    }
    for (const number of superseded) {
      known.hidden.add(number);
    }
  }
}
