/**
 * A finger that is held on a line number: it does what a click with Shift does.
 */

const HOLD_MS = 450;
const STILL_PX = 10;

/** Calls `onHeld(number)` where a line's number within `lines` is pressed and held. */
export function listenToHeldNumbers(lines, onHeld) {
  let timer = 0;
  let from = null;
  let isHeld = false;
  const numberOf = (event) => event.target.closest(".log-number");

  lines.addEventListener("touchstart", (event) => {
    clearTimeout(timer);
    isHeld = false;
    const element = numberOf(event);
    if (!element || event.touches.length > 1) {
      return;
    }
    from = event.touches[0];
    timer = setTimeout(() => {
      isHeld = true;
      onHeld(Number(element.dataset.line));
    }, HOLD_MS);
  }, { passive: true });
  lines.addEventListener("touchmove", ({ touches: [at] }) => {
    if (from && Math.hypot(at.clientX - from.clientX, at.clientY - from.clientY) > STILL_PX) {
      clearTimeout(timer);
    }
  }, { passive: true });
  for (const type of ["touchend", "touchcancel"]) {
    lines.addEventListener(type, (event) => {
      clearTimeout(timer);
      if (isHeld && event.cancelable) {
        event.preventDefault(); // no click comes after it
      }
    });
  }
  // The number is a link: neither its menu nor a selection is what is meant here.
  lines.addEventListener("contextmenu", (event) => {
    if (numberOf(event) && event.pointerType === "touch") {
      event.preventDefault();
    }
  });
}
