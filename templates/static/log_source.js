/**
 * What one log's server can be asked for: windows of its lines, and searches through all of it.
 */

import { ApiError, getJson } from "./api.js";

/** The calls of the log of deployment `id`. */
export class LogSource {
  #path;
  #id;

  constructor(id) {
    this.#id = id;
    this.#path = `/logs/${encodeURIComponent(id)}`;
  }

  /** Where its bytes are. */
  get rawUrl() {
    return `${this.#path}/raw`;
  }

  /** A link that saves them to a file: what a browser shows as text may be too large for a tab. */
  get rawLink() {
    return { href: this.rawUrl, download: `${this.#id}.log` };
  }

  /**
   * A window of lines by number (`from`: 1 is the first, -1 the last), or from `time` on, in ms.
   * `times`: whether to tell when each line was written.
   */
  lines({ from, count, time, times }, signal) {
    const query = new URLSearchParams(time === undefined ? { from } : { time: Math.round(time) });
    query.set("count", count);
    if (times) {
      query.set("times", "1");
    }
    return getJson(`${this.#path}/lines?${query}`, { signal });
  }

  /**
   * The events of a search, as `{type, data}`, until its end. `query` holds q, regex, case; or
   * structure; or errors. Raises ApiError.
   */
  async *search(query, signal) {
    const parameters = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
      if (value !== false) {
        parameters.set(name, value === true ? "1" : value);
      }
    }
    yield* events(`${this.#path}/search?${parameters}`, signal);
  }
}

// Not an EventSource: that hides the sentence of a refusal, and asks again for ever.
async function* events(path, signal) {
  let response;
  try {
    response = await fetch(path, { headers: { Accept: "text/event-stream" }, signal });
  } catch (error) {
    throw signal.aborted ? error : new ApiError("The server can't be reached just now.", 0);
  }
  if (!response.ok) {
    const answer = await response.json().catch(() => null);
    throw new ApiError(answer?.error ?? `the server answered ${response.status}`, response.status);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) {
      return;
    }
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = parseEvent(block);
      if (event.data) {
        yield event;
      }
    }
  }
}

function parseEvent(block) {
  const event = { type: "message", data: null };
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) {
      event.type = line.slice(7);
    } else if (line.startsWith("data: ")) {
      event.data = JSON.parse(line.slice(6));
    }
  }
  return event;
}
