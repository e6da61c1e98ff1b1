/**
 * The lines of one log by number, as many of them as are of use now.
 *
 * They are held in blocks of 256. A block that is wanted is fetched, together with its neighbours
 * that are wanted too; live lines are appended to the last one. What nobody looks at any more is
 * let go of, so that a tab stays small in a log of any size.
 */

import { Screen } from "./screen.js";

export const BLOCK_LINES = 256;
const MAX_LINES = 30_000;
const MAX_CHARS = 8_000_000;
const MAX_BLOCKS_AT_ONCE = 4;
// A browser opens six connections to a host, and event streams hold some of them.
const MAX_REQUESTS = 2;
// Of a burst of live lines, the last few screens are kept; the rest can be had again.
const KEEP_LINES = 4 * BLOCK_LINES;
// While the thumb is dragged through a log, what it only passes is not asked for.
const PASSING_MS = 70;
const TIMES_MS = 500;
const RETRY_MS = 2000;

const CURSOR_UP = /\x1b\[\d*[AF]|\x1bM/;
const STYLING = /\x1b\[[\d;:]*m|\x1b\]8;[^\x07\x1b]*(?:\x07|\x1b\\)/g;

/** The style in force after `lines`, where `style` was before them; both as escape sequences. */
function styleAfter(style, lines) {
  const escapes = lines.filter((line) => line.includes("\x1b")).map((line) => line.match(STYLING));
  const found = escapes.filter(Boolean).flat();
  if (found.length === 0) {
    return style;
  }
  const screen = new Screen(style);
  screen.feed([found.join("")], 1);
  return screen.style;
}

/** Up to 256 lines from number `first` on, without a hole. */
class Block {
  lines = [];
  times = [];
  chars = 0;
  redraws = false;

  constructor(index, style) {
    this.index = index;
    this.first = index * BLOCK_LINES + 1;
    this.style = style;
  }

  put(lines, times) {
    for (const line of lines) {
      this.lines.push(line);
      this.chars += line.length;
      this.redraws ||= line.includes("\x1b") && CURSOR_UP.test(line);
    }
    if (times && this.times.length === this.lines.length - lines.length) {
      this.times.push(...times);
    }
  }
}

/** `page` from the beginning of a block on, where it begins with the log's first line that is left. */
function fromBlock(page) {
  const missing = page.from === page.kept_from ? (page.from - 1) % BLOCK_LINES : 0;
  if (missing === 0) {
    return page;
  }
  const fill = (value) => Array(missing).fill(value);
  return {
    ...page,
    from: page.from - missing,
    lines: [...fill(""), ...page.lines],
    times: page.times && [...fill(null), ...page.times],
  };
}

/**
 * - `fetchLines({from, count, times}, signal)`: a window of lines, as GET /logs/ID/lines gives it.
 * - `onLoaded()`: lines that were wanted have come, or their times.
 * - `onDropped()`: the log has dropped lines since; `keptFrom` is the first that is left.
 * - `onFailed(error)`: they could not be had; it is tried again as long as they are wanted, and not
 *   told again before something has come.
 */
export class LineStore {
  #fetchLines;
  #onLoaded;
  #onDropped;
  #onFailed;
  #blocks = new Map();
  #requests = new Set();
  #wanted = [];
  #timer = 0;
  #fetchedAt = 0;
  #retryAt = 0;
  #hasFailed = false;
  #tailStyle = "";
  #withTimes = false;
  #total = 0;
  #keptFrom = 1;

  constructor({ fetchLines, onLoaded, onDropped, onFailed }) {
    this.#fetchLines = fetchLines;
    this.#onLoaded = onLoaded;
    this.#onDropped = onDropped;
    this.#onFailed = onFailed;
  }

  /** How many complete lines the log has, as far as it is known. */
  get total() {
    return this.#total;
  }

  /** The number of the first line that the log still has, as far as it is known. */
  get keptFrom() {
    return this.#keptFrom;
  }

  /** The log has dropped all lines before `number`. */
  dropTo(number) {
    if (number <= this.#keptFrom) {
      return;
    }
    this.#keptFrom = number;
    for (const index of this.#blocks.keys()) {
      if (index < blockIndex(number)) {
        this.#blocks.delete(index);
      }
    }
    this.#onDropped();
  }

  /** When line 1 was written, in ms since the epoch; null where it isn't known. */
  startedMs = null;

  /** The block that line `number` belongs to, if it is here; it may not reach that far. */
  blockOf(number) {
    return this.#blocks.get(Math.floor((number - 1) / BLOCK_LINES)) ?? null;
  }

  /** The block with that index, if it is here. */
  block(index) {
    return this.#blocks.get(index) ?? null;
  }

  /** Line `number` as it came over the wire; undefined while it isn't here. */
  line(number) {
    return this.blockOf(number)?.lines[(number - 1) % BLOCK_LINES];
  }

  /** When line `number` was written, in ms; null where nobody knows, undefined while not here. */
  time(number) {
    return this.blockOf(number)?.times[(number - 1) % BLOCK_LINES];
  }

  /** Whether times shall come with the lines. */
  set withTimes(wanted) {
    this.#withTimes = wanted;
    this.#schedule();
  }

  /** How many characters are held. */
  get chars() {
    return [...this.#blocks.values()].reduce((sum, { chars }) => sum + chars, 0);
  }

  /** Forgets all and begins anew with `page`, a window of lines that reaches to the log's end. */
  open(page) {
    this.clear();
    // A window of very long lines is cut short; the stream brings the rest.
    this.#total = page.from + page.lines.length - 1;
    this.#keptFrom = page.kept_from ?? 1;
    this.#note(page);
    this.#put(fromBlock(page));
    this.#tailStyle = styleAfter(page.style ?? "", page.lines);
  }

  /** Goes on from `page`, which reaches to the log's end; what lies between can be fetched. */
  skipTo(page) {
    this.#total = Math.max(this.#total, page.from + page.lines.length - 1);
    this.#put(fromBlock(page));
    this.#tailStyle = styleAfter(page.style ?? "", page.lines);
    this.#evict();
    this.dropTo(page.kept_from ?? 1);
  }

  /** Forgets all lines; the next one appended is the first. */
  clear() {
    for (const request of this.#requests) {
      request.abort.abort();
    }
    this.#requests.clear();
    this.#blocks.clear();
    this.#total = 0;
    this.#keptFrom = 1;
    this.#tailStyle = "";
    this.startedMs = null;
  }

  /** Adds live lines after the last. */
  append(lines) {
    const keepFrom = lines.length - KEEP_LINES;
    for (let at = 0; at < lines.length; ) {
      const offset = this.#total % BLOCK_LINES;
      const piece = lines.slice(at, at + BLOCK_LINES - offset);
      at += piece.length;
      if (at > keepFrom) {
        this.#appendTo(Math.floor(this.#total / BLOCK_LINES), offset, piece);
      }
      this.#tailStyle = styleAfter(this.#tailStyle, piece);
      this.#total += piece.length;
    }
    this.#evict();
  }

  /** Sees to it that the lines in `ranges`, each [first, last], come; lets go of other requests. */
  want(ranges) {
    this.#wanted = [];
    for (const [first, last] of ranges) {
      for (let index = blockIndex(Math.max(this.#keptFrom, first)); index <= blockIndex(last); index += 1) {
        if (this.#wanted.at(-1) !== index) {
          this.#wanted.push(index);
        }
      }
    }
    for (const request of this.#requests) {
      if (!this.#wanted.some((index) => request.from <= index && index < request.to)) {
        request.abort.abort();
        this.#requests.delete(request);
      }
    }
    this.#schedule();
  }

  #appendTo(index, offset, lines) {
    let block = this.#blocks.get(index);
    if (!block && offset === 0) {
      block = new Block(index, this.#tailStyle);
      this.#blocks.set(index, block);
    }
    // One that lacks lines before these is fetched again when it is looked at.
    if (block?.lines.length === offset) {
      block.put(lines, null);
    }
  }

  #put({ from, lines, style, times }) {
    let at = (BLOCK_LINES - ((from - 1) % BLOCK_LINES)) % BLOCK_LINES;
    let force = styleAfter(style ?? "", lines.slice(0, at));
    while (at < lines.length) {
      const block = new Block((from - 1 + at) / BLOCK_LINES, force);
      const piece = lines.slice(at, at + BLOCK_LINES);
      block.put(piece, times?.slice(at, at + BLOCK_LINES));
      const known = this.#blocks.get(block.index);
      if (known && known.lines.length > block.lines.length) {
        known.times = block.times; // live lines have come since
      } else {
        this.#blocks.set(block.index, block);
      }
      force = styleAfter(force, piece);
      at += piece.length;
    }
  }

  #note({ started_ms: startedMs }) {
    this.startedMs = startedMs ?? this.startedMs;
  }

  // --- What is missing ---------------------------------------------------------------------------

  #expected(index) {
    return Math.min(BLOCK_LINES, this.#total - index * BLOCK_LINES);
  }

  #lacksLines(index) {
    return (this.#blocks.get(index)?.lines.length ?? 0) < this.#expected(index);
  }

  #lacksTimes(index) {
    return this.#withTimes && (this.#blocks.get(index)?.times.length ?? 0) < this.#expected(index);
  }

  #missing(lacks) {
    const isComing = (index) =>
      [...this.#requests].some(({ from, to }) => from <= index && index < to);
    return this.#wanted.filter((index) => lacks(index) && !isComing(index));
  }

  #schedule() {
    const lines = this.#missing((index) => this.#lacksLines(index)).length > 0;
    if (!lines && this.#missing((index) => this.#lacksTimes(index)).length === 0) {
      return;
    }
    const now = performance.now();
    const pause = lines ? PASSING_MS : TIMES_MS;
    const wait = Math.max(0, this.#fetchedAt + pause - now, this.#retryAt - now);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fetchMissing(), wait);
  }

  #fetchMissing() {
    this.#fetchedAt = performance.now();
    const missing = this.#missing((index) => this.#lacksLines(index) || this.#lacksTimes(index));
    while (missing.length > 0 && this.#requests.size < MAX_REQUESTS) {
      const from = missing.shift();
      let to = from + 1;
      while (missing[0] === to && to - from < MAX_BLOCKS_AT_ONCE) {
        missing.shift();
        to += 1;
      }
      this.#fetch(from, to);
    }
  }

  async #fetch(from, to) {
    const abort = new AbortController();
    const first = Math.max(this.#keptFrom, from * BLOCK_LINES + 1);
    const request = { from, to, first, abort };
    this.#requests.add(request);
    try {
      const query = { from: first, count: to * BLOCK_LINES + 1 - first, times: this.#withTimes };
      const page = await this.#fetchLines(query, abort.signal);
      if (this.#requests.has(request)) {
        this.#loaded(request, page);
      }
    } catch (error) {
      if (this.#requests.delete(request)) {
        this.#retryAt = performance.now() + RETRY_MS;
        this.#failed(error);
        this.#schedule();
      }
    }
  }

  #failed(error) {
    if (!this.#hasFailed) {
      this.#hasFailed = true;
      this.#onFailed(error);
    }
  }

  #loaded(request, page) {
    this.#requests.delete(request);
    this.#hasFailed = false;
    const isWanted = page.from === request.first || page.from === page.kept_from;
    if (!isWanted || page.lines.length === 0) {
      // The log is shorter than it was: a reset is on its way.
      this.#retryAt = performance.now() + RETRY_MS;
    } else {
      this.#note(page);
      this.#put(fromBlock(page));
      this.#evict();
    }
    this.dropTo(page.kept_from ?? 1);
    this.#onLoaded();
    this.#schedule();
  }

  // --- What is let go of -------------------------------------------------------------------------

  #evict() {
    let chars = this.chars;
    let lines = this.#blocks.size * BLOCK_LINES;
    if (lines <= MAX_LINES && chars <= MAX_CHARS) {
      return;
    }
    const middle = this.#wanted[this.#wanted.length >> 1] ?? 0;
    const byDistance = [...this.#blocks.values()].sort(
      (one, other) => Math.abs(other.index - middle) - Math.abs(one.index - middle),
    );
    for (const block of byDistance) {
      const isWanted = this.#wanted.includes(block.index);
      const isLast = block.index >= blockIndex(this.#total) - 1;
      if (!isWanted && !isLast && (lines > MAX_LINES * 0.8 || chars > MAX_CHARS * 0.8)) {
        this.#blocks.delete(block.index);
        lines -= BLOCK_LINES;
        chars -= block.chars;
      }
    }
  }
}

function blockIndex(number) {
  return Math.floor((number - 1) / BLOCK_LINES);
}
