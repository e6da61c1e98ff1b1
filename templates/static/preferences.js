/**
 * What a reader has chosen, kept by the browser for all logs.
 */

const PREFIX = "tornado-logs.";

/** The choice `name`, or `fallback` where none was made, or none that is left to choose. */
export function preference(name, fallback, allowed = null) {
  try {
    const text = localStorage.getItem(PREFIX + name);
    const value = text === null ? fallback : JSON.parse(text);
    return !allowed || allowed.includes(value) ? value : fallback;
  } catch {
    return fallback; // storage may be switched off
  }
}

/** Keeps the choice `name`. */
export function prefer(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // It holds for this page, then.
  }
}
