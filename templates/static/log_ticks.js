/**
 * Marks beside the scrollbar: where in the log matches and errors are.
 */

import { make } from "./dom.js";

const DRAW_MS = 250;
const TICK_PX = 2;

/** `share(number)` tells at which share of the view's rows a line stands, from 0 to 1. */
export class LogTicks {
  element = make("canvas", { className: "log-ticks", aria: { hidden: "true" } });
  #share;
  #kinds = [];
  #timer = 0;

  constructor(share) {
    this.#share = share;
    new ResizeObserver(() => this.#later()).observe(this.element);
  }

  /** Marks `kinds`: lists of line numbers, each with the name of the colour: `[numbers, "--name"]`. */
  show(kinds) {
    this.#kinds = kinds;
    this.#later();
  }

  #later() {
    this.#timer ||= setTimeout(() => this.#draw(), DRAW_MS);
  }

  #draw() {
    this.#timer = 0;
    const { clientWidth, clientHeight } = this.element;
    const scale = devicePixelRatio;
    this.element.width = clientWidth * scale;
    this.element.height = clientHeight * scale;
    const context = this.element.getContext("2d");
    context.scale(scale, scale);
    const style = getComputedStyle(this.element);
    for (const [numbers, colour] of this.#kinds) {
      context.fillStyle = style.getPropertyValue(colour);
      let last = -TICK_PX;
      for (const number of numbers) {
        const y = Math.round(this.#share(number) * (clientHeight - TICK_PX));
        if (y >= last + TICK_PX) {
          context.fillRect(0, y, clientWidth, TICK_PX);
          last = y;
        }
      }
    }
  }
}
