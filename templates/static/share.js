/**
 * Turns a share link into a cookie for its deployment, and goes there.
 *
 * What the link carries stands in its fragment: no server and no log sees it on the way.
 */

import { postForm } from "./api.js";

const text = document.getElementById("share-text");
const token = location.hash.slice(1);

window.addEventListener("hashchange", () => location.reload());

try {
  const { path } = await postForm("/share", { token });
  location.replace(path);
} catch (error) {
  text.textContent = token ? error.message : "This link isn't whole: what follows its # is missing.";
}
