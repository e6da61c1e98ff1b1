/**
 * Lines with ANSI escapes as DOM nodes: colours and weights (SGR), and links (OSC 8) to http(s).
 *
 * Nodes are built, never parsed: text of a log can't become markup, and colours that no class can
 * name are set through the CSSOM, which a Content-Security-Policy without 'unsafe-inline' allows.
 */

import { AnsiUp } from "./vendor/ansi_up-6.0.6/ansi_up.js";

// OSC 8 ; parameters ; address, ended by ST or BEL: opens a link, or closes it if without address.
const LINK = /\x1b\]8;[^;\x07\x1b]*;([^\x07\x1b]*)(?:\x07|\x1b\\)/;
// What a log has no use for, and of which ansi_up would show the tails: other OSC (window titles),
// DCS, PM, APC and SOS with their text, and escapes of two or three bytes (character sets).
const UNSEEN = new RegExp(
  [
    String.raw`\x1b\](?!8;)[^\x07\x1b]*(?:\x07|\x1b\\)?`,
    String.raw`\x1b[PX^_][^\x1b]*(?:\x1b\\)?`,
    String.raw`\x1b[ -/]+[0-~]`,
    String.raw`\x1b[0-OQ-WYZ\x60-~\\=>]`,
  ].join("|"),
  "g",
);
// Colours with colons (ITU T.416), as in 38:2::r:g:b or 4:3; ansi_up knows semicolons only.
const COLON_SGR = /\x1b\[([\d;]*:[\d:;]*)m/g;
const SAFE_LINK = /^https?:\/\//i;
const WEIGHTS = ["bold", "faint", "italic", "underline"];

function withSemicolons(_sequence, codes) {
  const plain = codes.split(";").map((code) => {
    const parts = code.split(":");
    if (parts[0] === "38" || parts[0] === "48") {
      const isRgb = parts[1] === "2";
      return [parts[0], parts[1], ...(isRgb ? parts.slice(-3) : parts.slice(2, 3))].join(";");
    }
    return parts[0] === "4" && parts[1] === "0" ? "24" : parts[0];
  });
  return `\x1b[${plain.join(";")}m`;
}

/**
 * Renders one line after the other, with the colours of one in force on the next.
 *
 * A subclass of ansi_up's hooks: what it would give as HTML is appended as nodes to `#target`.
 */
export class AnsiLines extends AnsiUp {
  #target = null;
  #inverse = false;
  #strike = false;

  /** Appends the nodes of `line`, one line without its end, to `element`. */
  render(line, element) {
    if (!line.includes("\x1b") && this.#isPlain()) {
      element.append(line);
      return;
    }
    let link = null;
    for (const [index, part] of line.split(LINK).entries()) {
      if (index % 2) {
        link = this.#openLink(part, element);
      } else if (part) {
        this.#target = link ?? element;
        this.ansi_to_html(part.replace(UNSEEN, "").replace(COLON_SGR, withSemicolons));
        this.#giveBack();
      }
    }
  }

  /** Renders `line` and goes back to the state before it. */
  renderTentatively(line, element) {
    const { bold, faint, italic, underline, fg, bg } = this;
    const [inverse, strike] = [this.#inverse, this.#strike];
    this.render(line, element);
    Object.assign(this, { bold, faint, italic, underline, fg, bg });
    [this.#inverse, this.#strike] = [inverse, strike];
  }

  #isPlain() {
    return (
      !this.fg && !this.bg && !this.#inverse && !this.#strike && !WEIGHTS.some((name) => this[name])
    );
  }

  #openLink(address, element) {
    if (!SAFE_LINK.test(address)) {
      return null;
    }
    const link = document.createElement("a");
    link.href = address;
    link.rel = "noopener noreferrer";
    link.target = "_blank";
    element.append(link);
    return link;
  }

  // An escape that its line cut short would be kept, and all that follows with it.
  #giveBack() {
    const rest = this._buffer.replace(/^\x1b(?:\[[\d;?]*$)?/, "");
    this._buffer = "";
    if (rest) {
      this.transform_to_html(this.with_state({ text: rest }));
    }
  }

  process_ansi(packet) {
    super.process_ansi(packet);
    const codes = packet.text.split(";").map(Number);
    for (let index = 0; index < codes.length; index += 1) {
      const code = codes[index];
      if (code === 38 || code === 48) {
        index += codes[index + 1] === 2 ? 4 : 2;
      } else if (code === 0) {
        this.#inverse = this.#strike = false;
      } else if (code === 7 || code === 27) {
        this.#inverse = code === 7;
      } else if (code === 9 || code === 29) {
        this.#strike = code === 9;
      }
    }
  }

  transform_to_html(fragment) {
    const { text } = fragment;
    if (this.#isPlain()) {
      this.#target.append(text);
      return "";
    }
    const span = document.createElement("span");
    span.textContent = text;
    span.classList.add(...WEIGHTS.filter((name) => fragment[name]).map((name) => `ansi-${name}`));
    if (this.#strike) {
      span.classList.add("ansi-strike");
    }
    const [front, ground] = this.#inverse ? [fragment.bg, fragment.fg] : [fragment.fg, fragment.bg];
    if (this.#inverse) {
      span.classList.add("ansi-inverse");
    }
    this.#colour(span, front, "fg", "color");
    this.#colour(span, ground, "bg", "background-color");
    this.#target.append(span);
    return "";
  }

  #colour(span, colour, suffix, property) {
    if (!colour) {
      return;
    }
    if (colour.class_name === "truecolor") {
      span.style.setProperty(property, `rgb(${colour.rgb.join(" ")})`);
    } else {
      span.classList.add(`${colour.class_name}-${suffix}`);
    }
  }

  process_hyperlink() {
    return "";
  }
}
