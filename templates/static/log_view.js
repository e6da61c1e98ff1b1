/**
 * The view of a log: a window of its lines, as rows with numbers, that follows the newest.
 *
 * It knows nothing of the page around it, nor of where lines come from. What it holds is bounded:
 * never more than MAX_LINES rows. While it follows, the oldest make room for the newest; while the
 * reader looks at older ones, the newest are only counted, and its owner is asked for them when the
 * reader wants them.
 *
 *     const view = new LogView(element, { onEarlier, onNewest, onFollowing });
 *     view.reset(9001);              // the next line is number 9001
 *     view.append(["one", "two"]);   // 9001 and 9002
 *     view.setPartial("thr");        // 9003, not yet complete
 *     view.prepend(["zero"], 9000);
 *
 * The text of the rows, one after the other, is the log exactly, each line with its newline, the
 * partial line without: what is selected is copied just so, and the numbers are no text.
 */

import { AnsiLines } from "./ansi_lines.js";
import { formatCount, formatQuantity } from "./format.js";

const MAX_LINES = 20000;
const CHUNK_LINES = 200;
const LINE_PX = 20;
const BOTTOM_PX = 16;
const CATCH_UP_MS = 300;

function button(className, text, onClick) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = className;
  element.textContent = text;
  element.addEventListener("click", onClick);
  return element;
}

function block(className) {
  const element = document.createElement("div");
  element.className = className;
  return element;
}

/**
 * Shows lines in `root`, an empty element of its own.
 *
 * - `onEarlier(firstLine)`: the reader asked for lines before number `firstLine`; the owner answers
 *   with prepend(), or earlierFailed().
 * - `onNewest()`: the reader asked for newest lines that the view no longer holds; the owner
 *   answers with reset() to a line near the end and what follows it.
 * - `onFollowing(following)`: the view began, or ceased, to follow the newest line.
 */
export class LogView {
  #scroller = block("log-scroller");
  #lines = block("log-lines");
  #partial = block("log-line log-partial");
  #footer = block("log-footer");
  #earlier;
  #pill;
  #callbacks;
  #ansi = new AnsiLines();
  // Rows are numbered from #first; #pending come after them, then #unseen lines that nobody holds.
  #first = 1;
  #rendered = 0;
  #pending = [];
  #unseen = 0;
  #partialText = null;
  #following = true;
  #newSinceLeft = 0;
  #scrollTop = 0;
  // Where the bottom was when it was last looked at, and the time before.
  #bottom = { at: 0, now: 0, before: 0 };
  #gutterDigits = 0;
  #frame = 0;

