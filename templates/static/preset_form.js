/**
 * The form of one preset: its parameters as JSON, and what is wrong with one beside its field.
 */

import { getJson, postJson } from "./api.js";

/** One parameter's field, as the server has made it. */
class Field {
  #element;
  #control;
  #error;

  constructor(element) {
    this.#element = element;
    this.#control = element.querySelector("input:not([type=hidden]), select");
    this.#error = element.querySelector(".field-error");
    this.#control.addEventListener("input", () => this.showError(""));
  }

  get name() {
    return this.#element.dataset.parameter;
  }

  get type() {
    return this.#element.dataset.type;
  }

  get isRequired() {
    return this.#control.required;
  }

  /** As JSON has it; undefined where nothing was filled in. */
  get value() {
    if (this.type === "flag") {
      return this.#control.checked;
    }
    const text = this.#control.value;
    return text === "" ? undefined : this.type === "number" ? Number(text) : text;
  }

  /** What the browser finds wrong, as a sentence; "" if nothing. */
  get problem() {
    const { validity, validationMessage, pattern } = this.#control;
    if (validity.valid) {
      return "";
    }
    return validity.patternMismatch ? `Expected text that matches ${pattern}` : validationMessage;
  }

  focus() {
    this.#control.focus();
  }

  showError(sentence) {
    this.#error.textContent = sentence;
    this.#error.hidden = !sentence;
    this.#control.setAttribute("aria-invalid", String(Boolean(sentence)));
  }

  /** Offers these files from now on; what is chosen stays, if it is still there. */
  offer(files) {
    if (this.#control.tagName === "SELECT") {
      const chosen = this.#control.value;
      const [none] = this.#control.options;
      this.#control.replaceChildren(none, ...files.map((file) => new Option(file, file)));
      this.#control.value = files.includes(chosen) ? chosen : "";
    }
  }
}

/** Sends what `form` says and goes to the page of what that started. */
export class PresetForm {
  #form;
  #fields;
  #error;

  constructor(form) {
    this.#form = form;
    this.#fields = [...form.querySelectorAll("[data-parameter]")].map((element) => new Field(element));
    this.#error = form.querySelector(".run-error");
    form.noValidate = true; // the browser's bubbles come one at a time, and go by themselves
    form.addEventListener("input", () => this.#showError(""));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    window.addEventListener("pageshow", () => this.#setBusy(false));
  }

  get name() {
    return this.#form.dataset.preset;
  }

  get id() {
    return this.#form.id;
  }

  /** Whether there is nothing to fill in. */
  get isBare() {
    return this.#fields.length === 0;
  }

  get help() {
    return this.#form.dataset.help;
  }

  /** The parameters that have to be given. */
  get required() {
    return this.#fields.filter(({ isRequired }) => isRequired).map(({ name }) => name);
  }

  /** Shows the form, with the files that there are now, or hides it. */
  show(isChosen) {
    this.#form.classList.toggle("is-chosen", isChosen);
    if (isChosen && this.#fields.some(({ type }) => type === "file")) {
      this.#refreshFiles();
    }
  }

  async #refreshFiles() {
    try {
      const { presets } = await getJson("/presets");
      const known = presets.find(({ name }) => name === this.name)?.parameters ?? [];
      for (const field of this.#fields.filter(({ type }) => type === "file")) {
        const parameter = known.find(({ name }) => name === field.name);
        if (parameter) {
          field.offer(parameter.files);
        }
      }
    } catch {
      // Those that the page came with are still there; the server says if one is not.
    }
  }

  /** Its own button and, of one without fields, the one beside the choice of the preset. */
  #setBusy(isBusy) {
    for (const button of this.#form.elements) {
      if (button.type === "submit") {
        button.disabled = isBusy;
      }
    }
  }

  #showError(sentence) {
    this.#error.textContent = sentence;
    this.#error.hidden = !sentence;
  }

  /** Beside its field, if the sentence names one: "Environment: expected …". */
  #showRefusal(message) {
    const [, name = "", rest = ""] = /^(\w+): (.+)$/s.exec(message) ?? [];
    const field = this.#fields.find((one) => one.name.toLowerCase() === name.toLowerCase());
    if (field) {
      field.showError(rest[0].toUpperCase() + rest.slice(1));
      field.focus();
    } else {
      this.#showError(message);
    }
  }

  async #submit() {
    this.#showError("");
    const wrong = this.#fields.filter((field) => {
      field.showError(field.problem);
      return field.problem;
    });
    if (wrong.length > 0) {
      wrong[0].focus();
      return;
    }
    const parameters = Object.fromEntries(this.#fields.map(({ name, value }) => [name, value]));
    this.#setBusy(true);
    try {
      const { id } = await postJson("/deployments", { preset: this.name, parameters });
      location.assign(`/deployments/${encodeURIComponent(id)}`);
    } catch (error) {
      this.#setBusy(false);
      this.#showRefusal(error.message);
    }
  }
}

/** The forms of all presets that the page has, in their order. */
export function presetForms() {
  return [...document.querySelectorAll("form.preset")].map((form) => new PresetForm(form));
}
