/** How the next token is chosen: sliders with numbers, kept in the browser; and the system prompt's field. */

import { byId, el } from "./dom.js";
import { fromJson, toJson } from "./store.js";

/** @typedef {{temperature: number, top_k: number, top_p: number, max_tokens: number|null, seed: number|null}} Sampling */
/** @typedef {{name: keyof Sampling, label: string, about: string, low: number, high: number, step: number, none?: string}} Dial */

const KEY = "nanochat.sampling";
const LARGEST_SEED = 2 ** 31 - 1;

/** As the terminal's. @type {Sampling} */
export const DEFAULTS = Object.freeze({
  temperature: 0.6,
  top_k: 50,
  top_p: 1,
  max_tokens: null,
  seed: null,
});

/** @type {Dial[]} */
export const DIALS = [
  {
    name: "temperature",
    label: "Temperature",
    about: "0 always takes the likeliest token",
    low: 0,
    high: 2,
    step: 0.05,
  },
  {
    name: "top_k",
    label: "Top-k",
    about: "choose among the k likeliest; 0 = all",
    low: 0,
    high: 200,
    step: 1,
  },
  {
    name: "top_p",
    label: "Top-p",
    about: "choose among the likeliest that sum to this",
    low: 0.05,
    high: 1,
    step: 0.05,
  },
  {
    name: "max_tokens",
    label: "Max tokens",
    about: "length of a reply at most",
    low: 1,
    high: 2048,
    step: 1,
    none: "as fits",
  },
  {
    name: "seed",
    label: "Seed",
    about: "the same seed gives the same reply",
    low: 0,
    high: LARGEST_SEED,
    step: 1,
    none: "random",
  },
];

/** @param {Dial} dial @param {any} value @returns {number|null} a legal value, or null for none; NaN if there is no such */
export function legal(dial, value) {
  if ((value === null || value === "") && dial.none) return null;
  const number = Number(value);
  if (value === "" || !Number.isFinite(number) || number < dial.low || number > dial.high) return Number.NaN;
  return dial.step === 1 ? Math.round(number) : number;
}

export class Settings {
  /** @param {(system: string) => void} onSystem the prompt was changed */
  constructor(onSystem) {
    this.sampling = fromJson(KEY, readSampling, { ...DEFAULTS });
    this.dialog = byId("settings");
    this.system = byId("system");
    this.system.addEventListener("change", () => onSystem(this.system.value.trim()));
    byId("settings-reset").addEventListener("click", () => this.set({ ...DEFAULTS }));
    this.draw();
  }

  /** @param {string} system */
  open(system) {
    this.system.value = system;
    this.dialog.showModal();
  }

  /** A reply is never longer than the context. @param {number} context */
  limit(context) {
    const dial = DIALS.find(({ name }) => name === "max_tokens");
    if (dial) dial.high = context;
    if ((this.sampling.max_tokens ?? 0) > context) this.sampling.max_tokens = null;
    this.draw();
  }

  /** @param {Partial<Sampling>} changes */
  set(changes) {
    Object.assign(this.sampling, changes);
    toJson(KEY, this.sampling);
    this.draw();
  }

  /** The fields of a request: what is not set is left to the server. */
  request() {
    return Object.fromEntries(Object.entries(this.sampling).filter(([, value]) => value !== null));
  }

  draw() {
    byId("sliders").replaceChildren(...DIALS.map((dial) => this.row(dial)));
  }

  /** @param {Dial} dial */
  row(dial) {
    const { name, label, about, low, high, step, none } = dial;
    const value = this.sampling[name];
    const id = `dial-${name}`;
    const number = el("input", {
      type: "number",
      id,
      min: low,
      max: high,
      step: "any",
      value: value ?? "",
      placeholder: none ?? "",
      inputMode: "decimal",
      "aria-describedby": `${id}-about`,
    });
    const hasSlider = name !== "seed";
    const slider = hasSlider
      ? el("input", {
          type: "range",
          min: low,
          max: high,
          step,
          value: value ?? high,
          "aria-label": `${label}, slider`,
        })
      : null;
    const change = (/** @type {any} */ raw) => {
      const wanted = legal(dial, raw);
      const isLegal = wanted === null || !Number.isNaN(wanted);
      number.setAttribute("aria-invalid", String(!isLegal));
      if (!isLegal) return;
      Object.assign(this.sampling, { [name]: wanted });
      toJson(KEY, this.sampling);
      if (slider) slider.value = wanted ?? high;
    };
    number.addEventListener("input", () => change(number.value));
    number.addEventListener("blur", () => {
      number.value = this.sampling[name] ?? "";
      change(number.value);
    });
    slider?.addEventListener("input", () => {
      // the slider's right end is "no limit", where there is such a thing
      number.value = none && Number(slider.value) === high ? "" : slider.value;
      change(number.value);
    });
    const words = el("label", { for: id }, label, el("small", { id: `${id}-about` }, about));
    return el("div", { class: "dial" }, words, number, slider);
  }
}

/** @param {any} data @returns {Sampling} */
function readSampling(data) {
  const found = { ...DEFAULTS };
  for (const dial of DIALS) {
    const value = legal(dial, data?.[dial.name] ?? DEFAULTS[dial.name]);
    if (value === null || !Number.isNaN(value)) Object.assign(found, { [dial.name]: value });
  }
  return found;
}
