/**
 * When a line was written, as text for its column. Pure.
 */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** The ways to tell it, in the order in which a key goes through them. */
export const TIME_MODES = {
  off: "No times",
  local: "Local time",
  utc: "UTC",
  start: "Since the start",
  before: "Since the line before",
};

const two = (number) => String(Math.floor(number)).padStart(2, "0");
const three = (number) => String(Math.floor(number)).padStart(3, "0");

function clock(ms, isUtc) {
  const date = new Date(ms);
  const parts = isUtc
    ? [date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()]
    : [date.getHours(), date.getMinutes(), date.getSeconds()];
  return `${parts.map(two).join(":")}.${three(date.getUTCMilliseconds())}`;
}

function span(ms) {
  const time = Math.abs(ms);
  const sign = ms < 0 ? "−" : "+";
  const rest = `${two((time % MINUTE) / SECOND)}.${three(time % SECOND)}`;
  if (time < MINUTE) {
    return `${sign}${Number(rest.slice(0, 2))}.${rest.slice(3)}`;
  }
  const minutes = Math.floor((time % HOUR) / MINUTE);
  return time < HOUR
    ? `${sign}${minutes}:${rest}`
    : `${sign}${Math.floor(time / HOUR)}:${two(minutes)}:${rest}`;
}

/** The time `ms` of a line as `mode` tells it; "" where it can't be told. */
export function timeText(mode, ms, { startedMs, beforeMs }) {
  if (ms === null || ms === undefined || mode === "off") {
    return "";
  }
  if (mode === "local" || mode === "utc") {
    return clock(ms, mode === "utc");
  }
  const since = mode === "start" ? startedMs : beforeMs;
  return since === null || since === undefined ? "" : span(ms - since);
}

/** The time `ms` in full, for a tooltip. */
export function fullTime(ms) {
  return Number.isFinite(ms) ? `${new Date(ms).toISOString().replace("T", " ").replace("Z", "")} UTC` : "";
}

// Hours and minutes are those of the log's first day, or of the next where they were before it.
function onTheDayOf(startedMs, [hours, minutes, seconds = 0]) {
  const date = new Date(startedMs);
  date.setHours(hours, minutes, Math.floor(seconds), (seconds % 1) * SECOND);
  return date.getTime() + (date.getTime() + SECOND < startedMs ? DAY : 0);
}

/**
 * What a reader typed to go to: `{line}`, `{time}` (ms), or null where it can't be read.
 *
 * "1204", "1,204", "-10" (from the end), "14:05" or "14:05:09.5" (local), "+90s", "+5m" (since the
 * start), or a date and time.
 */
export function parsePlace(text, startedMs) {
  const typed = text.trim();
  const start = startedMs ?? Date.now();
  if (/^-?\d[\d,._ ]*$/.test(typed)) {
    const line = Number(typed.replace(/[,._ ]/g, ""));
    return line ? { line } : null;
  }
  const since = /^\+\s*(\d+(?:\.\d+)?)\s*(s|m|h|d)?$/.exec(typed);
  if (since) {
    return { time: start + since[1] * { s: SECOND, m: MINUTE, h: HOUR, d: DAY }[since[2] ?? "s"] };
  }
  const hours = /^(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?$/.exec(typed);
  if (hours) {
    return { time: onTheDayOf(start, hours.slice(1).filter(Boolean).map(Number)) };
  }
  const date = /^\d{4}-\d/.test(typed) ? Date.parse(typed) : NaN;
  return Number.isFinite(date) ? { time: date } : null;
}
