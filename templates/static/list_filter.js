/**
 * The form that filters the list, and the filter as the query of a URL.
 */

// A time as a field for local times takes it: to the minute, by the reader's clock.
function asLocal(iso) {
  const time = new Date(/(Z|[+-]\d\d:?\d\d)$/.test(iso) ? iso : `${iso}Z`);
  if (Number.isNaN(time.getTime())) {
    return "";
  }
  return new Date(time - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

function asUtc(local) {
  return local ? new Date(local).toISOString().replace(":00.000Z", "Z") : "";
}

/**
 * Keeps the page's URL as the `form` says, and calls `onChange` with each new filter.
 *
 * The page comes with the form as its URL asks; only times between two stand in the URL alone.
 */
export class ListFilter {
  #form;
  #onChange;
  #span;
  #range;
  #since;
  #until;
  #clear;
  #query = "";

  constructor(form, onChange) {
    this.#form = form;
    this.#onChange = onChange;
    this.#span = form.querySelector("[name=since]");
    this.#range = form.querySelector(".filter-range");
    [this.#since, this.#until] = this.#range.querySelectorAll("input");
    this.#clear = form.querySelector("#clear-filter");
    const asked = new URLSearchParams(location.search);
    if (this.#isRange) {
      this.#since.value = asLocal(asked.get("since") ?? "");
      this.#until.value = asLocal(asked.get("until") ?? "");
      if (asked.get("since") && !this.#since.value) {
        // "30m" and its like are no field's: they stay as they are until another choice is made.
        this.#span.selectedOptions[0].textContent = `Since ${asked.get("since")} ago`;
        delete this.#span.selectedOptions[0].dataset.range;
      }
    }
    this.#query = this.#asQuery();
    this.#show();
  }

  start() {
    this.#form.addEventListener("input", () => this.#changed());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#changed();
    });
    this.#clear.addEventListener("click", () => this.clear());
  }

  /** The filter as the query of a URL, without "?"; "" where everything is to be seen. */
  get query() {
    return this.#query;
  }

  /** Takes the filter away. */
  clear() {
    for (const field of this.#form.elements) {
      field.value = "";
    }
    this.#span.selectedIndex = 0;
    this.#changed();
    this.focus();
  }

  focus() {
    this.#form.querySelector("[name=q]").focus();
  }

  get #isRange() {
    return "range" in this.#span.selectedOptions[0].dataset;
  }

  #asQuery() {
    const query = new URLSearchParams();
    const range = { since: asUtc(this.#since.value), until: asUtc(this.#until.value) };
    const given = { ...Object.fromEntries(new FormData(this.#form)), ...(this.#isRange && range) };
    for (const [name, text] of Object.entries(given)) {
      if (text) {
        query.set(name, text);
      }
    }
    return query.toString();
  }

  #show() {
    this.#range.hidden = !this.#isRange;
    this.#clear.hidden = !this.#query && !this.#isRange;
  }

  #changed() {
    const query = this.#asQuery();
    if (query !== this.#query) {
      this.#query = query;
      history.replaceState(history.state, "", query ? `?${query}` : location.pathname);
      this.#onChange(query);
    }
    this.#show();
  }
}
