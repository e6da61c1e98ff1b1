/**
 * The view of a log of any size: rows for what is in sight, search, links, times, groups.
 *
 * It knows nothing of the page around it. Lines that are looked at are fetched from its `source`;
 * live ones are handed to it, from the last that it was opened with.
 *
 *     const view = new LogView(element, new LogSource(id));
 *     view.open(await source.lines({ from: -NEWEST_LINES, count: NEWEST_LINES }));
 *     view.append(["one", "two"]);   // the lines after that
 *     view.setPartial("thr");        // the line after them, not yet complete
 *
 * The text of the rows, one after the other, is the log as a terminal would show it, each line with
 * its newline, the partial line without.
 */

import { make } from "./dom.js";
import { formatBytes, formatCount, formatQuantity } from "./format.js";
import { GotoBox } from "./goto_box.js";
import { LineRows } from "./line_rows.js";
import { BLOCK_LINES, LineStore } from "./line_store.js";
import { fullTime, parsePlace, TIME_MODES, timeText } from "./line_times.js";
import { LogCopier } from "./log_copy.js";
import { LogFinder } from "./log_finder.js";
import { LogGrip } from "./log_grip.js";
import { keysDialog, listenToKeys } from "./log_keys.js";
import { LogMarks } from "./log_marks.js";
import { GapRow, LogRow } from "./log_row.js";
import { nextMatch, previousMatch } from "./log_search.js";
import { LogSelection } from "./log_selection.js";
import { LogTicks } from "./log_ticks.js";
import { LogToolbar } from "./log_toolbar.js";
import { MarkedLines } from "./marked_lines.js";
import { listenToHeldNumbers } from "./number_touch.js";
import { prefer, preference } from "./preferences.js";
import { RowMap } from "./row_map.js";
import { textOf } from "./screen.js";
import { Scroller } from "./scroller.js";

/** How many of the newest lines open() wants to be given: whole blocks, and more than a screen. */
export const NEWEST_LINES = 2 * BLOCK_LINES;

const TOAST_MS = 6000;
const REMAP_MS = 250;
const SMOOTH_MS = 300;
const MODES = Object.keys(TIME_MODES);
const SCROLL_UP_KEYS = ["ArrowUp", "PageUp", "Home"];
const NO_CHANGE = { runs: null, changed: new Map(), hidden: new Set() };
const NO_RANGES = [];
// What nobody can read comes less often: each time a screen of rows is made and thrown away.
const SKIM_MS = 100;
// Where in the view a line stands that was jumped to.
const JUMP_SHARE = 0.3;

/** Shows a log in `root`, an empty element of its own. */
export class LogView {
  #source;
  #store;
  #rows;
  #map = RowMap.without([], 0);
  #scroller;
  #selection;
  #marks;
  #finder;
  #copier;
  #goto;
  #toolbar;
  #ticks;
  #grip;
  #element = make("div", { className: "log-scroller", tabIndex: 0, aria: { role: "log", label: "Log" } });
  #partial;
  #footer = make("div", { className: "log-footer" });
  #pill = make("button", { type: "button", className: "log-pill", hidden: true });
  #toast = make("p", { className: "log-toast", hidden: true, aria: { role: "status" } });
  #keys = keysDialog();
  #following = true;
  #followedAt = -Infinity;
  #newSinceLeft = 0;
  #partialText = null;
  #tentative = NO_CHANGE;
  #marked = new MarkedLines((isByReader) => this.#linesMarked(isByReader));
  #expanded = new Set();
  #whole = new Set();
  #wrap = preference("wrap", true, [true, false]);
  #times = preference("times", "off", MODES);
  #columns = 100;
  #frame = 0;
  #flushedAt = -Infinity;
  #flushedTotal = 0;
  #isDirty = false;
  #remapTimer = 0;
  #toastTimer = 0;
  #isOpen = false;
  #isLive = true;
  #foldsSettled = false;
  #limit = "";

