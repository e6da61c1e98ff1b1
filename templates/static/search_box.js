/**
 * The box to search a log with: what to look for, what was found, and the ways through it.
 */

import { icon, iconButton, make } from "./dom.js";
import { formatCount } from "./format.js";
import { prefer, preference } from "./preferences.js";

const TYPING_MS = 180;
const CONTEXTS = [0, 2, 5];

/**
 * - `onQuery(query)`: look for `{q, regex, case}`, or for nothing (null).
 * - `onStep(direction)`: to the next match (1), or the one before (-1).
 * - `onFilter(isOn, context)`: show matching lines only, with `context` lines around each.
 * - `onClose()`: the reader is done with it.
 */
export class SearchBox {
  #callbacks;
  #input;
  #case;
  #regex;
  #filter;
  #context;
  #status = make("span", { className: "search-status", aria: { role: "status", live: "polite" } });
  #message = make("p", { className: "search-message", hidden: true, aria: { role: "alert" } });
  #timer = 0;
  #query = null;

  constructor(callbacks) {
    this.#callbacks = callbacks;
    this.#input = make("input", {
      type: "text", className: "search-input", placeholder: "Search the whole log",
      autocomplete: "off", spellcheck: false, enterKeyHint: "search",
      aria: { label: "Search the whole log" },
    });
    this.#input.setAttribute("autocapitalize", "off");
    this.#case = this.#toggle("Aa", "Match case", "search.case");
    this.#regex = this.#toggle(".*", "Regular expression", "search.regex");
    this.#filter = iconButton("filter", "Only matching lines", { onClick: () => this.#filterToggled() });
    this.#filter.setAttribute("aria-pressed", "false");
    this.#context = this.#contextChoice();
    this.element = make("div", { className: "search", hidden: true, aria: { role: "search", label: "Search" } }, ...this.#rows());
    this.#listen();
  }

  /** Whether it is open. */
  get isOpen() {
    return !this.element.hidden;
  }

  /** Opens it, with `text` in it where there is any. */
  open(text = "") {
    this.element.hidden = false;
    if (text) {
      this.#input.value = text;
    }
    this.#input.focus();
    this.#input.select();
    this.#changed();
  }

  /** Closes it and looks for nothing any more. */
  close() {
    this.element.hidden = true;
    this.#query = null;
    this.#callbacks.onQuery(null);
    if (this.#filter.getAttribute("aria-pressed") === "true") {
      this.#filterToggled();
    }
    this.#callbacks.onClose();
  }

  /** Shows matching lines only, or all again. */
  toggleFilter() {
    this.#filterToggled();
  }

  /** Shows what was found: `position` counts from 1, 0 for none; `error` is about the query. */
  show({ count, position, done, searched, of, error, note }) {
    this.#message.textContent = error || note;
    this.#message.hidden = !this.#message.textContent;
    this.#message.classList.toggle("is-error", Boolean(error));
    this.#input.setAttribute("aria-invalid", String(Boolean(error)));
    const share = !done && of > 0 ? `${Math.floor((100 * searched) / of)} %` : done ? "" : "…";
    this.#status.textContent = this.#query ? statusText(count, position, done, share, error) : "";
  }

  #rows() {
    const step = (name, label, key, direction) =>
      iconButton(name, label, { key, onClick: () => this.#callbacks.onStep(direction) });
    const close = iconButton("close", "Close the search", { key: "Escape", onClick: () => this.close() });
    const field = make("div", { className: "search-field" }, icon("search"), this.#input, this.#case, this.#regex);
    const found = make("div", { className: "search-found" },
      this.#status,
      step("up", "Previous match", "Shift+Enter", -1),
      step("down", "Next match", "Enter", 1),
      make("span", { className: "search-rule" }),
      this.#filter, this.#context,
    );
    return [field, found, close, this.#message];
  }

  #toggle(text, label, name) {
    const button = make("button", { type: "button", className: "search-toggle", textContent: text, title: label, aria: { label } });
    button.setAttribute("aria-pressed", String(preference(name, false, [true, false])));
    button.addEventListener("click", () => {
      const isOn = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(isOn));
      prefer(name, isOn);
      this.#changed();
    });
    return button;
  }

  #contextChoice() {
    const chosen = preference("search.context", 2, CONTEXTS);
    const choice = make("select", { className: "search-context", hidden: true, title: "Lines around each match", aria: { label: "Lines around each match" } });
    for (const lines of CONTEXTS) {
      choice.append(make("option", { value: lines, textContent: `± ${lines}`, selected: lines === chosen }));
    }
    choice.addEventListener("change", () => {
      prefer("search.context", Number(choice.value));
      this.#tellFilter();
    });
    return choice;
  }

  #listen() {
    this.#input.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#changed(), TYPING_MS);
    });
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        this.close();
      } else if (event.key === "Enter" && event.target === this.#input) {
        this.#changed();
        this.#callbacks.onStep(event.shiftKey ? -1 : 1);
      } else {
        return;
      }
      event.preventDefault();
      event.stopPropagation();
    });
  }

  #changed() {
    clearTimeout(this.#timer);
    const isOn = (button) => button.getAttribute("aria-pressed") === "true";
    const q = this.#input.value;
    const query = q ? { q, regex: isOn(this.#regex), case: isOn(this.#case) } : null;
    if (JSON.stringify(query) !== JSON.stringify(this.#query)) {
      this.#query = query;
      this.#callbacks.onQuery(query);
    }
  }

  #filterToggled() {
    this.#setFilter(this.#filter.getAttribute("aria-pressed") !== "true");
    this.#tellFilter();
  }

  #setFilter(isOn) {
    this.#filter.setAttribute("aria-pressed", String(isOn));
    this.#context.hidden = !isOn;
  }

  #tellFilter() {
    const isOn = this.#filter.getAttribute("aria-pressed") === "true";
    this.#callbacks.onFilter(isOn, Number(this.#context.value));
  }
}

function statusText(count, position, done, share, error) {
  if (error) {
    return "";
  }
  if (count === 0) {
    return done ? "No matches" : `Searching ${share}`;
  }
  const total = formatCount(count);
  const place = position > 0 ? `${formatCount(position)} of ${total}` : `${total} found`;
  return done ? place : `${place} · ${share}`;
}
