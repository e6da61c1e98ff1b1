/**
 * The part of an address that names lines: "#L120", or "#L120-L140". Pure.
 */

const LINK = /^#L(\d{1,15})(?:-L?(\d{1,15}))?$/;

/** The lines that `hash` names, as [first, last]; null where it names none. */
export function parseLink(hash) {
  const match = LINK.exec(hash);
  if (!match) {
    return null;
  }
  const ends = [Number(match[1]), Number(match[2] ?? match[1])].sort((one, other) => one - other);
  return ends[0] > 0 ? ends : null;
}

/** What names the lines from `first` to `last`. */
export function formatLink([first, last]) {
  return first === last ? `#L${first}` : `#L${first}-L${last}`;
}
