/**
 * The lines of one log as they come, from a cursor on, each exactly once.
 *
 * The cursor moves with the lines, event by event; whatever happens to the connection, the next one
 * asks for what comes strictly after it.
 */

import { EventStream } from "./event_stream.js";

/**
 * Follows the log of deployment `id` after `cursor` (from its start where that is empty).
 *
 * - `onLines(lines, text)`: complete lines, without their ends; `text` is all of them in one.
 * - `onPartial(text)`: the line being written right now; it stands until the next call of either.
 * - `onGap()`: what comes next was dropped from the log; the lines go on with the first that is left.
 * - `isThere()`: promises true if the log is known to be there: one that is being deleted can look
 *   replaced.
 * - `onReset()`: the log was truncated or replaced; its lines come again from the first. Called with
 *   the first of them, or as soon as it is known that the log is there, though it may be empty.
 * - `onEnd(record)`: everything was sent and nothing more will come. The record is null where the
 *   end was reached on an earlier connection.
 * - `onState(state, waitSeconds)`: "connecting", "live", "reconnecting" or "full" (with the wait),
 *   "paused" (the page is hidden), "ended", "gone" (the log was deleted).
 */
export class LogStream {
  #cursor;
  #hasBegunAnew = false;
  #resets = 0;
  #isStopped = false;
  #stream;
  #callbacks;

  constructor({ id, cursor = "", ...callbacks }) {
    this.#cursor = cursor;
    this.#callbacks = callbacks;
    this.#stream = new EventStream({
      url: () => this.#url(id),
      listeners: {
        message: (event) => this.#received(event),
        partial: (event) => this.#receivedPartial(event),
        gap: (event) => this.#passedGap(event),
        reset: () => this.#beginAnew(),
        end: (event) => this.#ended(JSON.parse(event.data)),
      },
      onState: (state, waitSeconds) => this.#stateChanged(state, waitSeconds),
    });
  }

  /** Begins to follow. */
  start() {
    this.#stream.start();
  }

  /** Follows no longer; nothing is called after it. */
  stop() {
    this.#isStopped = true;
    this.#stream.stop();
  }

  /** Whether the log has begun anew, and onReset() wasn't called: what is shown is of the old one. */
  get hasBegunAnew() {
    return this.#hasBegunAnew;
  }

  #url(id) {
    const after = this.#cursor ? `&after=${encodeURIComponent(this.#cursor)}` : "";
    return `/logs/${encodeURIComponent(id)}?batch=1&partial=1${after}`;
  }

  #received(event) {
    this.#reset();
    if (event.lastEventId) {
      this.#cursor = event.lastEventId;
    }
    this.#callbacks.onLines(event.data.split("\n"), event.data);
  }

  #receivedPartial(event) {
    this.#reset();
    this.#callbacks.onPartial(event.data);
  }

  #passedGap(event) {
    this.#cursor = event.lastEventId;
    this.#callbacks.onGap();
  }

  #beginAnew() {
    this.#cursor = "";
    this.#hasBegunAnew = true;
    this.#resets += 1;
    this.#resetIfThere();
  }

  // What was loaded of a log that is gone is all that is left of it: nothing is thrown away before
  // there is something in its place, or it is known that there is nothing yet.
  async #resetIfThere() {
    const reset = this.#resets;
    const isThere = await this.#callbacks.isThere();
    if (isThere && reset === this.#resets && !this.#isStopped) {
      this.#reset();
    }
  }

  #reset() {
    if (this.#hasBegunAnew) {
      this.#hasBegunAnew = false;
      this.#callbacks.onReset();
    }
  }

  async #ended(record) {
    this.#stream.stop();
    if (this.#hasBegunAnew) {
      await this.#resetIfThere();
    }
    if (!this.#isStopped) {
      this.#callbacks.onState("ended");
      this.#callbacks.onEnd(record);
    }
  }

  #stateChanged(state, waitSeconds) {
    this.#callbacks.onState(state, waitSeconds);
    if (state === "live" && this.#hasBegunAnew) {
      this.#resetIfThere(); // nobody could tell before
    }
    if (state === "ended") {
      this.#callbacks.onEnd(null);
    }
  }
}
