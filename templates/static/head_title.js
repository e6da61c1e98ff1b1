/**
 * What a deployment is called and what it runs, each told once.
 */

/**
 * `heading` shows the name, `box` the command. Where the name is how the command begins, as nobody
 * gave it another, the heading is the command itself, on two lines; `toggle` shows the rest.
 */
export class HeadTitle {
  #heading;
  #box;
  #toggle;
  #name = "";
  #command = "";
  #isWhole = false;

  constructor({ heading, box, toggle }) {
    this.#heading = heading;
    this.#box = box;
    this.#toggle = toggle;
    toggle.addEventListener("click", () => {
      this.#isWhole = !this.#isWhole;
      this.#render();
    });
    addEventListener("resize", () => this.#render());
  }

  /** Shows them. */
  show(name, command) {
    this.#name = name;
    this.#command = command.trim();
    this.#render();
  }

  #render() {
    const onOneLine = this.#command.replace(/\s+/g, " ");
    const isCommand = Boolean(onOneLine) && onOneLine.startsWith(this.#name.replace(/…$/, ""));
    const isWhole = isCommand && this.#isWhole;
    const title = isCommand ? onOneLine : this.#name;
    setText(this.#heading, isWhole ? this.#command : title);
    this.#heading.classList.toggle("is-whole", isWhole);
    this.#heading.tabIndex = isWhole ? 0 : -1; // it may scroll, which keys shall do too
    setText(this.#box, isCommand ? "" : this.#command);
    this.#box.hidden = isCommand || !this.#command;
    const isCut = this.#heading.scrollHeight > this.#heading.clientHeight + 1;
    this.#toggle.hidden = !isCommand || !(isWhole || isCut || this.#command.includes("\n"));
    this.#toggle.setAttribute("aria-expanded", String(isWhole));
  }
}

// What stands already is left alone: a reader may have selected some of it.
function setText(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}
