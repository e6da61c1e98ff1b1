/**
 * The server's JSON calls. Every failure is an ApiError whose message is a sentence to show.
 */

/** A call that failed. `status` is the HTTP status, or 0 where no answer came. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }
}

// How far the server's clock is ahead of ours, in ms: what runs is timed by the server's.
let clockAhead = 0;

/** The time by the server's clock, in ms, as far as the last answer told it. */
export function serverNow() {
  return Date.now() + clockAhead;
}

function noteClock(response) {
  const ahead = Date.parse(response.headers.get("Date")) - Date.now();
  // A Date header counts whole seconds and is some time on its way: less than that is noise.
  clockAhead = Math.abs(ahead) > 3000 ? ahead : 0;
}

// The server's sentences begin small and end open, as those of a command line do.
function asSentence(text) {
  return text[0].toUpperCase() + text.slice(1) + (/[.!?)]$/.test(text) ? "" : ".");
}

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") {
      throw error;
    }
    throw new ApiError("The server can't be reached. It may be restarting; try again soon.", 0);
  }
  noteClock(response);
  const answer = await response.json().catch(() => null);
  if (response.status === 401) {
    // The session is over, and the page is of no use without one: its URL leads to the sign-in.
    location.reload();
  }
  if (!response.ok) {
    const sentence = answer?.error ?? `the server answered ${response.status}; try again soon`;
    throw new ApiError(asSentence(sentence), response.status);
  }
  return answer;
}

/** GET `path` as JSON. `signal` may abort it; it then throws the AbortError. */
export function getJson(path, { signal } = {}) {
  return call(path, { headers: { Accept: "application/json" }, signal });
}

/** POST `body` as JSON to `path` and give the JSON of the answer. */
export function postJson(path, body = {}) {
  return post(path, JSON.stringify(body), { "Content-Type": "application/json" });
}

/** POST `fields` as a form to `path` and give the JSON of the answer. */
export function postForm(path, fields) {
  return post(path, new URLSearchParams(fields), {});
}

function post(path, body, headers) {
  const forgery = { "X-XSRFToken": cookie("_xsrf") };
  return call(path, { method: "POST", headers: { Accept: "application/json", ...forgery, ...headers }, body });
}

function cookie(name) {
  const found = document.cookie.split("; ").find((text) => text.startsWith(`${name}=`));
  return found ? decodeURIComponent(found.slice(name.length + 1).replace(/^"|"$/g, "")) : "";
}

/** What the template put into the page for its script. */
export function pageData() {
  return JSON.parse(document.getElementById("page-data").textContent);
}
