/**
 * The form that starts a deployment: a source, and the one thing it has to be told.
 */

import { postJson } from "./api.js";

const ASKS = {
  command: { label: "Command", placeholder: "make deploy" },
  path: { label: "File to follow", placeholder: "/var/log/nginx/access.log" },
};

function mainOption(source) {
  return source.options.find(({ required }) => required) ?? source.options[0] ?? null;
}

function asks(option) {
  const words = option.name.replaceAll("_", " ");
  const label = words[0].toUpperCase() + words.slice(1);
  const known = ASKS[option.name] ?? { label, placeholder: option.help };
  return option.required ? known : { ...known, label: `${known.label} (optional)` };
}

// A field of a page is text; JSON tells text from numbers.
function asValue(option, text) {
  const isNumber = ["int", "float"].includes(option.type) && text.trim() !== "";
  return isNumber && Number.isFinite(Number(text)) ? Number(text) : text;
}

function groupOf(label, options) {
  const group = document.createElement("optgroup");
  group.label = label;
  group.append(...options);
  return group;
}

function presetOption({ name }) {
  const option = new Option(name, name);
  option.dataset.preset = name;
  return option;
}

/**
 * Makes `form` ask for what the chosen one of `sources` needs, and go to the page of what it
 * started. Without this it is a plain form that asks for a command. The `presets` are chosen
 * beside the sources, and have forms of their own.
 */
export class RunForm {
  #form;
  #sources;
  #presets;
  #select;
  #label;
  #input;
  #button;
  #error;
  #about;

  constructor(form, sources, presets) {
    this.#form = form;
    this.#presets = presets;
    this.#sources = new Map(sources.map((source) => [source.name, source]));
    this.#select = form.elements.namedItem("source");
    this.#input = form.querySelector(".run-input");
    this.#label = form.querySelector(".run-label");
    this.#button = form.querySelector("button[type=submit]");
    this.#error = form.querySelector(".run-error");
    this.#about = form.querySelector(".run-about");
  }

  start() {
    this.#offerPresets();
    this.#select.addEventListener("change", () => this.#sourceChanged());
    this.#input.addEventListener("input", () => this.#showError(""));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    // A page gone back to comes with what was typed and chosen, and with a button long pressed.
    window.addEventListener("pageshow", () => {
      this.#button.disabled = false;
      this.#sourceChanged();
    });
    this.#sourceChanged();
  }

  get #option() {
    const source = this.#sources.get(this.#select.value);
    return source ? mainOption(source) : null;
  }

  #offerPresets() {
    const options = this.#presets.map(presetOption);
    if (options.length > 0 && this.#sources.size > 0) {
      const sources = groupOf("Sources", [...this.#select.options]);
      this.#select.append(sources, groupOf("Presets", options));
    } else {
      this.#select.append(...options);
    }
  }

  #showPreset() {
    const name = this.#select.selectedOptions[0]?.dataset.preset;
    const chosen = this.#presets.find((preset) => preset.name === name);
    this.#presets.forEach((preset) => preset.show(preset === chosen));
    this.#form.classList.toggle("asks-preset", chosen !== undefined);
    this.#about.textContent = chosen?.help ?? "";
    // One that has nothing to fill in is run from here: its own button would stand there alone.
    this.#form.classList.toggle("is-whole", chosen?.isBare ?? true);
    if (chosen?.isBare) {
      this.#button.setAttribute("form", chosen.id);
    } else {
      this.#button.removeAttribute("form");
    }
  }

  #sourceChanged() {
    this.#showPreset();
    const option = this.#option;
    this.#showError("");
    this.#input.disabled = !option;
    if (option) {
      const { label, placeholder } = asks(option);
      this.#input.name = option.name;
      this.#input.placeholder = placeholder;
      this.#input.title = option.help ?? "";
      this.#label.textContent = label;
    } else {
      this.#input.placeholder = "This source needs nothing from you";
      this.#label.textContent = "Nothing to ask";
    }
  }

  #showError(sentence) {
    this.#error.textContent = sentence;
    this.#error.hidden = !sentence;
    this.#input.setAttribute("aria-invalid", String(Boolean(sentence)));
  }

  async #submit() {
    const option = this.#option;
    const body = { source: this.#select.value };
    const text = this.#input.value;
    if (option && (option.required || text.trim())) {
      body[option.name] = asValue(option, text);
    }
    this.#showError("");
    this.#button.disabled = true;
    try {
      const { id } = await postJson("/deployments", body);
      location.assign(`/deployments/${encodeURIComponent(id)}`);
    } catch (error) {
      this.#showError(error.message);
      this.#input.focus();
      this.#button.disabled = false;
    }
  }
}