  constructor(root, callbacks) {
    this.#callbacks = callbacks;
    this.#earlier = button("log-earlier", "Show earlier lines", () => this.#askEarlier());
    this.#pill = button("log-pill", "", () => this.follow());
    this.#earlier.hidden = true;
    this.#pill.hidden = true;
    this.#partial.hidden = true;
    this.#scroller.tabIndex = 0;
    this.#scroller.setAttribute("role", "log");
    this.#scroller.setAttribute("aria-label", "Log");
    // Within what scrolls, so that a wheel above the pill scrolls too.
    const dock = block("log-dock");
    dock.append(this.#pill);
    this.#scroller.append(this.#earlier, this.#lines, this.#partial, this.#footer, dock);
    root.append(this.#scroller);
    this.#listen();
    this.#setFollowing(true);
    this.#showGutter();
  }

  /** How many lines the log has, as far as the view was told; without the partial one. */
  get total() {
    return this.#last + this.#pending.length + this.#unseen;
  }

  /** Whether the newest line is kept in sight. */
  get following() {
    return this.#following;
  }

  /** Adds complete lines after the last. They are shown with the next frame. */
  append(lines) {
    this.#partialText = null;
    if (!this.#following) {
      this.#newSinceLeft += lines.length;
    }
    if (this.#unseen > 0) {
      this.#unseen += lines.length;
    } else {
      // Not push(...lines): a call has no room for a hundred thousand arguments.
      this.#pending = this.#pending.length ? this.#pending.concat(lines) : lines;
      this.#boundPending();
    }
    this.#schedule();
  }

  /** Shows `text` as the line being written, in place of what it was; "" takes it away. */
  setPartial(text) {
    this.#partialText = text;
    this.#schedule();
  }

  /** Adds lines before the first one; `firstLine` is the number of the first of them. */
  prepend(lines, firstLine) {
    this.#flush();
    if (firstLine + lines.length !== this.#first) {
      this.#earlierDone(); // asked for before a reset
      return;
    }
    const anchor = this.#lines.firstElementChild;
    const top = anchor?.getBoundingClientRect().top ?? 0;
    this.#lines.prepend(this.#chunks(lines, firstLine, new AnsiLines()));
    this.#first = firstLine;
    this.#rendered += lines.length;
    this.#showGutter();
    this.#earlierDone();
    if (anchor) {
      this.#scroller.scrollTop += anchor.getBoundingClientRect().top - top;
    }
    this.#dropNewest();
    this.#noteScroll();
    this.#resetBottom();
  }

  /** The lines asked for by `onEarlier` won't come now; the reader may ask again. */
  earlierFailed() {
    this.#earlier.disabled = false;
    this.#earlier.textContent = "These lines could not be loaded. Try again";
  }

  /** Empties the view; the next line appended is number `firstLine`. */
  reset(firstLine = 1) {
    this.#lines.replaceChildren();
    this.#ansi = new AnsiLines();
    this.#first = firstLine;
    this.#rendered = 0;
    this.#pending = [];
    this.#unseen = 0;
    this.#newSinceLeft = 0;
    this.#partialText = null;
    this.#earlierDone();
    this.#setFollowing(true);
    this.#schedule();
  }

  /** A quiet sentence below the last line, no part of the log; "" for none. */
  setFooter(text) {
    this.#footer.textContent = text;
    this.#stickToBottom();
  }

  /** Goes to the newest line and keeps it in sight. */
  follow() {
    const missing = this.#unseen > 0;
    this.#setFollowing(true);
    this.#stickToBottom();
    if (missing) {
      this.#callbacks.onNewest();
    }
  }

  get #last() {
    return this.#first + this.#rendered - 1;
  }

  #listen() {
    this.#scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#scroller.addEventListener("wheel", (event) => this.#wheeled(event), { passive: true });
    this.#scroller.addEventListener("copy", (event) => this.#copy(event));
    this.#scroller.addEventListener("keydown", (event) => this.#selectAll(event));
    // Rows change height when the window does, and when their chunk comes into sight.
    const observer = new ResizeObserver(() => this.#stickToBottom());
    observer.observe(this.#scroller);
    observer.observe(this.#lines);
  }

  #scrolled() {
    const { scrollTop } = this.#scroller;
    const below = this.#bottomNow() - scrollTop;
    const moved = scrollTop - this.#scrollTop;
    this.#scrollTop = scrollTop;
    if (this.#following && moved < -1 && below > 1) {
      // Only a reader moves up: what we do ourselves was noted before this event came.
      this.#setFollowing(false);
    } else if (!this.#following && moved > 0 && this.#unseen === 0 && this.#caughtUp(below)) {
      this.#setFollowing(true);
      this.#stickToBottom();
    }
  }

  // New lines move the bottom away from a reader who scrolls to it: where it just was counts too.
  #caughtUp(below) {
    const { at, before } = this.#bottom;
    const isRecent = performance.now() - at < 2 * CATCH_UP_MS;
    return below <= BOTTOM_PX || (isRecent && this.#scroller.scrollTop >= before - BOTTOM_PX);
  }

  #noteBottom() {
    const at = performance.now();
    if (!this.#following && at - this.#bottom.at >= CATCH_UP_MS) {
      this.#bottom = { at, now: this.#bottomNow(), before: this.#bottom.now };
    }
  }

  #resetBottom() {
    const bottom = this.#bottomNow();
    this.#bottom = { at: performance.now(), now: bottom, before: bottom };
  }

