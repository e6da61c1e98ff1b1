/**
 * Times, durations and numbers as text for people. Pure: the same arguments give the same text.
 */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const numbers = new Intl.NumberFormat("en");
const dates = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });
const datesWithYear = new Intl.DateTimeFormat("en", { dateStyle: "medium" });
const exactTimes = new Intl.DateTimeFormat("en", { dateStyle: "full", timeStyle: "long" });

/** 1234567 as "1,234,567". */
export function formatCount(count) {
  return numbers.format(count);
}

/** `count` of a thing: "1 line", "2,000 lines". */
export function formatQuantity(count, singular, plural = `${singular}s`) {
  return `${formatCount(count)} ${count === 1 ? singular : plural}`;
}

const SIZES = ["bytes", "KB", "MB", "GB", "TB"];

/** A number of bytes: "812 bytes", "1.2 GB", "100 GB". */
export function formatBytes(bytes) {
  let size = bytes;
  let unit = 0;
  while (size >= 999.5 && unit < SIZES.length - 1) {
    size /= 1000;
    unit += 1;
  }
  const text = unit > 0 && size < 9.95 ? size.toFixed(1).replace(/\.0$/, "") : Math.round(size);
  return `${text} ${SIZES[unit]}`;
}

/**
 * A length of time: "< 0.1 s", "0.4 s", "12 s", "1 m 05 s", "2 h 03 m", "3 d 4 h".
 *
 * `ticking` leaves out the tenths, which a clock that moves once a second can't tell.
 */
export function formatDuration(milliseconds, { ticking = false } = {}) {
  const time = Math.max(0, milliseconds);
  if (time < 100 && !ticking) {
    return "< 0.1 s";
  }
  if (time < 10 * SECOND && !ticking) {
    return `${(Math.floor(time / 100) / 10).toFixed(1)} s`;
  }
  const seconds = Math.floor(time / SECOND) % 60;
  const minutes = Math.floor(time / MINUTE) % 60;
  if (time < MINUTE) {
    return `${seconds} s`;
  }
  if (time < HOUR) {
    return `${minutes} m ${String(seconds).padStart(2, "0")} s`;
  }
  if (time < DAY) {
    return `${Math.floor(time / HOUR)} h ${String(minutes).padStart(2, "0")} m`;
  }
  return `${Math.floor(time / DAY)} d ${Math.floor(time / HOUR) % 24} h`;
}

/** How long before `now` (in ms) the time `iso` was: "just now", "12 s ago", "3 d ago", "4 Mar". */
export function formatRelative(iso, now) {
  const time = new Date(iso);
  const age = now - time.getTime();
  if (age < 5 * SECOND) {
    return "just now";
  }
  if (age < MINUTE) {
    return `${Math.floor(age / SECOND)} s ago`;
  }
  if (age < HOUR) {
    return `${Math.floor(age / MINUTE)} min ago`;
  }
  if (age < DAY) {
    return `${Math.floor(age / HOUR)} h ago`;
  }
  if (age < 7 * DAY) {
    return `${Math.floor(age / DAY)} d ago`;
  }
  const sameYear = time.getFullYear() === new Date(now).getFullYear();
  return (sameYear ? dates : datesWithYear).format(time);
}

/** The time `iso` to the second, with its zone: what stands in a tooltip. */
export function formatExact(iso) {
  return exactTimes.format(new Date(iso));
}
