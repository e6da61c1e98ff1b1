/**
 * An event stream that stays open: EventSource with our own way of coming back.
 *
 * A bare EventSource gives up for good on a 502 or 404, and asks again at one fixed pace for ever.
 * This one makes a new EventSource after 1, 2, 4, 8, then every 15 seconds, and at once when the
 * network or the page comes back. A hidden page holds no connection: a browser opens six to a host
 * over HTTP/1.1, and the seventh tab would hang.
 */

const WAITS_SECONDS = [1, 2, 4, 8, 15];
const NO_ANSWER = { status: 0, retryAfterSeconds: 0 };
const CLOCK_MS = 5000;
// No timer of ours is that late unless the machine slept, and then the connection is dead.
const ASLEEP_MS = 20000;

/** How long to wait before the attempt that follows `failures` failures in a row. */
export function backoffSeconds(failures) {
  return WAITS_SECONDS[Math.min(failures, WAITS_SECONDS.length) - 1];
}

/**
 * Keeps one event stream open from start() to stop().
 *
 * - `url()` gives the address for each attempt.
 * - `listeners` maps an event's type to a function of the MessageEvent.
 * - `onOpen()` is called each time a connection stands, before its events.
 * - `onState(state, waitSeconds)`: "connecting", "live", "reconnecting" or "full" (with the wait),
 *   "paused" (the page is hidden), "ended" (the server says there is nothing more), "gone" (404).
 *   "full": the server has as many viewers as it takes (503 or 429, with Retry-After).
 */
export class EventStream {
  #url;
  #listeners;
  #onOpen;
  #onState;
  #source = null;
  #retryTimer = 0;
  #clockTimer = 0;
  #lastTick = 0;
  #failures = 0;
  #running = false;

  constructor({ url, listeners, onOpen = () => {}, onState = () => {} }) {
    this.#url = url;
    this.#listeners = listeners;
    this.#onOpen = onOpen;
    this.#onState = onState;
  }

  /** Connects as soon as the page is visible. */
  start() {
    if (this.#running) {
      return;
    }
    this.#running = true;
    document.addEventListener("visibilitychange", this.#visibilityChanged);
    window.addEventListener("online", this.#reconnectNow);
    this.#lastTick = Date.now();
    this.#clockTimer = setInterval(this.#tick, CLOCK_MS);
    this.#visibilityChanged();
  }

  /** Ends the connection and every wish for one. No callback comes after it. */
  stop() {
    this.#running = false;
    document.removeEventListener("visibilitychange", this.#visibilityChanged);
    window.removeEventListener("online", this.#reconnectNow);
    clearInterval(this.#clockTimer);
    this.#disconnect();
  }

  #disconnect() {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = 0;
    this.#source?.close();
    this.#source = null;
  }

  #connect() {
    this.#disconnect();
    const source = new EventSource(this.#url());
    this.#source = source;
    source.addEventListener("open", () => {
      if (source === this.#source) {
        this.#failures = 0;
        this.#onState("live");
        this.#onOpen();
      }
    });
    source.addEventListener("error", () => {
      if (source === this.#source) {
        this.#failed(source.readyState === EventSource.CLOSED);
      }
    });
    for (const [type, listener] of Object.entries(this.#listeners)) {
      source.addEventListener(type, (event) => {
        // What a closed source had still queued came before its successor's cursor was read.
        if (source === this.#source) {
          listener(event);
        }
      });
    }
  }

  async #failed(refused) {
    this.#disconnect();
    this.#failures += 1;
    const seconds = backoffSeconds(this.#failures);
    const timer = this.#retryIn(seconds, "reconnecting");
    // The browser doesn't tell why it was refused: a 204 or a 404 is final, a 502 or 503 is not.
    const { status, retryAfterSeconds } = refused ? await this.#ask() : NO_ANSWER;
    if (status === 401) {
      // The session is over: the page's URL leads to the sign-in, and back.
      location.reload();
    }
    if (this.#running && (status === 204 || status === 404)) {
      this.stop();
      this.#onState(status === 204 ? "ended" : "gone");
    }
    if (retryAfterSeconds > 0 && timer === this.#retryTimer) {
      clearTimeout(timer);
      this.#retryIn(Math.max(seconds, retryAfterSeconds), "full");
    }
  }

  /** Tells of the wait, and connects after it; the timer. */
  #retryIn(seconds, state) {
    this.#onState(state, seconds);
    this.#retryTimer = setTimeout(() => this.#connect(), seconds * 1000);
    return this.#retryTimer;
  }

  async #ask() {
    const abort = new AbortController();
    try {
      const headers = { Accept: "text/event-stream" };
      const answer = await fetch(this.#url(), { headers, signal: abort.signal });
      const isFull = answer.status === 503 || answer.status === 429;
      const retryAfterSeconds = isFull ? Number(answer.headers.get("Retry-After")) : 0;
      return { status: answer.status, retryAfterSeconds };
    } catch {
      return NO_ANSWER;
    } finally {
      abort.abort();
    }
  }

  #reconnectNow = () => {
    if (this.#running && !document.hidden) {
      this.#failures = 0;
      this.#onState("connecting");
      this.#connect();
    }
  };

  #visibilityChanged = () => {
    if (document.hidden) {
      this.#disconnect();
      this.#onState("paused");
    } else {
      this.#reconnectNow();
    }
  };

  #tick = () => {
    const now = Date.now();
    const slept = now - this.#lastTick > ASLEEP_MS;
    this.#lastTick = now;
    if (slept) {
      this.#reconnectNow();
    }
  };
}
