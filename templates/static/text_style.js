/**
 * How text of a terminal looks: what SGR (ECMA-48, ITU T.416) and OSC 8 (links) ask for.
 */

const COLOURS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
const NAMES = [...COLOURS, ...COLOURS.map((name) => `bright-${name}`)];
const LEVELS = [0, 95, 135, 175, 215, 255];
const WEIGHTS = { bold: 1, faint: 2, italic: 3, underline: 4, inverse: 7, strike: 9 };
const SAFE_LINK = /^https?:\/\/[^\s"<>]+$/i;
const MAX_LINK_CHARS = 4096;
const MAX_SGR_CHARS = 512;
const MAX_KNOWN = 2000;
const STYLING = /\x1b\[([\d;:]*)m|\x1b\](8;[^\x07\x1b]*)(?:\x07|\x1b\\)/g;

/**
 * One way that text looks; never changed once made.
 *
 * `fg`, `bg`: one of the 16 colours by name (`red`, `bright-red`), any other as `rgb(1 2 3)`, null
 * for the default. `href`: an http(s) address or null. `escapes`: what brings it about.
 */
class Style {
  constructor(fields) {
    this.bold = fields.bold;
    this.faint = fields.faint;
    this.italic = fields.italic;
    this.underline = fields.underline;
    this.inverse = fields.inverse;
    this.strike = fields.strike;
    this.fg = fields.fg;
    this.bg = fields.bg;
    this.href = fields.href;
    this.escapes = escapesOf(fields);
    // Whether one sees it on a blank too.
    this.paints = Boolean(this.bg || this.inverse || this.underline || this.strike);
    this.after = new Map();
  }
}

const NOTHING = {
  bold: false,
  faint: false,
  italic: false,
  underline: false,
  inverse: false,
  strike: false,
  fg: null,
  bg: null,
  href: null,
};

export const PLAIN = new Style(NOTHING);

// Every style is made once, as long as there are few; so are the steps from one to the next.
let known = new Map([["", PLAIN]]);
let steps = 0;

function style(fields) {
  const made = new Style(fields);
  const same = known.get(made.escapes);
  if (same) {
    return same;
  }
  known.set(made.escapes, made);
  return made;
}

// A log may go through millions of colours: begin anew from time to time.
function countStep() {
  steps += 1;
  if (steps > MAX_KNOWN) {
    for (const one of known.values()) {
      one.after.clear();
    }
    known = new Map([["", PLAIN]]);
    steps = 0;
  }
}

function escapesOf(fields) {
  const codes = Object.keys(WEIGHTS).filter((name) => fields[name]).map((name) => WEIGHTS[name]);
  if (fields.fg) {
    codes.push(...colourCodes(fields.fg, 30));
  }
  if (fields.bg) {
    codes.push(...colourCodes(fields.bg, 40));
  }
  const sgr = codes.length > 0 ? `\x1b[${codes.join(";")}m` : "";
  return fields.href ? `${sgr}\x1b]8;;${fields.href}\x1b\\` : sgr;
}

function colourCodes(colour, base) {
  const index = NAMES.indexOf(colour);
  if (index >= 0) {
    return [index < 8 ? base + index : base + 52 + index];
  }
  return [base + 8, 2, ...colour.match(/\d+/g)];
}

/** The style that `escapes` bring about where all is default; what else is in them is ignored. */
export function styleOf(escapes) {
  let made = known.get(escapes);
  if (!made) {
    made = PLAIN;
    for (const [, codes, link] of escapes.matchAll(STYLING)) {
      made = link === undefined ? withSgr(made, codes) : withLink(made, link);
    }
  }
  return made;
}

/** `before`, and then `CSI codes m`. */
export function withSgr(before, codes) {
  let after = before.after.get(codes);
  if (!after) {
    after = codes.length > MAX_SGR_CHARS ? before : style(applied({ ...before }, codes));
    countStep();
    before.after.set(codes, after);
  }
  return after;
}

/** `before`, and then OSC 8 with `text`, which is `8;parameters;address`. */
export function withLink(before, text) {
  const address = text.slice(text.indexOf(";", 2) + 1);
  const isSafe = address.length <= MAX_LINK_CHARS && SAFE_LINK.test(address);
  const href = isSafe ? address : null;
  return before.href === href ? before : style({ ...before, href });
}

function applied(fields, codes) {
  const parts = codes.split(";");
  for (let at = 0; at < parts.length; at += 1) {
    const [first, ...rest] = parts[at].split(":");
    const code = Number(first);
    if (code !== 38 && code !== 48 && code !== 58) {
      apply(fields, code, rest);
    } else if (rest.length > 0) {
      setColour(fields, code, colonColour(rest));
    } else {
      const isRgb = parts[at + 1] === "2";
      setColour(fields, code, colour(parts.slice(at + 1, at + (isRgb ? 5 : 3)).map(Number)));
      at += isRgb ? 4 : 2;
    }
  }
  return fields;
}

// 38:5:n, 38:2:r:g:b, and with the colour space of ITU T.416, which may be empty: 38:2::r:g:b.
function colonColour(rest) {
  const numbers = rest.map(Number);
  return colour(rest[0] === "2" && rest.length > 4 ? [2, ...numbers.slice(2, 5)] : numbers);
}

function setColour(fields, code, value) {
  if (value && code !== 58) {
    fields[code === 38 ? "fg" : "bg"] = value;
  }
}

/** The colour of `5, index` or `2, red, green, blue`; null if it is none. */
function colour([kind, ...numbers]) {
  const count = { 5: 1, 2: 3 }[kind];
  const isColour = (number) => Number.isInteger(number) && number >= 0 && number <= 255;
  if (!count || numbers.length < count || !numbers.slice(0, count).every(isColour)) {
    return null;
  }
  return kind === 5 ? indexed(numbers[0]) : `rgb(${numbers.slice(0, 3).join(" ")})`;
}

// The palette of 256: 16 by name, a cube of 6 × 6 × 6, 24 greys.
function indexed(index) {
  if (index < 16) {
    return NAMES[index];
  }
  const grey = 8 + (index - 232) * 10;
  const cube = index - 16;
  const parts =
    index >= 232
      ? [grey, grey, grey]
      : [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map((at) => LEVELS[at]);
  return `rgb(${parts.join(" ")})`;
}

function apply(fields, code, [kind]) {
  if (code === 0) {
    const { href } = fields; // a link is none of SGR's
    Object.assign(fields, NOTHING, { href });
  } else if (code === 4) {
    fields.underline = kind !== "0";
  } else if (code === 21) {
    fields.underline = true;
  } else if (code === 22) {
    fields.bold = fields.faint = false;
  } else if (code === 39 || code === 49) {
    fields[code === 39 ? "fg" : "bg"] = null;
  } else if (code > 22 && code < 30) {
    applyWeight(fields, code - 20, false);
  } else if (code < 10) {
    applyWeight(fields, code, true);
  } else if ((code >= 30 && code < 38) || (code >= 90 && code < 98)) {
    fields.fg = NAMES[code < 90 ? code - 30 : code - 82];
  } else if ((code >= 40 && code < 48) || (code >= 100 && code < 108)) {
    fields.bg = NAMES[code < 100 ? code - 40 : code - 92];
  }
}

// Blinking would only disturb, and concealed text is what a reader of a log looks for.
function applyWeight(fields, code, isOn) {
  const name = Object.keys(WEIGHTS).find((one) => WEIGHTS[one] === code);
  if (name) {
    fields[name] = isOn;
  }
}