  #bottomNow() {
    return this.#scroller.scrollHeight - this.#scroller.clientHeight;
  }

  // The first pixels of a smooth scroll must not be undone by the next line that comes.
  #wheeled(event) {
    if (event.deltaY < 0 && this.#scroller.scrollTop > 0) {
      this.#setFollowing(false);
    }
  }

  #noteScroll() {
    this.#scrollTop = this.#scroller.scrollTop;
  }

  #stickToBottom() {
    if (this.#following) {
      this.#scroller.scrollTop = this.#scroller.scrollHeight;
      this.#noteScroll();
    }
  }

  #setFollowing(following) {
    const changed = this.#following !== following;
    this.#following = following;
    this.#newSinceLeft = 0;
    // Read aloud line by line while the newest is what the reader is at, silent otherwise.
    this.#scroller.setAttribute("aria-live", following ? "polite" : "off");
    this.#scroller.classList.toggle("is-following", following);
    this.#showPill();
    if (changed) {
      this.#resetBottom();
      this.#callbacks.onFollowing?.(following);
    }
  }

  #showPill() {
    this.#pill.hidden = this.#following;
    const count = this.#newSinceLeft;
    const text = count > 0 ? `${formatQuantity(count, "new line")}` : "Jump to newest";
    if (this.#pill.textContent !== text) {
      this.#pill.textContent = text;
    }
  }

  #schedule() {
    this.#frame ||= requestAnimationFrame(() => this.#flush());
  }

  #flush() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (this.#pending.length > 0) {
      const lines = this.#pending;
      this.#pending = [];
      this.#renderAtEnd(lines);
    }
    this.#renderPartial();
    this.#showEarlier();
    this.#showPill();
    this.#noteBottom();
    this.#stickToBottom();
  }

  /** Lets go of pending lines that would be dropped as soon as they were rendered. */
  #boundPending() {
    if (this.#following) {
      const excess = this.#pending.length - MAX_LINES;
      // In steps, so that a flood between two frames is not copied over and over.
      if (excess > MAX_LINES) {
        this.#skipTo(this.#last + 1 + excess);
        this.#pending = this.#pending.slice(excess);
      }
      return;
    }
    const room = Math.max(0, MAX_LINES - this.#rendered);
    if (this.#pending.length > room) {
      this.#unseen += this.#pending.length - room;
      this.#pending = this.#pending.slice(0, room);
    }
  }

  /** Goes on at line `number`, with none of the rows before it. */
  #skipTo(number) {
    this.#lines.replaceChildren();
    this.#first = number;
    this.#rendered = 0;
    // The colours in force there stand in lines that were skipped; nearly always it is none.
    this.#ansi = new AnsiLines();
  }

  #renderAtEnd(lines) {
    let rest = lines;
    if (this.#following && rest.length >= MAX_LINES) {
      const excess = rest.length - MAX_LINES;
      this.#skipTo(this.#last + 1 + excess);
      rest = rest.slice(excess);
    }
    this.#showGutter(this.#last + rest.length);
    rest = this.#fillLastChunk(rest);
    this.#lines.append(this.#chunks(rest, this.#last + 1, this.#ansi));
    this.#rendered += rest.length;
    if (this.#following) {
      this.#dropOldest();
    }
  }

  #fillLastChunk(lines) {
    const chunk = this.#lines.lastElementChild;
    const room = chunk ? CHUNK_LINES - chunk.childElementCount : 0;
    if (room <= 0) {
      return lines;
    }
    const taken = lines.slice(0, room);
    chunk.append(this.#rows(taken, this.#last + 1, this.#ansi));
    this.#setChunkHeight(chunk);
    this.#rendered += taken.length;
    return lines.slice(room);
  }

  #chunks(lines, firstLine, ansi) {
    const fragment = document.createDocumentFragment();
    for (let start = 0; start < lines.length; start += CHUNK_LINES) {
      const chunk = block("log-chunk");
      chunk.append(this.#rows(lines.slice(start, start + CHUNK_LINES), firstLine + start, ansi));
      this.#setChunkHeight(chunk);
      fragment.append(chunk);
    }
    return fragment;
  }

  // The height that a chunk out of sight is taken to have until it was once in sight.
  #setChunkHeight(chunk) {
    const height = chunk.childElementCount * LINE_PX;
    chunk.style.setProperty("contain-intrinsic-block-size", `auto ${height}px`);
  }

  #rows(lines, firstLine, ansi) {
    const fragment = document.createDocumentFragment();
    for (const [index, line] of lines.entries()) {
      const row = block("log-line");
      row.dataset.number = firstLine + index;
      ansi.render(line, row);
      row.append("\n");
      fragment.append(row);
    }
    return fragment;
  }

  #renderPartial() {
    const text = this.#unseen === 0 ? this.#partialText : null;
    this.#partial.replaceChildren();
    this.#partial.hidden = !text;
    if (text) {
      this.#showGutter(this.#last + 1);
      this.#partial.dataset.number = this.#last + 1;
      this.#ansi.renderTentatively(text, this.#partial);
    }
  }

  #dropOldest() {
    while (this.#rendered > MAX_LINES && this.#lines.childElementCount > 1) {
      const chunk = this.#lines.firstElementChild;
      this.#first += chunk.childElementCount;
      this.#rendered -= chunk.childElementCount;
      chunk.remove();
    }
  }

  #dropNewest() {
    while (this.#rendered > MAX_LINES && this.#lines.childElementCount > 1) {
      const chunk = this.#lines.lastElementChild;
      this.#rendered -= chunk.childElementCount;
      this.#unseen += chunk.childElementCount;
      chunk.remove();
    }
    if (this.#unseen > 0) {
      this.#setFollowing(false);
      this.#renderPartial();
    }
  }

  #askEarlier() {
    this.#setFollowing(false);
    this.#earlier.disabled = true;
    this.#earlier.textContent = "Loading…";
    this.#callbacks.onEarlier(this.#first);
  }

  #earlierDone() {
    this.#earlier.disabled = false;
    this.#showEarlier();
  }

  #showEarlier() {
    const count = this.#first - 1;
    this.#earlier.hidden = count <= 0;
    if (!this.#earlier.disabled) {
      this.#earlier.textContent = `Show earlier lines (${formatCount(count)})`;
    }
  }

  // The gutter is as wide as the longest number; a step of it moves every row, so it rarely steps.
  #showGutter(lastNumber = this.#last) {
    const digits = Math.max(3, String(lastNumber).length);
    if (digits !== this.#gutterDigits) {
      this.#gutterDigits = digits;
      this.#scroller.style.setProperty("--gutter-digits", digits);
    }
  }

  #copy(event) {
    const selection = getSelection();
    if (selection.rangeCount === 0 || selection.isCollapsed) {
      return;
    }
    // Rows hold their newlines, so the text of the range is the log's; a browser would add its own.
    const text = this.#within(selection.getRangeAt(0)).cloneContents().textContent;
    event.clipboardData.setData("text/plain", text);
    event.preventDefault();
  }

  // Where the log has the focus, all of the log is meant, not the page around it.
  #selectAll(event) {
    const isCommand = (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey;
    if (isCommand && event.key.toLowerCase() === "a") {
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(this.#allRows());
      event.preventDefault();
    }
  }

  #allRows() {
    const rows = document.createRange();
    rows.setStartBefore(this.#lines);
    rows.setEndAfter(this.#partial);
    return rows;
  }

  // The part of `range` that is rows, for a selection may begin or end in what is around them.
  #within(range) {
    const part = range.cloneRange();
    const rows = this.#allRows();
    if (part.compareBoundaryPoints(Range.START_TO_START, rows) < 0) {
      part.setStart(rows.startContainer, rows.startOffset);
    }
    if (part.compareBoundaryPoints(Range.END_TO_END, rows) > 0) {
      part.setEnd(rows.endContainer, rows.endOffset);
    }
    return part;
  }
}
