/**
 * The page of one deployment: its head from the record, its log from the server into the view.
 */

import { ApiError, getJson, pageData, postJson, serverNow } from "./api.js";
import { ConnectionLight } from "./connection_light.js";
import { backoffSeconds } from "./event_stream.js";
import { formatBytes, formatDuration, formatExact, formatRelative } from "./format.js";
import { HeadTitle } from "./head_title.js";
import { LogSource } from "./log_source.js";
import { LogStream } from "./log_stream.js";
import { LogView, NEWEST_LINES } from "./log_view.js";
import { shareBy } from "./share_button.js";
import {
  isFinal,
  placeText,
  setFavicon,
  stateExplanation,
  stateIcon,
  stateLabel,
} from "./states.js";

// A tab that comes back to a log that has grown by more goes to its end, not through all of it.
const FAR_LINES = 100_000;
const TICK_MS = 1000;
const POLL_MS = 2000;
const HIDDEN_POLL_MS = 10000;
// A log that says nothing for so long may wait for room on a full disk, which its record tells.
const QUIET_MS = 10000;
const DROPPED_POLL_MS = 5000;
const LIGHT_TEXTS = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  full: "Full: trying again",
  paused: "Paused",
  ended: "Ended",
  gone: "Deleted",
};

const byId = (id) => document.getElementById(id);

const { record: firstRecord, may_start: mayStart } = pageData();

let record = firstRecord;
let stream = null;
let stopping = false;
let ended = false;
let deleted = false;
let trouble = "";
let heardAt = performance.now();

const recordPath = `/deployments/${encodeURIComponent(record.id)}`;
const source = new LogSource(record.id);
const light = new ConnectionLight(byId("light"));
const heading = new HeadTitle({ heading: byId("title"), box: byId("command"), toggle: byId("whole") });
const view = new LogView(byId("log"), source);

// --- The log -----------------------------------------------------------------------------------

function showConnection(state, waitSeconds) {
  light.show(state, LIGHT_TEXTS[state], waitSeconds);
}

function newestLines() {
  return source.lines({ from: -NEWEST_LINES, count: NEWEST_LINES });
}

/** Shows the log, then what is added to it. */
async function open() {
  const page = await newestPage();
  if (page) {
    view.open(page);
    followFrom(page);
  }
}

/** The newest lines, as soon as the server answers; null where the log was deleted. */
async function newestPage() {
  for (let failures = 1; ; failures += 1) {
    try {
      return await newestLines();
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) {
        showDeleted();
        return null;
      }
      const seconds = backoffSeconds(failures);
      showConnection("reconnecting", seconds);
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
  }
}

function followFrom({ from, lines, total_lines: total, cursor, ended }) {
  // A window of very long lines is cut short; the stream brings the rest.
  if (ended && from + lines.length > total && isFinal(record.state)) {
    showEnd(record);
    return;
  }
  stream?.stop();
  stream = new LogStream({
    id: record.id,
    cursor,
    onLines: (lines, text) => {
      heardAt = performance.now();
      view.append(lines, text);
    },
    onPartial: (text) => view.setPartial(text),
    onGap: skipToEnd,
    isThere: refreshRecord,
    onReset: () => view.reset(),
    onEnd: showEnd,
    onState: streamStateChanged,
  });
  stream.start();
}

function streamStateChanged(state, waitSeconds) {
  if (state === "gone") {
    showDeleted();
    return;
  }
  showConnection(state, waitSeconds);
  if (state === "live") {
    refreshRecord();
    skipFarAhead();
  }
}

// After a night in the background, millions of lines may lie between what we have and the end.
async function skipFarAhead() {
  const followed = stream;
  try {
    const { total_lines: total } = await source.lines({ from: -1, count: 1 });
    if (followed === stream && total > view.total + FAR_LINES) {
      skipToEnd();
    }
  } catch {
    // Then the stream brings them all, if it can.
  }
}

/** Goes on from the newest lines: what lies between, as far as it is left, is fetched if looked at. */
async function skipToEnd() {
  stream.stop();
  const isAnother = stream.hasBegunAnew;
  const page = await newestPage();
  if (page) {
    if (isAnother) {
      view.reset();
      view.open(page);
    } else {
      view.skipTo(page);
    }
    followFrom(page);
  }
}