  constructor(root, source) {
    this.#source = source;
    this.#partial = new LogRow(1, source.rawLink);
    const fetchLines = (query, signal) => source.lines(query, signal);
    this.#store = new LineStore({
      fetchLines,
      onLoaded: () => this.#schedule(),
      onDropped: () => this.#dropped(),
      onFailed: (error) => this.#say(`Lines could not be loaded: ${error.message}`),
    });
    this.#rows = new LineRows(this.#store);
    this.#marks = new LogMarks(source, () => this.#marksChanged());
    this.#finder = new LogFinder(source, {
      firstVisible: () => this.#firstVisible(),
      onFound: () => this.#found(),
      onFilter: () => this.#filterChanged(),
      onGo: (number) => this.#goToMatch(number),
      onClose: () => this.#element.focus({ preventScroll: true }),
    });
    this.#build(root);
    this.#listen();
    this.#setFollowing(true);
    this.#applyChoices();
  }

  /** How many lines the log has, without the partial one. */
  get total() {
    return this.#store.total;
  }

  /** Tells within how many bytes the log is kept, by dropping its oldest lines; null for no limit. */
  setLimit(bytes) {
    this.#limit = bytes ? formatBytes(bytes) : "";
  }

  /** The log has dropped all lines before `number`. */
  dropTo(number) {
    this.#store.dropTo(number);
  }

  /** Whether the newest line is kept in sight. */
  get following() {
    return this.#following;
  }

  /** Shows a log from `page`, a window that reaches to its end: there, or where the link leads. */
  open(page) {
    this.#store.open(page);
    this.#partialText = null;
    this.#mapAll();
    this.#marks.start(this.total);
    if (!this.#isOpen) {
      this.#isOpen = true;
      this.#setFollowing(true); // whatever was done before there was anything to see
      this.#followLink();
    }
    this.#finder.restart();
    this.#flush();
  }

  /** Goes on from `page`, which reaches to the end: lines between are fetched if looked at. */
  skipTo(page) {
    const missed = page.total_lines - this.total;
    this.#store.skipTo(page);
    this.#grown(Math.max(0, missed));
  }

  /** Adds complete lines after the last; `text` is all in one. They are shown with the next frame. */
  append(lines, text = lines.join("\n")) {
    this.#partialText = null;
    const first = this.total + 1;
    this.#store.append(lines);
    this.#marks.append(lines, first, text);
    this.#grown(lines.length);
  }

  /** Shows `text` as the line being written, in place of what it was; "" takes it away. */
  setPartial(text) {
    this.#partialText = text;
    this.#schedule();
  }

  /** Empties the view: the log begins anew. */
  reset() {
    this.#store.clear();
    this.#scroller.clear();
    this.#partialText = null;
    this.#newSinceLeft = 0;
    this.#expanded.clear();
    this.#whole.clear();
    this.#foldsSettled = false;
    this.#marks.start(0);
    this.#mapAll();
    this.#setFollowing(true);
    this.#finder.startOver();
    this.#schedule();
  }

  /** A quiet sentence below the last line, no part of the log; "" for none. */
  setFooter(text) {
    this.#footer.textContent = text;
    this.#schedule();
  }

  /** Tells whether more lines may come. */
  setLive(isLive) {
    this.#isLive = isLive;
    this.#showPill();
  }

  /** Goes to the newest line and keeps it in sight. */
  follow() {
    this.#followedAt = performance.now();
    this.#setFollowing(true);
    this.#flush();
  }

  /** Goes to line `number`. */
  goToLine(number) {
    const kept = this.#store.keptFrom;
    if (number < kept && number > 1) {
      this.#say(`Line ${formatCount(number)} isn't there any more: lines before ${formatCount(kept)} were dropped.`);
    }
    const line = Math.max(kept, Math.min(number, this.total));
    this.#reveal(line);
    this.#setFollowing(false);
    this.#scroller.goTo(this.#map.rowOf(line), { share: JUMP_SHARE });
    this.#schedule();
  }

  // --- Building and listening ----------------------------------------------------------------------

  #build(root) {
    this.#partial.element.classList.add("log-partial");
    this.#partial.element.hidden = true;
    this.#scroller = new Scroller(this.#element, this.#host(), [this.#partial.element, this.#footer]);
    this.#selection = new LogSelection(this.#scroller.lines, {
      onSelected: () => this.#setFollowing(false),
    });
    this.#copier = new LogCopier({
      source: this.#source,
      rows: this.#rows,
      selection: this.#selection,
      view: this.#copied(),
    });
    this.#goto = new GotoBox((text) => this.#goTo(text), () => this.#element.focus({ preventScroll: true }));
    this.#toolbar = new LogToolbar(this.#actions(), { rawUrl: this.#source.rawUrl });
    this.#ticks = new LogTicks((number) => this.#shareOf(number));
    this.#grip = new LogGrip({ place: () => this.#place(), onDrag: (share) => this.#dragged(share) });
    // Within what scrolls, so that a wheel above the pill scrolls too.
    const dock = make("div", { className: "log-dock" }, this.#pill);
    this.#element.append(dock);
    const frame = make("div", { className: "log-frame" }, this.#element, this.#ticks.element, this.#grip.element, this.#finder.element, this.#goto.element, this.#toast);
    root.append(this.#toolbar.element, frame, this.#keys);
  }

  // Of a log that doesn't fill the view, as of one that does: a tick stands beside its row.
  #shareOf(number) {
    const inSight = this.#element.clientHeight / this.#scroller.lineHeight - 1;
    return this.#map.rowOf(number) / Math.max(1, this.#map.count - 1, inSight);
  }

  #actions() {
    return {
      search: () => this.#openSearch(),
      goto: () => this.#goto.open(),
      follow: () => this.follow(),
      first: () => this.goToLine(1),
      help: () => this.#keys.showModal(),
      wrap: () => this.#setWrap(!this.#wrap),
      times: () => this.#setTimes(MODES[(MODES.indexOf(this.#times) + 1) % MODES.length]),
      setTimes: (mode) => this.#setTimes(mode),
      folds: () => this.#toggleFolds(),
      theme: () => dispatchEvent(new Event("theme-next")),
      nextError: () => this.#stepError(1),
      previousError: () => this.#stepError(-1),
      nextMatch: () => this.#finder.step(1),
      previousMatch: () => this.#finder.step(-1),
      filter: () => this.#finder.isOpen && this.#finder.toggleFilter(),
      copyLines: () => this.#marked.range && this.#copier.copyLines(...this.#marked.range),
      copyLink: () => this.#marked.range && this.#copier.copyLink(this.#marked.link),
      unmark: () => this.#marked.clear(),
      escape: () => this.#escape(),
    };
  }

  #listen() {
    listenToKeys(this.#actions());
    this.#pill.addEventListener("click", () => this.follow());
    this.#element.addEventListener("wheel", (event) => this.#wheeled(event), { passive: true });
    this.#element.addEventListener("keydown", (event) => this.#keyed(event));
    this.#listenToTouch();
    this.#scroller.lines.addEventListener("click", (event) => this.#clicked(event));
    listenToHeldNumbers(this.#scroller.lines, (number) => this.#marked.extendTo(number));
    document.addEventListener("keydown", (event) => this.#keyedBeside(event));
    addEventListener("hashchange", () => this.#followLink());
    new ResizeObserver(() => this.#resized()).observe(this.#element);
  }

  #listenToTouch() {
    let from = 0;
    const y = (event) => event.touches[0]?.clientY ?? 0;
    this.#element.addEventListener("touchstart", (event) => (from = y(event)), { passive: true });
    const moved = (event) => y(event) > from + 4 && this.#setFollowing(false);
    this.#element.addEventListener("touchmove", moved, { passive: true });
  }

  #place() {
    const screens = this.#map.count / Math.max(1, this.#element.clientHeight / this.#scroller.lineHeight);
    return { share: this.#scroller.share, number: this.#firstVisible(), screens };
  }

  #dragged(share) {
    this.#setFollowing(share >= 1);
    this.#scroller.goToShare(share);
  }

  // The first pixels of a smooth scroll must not be undone by the next line that comes.
  #wheeled({ deltaY }) {
    const { scrollTop, scrollHeight, clientHeight } = this.#element;
    if (deltaY < 0 && scrollTop > 0) {
      this.#setFollowing(false);
    } else if (deltaY > 0 && scrollTop >= scrollHeight - clientHeight - 2) {
      this.#setFollowing(true);
    }
  }

  #keyed(event) {
    const isCommand = (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey;
    if (isCommand && event.key.toLowerCase() === "a") {
      // Where the log has the focus, all of the log is meant, not the page around it.
      this.#selection.selectAll();
      event.preventDefault();
    } else if (SCROLL_UP_KEYS.includes(event.key) && this.#element.scrollTop > 0) {
      this.#setFollowing(false);
    }
  }

  // Who has just come to the page has the focus nowhere, and expects the log to scroll.
  #keyedBeside(event) {
    const page = this.#element.clientHeight * 0.9;
    const steps = { ArrowUp: -40, ArrowDown: 40, PageUp: -page, PageDown: page };
    if (event.target === document.body && event.key in steps) {
      this.#element.focus({ preventScroll: true });
      this.#keyed(event);
      this.#scroller.moveBy(steps[event.key]);
      event.preventDefault();
    }
  }

  #clicked(event) {
    const { target } = event;
    const row = target.closest(".log-line");
    const number = Number(row?.dataset.number);
    if (target.closest(".log-number")) {
      event.preventDefault();
      if (event.shiftKey) {
        this.#marked.extendTo(number);
      } else {
        this.#marked.mark(number);
        this.#hintAtRange(event);
      }
    } else if (target.closest(".log-fold")) {
      this.#toggleFold(number);
    } else if (target.closest(".log-json")) {
      toggle(this.#expanded, number);
      this.#setFollowing(false);
      this.#scroller.refresh();
    } else if (target.closest("button.log-more")) {
      toggle(this.#whole, number);
      this.#scroller.refresh();
    } else if (target.closest(".log-gap:not(.is-dropped)")) {
      this.#finder.toggleFilter();
      this.goToLine(Math.ceil(Number(target.closest(".log-gap").dataset.first)));
    }
  }

  #resized() {
    const style = getComputedStyle(this.#element);
    const character = parseFloat(style.fontSize) * 0.602;
    this.#columns = Math.max(20, Math.floor(this.#element.clientWidth / character) - 10);
    const bar = this.#element.offsetWidth - this.#element.clientWidth;
    this.#element.parentElement.style.setProperty("--scrollbar", `${bar}px`);
  }

  // --- Rows ----------------------------------------------------------------------------------------

  #host() {
    const view = this;
    return {
      get count() {
        return view.#map.count;
      },
      key: (row) => keyOf(view.#map.at(row)),
      estimate: (row) => view.#estimate(row),
      show: (row, element) => view.#showRow(row, element),
      isPinned: (key) => view.#selection.isPinned(key),
      shown: (first, last) => view.#shown(first, last),
      moved: (isUp) => {
        view.#moved(isUp);
        view.#grip.show();
      },
      reachedEnd: () => view.#setFollowing(true),
    };
  }

  #estimate(row) {
    const { number } = this.#map.at(row);
    const known = number === undefined ? null : this.#rows.row(number);
    if (!known) {
      return 1;
    }
    if (this.#isHidden(number, known)) {
      return 0;
    }
    return this.#wrap && known.runs.length ? Math.ceil(textOf(known.runs).length / this.#columns) || 1 : 1;
  }

  #showRow(row, element) {
    const { number, gap, isDropped } = this.#map.at(row);
    if (gap) {
      const found = element?.logGap ?? new GapRow();
      found.element.dataset.first = gap[0];
      if (isDropped) {
        found.showDropped(gap[1], this.#limit);
      } else {
        found.show(gap);
      }
      return found.element;
    }
    const found = element?.logRow ?? new LogRow(number, this.#source.rawLink);
    found.show(this.#model(number));
    return found.element;
  }

  #model(number) {
    const row = this.#rows.row(number);
    const runs = row ? (this.#tentative.changed.get(number) ?? row.runs) : null;
    const fold = this.#finder.isFilter ? null : this.#marks.folds.at(number);
    const isMatch = this.#finder.isMatch(number);
    const model = {
      runs,
      hidden: row !== null && this.#isHidden(number, row),
      ranges: isMatch && runs ? this.#finder.ranges(textOf(runs)) : NO_RANGES,
      isTarget: this.#marked.has(number),
      isMatch,
      isCurrent: number === this.#finder.current,
      isContext: this.#finder.isFilter && !isMatch,
      fold: fold && foldModel(fold),
      foldKey: fold ? `${fold.shut} ${fold.errors}` : "",
      isFoldEnd: this.#marks.folds.isEnd(number),
      depth: this.#finder.isFilter ? 0 : Math.min(3, this.#marks.folds.depth(number)),
      isExpanded: this.#expanded.has(number),
      isWhole: this.#whole.has(number),
      ...this.#timeOf(number),
    };
    model.flags = `${model.hidden} ${model.isTarget} ${isMatch} ${model.isCurrent} ${model.isContext} ${model.depth}`;
    return model;
  }

  // What the line being written draws over or draws anew comes before what the whole lines did.
  #isHidden(number, row) {
    const { changed, hidden } = this.#tentative;
    return hidden.has(number) || (row.hidden && !changed.has(number));
  }

  #timeOf(number) {
    if (this.#times === "off") {
      return { time: "", timeTitle: "" };
    }
    const ms = this.#store.time(number);
    const before = { startedMs: this.#store.startedMs, beforeMs: this.#store.time(number - 1) };
    return { time: timeText(this.#times, ms, before), timeTitle: fullTime(ms) };
  }

  #shown(first, last) {
    if (this.#map.count === 0) {
      return;
    }
    const [from, to] = [this.#map.at(first), this.#map.at(last)];
    const [start, end] = [Math.floor(keyOf(from)), Math.ceil(keyOf(to))];
    // The line before the first one has a time that the first one's may be told from.
    this.#store.want(this.#finder.isFilter ? this.#map.pieces(start, end) : [[Math.max(1, start - 1), end]]);
  }

  /** With the next frame, the rows are looked at again, not the counts alone. */
  #schedule() {
    this.#isDirty = true;
    this.#scheduleCounts();
  }

  #scheduleCounts() {
    this.#frame ||= requestAnimationFrame(() => this.#onFrame());
  }

  #onFrame() {
    this.#frame = 0;
    if (!this.#isDirty) {
      this.#flushCounts();
    } else if (this.#isSkimmed() && performance.now() - this.#flushedAt < SKIM_MS) {
      this.#scheduleCounts();
    } else {
      this.#flush();
    }
  }

  // Whether nothing will be left of what is in sight.
  #isSkimmed() {
    const inSight = this.#element.clientHeight / this.#scroller.lineHeight;
    return this.#following && this.total - this.#flushedTotal > inSight;
  }

  #flush() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#isDirty = false;
    this.#flushedAt = performance.now();
    this.#flushedTotal = this.total;
    this.#showDigits();
    this.#showPartial();
    if (this.#following) {
      this.#scroller.stickToEnd();
    } else {
      this.#scroller.refresh();
    }
    this.#showPill();
    this.#showCounts();
  }

  #showPartial() {
    const text = this.#partialText;
    this.#tentative = text ? this.#rows.tentative(text) : NO_CHANGE;
    const { element } = this.#partial;
    element.hidden = !text || this.#finder.isFilter;
    if (text) {
      element.dataset.number = this.total + 1;
      this.#partial.renumber(this.total + 1);
      this.#partial.show({ ...emptyModel(), runs: this.#tentative.runs, isPartial: true });
    }
  }

  // The gutter is as wide as the longest number; a step of it moves every row, so it rarely steps.
  #showDigits() {
    const digits = Math.max(3, String(this.total + 1).length);
    if (this.#element.dataset.digits !== String(digits)) {
      this.#element.dataset.digits = digits;
      this.#element.style.setProperty("--gutter-digits", digits);
    }
  }

  #grown(count) {
    if (!this.#following) {
      this.#newSinceLeft += count;
    }
    this.#map.grow(this.total);
    if (this.#following) {
      this.#schedule();
    } else {
      this.#scroller.grown();
      this.#scheduleCounts();
    }
  }

  // For a reader who looks at older lines nothing has changed but how many there are.
  #flushCounts() {
    this.#frame = 0;
    this.#showDigits();
    this.#showPill();
    this.#showCounts();
  }

  // --- Following -----------------------------------------------------------------------------------

  #setFollowing(following) {
    if (following) {
      this.#newSinceLeft = 0;
    } else if (this.#following) {
      this.#scroller.letGo();
    }
    const changed = this.#following !== following;
    this.#following = following;
    // Read aloud line by line while the newest is what the reader is at, silent otherwise.
    this.#element.setAttribute("aria-live", following ? "polite" : "off");
    this.#showPill();
    if (changed) {
      this.#schedule();
    }
  }

  // What comes right after the wish to follow is the rest of a smooth scroll that it has ended.
  #moved(isUp) {
    if (isUp && performance.now() - this.#followedAt < SMOOTH_MS) {
      this.#schedule();
    } else if (isUp) {
      this.#setFollowing(false);
    }
  }

  #showPill() {
    this.#pill.hidden = this.#following;
    const count = this.#newSinceLeft;
    const text = count > 0 ? formatQuantity(count, "new line") : this.#isLive ? "Jump to newest" : "Jump to the end";
    if (this.#pill.textContent !== text) {
      this.#pill.textContent = text;
    }
  }

  #showCounts() {
    this.#toolbar.showCounts(this.total, this.#marks.errorCount);
  }

  // --- Which lines are shown -----------------------------------------------------------------------

  #mapAll() {
    const { isFilter, matches, context } = this.#finder;
    this.#map = isFilter
      ? RowMap.around(matches, context, this.total, this.#store.keptFrom)
      : RowMap.without(this.#marks.folds.hidden(), this.total, this.#store.keptFrom);
  }

  // The lines in sight may be gone: then the view stands at the first that is left.
  #dropped() {
    const top = this.#map.count > 0 ? this.#scroller.currentPlace().key : 0;
    if (!this.#following && top >= 1 && top < this.#store.keptFrom) {
      this.#say("The lines that were here have been dropped from the log.");
    }
    this.#remap();
  }

  /** Shows other rows than before, with the line at the top of the view where it was. */
  #remap(keep = null) {
    const at = this.#map.count > 0 ? this.#scroller.currentPlace() : null;
    const number = keep ?? at?.key;
    const offset = keep === null ? (at?.offset ?? 0) : this.#offsetOf(keep);
    this.#mapAll();
    if (!this.#following && number !== undefined) {
      this.#scroller.goTo(this.#map.rowOf(Math.ceil(number)), { offset });
    }
    this.#schedule();
  }

  #offsetOf(number) {
    const row = this.#scroller.elementOf(number);
    return row ? this.#element.getBoundingClientRect().top - row.getBoundingClientRect().top : 0;
  }

  #reveal(number) {
    if (this.#finder.isFilter && !this.#map.has(number)) {
      this.#finder.toggleFilter();
    }
    if (this.#marks.folds.reveal(number)) {
      this.#mapAll();
    }
  }

  #toggleFold(number) {
    const fold = this.#marks.folds.at(number);
    this.#marks.folds.set(number, !fold.shut);
    this.#setFollowing(false);
    this.#remap(number);
  }

  #toggleFolds() {
    const hidden = this.#marks.folds.hidden().length > 0;
    this.#marks.folds.setAll(!hidden);
    this.#remap();
  }

  #marksChanged() {
    const { folds, errors, errorsKnown } = this.#marks;
    this.#showTicks();
    this.#toolbar.showChoices({ wrap: this.#wrap, times: this.#times, hasFolds: folds.size > 0 });
    if (folds.size > 0 && errorsKnown && (this.#following || !this.#foldsSettled)) {
      this.#foldsSettled = true;
      folds.settle(errors, ({ first, last }) => this.#marked.overlaps(first + 1, last));
      this.#remapTimer ||= setTimeout(() => {
        this.#remapTimer = 0;
        this.#remap();
      }, 0);
    }
    this.#schedule();
  }

  // --- Search --------------------------------------------------------------------------------------

  #openSearch() {
    const isOpened = this.#finder.open();
    if (isOpened) {
      this.#goto.element.hidden = true;
    }
    return isOpened;
  }

  #found() {
    this.#showTicks();
    if (this.#finder.isFilter) {
      this.#remapTimer ||= setTimeout(() => {
        this.#remapTimer = 0;
        this.#remap();
      }, REMAP_MS);
    }
    this.#schedule();
  }

  #filterChanged() {
    const keep = this.#finder.current;
    this.#remap(keep !== null && this.#scroller.elementOf(keep) ? keep : null);
  }

  #goToMatch(number) {
    this.#setFollowing(false);
    if (!this.#map.has(number) || !this.#isInSight(number)) {
      this.goToLine(number);
    }
    this.#schedule();
  }

  // Whether a line is in sight as a whole, and not behind the box.
  #isInSight(number) {
    const row = this.#scroller.elementOf(number)?.getBoundingClientRect();
    const view = this.#element.getBoundingClientRect();
    const top = this.#finder.isOpen ? this.#finder.element.getBoundingClientRect().bottom : view.top;
    return Boolean(row) && row.top >= top && row.bottom <= view.bottom;
  }

  #showTicks() {
    this.#ticks.show([
      [this.#marks.errors, "--log-red"],
      [this.#finder.matches, "--log-match"],
    ]);
  }

  #stepError(direction) {
    const { errors, errorsKnown } = this.#marks;
    this.#marks.askErrors();
    if (errors.length === 0) {
      this.#say(errorsKnown ? "No errors in this log." : "Looking for errors…");
      return;
    }
    // From the error that was gone to last, as long as it is what is marked.
    const at = this.#marked.single ?? this.#firstVisible() - (direction > 0 ? 1 : 0);
    const error = direction > 0
      ? (nextMatch(errors, at) ?? errors[0])
      : (previousMatch(errors, at) ?? errors.at(-1));
    this.goToLine(error);
    this.#marked.mark(error);
  }

  // --- Links and places ----------------------------------------------------------------------------

  #followLink() {
    if (!this.#marked.readLink()) {
      return;
    }
    const [first] = this.#marked.range;
    if (first > this.total) {
      this.#say(`Line ${formatCount(first)} isn't there: the log has ${formatQuantity(this.total, "line")}.`);
    } else {
      this.goToLine(first);
    }
  }

  #linesMarked(isByReader) {
    this.#toolbar.showTarget(this.#marked.range);
    if (isByReader && this.#marked.range) {
      this.#setFollowing(false);
    }
    this.#schedule();
  }

  // Who marks a first line with a finger has no Shift, and no list of keys that tells of it.
  #hintAtRange({ pointerType }) {
    if (pointerType === "touch" && !preference("touch.hinted", false, [true, false])) {
      prefer("touch.hinted", true);
      this.#say("Press and hold another number to mark all lines between.");
    }
  }

  async #goTo(text) {
    const place = parsePlace(text, this.#store.startedMs);
    if (!place) {
      return "That is neither a line number nor a time.";
    }
    let { line } = place;
    if (place.time !== undefined) {
      try {
        line = (await this.#source.lines({ time: place.time, count: 1 })).from;
      } catch (error) {
        return error.message;
      }
    }
    line = line < 0 ? Math.max(1, this.total + 1 + line) : line;
    if (line > this.total) {
      this.follow();
      return place.time === undefined ? `The log has ${formatQuantity(this.total, "line")}.` : "No line was written at that time or later.";
    }
    this.#marked.mark(line);
    this.goToLine(line);
    return "";
  }

  #visibleNumbers() {
    if (this.#map.count === 0) {
      return [1, 0];
    }
    const [first, last] = this.#scroller.visibleRows;
    const number = (row) => Math.max(this.#store.keptFrom, Math.ceil(keyOf(this.#map.at(row))));
    return [number(first), number(last)];
  }

  #firstVisible() {
    return this.#visibleNumbers()[0];
  }

  #escape() {
    if (this.#finder.isOpen) {
      this.#finder.close();
    } else if (this.#marked.range) {
      this.#marked.clear();
    } else {
      return false;
    }
    return true;
  }

  // --- Choices -------------------------------------------------------------------------------------

  #setWrap(wrap) {
    this.#wrap = wrap;
    prefer("wrap", wrap);
    this.#applyChoices();
    this.#scroller.relearn();
  }

  #setTimes(mode) {
    this.#times = mode;
    prefer("times", mode);
    this.#applyChoices();
    this.#scroller.relearn();
  }

  #applyChoices() {
    this.#element.classList.toggle("is-unwrapped", !this.#wrap);
    this.#element.dataset.times = this.#times;
    this.#store.withTimes = this.#times !== "off";
    this.#toolbar.showChoices({ wrap: this.#wrap, times: this.#times, hasFolds: this.#marks.folds.size > 0 });
    this.#schedule();
  }

  // What the copier is told.
  #copied() {
    return {
      total: () => this.total,
      partial: () => (this.#partialText ? this.#partial.text : ""),
      shownPieces: () => this.#map.pieces(1, this.total),
      pieces: (first, last) => (this.#finder.isFilter ? this.#map.pieces(first, last) : [[first, last]]),
      isChanged: (number) => this.#expanded.has(number) || Boolean(this.#marks.folds.at(number)),
      say: (sentence) => this.#say(sentence),
    };
  }

  #say(sentence) {
    this.#toast.textContent = sentence;
    this.#toast.hidden = false;
    clearTimeout(this.#toastTimer);
    this.#toastTimer = setTimeout(() => (this.#toast.hidden = true), TOAST_MS);
  }
}

// Rows are told apart, and ordered, by the number of their line; a gap stands before its first.
function keyOf({ number, gap }) {
  return number ?? gap[0] - 0.5;
}

function toggle(set, value) {
  if (!set.delete(value)) {
    set.add(value);
  }
}

function foldModel({ title, first, last, shut, errors }) {
  return { title, count: last - first - 1, shut, errors };
}

function emptyModel() {
  return {
    runs: [], hidden: false, ranges: NO_RANGES, isTarget: false, isMatch: false, isCurrent: false,
    isContext: false, fold: null, foldKey: "", isFoldEnd: false, depth: 0, isExpanded: false,
    isWhole: false, time: "", timeTitle: "", flags: "",
  };
}
