/**
 * One line of a log as an element: its number, its time, its text with what is marked in it.
 *
 * Number and time are no text: they stand in attributes, from where the sheet shows them, so that
 * they are neither selected nor copied. The text ends with its newline.
 */

import { renderRuns } from "./ansi_lines.js";
import { formatCount, formatQuantity } from "./format.js";
import { isJson, levelOf, prettyJson } from "./levels.js";
import { icon, make } from "./dom.js";
import { textOf } from "./screen.js";

// A row of more characters would hold up the layout; the rest is a click away.
const MAX_CHARS = 20_000;
// The server's mark at the end of a line that is longer than it sends.
const LEFT_OUT = / … \[([\d,]+) bytes left out; the raw log has them\]$/;
const MAX_JSON_CHARS = 200_000;
const JSON_TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|-?\b\d[\d.eE+-]*|\b(?:true|false|null)\b/g;

function cut(runs, most) {
  const shown = [];
  let room = most;
  for (const run of runs) {
    if (room <= 0) {
      break;
    }
    shown.push(run.text.length > room ? { ...run, text: run.text.slice(0, room) } : run);
    room -= run.text.length;
  }
  return shown;
}

function sameRanges(one, other) {
  return (
    one === other ||
    (one.length === other.length &&
      one.every(([start, end], index) => start === other[index][0] && end === other[index][1]))
  );
}

function renderJson(text, element) {
  let at = 0;
  for (const match of text.matchAll(JSON_TOKEN)) {
    element.append(text.slice(at, match.index));
    const [token, quoted, colon] = match;
    const kind = colon ? "key" : quoted ? "text" : "value";
    element.append(make("span", { className: `json-${kind}` }, quoted ?? token), colon ?? "");
    at = match.index + token.length;
  }
  element.append(text.slice(at));
}

/**
 * A row. Its element may be used again for the same line only; `raw` is where the bytes of the log
 * are: `{href, download}`, as of a link.
 */
export class LogRow {
  #shown = null;
  #level = null;
  #text = "";
  #number = make("a", { className: "log-number", tabIndex: -1, draggable: false, aria: { hidden: "true" } });
  #time = make("span", { className: "log-time", aria: { hidden: "true" } });
  #body = make("div", { className: "log-text" });
  #raw;

  constructor(number, raw) {
    this.#raw = raw;
    this.element = make("div", { className: "log-line" }, this.#number, this.#time, this.#body);
    this.element.logRow = this;
    this.renumber(number);
  }

  /** The row is that of line `number` from now on. */
  renumber(number) {
    this.element.dataset.number = number;
    this.#number.href = `#L${number}`;
    this.#number.dataset.line = number;
  }

  /** The text as it is shown, without its newline. */
  get text() {
    return this.#text;
  }

  /**
   * Shows `model`: runs (null while they are being fetched), hidden, ranges (to mark), time and
   * timeTitle, isTarget, isMatch, isCurrent, isContext, fold ({title, count, shut, errors}),
   * isFoldEnd, depth, isExpanded, isWhole, isPartial
   * (it is still being written, and has no newline yet).
   */
  show(model) {
    const before = this.#shown;
    const isSame =
      before &&
      before.runs === model.runs &&
      before.isExpanded === model.isExpanded &&
      before.isWhole === model.isWhole &&
      before.foldKey === model.foldKey &&
      sameRanges(before.ranges, model.ranges);
    if (!isSame) {
      this.#fill(model);
    }
    if (this.#time.dataset.time !== model.time) {
      this.#time.dataset.time = model.time;
      this.#time.title = model.timeTitle;
    }
    if (before?.flags !== model.flags || !isSame) {
      this.#mark(model);
    }
    this.#shown = model;
  }

  #mark({ isTarget, isMatch, isCurrent, isContext, hidden, runs, fold, isFoldEnd, depth }) {
    const { classList, style } = this.element;
    classList.toggle("is-target", isTarget);
    classList.toggle("is-match", isMatch);
    classList.toggle("is-current", isCurrent);
    classList.toggle("is-context", isContext);
    classList.toggle("is-hidden", hidden);
    classList.toggle("is-loading", runs === null);
    classList.toggle("is-fold", Boolean(fold));
    classList.toggle("is-fold-end", isFoldEnd);
    classList.toggle("is-error", this.#level === "error");
    classList.toggle("is-warn", this.#level === "warn");
    style.setProperty("--depth", depth);
  }

  #fill({ runs, ranges, fold, isExpanded, isWhole, isPartial }) {
    this.#body.replaceChildren();
    this.#text = runs ? textOf(runs) : "";
    this.#level = runs && !fold ? levelOf(this.#text) : null;
    if (fold) {
      this.#fillFold(fold);
    } else if (isExpanded) {
      this.#body.append(this.#expander(true));
      renderJson(prettyJson(this.#text), this.#body);
    } else if (runs) {
      this.#fillText(runs, ranges, isWhole);
    }
    this.#body.append(isPartial ? "" : "\n");
  }

  #fillText(runs, ranges, isWhole) {
    const tooMuch = !isWhole && this.#text.length > MAX_CHARS;
    if (this.#text.length <= MAX_JSON_CHARS && isJson(this.#text)) {
      this.#body.append(this.#expander(false));
    }
    renderRuns(tooMuch ? cut(runs, MAX_CHARS) : runs, this.#body, { highlight: ranges });
    if (tooMuch) {
      const label = `Show ${formatCount(this.#text.length - MAX_CHARS)} more characters`;
      this.#body.append(make("button", { type: "button", className: "log-more", data: { label }, aria: { label } }));
    }
    const leftOut = this.#text.length > MAX_CHARS && this.#text.match(LEFT_OUT);
    if (leftOut) {
      const label = `Download the raw log, with ${leftOut[1]} bytes more`;
      this.#body.append(make("a", { ...this.#raw, className: "log-more", data: { label }, aria: { label } }));
    }
  }

  #expander(isExpanded) {
    const label = isExpanded ? "Show as one line" : "Show JSON expanded";
    const button = make("button", { type: "button", className: "log-json", title: label, aria: { label, expanded: isExpanded } });
    button.append(icon("right"));
    return button;
  }

  #fillFold({ title, count, shut, errors }) {
    const button = make("button", { type: "button", className: "log-fold", aria: { expanded: !shut } });
    button.append(icon("right"), title || "Group");
    const told = errors > 0 ? `${formatQuantity(errors, "error")} · ` : "";
    this.#body.append(button, make("span", { className: "log-fold-count", data: { text: `${told}${formatQuantity(count, "line")}` } }));
    this.#text = title;
  }
}

/** The row that stands for lines that aren't shown. */
export class GapRow {
  #label = make("span", { className: "log-gap-label" });

  constructor() {
    this.element = make("div", { className: "log-gap" }, this.#label);
    this.element.logGap = this;
  }

  /** Says how many lines are left out between the two. */
  show([first, last]) {
    this.#label.dataset.text = `⋯ ${formatQuantity(last - first + 1, "line")}`;
  }

  /** Says that the lines up to `last` were dropped; `limit` is the size that is kept. */
  showDropped(last, limit) {
    const verb = last === 1 ? "was" : "were";
    const kept = limit ? ` to keep this log within ${limit}` : "";
    this.element.classList.add("is-dropped");
    this.#label.dataset.text = `${formatQuantity(last, "older line")} ${verb} dropped${kept}`;
  }
}
