/**
 * Any number of rows in a box that scrolls: only those in sight, and a little around them, exist.
 *
 * A browser caps an element's height near 17 million pixels (Firefox; Chrome near 33), which is
 * less than a million lines. So the space that is scrolled through is capped, and stands for all
 * rows: small steps (wheel, keys, a finger) move the rows pixel by pixel, while a leap (the thumb)
 * goes to the same share of all rows. Whenever the scrolling rests, the thumb is put where it
 * belongs, with the rows moved along in the same frame, so that nobody sees it.
 *
 * Heights are free: rows are in the flow of a block, and it is the block that is placed, such that
 * the row at the top of the view stays where it is.
 */

const MAX_SPACE_PX = 8_000_000;
const OVERSCAN_PX = 500;
const REST_MS = 150;
const GROW_MS = 400;
const MAX_ROUNDS = 6;
const NEAR_PX = 2;
// After a wheel, a key or a finger, what moves are steps, however large; else it is the thumb.
const STEP_MS = 200;

function block(className) {
  const element = document.createElement("div");
  element.className = className;
  return element;
}

/**
 * Scrolls the rows of `host` in `element`:
 *
 * - `host.count`: how many rows there are;
 * - `host.key(row)`: what row `row` (from 0) shows, as a number; rows keep their order by key;
 * - `host.estimate(row)`: about how high it is, in line heights;
 * - `host.show(row, element)`: fills `element`, a new one if undefined, and returns it;
 * - `host.isPinned(key)`: whether the element of a row out of sight has to stay in the page;
 * - `host.shown(first, last)`: these rows exist now;
 * - `host.moved(isUp)`: the reader scrolled; `host.reachedEnd()`: down to the last row.
 *
 * `tail` are elements that stand after the last row.
 */
export class Scroller {
  #element;
  #host;
  #space = block("log-space");
  #block = block("log-block");
  #lines = block("log-lines");
  #tail = block("log-tail");
  #elements = new Map();
  #first = 0;
  #last = -1;
  // The row at the top of the view, and by how many px it begins above it.
  #anchor = { row: 0, offset: 0 };
  #atEnd = false;
  #blockTop = 0;
  #scrollTop = 0;
  #size = { width: 0, height: 0 };
  #lineHeight = 20;
  #meanHeight = 20;
  #measured = { rows: 0, px: 0 };
  #widest = 0;
  #movedAt = 0;
  #steppedAt = -Infinity;
  #restTimer = 0;
  #growTimer = 0;