// What a log drops of its beginning is told to those alone who would have read it.
async function showDropped() {
  if (!deleted && record.dropped_bytes !== null) {
    const page = await source.lines({ from: 1, count: 1 }).catch(() => null);
    view.dropTo(page?.kept_from ?? 1);
  }
}

async function watchDropped() {
  if (!document.hidden && !ended) {
    await showDropped();
  }
  setTimeout(watchDropped, DROPPED_POLL_MS);
}

function showEnd(finalRecord) {
  ended = true;
  view.setLive(false);
  showConnection("ended");
  showDropped();
  if (finalRecord) {
    showRecord(finalRecord);
  } else {
    refreshRecord();
  }
}

function showDeleted() {
  deleted = true;
  view.setLive(false);
  showConnection("gone");
  record.can_stop = false;
  trouble = "This deployment was deleted. What was loaded of its log is all that is left of it.";
  showRecord(record);
}

// --- The record --------------------------------------------------------------------------------

/** Shows the record as it is now; whether the server had one. */
async function refreshRecord() {
  try {
    showRecord(await getJson(recordPath));
    return true;
  } catch (error) {
    if (error.status === 404) {
      stream?.stop();
      showDeleted();
    }
    return false; // else the light tells of it, and the next event or poll repairs it
  }
}

function commandText(request) {
  const command = request?.command ?? request?.path ?? "";
  return Array.isArray(command) ? command.join(" ") : String(command);
}

function showRecord(newRecord) {
  record = newRecord;
  stopping &&= record.can_stop;
  const command = commandText(record.request);
  const title = record.name || command.split("\n")[0] || record.id;
  const label = stateLabel(record.state);
  document.title = `${label} · ${title}`;
  setFavicon(record.state);
  document.body.dataset.state = record.state;
  byId("state").replaceChildren(stateIcon(record.state), label);
  byId("state").className = `state state-${record.state}`;
  heading.show(title, command);
  showActions();
  showFacts();
  showNotices();
  view.setLimit(record.dropped_bytes === null ? null : record.max_log_bytes);
  view.setFooter(deleted ? "" : footerText());
  tick();
}

function showActions() {
  if (!mayStart) {
    return;
  }
  byId("stop").hidden = !record.can_stop;
  byId("stop").disabled = stopping;
  byId("stop").textContent = stopping ? "Stopping…" : "Stop";
  byId("again").hidden = !record.request || lacksSecrets();
}

function fact(name, value, title = "") {
  const group = document.createElement("div");
  const term = document.createElement("dt");
  const detail = document.createElement("dd");
  term.textContent = name;
  detail.textContent = value;
  detail.title = title;
  detail.dataset.fact = name;
  group.append(term, detail);
  return group;
}

function exitText() {
  if (record.exit_status === null || record.exit_status === undefined) {
    return "";
  }
  return record.signal ? `${record.exit_status} (${record.signal})` : String(record.exit_status);
}

// What was asked for has *** in place of secrets: to a shell, that is a pattern for any file.
function lacksSecrets() {
  return record.has_secrets && JSON.stringify(record.request).includes("***");
}

function requestText(value) {
  if (value !== null && typeof value === "object" && !Array.isArray(value)) {
    return Object.entries(value).map(([name, text]) => `${name}=${text}`).join(" ");
  }
  return String(value);
}

/** What was asked for; of a preset its parameters, each for itself. */
function shownRequest() {
  const { preset, parameters, ...rest } = record.request ?? {};
  return preset === undefined ? (record.request ?? {}) : { preset, ...parameters, ...rest };
}

function whoText(who) {
  return who?.user || who?.address;
}

function showFacts() {
  const begun = record.started_at ?? record.created_at;
  const facts = [["Exit status", exitText()], ["Elapsed", elapsedText()]];
  facts.push([record.started_at ? "Started" : "Created", startedText(), formatExact(begun)]);
  facts.push(["By", whoText(record.requested_by)]);
  facts.push(["Stopped by", whoText(record.stopped_by)]);
  facts.push(["Source", record.source]);
  facts.push(["Exclusive", record.exclusive]);
  facts.push(["Log", logText()]);
  for (const [name, value] of Object.entries(shownRequest())) {
    const shown = commandText({ command: value }) === commandText(record.request);
    if (!shown && value !== null && value !== "") {
      facts.push([name.replaceAll("_", " "), requestText(value)]);
    }
  }
  byId("facts").replaceChildren(
    ...facts.filter(([, value]) => value).map((entry) => fact(...entry)),
  );
}

