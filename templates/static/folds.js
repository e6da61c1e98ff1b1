/**
 * The groups of a log, from its lines that begin and end one, and which of them are shut. Pure.
 */

import { lastAtMost } from "./row_map.js";

/** The groups that can be shut: those that have ended. They lie within each other, or apart. */
export class Folds {
  #open = [];
  #groups = new Map();
  #sorted = [];
  #firsts = [];
  #isSorted = true;
  #ends = new Set();
  #touched = new Set();

  /** Forgets all. */
  clear() {
    this.#open = [];
    this.#groups.clear();
    this.#sorted = [];
    this.#firsts = [];
    this.#ends.clear();
    this.#touched.clear();
  }

  /** How many there are. */
  get size() {
    return this.#groups.size;
  }

  /** Line `number` is a marker, as levels.structureOf tells it. Lines come in ascending order. */
  add(number, { kind, id, title, collapsed }) {
    if (kind === "start") {
      this.#open.push({ first: number, id: id ?? "", title, collapsed: Boolean(collapsed) });
      return;
    }
    const at = this.#open.findLastIndex((group) => group.id === (id ?? ""));
    if (at < 0) {
      return;
    }
    const group = { ...this.#open[at], last: number, depth: at, shut: false, errors: 0 };
    this.#open.length = at;
    this.#groups.set(group.first, group);
    this.#ends.add(number);
    this.#isSorted = false;
  }

  /** The group that begins with line `number`; null if none does. */
  at(number) {
    return this.#groups.get(number) ?? null;
  }

  /** Whether line `number` ends a group. */
  isEnd(number) {
    return this.#ends.has(number);
  }

  /** How many groups line `number` lies in. */
  depth(number) {
    return this.#around(number).length;
  }

  /** Shuts or opens the group that begins with line `number`, for good. */
  set(number, shut) {
    const group = this.#groups.get(number);
    if (group) {
      group.shut = shut;
      this.#touched.add(number);
    }
  }

  /** Shuts or opens all. */
  setAll(shut) {
    for (const { first } of this.#inOrder()) {
      this.set(first, shut);
    }
  }

  /** Opens what hides line `number`; whether there was anything to open. */
  reveal(number) {
    const shut = this.#around(number).filter((group) => group.shut);
    for (const { first } of shut) {
      this.set(first, false);
    }
    return shut.length > 0;
  }

  /** Shuts what nobody has touched and has no error in it; `errors` are line numbers, ascending. */
  settle(errors, isKeptOpen) {
    for (const group of this.#groups.values()) {
      group.errors = lastAtMost(errors, group.last) - lastAtMost(errors, group.first);
      if (!this.#touched.has(group.first)) {
        group.shut = group.errors === 0 && !isKeptOpen(group);
      }
    }
  }

  /** The lines that are hidden, as ascending intervals apart from each other. */
  hidden() {
    const hidden = [];
    for (const group of this.#inOrder()) {
      if (group.shut && group.last > (hidden.at(-1)?.[1] ?? 0)) {
        hidden.push([group.first + 1, group.last]);
      }
    }
    return hidden;
  }

  #around(number) {
    const groups = this.#inOrder();
    const found = [];
    const at = lastAtMost(this.#firsts, number - 1);
    for (let group = groups[at]; group; group = group.parent) {
      if (group.last >= number) {
        found.push(group);
      }
    }
    return found;
  }

  // By their first lines, each with the group around it.
  #inOrder() {
    if (!this.#isSorted) {
      this.#sorted = [...this.#groups.values()].sort((one, other) => one.first - other.first);
      const around = [];
      for (const group of this.#sorted) {
        while (around.length && around.at(-1).last < group.first) {
          around.pop();
        }
        group.parent = around.at(-1) ?? null;
        around.push(group);
      }
      this.#firsts = this.#sorted.map(({ first }) => first);
      this.#isSorted = true;
    }
    return this.#sorted;
  }
}
