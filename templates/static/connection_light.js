/**
 * The small light that tells whether what the page shows is live.
 */

const LOOKS = { live: "on", connecting: "wait", reconnecting: "wait", full: "wait", paused: "off" };

/**
 * Drives `element`, which holds a `.light-text`: its look follows the state, its text is said by
 * screen readers.
 */
export class ConnectionLight {
  #element;
  #text;
  #timer = 0;

  constructor(element) {
    this.#element = element;
    this.#text = element.querySelector(".light-text");
  }

  /**
   * Shows `state` with `text`. With `waitSeconds`, the text is followed by "in n s", counted down
   * until the next show().
   */
  show(state, text, waitSeconds = 0) {
    clearInterval(this.#timer);
    this.#element.dataset.light = LOOKS[state] ?? "off";
    this.#element.dataset.state = state;
    const until = Date.now() + waitSeconds * 1000;
    const tell = () => {
      const left = Math.ceil((until - Date.now()) / 1000);
      this.#text.textContent = left > 0 ? `${text} in ${left} s` : text;
    };
    tell();
    if (waitSeconds > 0) {
      this.#timer = setInterval(tell, 1000);
    }
  }
}
