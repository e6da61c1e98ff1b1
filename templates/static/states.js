/**
 * The states of a deployment as people see them: word, sentence, icon, favicon.
 */

const SVG = "http://www.w3.org/2000/svg";

const STATES = {
  queued: { label: "Queued", final: false },
  running: { label: "Running", final: false },
  succeeded: { label: "Succeeded", final: true },
  failed: { label: "Failed", final: true },
  stopped: { label: "Stopped", final: true },
  timed_out: { label: "Timed out", final: true },
  lost: {
    label: "Lost",
    final: true,
    explanation: "The process that captured this output died; how it ended is not known.",
  },
  finished: {
    label: "Finished",
    final: true,
    explanation: "A file put into the data folder by hand; nothing is known about how it was made.",
  },
};

const UNKNOWN = { label: "Unknown", final: true };

function described(state) {
  return STATES[state] ?? { ...UNKNOWN, label: state || UNKNOWN.label };
}

/** The state in a word or two, to show. */
export function stateLabel(state) {
  return described(state).label;
}

/** A sentence for a state that does not explain itself, else "". */
export function stateExplanation(state) {
  return described(state).explanation ?? "";
}

/** Where a queued deployment waits: "3rd in the queue"; "" for any other. */
export function placeText({ state, queue }) {
  return state === "queued" && queue ? `${ordinal(queue.place)} in the queue` : "";
}

function ordinal(number) {
  const endings = { one: "st", two: "nd", few: "rd", other: "th" };
  return `${number}${endings[new Intl.PluralRules("en", { type: "ordinal" }).select(number)]}`;
}

/** Whether nothing comes after this state. */
export function isFinal(state) {
  return described(state).final;
}

/**
 * A new icon for `state`. Its shape alone tells the state; the colour follows from the class.
 *
 * It is hidden from screen readers: the word stands beside it, visible or not.
 */
export function stateIcon(state) {
  const known = state in STATES ? state : "finished";
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", `state-icon state-${known}`);
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `/static/states.svg#${known}`);
  svg.append(use);
  return svg;
}

/** Lets the tab's icon tell the state. */
export function setFavicon(state) {
  const link = document.querySelector("link[rel='icon']");
  const href = `/static/icons/${state in STATES ? state : "finished"}.svg`;
  if (link.getAttribute("href") !== href) {
    link.setAttribute("href", href);
  }
}
