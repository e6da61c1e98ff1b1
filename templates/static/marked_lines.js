/**
 * The lines that the reader has marked, which the page's address names: "#L120", "#L120-L140".
 */

import { formatLink, parseLink } from "./line_link.js";

/** `onMarked(isByReader)`: other lines are marked than before, or none; else by a link. */
export class MarkedLines {
  #onMarked;
  #from = 0;

  /** The first and the last of them; null for none. */
  range = null;

  constructor(onMarked) {
    this.#onMarked = onMarked;
  }

  /** Their link. */
  get link() {
    return this.range ? formatLink(this.range) : "";
  }

  /** The one line that is marked; null where it is none or more. */
  get single() {
    return this.range && this.range[0] === this.range[1] ? this.range[0] : null;
  }

  /** Whether line `number` is one of them. */
  has(number) {
    return this.range !== null && this.range[0] <= number && number <= this.range[1];
  }

  /** Whether any of the lines `first` to `last` is. */
  overlaps(first, last) {
    return this.range !== null && this.range[1] >= first && this.range[0] <= last;
  }

  /** Marks what the address names; whether it names any. */
  readLink() {
    const range = parseLink(location.hash);
    if (range) {
      this.range = range;
      this.#from = range[0];
      this.#onMarked(false);
    }
    return range !== null;
  }

  /** Marks line `number` alone. */
  mark(number) {
    this.#from = number;
    this.#set([number, number]);
  }

  /** Marks all from the line that was marked first to line `number`. */
  extendTo(number) {
    if (this.range) {
      this.#set([Math.min(this.#from, number), Math.max(this.#from, number)]);
    } else {
      this.mark(number);
    }
  }

  /** Marks none. */
  clear() {
    this.#set(null);
  }

  #set(range) {
    this.range = range;
    history.replaceState(history.state, "", this.link || location.pathname + location.search);
    this.#onMarked(true);
  }
}
