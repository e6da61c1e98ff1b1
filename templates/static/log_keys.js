/**
 * The keys of the log view: one table, from which they are heard and listed.
 */

import { iconButton, make } from "./dom.js";

const GROUPS = [
  ["Move", [
    [["f", "G", "End"], "Follow the newest line", "follow"],
    [["Home"], "To the first line", "first"],
    [["g", ":"], "Go to a line or a time", "goto"],
    [["e"], "Next error", "nextError"],
    [["E"], "Error before", "previousError"],
  ]],
  ["Search", [
    [["/", "Ctrl+F"], "Search the whole log", "search"],
    [["n"], "Next match", "nextMatch"],
    [["N"], "Match before", "previousMatch"],
    [["m"], "Only matching lines", "filter"],
  ]],
  ["Show", [
    [["w"], "Wrap long lines, or not", "wrap"],
    [["t"], "Times: off, local, UTC, since the start, since the line before", "times"],
    [["c"], "Shut or open all groups", "folds"],
    [["d"], "Light, dark, or as the system", "theme"],
  ]],
  ["Lines", [
    [["y"], "Copy the lines that are marked", "copyLines"],
    [["Y"], "Copy a link to them", "copyLink"],
    [["Escape"], "Close the search; unmark the lines", "escape"],
    [["?"], "This list", "help"],
  ]],
];
const HINTS = ["Click a line number to mark a line, Shift-click another for all between."];

const FIELDS = "input, textarea, select, [contenteditable]";

/** Calls the action of `actions` (by name) whose key is pressed. */
export function listenToKeys(actions) {
  const byKey = new Map();
  for (const [, rows] of GROUPS) {
    for (const [keys, , action] of rows) {
      keys.forEach((key) => byKey.set(key, action));
    }
  }
  document.addEventListener("keydown", (event) => {
    const action = byKey.get(pressed(event));
    if (!action || event.defaultPrevented || document.querySelector("dialog[open]")) {
      return;
    }
    const isTyping = event.target.closest?.(FIELDS) && action !== "search";
    if (!isTyping && actions[action]() !== false) {
      event.preventDefault();
    }
  });
}

function pressed({ key, ctrlKey, metaKey, altKey }) {
  if (altKey) {
    return "";
  }
  return ctrlKey || metaKey ? `Ctrl+${key.toUpperCase()}` : key;
}

/** A dialog that lists the keys. */
export function keysDialog() {
  const dialog = make("dialog", { className: "keys", aria: { labelledby: "keys-title" } });
  const close = iconButton("close", "Close", { key: "Escape", onClick: () => dialog.close() });
  const head = make("div", { className: "keys-head" }, make("h2", { id: "keys-title", textContent: "Keys" }), close);
  const groups = GROUPS.map(([title, rows]) => make("section", {}, make("h3", { textContent: title }), list(rows)));
  const hints = HINTS.map((text) => make("p", { className: "keys-hint", textContent: text }));
  dialog.append(head, make("div", { className: "keys-groups" }, ...groups), ...hints);
  // A click beside it closes it: it is the dialog's own area, as its content fills it.
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  return dialog;
}

function list(rows) {
  const terms = rows.flatMap(([keys, label]) => [
    make("dt", {}, ...keys.map((key) => make("kbd", { textContent: key }))),
    make("dd", { textContent: label }),
  ]);
  return make("dl", {}, ...terms);
}
