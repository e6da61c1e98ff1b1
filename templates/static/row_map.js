/**
 * Which lines are shown, and in which row each stands. Pure.
 *
 * What is shown is a list of segments of consecutive lines. Between two of them lines are left out:
 * silently, where a fold is shut, or with a row that says how many, where a search filters. Where
 * the log has dropped its first lines, the first row says so, and no segment reaches before `first`.
 */

export class RowMap {
  #firsts;
  #lasts;
  #rows = [];
  #gapRows;
  #total;
  #first;
  #count = 0;

  /**
   * `segments`: [first, last] line numbers, ascending and apart; the last may be empty (last =
   * first - 1). `gapRows`: whether a gap takes a row. `first`: the first line that wasn't dropped.
   */
  constructor(segments, total, { gapRows = false, first = 1 } = {}) {
    this.#firsts = segments.map(([first]) => first);
    this.#lasts = segments.map(([, last]) => last);
    this.#gapRows = gapRows;
    this.#total = total;
    this.#first = first;
    this.#number();
  }

  /** All lines but those in `hidden`, ascending intervals apart from each other. */
  static without(hidden, total, first = 1) {
    const segments = [];
    let next = first;
    for (const [start, end] of hidden) {
      if (start > next) {
        segments.push([next, start - 1]);
      }
      next = Math.max(next, end + 1);
    }
    segments.push([next, Math.max(total, next - 1)]);
    return new RowMap(segments, total, { first });
  }

  /** The lines `matches` (ascending) with `context` lines around each, and rows for the gaps. */
  static around(matches, context, total, first = 1) {
    const segments = [];
    let current = null;
    for (const number of matches.slice(lastAtMost(matches, first - 1) + 1)) {
      const start = Math.max(first, number - context);
      const end = Math.min(total, number + context);
      if (current && start <= current[1] + 1) {
        current[1] = end;
      } else {
        current = [start, end];
        segments.push(current);
      }
    }
    return new RowMap(segments, total, { gapRows: true, first });
  }

  /** How many rows there are. */
  get count() {
    return this.#count;
  }

  /** The log has `total` lines now; those that came stand at the end. */
  grow(total) {
    this.#total = total;
    if (this.#gapRows) {
      this.#number();
    } else {
      const end = this.#lasts.length - 1;
      this.#lasts[end] = Math.max(total, this.#firsts[end] - 1);
      this.#count = this.#rows[end] + this.#lasts[end] - this.#firsts[end] + 1;
    }
  }

  /** What row `row` (from 0) shows: `{number}`, or `{gap: [first, last], isDropped}`. */
  at(row) {
    if (row === 0 && this.#first > 1) {
      return { gap: [1, this.#first - 1], isDropped: true };
    }
    const index = lastAtMost(this.#rows, row);
    if (index >= 0) {
      const number = this.#firsts[index] + row - this.#rows[index];
      if (number <= this.#lasts[index]) {
        return { number };
      }
    }
    const before = index >= 0 ? this.#lasts[index] : this.#first - 1;
    const after = index + 1 < this.#firsts.length ? this.#firsts[index + 1] : this.#total + 1;
    return { gap: [before + 1, after - 1], isDropped: false };
  }

  /** The row of line `number`, or of the nearest shown one before it. */
  rowOf(number) {
    const index = lastAtMost(this.#firsts, number);
    if (index < 0) {
      return 0;
    }
    return this.#rows[index] + Math.min(number, this.#lasts[index]) - this.#firsts[index];
  }

  /** Whether line `number` has a row. */
  has(number) {
    const index = lastAtMost(this.#firsts, number);
    return index >= 0 && number <= this.#lasts[index];
  }

  /** The shown lines from `first` to `last`, as [first, last] pieces. */
  pieces(first, last) {
    const found = [];
    for (let index = Math.max(0, lastAtMost(this.#firsts, first)); index < this.#firsts.length; index += 1) {
      const piece = [Math.max(first, this.#firsts[index]), Math.min(last, this.#lasts[index])];
      if (this.#firsts[index] > last) {
        break;
      }
      if (piece[0] <= piece[1]) {
        found.push(piece);
      }
    }
    return found;
  }

  #number() {
    let row = this.#first > 1 ? 1 : 0;
    let next = this.#first;
    this.#rows = this.#firsts.map((first, index) => {
      row += this.#gapRows && first > next ? 1 : 0;
      const at = row;
      row += this.#lasts[index] - first + 1;
      next = this.#lasts[index] + 1;
      return at;
    });
    this.#count = row + (this.#gapRows && next <= this.#total ? 1 : 0);
  }
}

/** The index of the last of the ascending `values` that isn't above `value`; -1 if all are. */
export function lastAtMost(values, value) {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= value) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low - 1;
}
