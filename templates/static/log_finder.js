/**
 * Finding in a log: the box, the search through all of it, the ways from match to match.
 */

import { formatCount } from "./format.js";
import { Highlighter } from "./highlighter.js";
import { LogSearch, nextMatch, previousMatch } from "./log_search.js";
import { lastAtMost } from "./row_map.js";
import { SearchBox } from "./search_box.js";

/**
 * Searches the log of `source`; a view of it tells where the reader is, and hears:
 *
 * - `firstVisible()`: the number of the first line in sight;
 * - `onFound()`: which lines match has changed, or how they are marked;
 * - `onFilter()`: which lines are to be shown has changed, see `isFilter`;
 * - `onGo(number)`: the reader goes to line `number`, which matches;
 * - `onClose()`: the box was closed.
 */
export class LogFinder {
  #view;
  #box;
  #search;
  #highlighter;
  #query = null;
  #current = null;
  #wantsJump = false;
  #wasSearching = false;
  #filter = { isOn: false, context: 2 };

  constructor(source, view) {
    this.#view = view;
    this.#highlighter = new Highlighter(() => view.onFound());
    this.#search = new LogSearch({
      search: (query, signal) => source.search(query, signal),
      onChange: () => this.#found(),
    });
    this.#box = new SearchBox({
      onQuery: (query) => this.#queryChanged(query),
      onStep: (direction) => this.step(direction),
      onFilter: (isOn, context) => this.#filterChanged(isOn, context),
      onClose: () => view.onClose(),
    });
    document.addEventListener("visibilitychange", () => this.#visibilityChanged());
  }

  /** The box. */
  get element() {
    return this.#box.element;
  }

  /** Whether the box is open. */
  get isOpen() {
    return this.#box.isOpen;
  }

  /** Whether matching lines alone are to be shown. */
  get isFilter() {
    return this.#filter.isOn;
  }

  /** How many lines around each match are shown then. */
  get context() {
    return this.#filter.context;
  }

  /** The lines that match, ascending. */
  get matches() {
    return this.#search.matches;
  }

  /** The match that was gone to last; null if there is none. */
  get current() {
    return this.#current;
  }

  /** Whether line `number` matches. */
  isMatch(number) {
    const { matches } = this.#search;
    return this.#query !== null && matches[lastAtMost(matches, number)] === number;
  }

  /** Where in the text of a line that matches something was found, as [start, end] pieces. */
  ranges(text) {
    return this.#highlighter.ranges(text);
  }

  /** Opens the box, for what is selected if that is short; false where the browser may search. */
  open() {
    if (this.#box.isOpen && this.#box.element.contains(document.activeElement)) {
      return false; // a second Ctrl+F
    }
    const selected = String(getSelection());
    this.#box.open(selected.length < 200 && !selected.includes("\n") ? selected : "");
    return true;
  }

  /** Closes the box and looks for nothing any more. */
  close() {
    this.#box.close();
  }

  /** Searches the log once more from its start, if anything is looked for. */
  restart() {
    if (this.#query) {
      this.#search.start(this.#query);
    } else {
      this.#search.reset();
    }
  }

  /** The log is another: searches it, from no place in it. */
  startOver() {
    this.#current = null;
    this.restart();
  }

  /** Goes to the next match (1) or the one before (-1), round and round. */
  step(direction) {
    const { matches } = this.#search;
    if (matches.length === 0) {
      return;
    }
    this.#wantsJump = false;
    const from = this.#current ?? this.#view.firstVisible() - (direction > 0 ? 1 : 0);
    const match = direction > 0
      ? (nextMatch(matches, from) ?? matches[0])
      : (previousMatch(matches, from) ?? matches.at(-1));
    this.#goTo(match);
  }

  /** Shows matching lines alone, or all again. */
  toggleFilter() {
    this.#box.toggleFilter();
  }

  #queryChanged(query) {
    this.#query = query;
    this.#current = null;
    this.#wantsJump = Boolean(query);
    this.#highlighter.query = query;
    this.restart();
    this.#view.onFound();
  }

  #filterChanged(isOn, context) {
    this.#filter = { isOn, context };
    this.#view.onFilter();
  }

  // A browser opens six connections to a host: tabs in the background hold none.
  #visibilityChanged() {
    if (document.hidden) {
      this.#wasSearching = this.#search.running;
      this.#search.stop();
    } else if (this.#wasSearching) {
      this.#wasSearching = false;
      this.restart();
    }
  }

  #found() {
    this.#showFound();
    if (this.#wantsJump) {
      this.#jumpToFirst();
    }
    this.#view.onFound();
  }

  // What a reader typed is looked for from where they are, and from the start if it isn't there.
  #jumpToFirst() {
    const { matches, done } = this.#search;
    const next = nextMatch(matches, this.#view.firstVisible() - 1);
    if (next !== null || done) {
      this.#wantsJump = false;
      const match = next ?? matches[0] ?? null;
      if (match !== null) {
        this.#goTo(match);
      }
    }
  }

  #goTo(number) {
    this.#current = number;
    this.#view.onGo(number);
    this.#showFound();
  }

  #showFound() {
    const { matches, count, done, searched, of, error, trouble } = this.#search;
    const position = this.#current === null ? 0 : lastAtMost(matches, this.#current) + 1;
    const truncated = done && count > matches.length && matches.length > 0
      ? `The first ${formatCount(matches.length)} of them can be gone through.`
      : "";
    this.#box.show({ count, position, done, searched, of, error, note: trouble || truncated });
  }
}
