/**
 * Runs of styled text (see screen.js) as DOM nodes.
 *
 * Nodes are built, never parsed: text of a log can't become markup, and colours that no class can
 * name are set through the CSSOM, which a Content-Security-Policy without 'unsafe-inline' allows.
 */

const WEIGHTS = ["bold", "faint", "italic", "underline", "strike", "inverse"];

/**
 * Appends the nodes of `runs` to `element`. `highlight`: ranges of the whole text, `[start, end]` in
 * UTF-16 units, ascending and apart, to be shown within `<mark>`.
 */
export function renderRuns(runs, element, { highlight = [] } = {}) {
  let at = 0;
  let next = 0; // the first range that doesn't end before `at`
  for (const run of runs) {
    const end = at + run.text.length;
    const parent = run.href ? link(run.href) : element;
    while (at < end) {
      while (next < highlight.length && highlight[next][1] <= at) {
        next += 1;
      }
      const [start, stop] = highlight[next] ?? [Infinity, Infinity];
      const isMarked = start <= at;
      const pieceEnd = Math.min(end, isMarked ? stop : start);
      const text = run.text.slice(run.text.length - (end - at), run.text.length - (end - pieceEnd));
      parent.append(marked(styled(text, run), isMarked));
      at = pieceEnd;
    }
    if (parent !== element) {
      element.append(parent);
    }
  }
}

function link(address) {
  const element = document.createElement("a");
  element.href = address;
  element.rel = "noopener noreferrer";
  element.target = "_blank";
  return element;
}

function marked(node, isMarked) {
  if (!isMarked) {
    return node;
  }
  const mark = document.createElement("mark");
  mark.append(node);
  return mark;
}

/** A text node, or a span with the classes and colours of `run`. */
function styled(text, run) {
  const classes = WEIGHTS.filter((name) => run[name]).map((name) => `ansi-${name}`);
  if (classes.length === 0 && !run.fg && !run.bg) {
    return text;
  }
  const span = document.createElement("span");
  span.textContent = text;
  span.classList.add(...classes);
  const [front, ground] = run.inverse ? [run.bg, run.fg] : [run.fg, run.bg];
  colour(span, front, "fg", "color");
  colour(span, ground, "bg", "background-color");
  return span;
}

function colour(span, value, suffix, property) {
  if (value?.startsWith("rgb")) {
    span.style.setProperty(property, value);
    span.classList.add(`ansi-exact-${suffix}`);
  } else if (value) {
    span.classList.add(`ansi-${value}-${suffix}`);
  }
}