  constructor(element, host, tail) {
    this.#element = element;
    this.#host = host;
    this.#tail.append(...tail);
    this.#block.append(this.#lines, this.#tail);
    this.#space.append(this.#block);
    element.append(this.#space);
    element.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    for (const type of ["wheel", "keydown", "touchmove"]) {
      element.addEventListener(type, () => (this.#steppedAt = performance.now()), { passive: true });
    }
    new ResizeObserver(() => this.#resized()).observe(element);
  }

  /** The element that holds the rows. */
  get lines() {
    return this.#lines;
  }

  /** The first and the last row that can be seen. */
  get visibleRows() {
    const top = this.#element.scrollTop - this.#blockTop;
    return [this.#rowAt(top), this.#rowAt(top + this.#element.clientHeight - 1)];
  }

  /** The height of a line that isn't wrapped. */
  get lineHeight() {
    return this.#lineHeight;
  }

  /** The element of the row with key `key`, if it exists. */
  elementOf(key) {
    return this.#elements.get(key) ?? null;
  }

  /**
   * Where the view stands now: the key of its first row, and by how many px that begins above it.
   * A scroll that wasn't told of yet is taken into account first, with all that follows from one.
   */
  currentPlace() {
    this.#hear();
    return { key: this.#host.key(this.#anchor.row), offset: this.#anchor.offset };
  }

  /** Keeps the last row at the bottom until told otherwise. */
  stickToEnd() {
    this.#atEnd = true;
    this.#render(false);
  }

  /** Stays where it is, whatever comes. */
  letGo() {
    if (this.#atEnd) {
      this.#atEnd = false;
      this.#takeAnchor(this.#element.scrollTop - this.#blockTop);
    }
  }

  /** Puts row `row` at `share` of the view's height, plus `offset` px. */
  goTo(row, { share = 0, offset = 0 } = {}) {
    this.#atEnd = false;
    const room = Math.max(0, this.#element.clientHeight - this.#lineHeight) * share;
    this.#anchor = { row: Math.max(0, row), offset: offset - room };
    this.#render(false);
  }

  /** Where the view stands on the way from the first row (0) to the last (1). */
  get share() {
    const rows = this.#host.count - this.#element.clientHeight / this.#meanHeight;
    const { row, offset } = this.#anchor;
    return this.#atEnd || rows <= 0 ? 1 : clamp((row + offset / this.#meanHeight) / rows, 0, 1);
  }

  /** Goes to that share of the way. */
  goToShare(share) {
    this.#atEnd = false;
    this.#leap(share);
    this.#render(false);
  }

  /** Scrolls by `px` pixels. */
  moveBy(px) {
    this.#element.scrollTop += px;
    this.#scrolled();
  }

  /** Shows anew what rows have become. */
  refresh() {
    this.#hear();
    this.#render(!this.#atEnd);
  }

  /** There are more rows than before, after those that are shown. */
  grown() {
    if (this.#atEnd || this.#last >= this.#host.count - 2) {
      this.#hear();
      this.#render(!this.#atEnd);
    } else {
      this.#growTimer ||= setTimeout(() => this.#grow(), GROW_MS);
    }
  }

  /** Rows look different from now on: what was learned of their heights is forgotten. */
  relearn() {
    this.#measured = { rows: 0, px: 0 };
    this.#meanHeight = this.#lineHeight;
    this.#widest = 0;
    this.#block.style.minWidth = "";
    this.#render(false);
  }

  /** Forgets all elements: the next rows are others. */
  clear() {
    this.#elements.clear();
    this.#lines.replaceChildren();
    this.#anchor = { row: 0, offset: 0 };
    this.#first = 0;
    this.#last = -1;
    this.#widest = 0;
    this.#block.style.minWidth = "";
  }

  // --- What the reader does ------------------------------------------------------------------------

  #scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.#element;
    const moved = scrollTop - this.#scrollTop;
    if (Math.abs(moved) < 0.5) {
      return;
    }
    this.#scrollTop = scrollTop;
    this.#movedAt = performance.now();
    this.#atEnd = false;
    const isSteady = performance.now() - this.#steppedAt < STEP_MS;
    if (Math.abs(moved) > 3 * clientHeight && !isSteady) {
      this.#leap(scrollTop / Math.max(1, scrollHeight - clientHeight));
    } else {
      this.#takeAnchor(scrollTop - this.#blockTop);
    }
    this.#render(true);
    this.#host.moved(moved < 0);
    if (moved > 0 && scrollTop >= scrollHeight - clientHeight - NEAR_PX) {
      this.#host.reachedEnd();
    }
    clearTimeout(this.#restTimer);
    this.#restTimer = setTimeout(() => this.#rest(), REST_MS);
  }

  // A scroll is told of with the next frame. Who places rows before that would undo it, unless it
  // is taken into account first; what the browser moved to fit another size is no scroll.
  #hear() {
    const { clientWidth, clientHeight } = this.#element;
    if (clientWidth === this.#size.width && clientHeight === this.#size.height) {
      this.#scrolled();
    }
  }

  #rest() {
    this.#restTimer = 0;
    this.#hear();
    // With what was just heard of, the rest is put off.
    if (this.#restTimer === 0 && !this.#atEnd) {
      this.#place(false);
    }
  }

  // The bottom must not flee from a reader who is just scrolling to it.
  #grow() {
    this.#growTimer = 0;
    this.#hear();
    if (performance.now() - this.#movedAt < GROW_MS) {
      this.#growTimer = setTimeout(() => this.#grow(), GROW_MS);
    } else if (!this.#atEnd) {
      this.#place(false);
    }
  }

  #resized() {
    this.#measureLine();
    this.#render(false);
  }

  #measureLine() {
    const height = parseFloat(getComputedStyle(this.#lines).lineHeight);
    if (height > 0 && height !== this.#lineHeight) {
      this.#lineHeight = height;
      this.#meanHeight = height;
      this.#measured = { rows: 0, px: 0 };
    }
  }

  // --- Where rows are ------------------------------------------------------------------------------

  /** The row at `y` px below the top of the block. */
  #rowAt(y) {
    const count = this.#host.count;
    const rest = this.#lines.offsetHeight;
    if (this.#last < this.#first || y < 0) {
      return clamp(this.#first + Math.floor(y / this.#meanHeight), 0, count - 1);
    }
    if (y >= rest) {
      return clamp(this.#last + 1 + Math.floor((y - rest) / this.#meanHeight), 0, count - 1);
    }
    let low = this.#first;
    let high = this.#last;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#topOf(middle) <= y) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return low;
  }

  #topOf(row) {
    const element = this.#elements.get(this.#host.key(row));
    return element ? element.offsetTop : 0;
  }

  #takeAnchor(y) {
    const row = this.#rowAt(y);
    if (row >= this.#first && row <= this.#last) {
      this.#anchor = { row, offset: y - this.#topOf(row) };
    } else {
      const top = row < this.#first
        ? (row - this.#first) * this.#meanHeight
        : this.#lines.offsetHeight + (row - this.#last - 1) * this.#meanHeight;
      this.#anchor = { row, offset: clamp(y - top, 0, this.#meanHeight) };
    }
  }

  #leap(share) {
    const rows = this.#host.count - this.#element.clientHeight / this.#meanHeight;
    const place = Math.max(0, rows) * Math.min(1, share);
    const row = Math.floor(place);
    this.#anchor = { row, offset: (place - row) * this.#meanHeight };
  }

  // --- Making rows ---------------------------------------------------------------------------------

  /** `keep`: the thumb stays where the reader holds it. */
  #render(keep) {
    const count = this.#host.count;
    const height = this.#element.clientHeight;
    if (this.#atEnd) {
      this.#anchor = { row: Math.max(0, count - 1), offset: 0 };
    }
    this.#anchor.row = clamp(this.#anchor.row, 0, Math.max(0, count - 1));
    let { above, below } = this.#reach(height);
    for (let round = 0; round < MAX_ROUNDS; round += 1) {
      this.#mount(this.#rowsUp(above), this.#rowsDown(below));
      const [missingAbove, missingBelow] = this.#missing(height);
      if (missingAbove <= 0 && missingBelow <= 0) {
        break;
      }
      above += Math.max(0, missingAbove) * 1.5;
      below += Math.max(0, missingBelow) * 1.5;
    }
    this.#learn();
    this.#place(keep);
    this.#host.shown(this.#first, this.#last);
  }

  // How many px above the anchor's top and below it rows are needed.
  #reach(height) {
    if (this.#atEnd) {
      return { above: height + OVERSCAN_PX, below: 0 };
    }
    const { offset } = this.#anchor;
    return { above: OVERSCAN_PX - Math.min(0, offset), below: Math.max(0, offset) + height + OVERSCAN_PX };
  }

  #rowsUp(px) {
    let row = this.#anchor.row;
    for (let left = px; left > 0 && row > 0; row -= 1) {
      left -= this.#host.estimate(row - 1) * this.#lineHeight;
    }
    return row;
  }

