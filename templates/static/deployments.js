/**
 * The page with all deployments: the list, kept as the server has it, and the ways to start one.
 */

import { getJson, pageData, serverNow } from "./api.js";
import { ConnectionLight } from "./connection_light.js";
import { DeploymentList } from "./deployment_list.js";
import { EventStream } from "./event_stream.js";
import { ListFilter } from "./list_filter.js";
import { presetForms } from "./preset_form.js";
import { RunForm } from "./run_form.js";
import { isFinal } from "./states.js";

const PAGE_SIZE = 50;
// The server answers after that with what it found, so that a long search shows as it goes on.
const LOOK_MS = 400;
const TYPING_MS = 200;
const LAST_LINE_MS = 2000;
const MOST_IDS = 50;
const TICK_MS = 1000;
const LIGHT_TEXTS = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  full: "Full: trying again",
  paused: "Paused",
  ended: "Not live",
  gone: "Not live",
};

const byId = (id) => document.getElementById(id);

const data = pageData();
const presets = presetForms();
const list = new DeploymentList(byId("deployments"), serverNow);
const light = new ConnectionLight(byId("light"));
const empty = byId("empty");
const noMatch = byId("no-match");
const note = byId("list-note");
const more = byId("more");

let next = data.next;
// Changes that come while the list is being loaded: what is loaded may be older than they are.
let early = null;
let loading = null;
// Set by a new filter until its first rows have come.
let isStale = false;
// Those whose log has changed for the last time, without its last line being shown yet.
const lastLineWanted = new Set();

const filter = new ListFilter(byId("filter"), filterChanged);

function listUrl(before, limit = PAGE_SIZE) {
  const page = before ? `&before=${encodeURIComponent(before)}` : "";
  const query = filter.query && `&${filter.query}`;
  return `/deployments?limit=${limit}&max_ms=${LOOK_MS}&last_line=1${page}${query}`;
}

function showEmptiness() {
  const isEmpty = list.size === 0 && !loading && !next;
  empty.hidden = !isEmpty || Boolean(filter.query);
  noMatch.hidden = !isEmpty || !filter.query;
  more.hidden = !next || list.size === 0;
}

function say(sentence) {
  note.textContent = sentence;
  note.hidden = !sentence;
}

function changed(record) {
  early?.push(["changed", record]);
  if (isStale) {
    return;
  }
  if (record.last_line === undefined) {
    lastLineWanted.add(record.id);
  }
  list.put(record);
  showEmptiness();
}

function removed({ id }) {
  early?.push(["removed", { id }]);
  list.remove(id);
  lastLineWanted.delete(id);
  showEmptiness();
}

/** Loads `wanted` records older than `before`, and shows them as they are found. */
async function load(before, wanted) {
  loading?.abort();
  const attempt = new AbortController();
  loading = attempt;
  const records = [];
  let following = before;
  try {
    do {
      const url = listUrl(following, Math.min(wanted - records.length, 1000));
      const page = await getJson(url, { signal: attempt.signal });
      records.push(...page.deployments);
      following = page.next;
      if (isStale) {
        isStale = false;
        list.replace(page.deployments);
      } else {
        page.deployments.forEach((record) => list.put(record));
      }
      const isSearching = following && records.length < wanted;
      say(isSearching ? "Still reading older deployments. What matches shows up as it is found." : "");
    } while (following && records.length < wanted);
    next = following;
    return records;
  } finally {
    if (loading === attempt) {
      loading = null;
    }
  }
}

/** Loads as many as are shown, for there is no telling what was missed since the last event. */
async function reloadList() {
  const events = [];
  early = events;
  try {
    const records = await load(null, isStale ? PAGE_SIZE : Math.max(PAGE_SIZE, list.size));
    early = null;
    list.replace(records);
    for (const [kind, what] of events) {
      (kind === "changed" ? changed : removed)(what);
    }
  } catch (error) {
    // Without an answer the connection is gone again; it will come back and with it the list.
    if (error.status) {
      list.replace([]);
      say(error.message);
      return;
    }
  }
  showEmptiness();
}

