/**
 * The rows of the list of deployments: one per record, newest first. No HTTP.
 */

import { formatDuration, formatExact, formatRelative } from "./format.js";
import { isFinal, placeText, stateIcon, stateLabel } from "./states.js";

function part(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

function isNewer(record, other) {
  return record.created_at === other.created_at
    ? record.id > other.id
    : record.created_at > other.created_at;
}

function leftText(left) {
  return left.length === 1 ? "1 process left running" : `${left.length} processes left running`;
}

/** What is to be known of a deployment beside its state, and the whole of it. */
function remarks(record) {
  const left = isFinal(record.state) ? (record.left_running ?? []) : [];
  const texts = left.length > 0 ? [leftText(left)] : [];
  const titles = left.map(({ pid, command }) => `${pid} ${command}`);
  if (record.unwritten_bytes || record.lost_bytes) {
    texts.push("log incomplete");
    titles.push(record.error);
  }
  return { text: texts.join(", "), title: titles.join("\n") };
}

// Where it waits. How it ended, where that isn't well: in the word of its state, unless its own exit status tells
// more. What a signal of ours made of that (143) says nothing to a reader.
function outcomeText(record) {
  const { state, exit_status: status, queue } = record;
  if (state === "queued") {
    return queue?.held_by ? `waits for ${queue.held_by.name}` : placeText(record);
  }
  if (state === "failed") {
    return status ? `exit ${status}` : "";
  }
  return ["stopped", "timed_out", "lost"].includes(state) ? stateLabel(state).toLowerCase() : "";
}

function exitText({ exit_status: status, signal }) {
  return status ? `exit ${status}${signal ? ` (${signal})` : ""}` : "";
}

/** One row. Its element is made once and changed in place, so focus and selection survive. */
class Row {
  element = part("li", "row");
  #state = part("span", "row-state");
  #name = part("a", "row-name");
  #outcome = part("span", "row-outcome");
  #left = part("span", "row-left");
  #last = part("span", "row-last");
  #source = part("span", "row-source");
  #started = part("time", "row-started");
  #duration = part("span", "row-duration");

  constructor(record) {
    this.#name.href = `/deployments/${encodeURIComponent(record.id)}`;
    const main = part("div", "row-main");
    main.append(this.#name, this.#outcome, this.#left);
    this.element.append(this.#state, main, this.#last, this.#source, this.#started, this.#duration);
    this.element.dataset.id = record.id;
  }

  show(record, now) {
    const label = stateLabel(record.state);
    if (this.record?.state !== record.state) {
      this.#state.replaceChildren(
        stateIcon(record.state),
        part("span", "visually-hidden", `${label}: `),
      );
      this.#state.title = label;
      this.element.dataset.state = record.state;
    }
    // What changes comes without its last line; the old one stands until that was asked for.
    this.record = { last_line: this.record?.last_line, ...record };
    setText(this.#last, this.record.last_line ?? "");
    const { text, title } = remarks(record);
    setText(this.#left, text);
    this.#left.title = title;
    setText(this.#name, record.name || record.request?.command?.toString() || record.id);
    setText(this.#outcome, outcomeText(record));
    this.#outcome.title = exitText(record);
    setText(this.#source, record.source || "file");
    const begun = record.started_at ?? record.created_at;
    this.#started.dateTime = begun;
    this.#started.title = formatExact(begun);
    this.tick(now);
  }

  tick(now) {
    const { state, started_at: started, created_at: created, ended_at: ended } = this.record;
    setText(this.#started, formatRelative(started ?? created, now));
    if (started && (ended || !isFinal(state))) {
      const time = (ended ? Date.parse(ended) : now) - Date.parse(started);
      setText(this.#duration, formatDuration(time, { ticking: !ended }));
    } else {
      setText(this.#duration, "");
    }
  }
}

/** Keeps the rows in `element`, a list. `now()` gives the time in ms by the records' clock. */
export class DeploymentList {
  #element;
  #now;
  #rows = new Map();

  constructor(element, now) {
    this.#element = element;
    this.#now = now;
  }

  /** How many deployments are shown. */
  get size() {
    return this.#rows.size;
  }

  /** Adds `record`, or changes its row. */
  put(record) {
    let row = this.#rows.get(record.id);
    if (!row) {
      row = new Row(record);
      this.#rows.set(record.id, row);
      this.#insert(row.element, record);
    }
    row.show(record, this.#now());
  }

  /** Takes the deployment `id` away, if it is there. */
  remove(id) {
    this.#rows.get(id)?.element.remove();
    this.#rows.delete(id);
  }

  /** Shows just `records`. */
  replace(records) {
    const ids = new Set(records.map(({ id }) => id));
    for (const id of [...this.#rows.keys()].filter((known) => !ids.has(known))) {
      this.remove(id);
    }
    records.forEach((record) => this.put(record));
  }

  /** The ids of what is in sight and of which `isWanted(record)` is true. */
  inSight(isWanted) {
    const found = [];
    for (const [id, { element, record }] of this.#rows) {
      if (isWanted(record)) {
        const { top, bottom } = element.getBoundingClientRect();
        if (bottom > 0 && top < innerHeight) {
          found.push(id);
        }
      }
    }
    return found;
  }

  /** Shows the last line of the log of `id`, if it has a row. */
  showLastLine(id, text) {
    const row = this.#rows.get(id);
    row?.show({ ...row.record, last_line: text }, this.#now());
  }

  /** Moves what follows the clock. */
  tick() {
    const now = this.#now();
    this.#rows.forEach((row) => row.tick(now));
  }

  #insert(element, record) {
    // Most are newer than all or, in a page of older ones, older than all.
    const last = this.#element.lastElementChild;
    if (last && isNewer(this.#recordOf(last), record)) {
      this.#element.append(element);
      return;
    }
    const older = [...this.#element.children].find((row) => isNewer(record, this.#recordOf(row)));
    this.#element.insertBefore(element, older ?? null);
  }

  #recordOf(element) {
    return this.#rows.get(element.dataset.id).record;
  }
}