  #rowsDown(px) {
    const end = this.#host.count - 1;
    let row = this.#anchor.row;
    for (let left = px; left > 0 && row < end; row += 1) {
      left -= this.#host.estimate(row) * this.#lineHeight;
    }
    return row;
  }

  #missing(height) {
    if (this.#host.count === 0) {
      return [0, 0];
    }
    const top = this.#viewTop(height);
    const isFirst = this.#first === 0;
    const isLast = this.#last === this.#host.count - 1;
    return [isFirst ? 0 : -top, isLast ? 0 : top + height - this.#lines.offsetHeight];
  }

  #mount(first, last) {
    const wanted = new Map();
    for (let row = first; row <= last && row < this.#host.count; row += 1) {
      const key = this.#host.key(row);
      wanted.set(key, this.#host.show(row, this.#elements.get(key)));
    }
    for (const [key, element] of this.#elements) {
      if (!wanted.has(key)) {
        const stays = this.#host.isPinned(key);
        element.classList.toggle("is-pinned", stays);
        if (!stays) {
          element.remove();
          this.#elements.delete(key);
        }
      }
    }
    for (const [key, element] of wanted) {
      element.classList.remove("is-pinned");
      this.#elements.set(key, element);
    }
    this.#order();
    this.#first = first;
    this.#last = Math.max(first - 1, Math.min(last, this.#host.count - 1));
    this.#tail.hidden = this.#last < this.#host.count - 1;
  }

  #order() {
    const keys = [...this.#elements.keys()].sort((one, other) => one - other);
    let at = this.#lines.firstChild;
    for (const key of keys) {
      const element = this.#elements.get(key);
      if (element === at) {
        at = at.nextSibling;
      } else {
        this.#lines.insertBefore(element, at);
      }
    }
  }

  #learn() {
    const rows = this.#last - this.#first + 1;
    if (rows > 0) {
      this.#measured.rows += rows;
      this.#measured.px += this.#lines.offsetHeight;
      this.#meanHeight = Math.max(1, this.#measured.px / this.#measured.rows);
    }
    const width = this.#block.scrollWidth;
    if (width > this.#element.clientWidth && width > this.#widest) {
      this.#widest = width;
      this.#block.style.minWidth = `${width}px`;
    }
  }

  // Where within the block the view begins.
  #viewTop(height) {
    const blockHeight = this.#block.offsetHeight;
    let top = this.#atEnd ? blockHeight - height : this.#topOf(this.#anchor.row) + this.#anchor.offset;
    if (this.#last >= this.#host.count - 1) {
      top = Math.min(top, blockHeight - height);
    }
    return this.#first === 0 ? Math.max(0, top) : top;
  }

  #place(keep) {
    const height = this.#element.clientHeight;
    const blockHeight = this.#block.offsetHeight;
    const viewTop = this.#viewTop(height);
    const above = this.#first * this.#meanHeight;
    const below = (this.#host.count - 1 - this.#last) * this.#meanHeight;
    const full = above + blockHeight + Math.max(0, below);
    const scale = Math.min(1, (MAX_SPACE_PX - height) / Math.max(1, full - height));
    let scrollTop = keep ? this.#element.scrollTop : Math.round((above + viewTop) * scale);
    let top = scrollTop - viewTop;
    if (this.#first === 0) {
      top = 0;
    } else if (top < 0) {
      top = Math.min(above, OVERSCAN_PX);
    }
    scrollTop = top + viewTop;
    const end = top + blockHeight;
    const space = below > 0 ? Math.max(full * scale, end + Math.min(below, OVERSCAN_PX)) : end;
    this.#apply(top, space, scrollTop);
    if (!this.#atEnd) {
      this.#takeAnchor(viewTop);
    }
  }

  #apply(top, space, scrollTop) {
    this.#blockTop = top;
    this.#block.style.top = `${top}px`;
    this.#space.style.height = `${Math.max(0, space)}px`;
    if (Math.abs(this.#element.scrollTop - scrollTop) >= 0.5) {
      this.#element.scrollTop = scrollTop;
    }
    this.#scrollTop = this.#element.scrollTop;
    this.#size = { width: this.#element.clientWidth, height: this.#element.clientHeight };
  }
}

function clamp(value, low, high) {
  return Math.max(low, Math.min(high, value));
}
