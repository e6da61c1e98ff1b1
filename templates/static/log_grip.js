/**
 * A grip at the edge of a log, to go through all of it with a finger.
 *
 * A touch screen's own scrollbar can't be held, and swiping through a million lines takes for ever.
 * The sheet shows the grip where the pointer is a finger; it comes with any scrolling, and goes.
 */

import { formatCount } from "./format.js";
import { make } from "./dom.js";

const STAY_MS = 1500;
// What a few swipes pass through needs no grip.
const LEAST_SCREENS = 6;

/**
 * - `place()`: where the view is: `{share, number, screens}`, its share of the way from the first
 *   row (0) to the last (1), its first line, and how many screens there are in all;
 * - `onDrag(share)`: the reader goes to that share.
 */
export class LogGrip {
  element = make("div", { className: "log-grip", hidden: true, aria: { hidden: "true" } });
  #label = make("span", { className: "log-grip-label" });
  #place;
  #onDrag;
  #heldAt = null;
  #timer = 0;

  constructor({ place, onDrag }) {
    this.#place = place;
    this.#onDrag = onDrag;
    this.element.append(this.#label);
    this.element.addEventListener("pointerdown", (event) => this.#taken(event));
    this.element.addEventListener("pointermove", (event) => this.#moved(event));
    for (const type of ["pointerup", "pointercancel"]) {
      this.element.addEventListener(type, () => this.#left());
    }
  }

  /** Shows it for a while: the reader scrolls. */
  show() {
    const { share, number, screens } = this.#place();
    this.element.hidden = screens < LEAST_SCREENS;
    if (this.#heldAt === null) {
      this.#put(share * this.#room);
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => (this.element.hidden = true), STAY_MS);
    }
    this.#label.textContent = formatCount(number);
  }

  get #room() {
    return Math.max(1, this.element.parentElement.clientHeight - this.element.offsetHeight);
  }

  #put(y) {
    this.element.style.transform = `translateY(${y}px)`;
  }

  #taken(event) {
    clearTimeout(this.#timer);
    this.element.setPointerCapture(event.pointerId);
    this.element.classList.add("is-held");
    this.#heldAt = event.clientY - this.element.getBoundingClientRect().top;
    event.preventDefault();
  }

  #moved({ clientY }) {
    if (this.#heldAt === null) {
      return;
    }
    const top = this.element.parentElement.getBoundingClientRect().top;
    const y = Math.max(0, Math.min(this.#room, clientY - this.#heldAt - top));
    this.#put(y);
    this.#onDrag(y / this.#room);
    this.show();
  }

  #left() {
    this.#heldAt = null;
    this.element.classList.remove("is-held");
    this.show();
  }
}