async function showMore() {
  more.disabled = true;
  more.textContent = "Loading…";
  try {
    await load(next, PAGE_SIZE);
    more.textContent = "Show more";
  } catch (error) {
    more.textContent =
      error.name === "AbortError" ? "Show more" : "These could not be loaded. Try again";
  }
  more.disabled = false;
  showEmptiness();
}

let typing = 0;

function filterChanged() {
  clearTimeout(typing);
  typing = setTimeout(() => {
    isStale = true;
    stream.stop();
    stream.start(); // with its connection comes the list
  }, TYPING_MS);
}

/** Asks for the last lines of what is in sight and runs, or has just ended. */
async function refreshLastLines() {
  const ids = list
    .inSight(({ id, state }) => !isFinal(state) || lastLineWanted.has(id))
    .slice(0, MOST_IDS);
  if (document.hidden || ids.length === 0) {
    return;
  }
  const query = ids.map((id) => `&id=${encodeURIComponent(id)}`).join("");
  try {
    const { deployments } = await getJson(`/deployments?last_line=1${query}`);
    for (const record of deployments) {
      list.showLastLine(record.id, record.last_line);
      if (isFinal(record.state)) {
        lastLineWanted.delete(record.id);
      }
    }
  } catch {
    // The next round asks again.
  }
}

async function keepLastLines() {
  await refreshLastLines();
  setTimeout(keepLastLines, LAST_LINE_MS);
}

/** "/" goes to the filter, and "d" through light and dark as on the page of a log. */
function onKey(event) {
  const isTyping = event.target.closest?.("input, select, textarea");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  if (event.key === "/") {
    event.preventDefault();
    filter.focus();
  } else if (event.key === "d") {
    dispatchEvent(new Event("theme-next"));
  }
}

/** What to send for a command or, where none may be sent, for the first preset. */
function curlFields() {
  const takesCommand = data.sources.some(({ options }) => options.some(({ name }) => name === "command"));
  if (takesCommand || presets.length === 0) {
    return "-d 'command=make deploy'";
  }
  const [{ name, required }] = presets;
  return [`preset=${name}`, ...required.map((needed) => `${needed}=…`)].map((field) => `-d ${field}`).join(" ");
}

function fillCurl() {
  const address = `${location.origin}/deployments`;
  const token = data.is_open ? "" : '-H "Authorization: Bearer $TOKEN" ';
  const command = `curl -N ${token}-H 'Accept: text/plain' ${curlFields()} ${address}`;
  byId("curl").textContent = command;
  byId("copy-curl").addEventListener("click", async () => {
    const button = byId("copy-curl");
    try {
      await navigator.clipboard.writeText(command);
      button.textContent = "Copied";
    } catch {
      // Browsers give the clipboard to https and localhost alone: select it for the reader to copy.
      getSelection().selectAllChildren(byId("curl"));
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
}

const stream = new EventStream({
  url: () => `/events${filter.query && `?${filter.query}`}`,
  listeners: {
    deployment: (event) => changed(JSON.parse(event.data)),
    removed: (event) => removed(JSON.parse(event.data)),
  },
  onOpen: reloadList,
  onState: (state, waitSeconds) => light.show(state, LIGHT_TEXTS[state], waitSeconds),
});

list.replace(data.deployments);
showEmptiness();
if (byId("curl")) {
  fillCurl();
}
more.addEventListener("click", showMore);
byId("clear-no-match").addEventListener("click", () => filter.clear());
addEventListener("keydown", onKey);
if (byId("run")) {
  new RunForm(byId("run"), data.sources, presets).start();
}
filter.start();
setInterval(() => !document.hidden && list.tick(), TICK_MS);
setTimeout(keepLastLines, LAST_LINE_MS / 2);
stream.start();
