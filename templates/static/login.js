/**
 * Signs in with the token in the URL's fragment, if there is one: no server and no log sees that.
 *
 * Any other fragment came along from the page that led here, a link to a line say: it is kept.
 */

const TOKEN_PREFIX = "tl_";

const form = document.getElementById("sign-in");
const next = form.elements.namedItem("next");
const nextPath = next.value;

function readFragment() {
  const fragment = location.hash.slice(1);
  if (fragment.startsWith(TOKEN_PREFIX)) {
    history.replaceState(null, "", location.pathname + location.search);
    form.elements.namedItem("token").value = fragment;
    form.submit();
  } else {
    next.value = nextPath + location.hash;
  }
}

window.addEventListener("hashchange", readFragment);
readFragment();