function notice(kind, text) {
  const paragraph = document.createElement("p");
  paragraph.className = `notice notice-${kind}`;
  paragraph.textContent = text;
  return paragraph;
}

function showNotices() {
  const notices = [
    ["error", trouble],
    ["error", record.error],
    [record.state === "finished" ? "info" : "warning", record.note || stateExplanation(record.state)],
  ];
  byId("notices").replaceChildren(
    ...notices.filter(([, text]) => text).map((entry) => notice(...entry)),
  );
}

function footerText() {
  if (exitText() && isFinal(record.state)) {
    return `${stateLabel(record.state)} with exit status ${exitText()}`;
  }
  return { queued: waitingText(), lost: "Captured up to here" }[record.state] ?? "";
}

function waitingText() {
  const { queue, exclusive } = record;
  if (!queue) {
    return "Waiting to start…";
  }
  const place = `Waiting, ${placeText(record)}`;
  if (!queue.held_by) {
    return place;
  }
  const heldFor = formatDuration(serverNow() - Date.parse(queue.held_by.since), { ticking: true });
  return `${place}: “${queue.held_by.name}” has held ${exclusive} for ${heldFor}`;
}

function elapsedText() {
  if (!record.started_at || (isFinal(record.state) && !record.ended_at)) {
    return "";
  }
  const ended = record.ended_at ? Date.parse(record.ended_at) : serverNow();
  return formatDuration(ended - Date.parse(record.started_at), { ticking: !record.ended_at });
}

function logText() {
  const { log_bytes: bytes, dropped_bytes: dropped } = record;
  return dropped ? `${formatBytes(bytes)}, the last ${formatBytes(bytes - dropped)} kept` : "";
}

function startedText() {
  return formatRelative(record.started_at ?? record.created_at, serverNow());
}

/** Moves the two texts that follow the clock. */
function tick() {
  for (const [name, text] of [["Elapsed", elapsedText()], ["Started", startedText()]]) {
    const element = document.querySelector(`[data-fact="${name}"]`);
    if (element && element.textContent !== text) {
      element.textContent = text;
    }
  }
}

// The log's events tell the end alone. What else changes is asked for, and only while it can.
async function poll() {
  const quiet = performance.now() - heardAt > QUIET_MS;
  if (quiet) {
    heardAt = performance.now();
  }
  const unheard = record.state === "queued" || ended || document.hidden || quiet;
  if (!deleted && (stopping || (unheard && !isFinal(record.state)))) {
    await refreshRecord();
  }
  setTimeout(poll, document.hidden ? HIDDEN_POLL_MS : POLL_MS);
}

// --- What the reader can do --------------------------------------------------------------------

async function stop() {
  stopping = true;
  trouble = "";
  showRecord(record);
  try {
    showRecord(await postJson(`${recordPath}/stop`));
  } catch (error) {
    stopping = false;
    trouble = error.message;
    showRecord(record);
  }
}

async function runAgain() {
  const button = byId("again");
  button.disabled = true;
  trouble = "";
  try {
    const { source, name, exclusive, request } = record;
    // A preset knows its source.
    const of = request.preset === undefined ? { source } : {};
    const asked = { ...request, ...of, name, exclusive: exclusive || undefined };
    const started = await postJson("/deployments", asked);
    location.assign(`/deployments/${encodeURIComponent(started.id)}`);
  } catch (error) {
    trouble = error.message;
    showRecord(record);
  }
  button.disabled = false;
}

if (mayStart) {
  byId("stop-form").addEventListener("submit", (event) => {
    event.preventDefault();
    stop();
  });
  byId("again").addEventListener("click", runAgain);
}
if (byId("share")) {
  shareBy(byId("share"), recordPath, (sentence) => {
    trouble = sentence;
    showRecord(record);
  });
}
showRecord(record);
open();
setInterval(() => !document.hidden && tick(), TICK_MS);
setTimeout(poll, POLL_MS);
setTimeout(watchDropped, DROPPED_POLL_MS);
