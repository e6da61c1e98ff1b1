/**
 * Signs in with the token in the URL's fragment, if there is one: no server and no log sees that.
 */

const form = document.getElementById("sign-in");
const token = decodeURIComponent(location.hash.slice(1));

if (token) {
  history.replaceState(null, "", location.pathname + location.search);
  form.elements.namedItem("token").value = token;
  form.submit();
}
