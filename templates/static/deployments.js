/**
 * The page with all deployments: the list, kept as the server has it, and the ways to start one.
 */

import { getJson, pageData, serverNow } from "./api.js";
import { ConnectionLight } from "./connection_light.js";
import { DeploymentList } from "./deployment_list.js";
import { EventStream } from "./event_stream.js";
import { RunForm } from "./run_form.js";

const PAGE_SIZE = 50;
const TICK_MS = 1000;
const LIGHT_TEXTS = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  paused: "Paused",
  ended: "Not live",
  gone: "Not live",
};

const byId = (id) => document.getElementById(id);

const data = pageData();
const list = new DeploymentList(byId("deployments"), serverNow);
const light = new ConnectionLight(byId("light"));
const empty = byId("empty");
const more = byId("more");

let next = data.next;
// Changes that come while the list is being loaded: what is loaded may be older than they are.
let early = null;
let reload = 0;

function listUrl(before) {
  const page = before ? `&before=${encodeURIComponent(before)}` : "";
  return `/deployments?limit=${PAGE_SIZE}${page}`;
}

function showEmptiness() {
  empty.hidden = list.size > 0;
  more.hidden = !next;
  if (list.size === 0) {
    byId("list-section").append(empty);
  }
}

function changed(record) {
  early?.push(["changed", record]);
  list.put(record);
  showEmptiness();
}

function removed({ id }) {
  early?.push(["removed", { id }]);
  list.remove(id);
  showEmptiness();
}

/** Loads as many as are shown, for there is no telling what was missed since the last event. */
async function reloadList() {
  const attempt = (reload += 1);
  const wanted = Math.max(PAGE_SIZE, list.size);
  const events = [];
  early = events;
  const records = [];
  let before = null;
  try {
    do {
      const page = await getJson(listUrl(before));
      records.push(...page.deployments);
      before = page.next;
    } while (before && records.length < wanted);
  } catch {
    return; // the connection is gone again; it will come back and with it the list
  }
  if (attempt !== reload) {
    return;
  }
  early = null;
  next = before;
  list.replace(records);
  for (const [kind, what] of events) {
    (kind === "changed" ? changed : removed)(what);
  }
  showEmptiness();
}

async function showMore() {
  more.disabled = true;
  more.textContent = "Loading…";
  try {
    const page = await getJson(listUrl(next));
    next = page.next;
    page.deployments.forEach((record) => list.put(record));
    more.textContent = "Show more";
  } catch {
    more.textContent = "These could not be loaded. Try again";
  }
  more.disabled = false;
  showEmptiness();
}

function fillCurl() {
  const address = `${location.origin}/deployments`;
  const command = `curl -N -H 'Accept: text/plain' -d 'command=make deploy' ${address}`;
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

list.replace(data.deployments);
showEmptiness();
fillCurl();
more.addEventListener("click", showMore);
new RunForm(byId("run"), data.sources).start();
setInterval(() => !document.hidden && list.tick(), TICK_MS);
new EventStream({
  url: () => "/events",
  listeners: {
    deployment: (event) => changed(JSON.parse(event.data)),
    removed: (event) => removed(JSON.parse(event.data)),
  },
  onOpen: reloadList,
  onState: (state, waitSeconds) => light.show(state, LIGHT_TEXTS[state], waitSeconds),
}).start();
