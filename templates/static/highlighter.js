/**
 * Where in the text of a row a search has found something, to be marked.
 *
 * Plain text is looked for at once. A regular expression may take for ever on an unlucky line, so
 * it is run in a worker, which is ended if it does; the row is marked as a whole then.
 */

const PATIENCE_MS = 250;
const MAX_CHARS = 20_000;
const NONE = [];

function escaped(text) {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
}

/** `onFound()` is called when ranges have come that were not known before. */
export class Highlighter {
  #onFound;
  #plain = null;
  #pattern = null;
  #known = new Map();
  #waiting = new Set();
  #worker = null;
  #timer = 0;
  #gaveUp = false;

  constructor(onFound) {
    this.#onFound = onFound;
  }

  /** Marks what `query` finds from now on; null for nothing. */
  set query(query) {
    this.#end();
    this.#known.clear();
    this.#waiting.clear();
    this.#gaveUp = false;
    const flags = query?.case ? "gu" : "giu";
    this.#plain = query && !query.regex ? new RegExp(escaped(query.q), flags.replace("u", "")) : null;
    this.#pattern = query?.regex ? { source: query.q, flags } : null;
  }

  /** The ranges [start, end] to mark in `text`. */
  ranges(text) {
    if (this.#plain) {
      return text.length > MAX_CHARS ? NONE : found(this.#plain, text);
    }
    if (!this.#pattern || this.#gaveUp || text.length > MAX_CHARS) {
      return NONE;
    }
    if (!this.#known.has(text)) {
      this.#waiting.add(text);
      this.#timer ||= setTimeout(() => this.#ask(), 0);
      return NONE;
    }
    return this.#known.get(text);
  }

  #ask() {
    this.#worker ??= this.#newWorker();
    this.#worker.postMessage({ ...this.#pattern, texts: [...this.#waiting] });
    this.#waiting.clear();
    this.#timer = setTimeout(() => {
      this.#end();
      this.#gaveUp = true;
    }, PATIENCE_MS * 4);
  }

  #newWorker() {
    const worker = new Worker("/static/highlight_worker.js");
    worker.onmessage = ({ data }) => {
      clearTimeout(this.#timer);
      this.#timer = 0;
      if (this.#known.size > 2000) {
        this.#known.clear();
      }
      for (const [text, ranges] of data) {
        this.#known.set(text, ranges);
      }
      this.#onFound();
      if (this.#waiting.size > 0) {
        this.#ask();
      }
    };
    return worker;
  }

  #end() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#worker?.terminate();
    this.#worker = null;
  }
}

function found(pattern, text) {
  const ranges = [];
  for (const match of text.matchAll(pattern)) {
    if (match[0]) {
      ranges.push([match.index, match.index + match[0].length]);
    }
  }
  return ranges.length ? ranges : NONE;
}
