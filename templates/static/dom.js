/**
 * Elements made in one expression.
 */

const SVG = "http://www.w3.org/2000/svg";

/** A new element: `properties` are its own, but for `data` (its dataset) and `aria` (attributes). */
export function make(tag, { data = {}, aria = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(aria)) {
    element.setAttribute(name === "role" ? name : `aria-${name}`, value);
  }
  element.append(...children);
  return element;
}

/** An icon of icons.svg; hidden from screen readers, as a word always stands for it too. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `/static/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/** A button that shows an icon alone; `label` is its name and, with the `key` for it, its tip. */
export function iconButton(name, label, { key = "", className = "tool", onClick } = {}) {
  const button = make("button", { type: "button", className, aria: { label } }, icon(name));
  button.title = key ? `${label} (${key})` : label;
  button.addEventListener("click", onClick);
  return button;
}
