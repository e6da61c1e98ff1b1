/**
 * The errors and the groups of a log: what the server finds in what there is, and what live lines
 * bring.
 */

import { Folds } from "./folds.js";
import { levelOf, MAY_BE_ERROR, structuresOf } from "./levels.js";
import { LogSearch } from "./log_search.js";

// A longer log is read through for its errors only when somebody asks for them, and not for groups.
const AUTO_LINES = 2_000_000;
const MAX_MARKERS = 5000;
const MAX_WINDOW_LINES = 2000;
const MAX_ERRORS = 200_000;
// A cheap test of many lines at once, before each is looked at.
const MAY_BE_MARKER = /::(?:group|endgroup)::|##\[(?:group|endgroup)\]|section_(?:start|end):/;

/**
 * - `source`: `search` and `lines`, as LogSource has them.
 * - `onChange()`: errors or groups are others than before.
 */
export class LogMarks {
  folds = new Folds();
  /** Numbers of lines that tell of errors, ascending. */
  errors = [];
  /** How many there are, also of those whose numbers aren't known. */
  errorCount = 0;
  /** Whether all errors of what the log had are known. */
  errorsKnown = false;
  #source;
  #onChange;
  #errorSearch;
  #markerSearch;
  #live = { errors: [], markers: [] };
  #markersUpTo = Infinity;
  #run = 0;
  #isAsked = false;

  constructor(source, onChange) {
    this.#source = source;
    this.#onChange = onChange;
    const search = (query, signal) => source.search(query, signal);
    this.#errorSearch = new LogSearch({ search, once: true, onChange: () => this.#errorsFound() });
    this.#markerSearch = new LogSearch({ search, once: true, onChange: () => this.#markersFound() });
  }

  /** Begins anew with a log of `total` lines. */
  start(total) {
    this.stop();
    this.#run += 1;
    this.folds.clear();
    this.errors = [];
    this.errorCount = 0;
    this.errorsKnown = total === 0;
    this.#isAsked = total === 0;
    this.#live = { errors: [], markers: [] };
    this.#markersUpTo = total === 0 ? 0 : Infinity;
    if (total > 0 && total <= AUTO_LINES) {
      this.askErrors();
      this.#markerSearch.start({ structure: true });
    }
  }

  /** Ends what is under way. */
  stop() {
    this.#errorSearch.stop();
    this.#markerSearch.stop();
  }

  /** Looks for the errors, unless that was done. */
  askErrors() {
    if (!this.#isAsked) {
      this.#isAsked = true;
      this.#errorSearch.start({ errors: true });
    }
  }

  /** Live lines have come, number `first` and those after it; `text` is all of them in one. */
  append(lines, first, text) {
    const mayBeError = MAY_BE_ERROR.test(text);
    const mayBeMarker = MAY_BE_MARKER.test(text);
    if (!mayBeError && !mayBeMarker) {
      return;
    }
    const before = this.#live.errors.length + this.folds.size;
    lines.forEach((line, index) => {
      if (mayBeError && MAY_BE_ERROR.test(line) && levelOf(plain(line)) === "error") {
        this.#addError(first + index);
      }
      if (mayBeMarker && MAY_BE_MARKER.test(line)) {
        structuresOf(line).forEach((marker) => this.#addMarker(first + index, marker));
      }
    });
    if (before !== this.#live.errors.length + this.folds.size) {
      this.#onChange();
    }
  }

  #addError(number) {
    this.errorCount += 1;
    if (this.#live.errors.length < MAX_ERRORS) {
      this.#live.errors.push(number);
      if (number > (this.errors.at(-1) ?? 0)) {
        this.errors.push(number);
      }
    }
  }

  #addMarker(number, marker) {
    if (this.#markersUpTo === Infinity) {
      this.#live.markers.push([number, marker]); // those before it are still to come
    } else {
      this.folds.add(number, marker);
    }
  }

  // The search has read what the log had; what came meanwhile may be in both.
  #errorsFound() {
    const { matches, of, done, count } = this.#errorSearch;
    const upTo = Math.max(of, matches.at(-1) ?? 0);
    const live = this.#live.errors.filter((number) => number > upTo);
    this.errors = matches.concat(live);
    this.errorCount = count + live.length;
    this.errorsKnown ||= done;
    this.#onChange();
  }

  async #markersFound() {
    const search = this.#markerSearch;
    if (!search.done || search.error || this.#markersUpTo !== Infinity) {
      return;
    }
    const run = this.#run;
    this.#markersUpTo = search.of;
    const markers = await this.#read(search.matches.slice(0, MAX_MARKERS)).catch(() => []);
    if (run === this.#run) {
      const live = this.#live.markers.filter(([number]) => number > search.of);
      for (const [number, marker] of [...markers, ...live]) {
        this.folds.add(number, marker);
      }
      this.#onChange();
    }
  }

  // The texts of the lines `numbers`, many with one request where they stand close together.
  async #read(numbers) {
    const found = [];
    for (let at = 0; at < numbers.length; ) {
      const from = numbers[at];
      const end = numbers.findIndex((number, index) => index > at && number >= from + MAX_WINDOW_LINES);
      const group = numbers.slice(at, end < 0 ? undefined : end);
      const page = await this.#source.lines({ from, count: group.at(-1) - from + 1 });
      for (const number of group) {
        const line = page.lines[number - from] ?? "";
        structuresOf(line).forEach((marker) => found.push([number, marker]));
      }
      at += group.length;
    }
    return found;
  }
}

function plain(line) {
  return line.includes("\x1b") ? line.replace(/\x1b\[[0-9;:?]*[A-Za-z]/g, "") : line;
}
