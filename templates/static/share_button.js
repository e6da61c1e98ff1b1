/**
 * The button that makes a share link and copies it.
 */

import { postJson } from "./api.js";

const SHOWN_MS = 4000;

/** Makes `button` share the deployment at `path`; `onTrouble(sentence)` hears what went wrong. */
export function shareBy(button, path, onTrouble) {
  const label = button.textContent;
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    onTrouble("");
    try {
      const { url, expires_at: until } = await postJson(`${path}/share`);
      const day = new Date(until * 1000).toLocaleDateString();
      await copied(url);
      button.textContent = `Link copied, until ${day}`;
      setTimeout(() => (button.textContent = label), SHOWN_MS);
    } catch (error) {
      onTrouble(error.message);
    }
    button.disabled = false;
  });
}

// Over plain HTTP to another machine a page has no clipboard: then the link is shown to be copied.
async function copied(url) {
  try {
    await navigator.clipboard.writeText(url);
  } catch {
    prompt("The link, to copy:", url);
  }
}
