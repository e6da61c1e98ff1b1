/**
 * The box that asks where to go: a line number, or a time.
 */

import { iconButton, make } from "./dom.js";

const HELP = "1204, -10, 14:05, +90s, 2026-11-22 14:05:10";

/** `go(text)` goes there; a sentence that it resolves to says why not. */
export class GotoBox {
  #input;
  #message = make("p", { className: "search-message", hidden: true, aria: { role: "alert" } });
  #go;
  #onClose;

  constructor(go, onClose) {
    this.#go = go;
    this.#onClose = onClose;
    this.#input = make("input", {
      type: "text", className: "search-input", placeholder: "Line number or time",
      autocomplete: "off", spellcheck: false, aria: { label: "Go to a line number or a time" },
    });
    const hint = make("p", { className: "search-hint", textContent: HELP });
    const field = make("div", { className: "search-field" }, this.#input);
    const close = iconButton("close", "Close", { key: "Escape", onClick: () => this.close() });
    this.element = make("form", { className: "search goto", hidden: true, noValidate: true }, field, close, hint, this.#message);
    this.element.addEventListener("submit", (event) => this.#submitted(event));
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        this.close();
        event.stopPropagation();
      }
    });
  }

  /** Opens it, ready to be typed into. */
  open() {
    this.element.hidden = false;
    this.#say("");
    this.#input.focus();
    this.#input.select();
  }

  /** Closes it. */
  close() {
    this.element.hidden = true;
    this.#onClose();
  }

  async #submitted(event) {
    event.preventDefault();
    const trouble = await this.#go(this.#input.value);
    if (trouble) {
      this.#say(trouble);
    } else {
      this.close();
    }
  }

  #say(sentence) {
    this.#message.textContent = sentence;
    this.#message.hidden = !sentence;
    this.#message.classList.toggle("is-error", Boolean(sentence));
  }
}
