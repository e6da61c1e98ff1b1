/**
 * The line above a log: what it has, what is marked, and what can be done with it.
 */

import { icon, iconButton, make } from "./dom.js";
import { formatCount, formatQuantity } from "./format.js";
import { TIME_MODES } from "./line_times.js";

/** `actions` are called by name: search, goto, wrap, folds, help, nextError, setTimes(mode), ... */
export class LogToolbar {
  #actions;
  #count = make("span", { className: "tools-count" });
  #errors;
  #errorCount = make("span");
  #chip;
  #chipText = make("span", { className: "chip-text" });
  #wrap;
  #folds;
  #times;

  constructor(actions, { rawUrl }) {
    this.#actions = actions;
    this.#errors = make("button", { type: "button", className: "tool tool-errors", hidden: true }, icon("error"), this.#errorCount);
    this.#errors.addEventListener("click", () => actions.nextError());
    this.#chip = this.#makeChip();
    this.#times = this.#makeTimes();
    this.#folds = iconButton("folds", "Shut or open all groups", { key: "c", onClick: () => actions.folds() });
    this.#folds.hidden = true;
    this.#wrap = iconButton("wrap", "Wrap long lines", { key: "w", onClick: () => actions.wrap() });
    const raw = make("a", { className: "tool tool-wide", href: rawUrl, target: "_blank", title: "Open as plain text", aria: { label: "Open as plain text" } }, icon("raw"));
    this.element = make("div", { className: "tools", aria: { role: "group", label: "Tools for the log" } },
      this.#count, this.#errors, this.#chip,
      make("span", { className: "tools-space" }),
      this.#searchButton(),
      iconButton("goto", "Go to a line or a time", { key: "g", onClick: () => actions.goto() }),
      this.#times, this.#folds, this.#wrap, raw,
      iconButton("keys", "Keys", { key: "?", className: "tool tool-wide", onClick: () => actions.help() }),
    );
  }

  /** Tells how many lines there are, and how many errors; null: not known. */
  showCounts(lines, errors) {
    setText(this.#count, formatQuantity(lines, "line"));
    this.#errors.hidden = !errors;
    if (errors) {
      setText(this.#errorCount, formatCount(errors));
      this.#errors.title = `${formatQuantity(errors, "error")}: to the next (e)`;
      this.#errors.setAttribute("aria-label", `${formatQuantity(errors, "error")}: to the next`);
    }
  }

  /** Tells which lines are marked: [first, last], or null. */
  showTarget(target) {
    this.#chip.hidden = !target;
    if (target) {
      const [first, last] = target.map(formatCount);
      setText(this.#chipText, first === last ? `Line ${first}` : `Lines ${first}–${last}`);
    }
  }

  /** Shows what is chosen. */
  showChoices({ wrap, times, hasFolds }) {
    this.#wrap.setAttribute("aria-pressed", String(wrap));
    this.#times.firstElementChild.nextElementSibling.value = times;
    this.#times.classList.toggle("is-on", times !== "off");
    this.#folds.hidden = !hasFolds;
  }

  #searchButton() {
    const button = make("button", { type: "button", className: "tool tool-search", title: "Search the whole log (/)", aria: { label: "Search" } },
      icon("search"), make("span", { textContent: "Search" }), make("kbd", { textContent: "/", aria: { hidden: "true" } }));
    button.addEventListener("click", () => this.#actions.search());
    return button;
  }

  #makeTimes() {
    const choice = make("select", { aria: { label: "Times" }, title: "When each line was written (t)" });
    for (const [value, label] of Object.entries(TIME_MODES)) {
      choice.append(make("option", { value, textContent: label }));
    }
    choice.addEventListener("change", () => this.#actions.setTimes(choice.value));
    return make("label", { className: "tool tool-times" }, icon("clock"), choice);
  }

  #makeChip() {
    const small = (name, label, key, onClick) => iconButton(name, label, { key, className: "chip-tool", onClick });
    return make("span", { className: "chip", hidden: true, aria: { role: "group", label: "Marked lines" } },
      this.#chipText,
      small("copy", "Copy these lines", "y", () => this.#actions.copyLines()),
      small("link", "Copy a link to these lines", "Y", () => this.#actions.copyLink()),
      small("close", "Unmark", "Escape", () => this.#actions.unmark()),
    );
  }
}

function setText(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}
