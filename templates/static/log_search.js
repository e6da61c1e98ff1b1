/**
 * One search through a log: what was found so far, in order, going on while the log grows.
 */

import { backoffSeconds } from "./event_stream.js";
import { lastAtMost } from "./row_map.js";

const IS_FULL = [429, 503];
const AWAY = "The server can't be reached.";

/** The lines of `matches` (ascending) next after `number`, or before it; null if there is none. */
export function nextMatch(matches, number) {
  return matches[lastAtMost(matches, number) + 1] ?? null;
}

/** See nextMatch. */
export function previousMatch(matches, number) {
  return matches[lastAtMost(matches, number - 1)] ?? null;
}

/**
 * - `search(query, signal)`: the events, as LogSource.search gives them.
 * - `onChange()`: something was found, or the search came further, ended or failed.
 *
 * `once`: it ends with the log as it is, and does not wait for what is written later.
 */
export class LogSearch {
  #search;
  #onChange;
  #once;
  #abort = null;
  #retryTimer = 0;
  #failures = 0;

  /** The lines found, ascending; the server tells of the first 50,000. */
  matches = [];
  /** How many lines were found in all. */
  count = 0;
  searched = 0;
  of = 0;
  /** Whether all that the log has was searched. */
  done = false;
  /** A sentence, where the search can't go on. */
  error = "";
  /** A sentence while the server is away or full: what was found before stands until it is back. */
  trouble = "";

  constructor({ search, onChange, once = false }) {
    this.#search = search;
    this.#onChange = onChange;
    this.#once = once;
  }

  /** Whether it is under way, or waits for the log to grow or for the server. */
  get running() {
    return this.#abort !== null || this.#retryTimer !== 0;
  }

  /** Begins to search for `query`, from the start of the log. */
  start(query) {
    this.stop();
    this.#failures = 0;
    this.#forget();
    this.#onChange();
    this.#begin(query);
  }

  /** Searches no further; what was found stays. */
  stop() {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = 0;
    this.#abort?.abort();
    this.#abort = null;
  }

  /** Searches for nothing, and knows of nothing found. */
  reset() {
    this.stop();
    this.#forget();
  }

  #forget() {
    Object.assign(this, { matches: [], count: 0, searched: 0, of: 0, done: false, error: "", trouble: "" });
  }

  async #begin(query) {
    const abort = new AbortController();
    this.#abort = abort;
    try {
      let ended = false;
      for await (const { type, data } of this.#search(query, abort.signal)) {
        if (abort.signal.aborted) {
          return;
        }
        if (this.#failures > 0) {
          this.#failures = 0;
          this.#forget(); // it begins anew, and tells of everything once more
        }
        this.#take(type, data);
        ended ||= type === "end" || type === "error" || (this.#once && this.done);
        this.#onChange();
        if (ended) {
          break;
        }
      }
      this.#over(abort, ended ? null : query);
    } catch (error) {
      this.#failed(abort, error, query);
    }
  }

  #take(type, data) {
    if (type === "matches") {
      this.matches = this.matches.length ? this.matches.concat(data.lines) : data.lines;
      this.count = Math.max(this.count, this.matches.length);
    } else if (type === "progress" || type === "end") {
      this.count = Math.max(data.matches, this.matches.length);
      this.searched = data.lines_searched ?? this.searched;
      this.of = data.lines_total ?? this.of; // null while the search waits for its turn
      this.done = data.done || type === "end";
    } else if (type === "reset") {
      this.#forget(); // the log was cut, or has colours where none were expected: it starts over
    } else if (type === "error") {
      this.error = data.error;
      this.done = true;
    }
  }

  #over(abort, query) {
    abort.abort();
    if (this.#abort === abort) {
      this.#abort = null;
      if (query) {
        this.#again(query); // the connection broke
      }
    }
  }

  #failed(abort, error, query) {
    if (this.#abort !== abort) {
      return;
    }
    this.#abort = null;
    if (error.status >= 400 && error.status < 500 && error.status !== 429) {
      Object.assign(this, { error: error.message, trouble: "", done: true });
      this.#onChange();
    } else {
      this.#again(query, IS_FULL.includes(error.status) ? "The server is full." : AWAY);
    }
  }

  #again(query, why = AWAY) {
    this.#failures += 1;
    const seconds = backoffSeconds(this.#failures);
    this.trouble = `${why} The search begins again within ${seconds} s.`;
    this.#onChange();
    this.#retryTimer = setTimeout(() => {
      this.#retryTimer = 0;
      this.#begin(query);
    }, seconds * 1000);
  }
}
