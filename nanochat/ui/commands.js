/** Slash commands and their completion: type `/` at the start of a message. */

import { byId, el } from "./dom.js";
import { DIALS, legal } from "./settings.js";

/** @typedef {import("./app.js").App} App */
/** @typedef {{name: string, usage: string, about: string, run: (app: App, argument: string) => string|void}} Command `run` returns what to tell */

/** @type {Command[]} */
export const COMMANDS = [
  { name: "/help", usage: "", about: "commands and keys", run: (app) => app.help() },
  { name: "/clear", usage: "", about: "empty this conversation", run: (app) => app.clear() },
  {
    name: "/temperature",
    usage: "0.6",
    about: "how freely to choose; 0 = always the likeliest",
    run: (app, value) => setDial(app, "temperature", value),
  },
  {
    name: "/topk",
    usage: "50",
    about: "choose among the k likeliest; 0 = all",
    run: (app, value) => setDial(app, "top_k", value),
  },
  {
    name: "/system",
    usage: "text",
    about: "what the model is told first; empty = nothing",
    run: (app, text) => app.setSystem(text),
  },
  {
    name: "/save",
    usage: "md or json",
    about: "this conversation as a file",
    run: (app, format) => app.save(format),
  },
];

/** @param {App} app @param {string} name @param {string} value */
function setDial(app, name, value) {
  const dial = DIALS.find((other) => other.name === name);
  if (!dial) throw new Error(`no dial ${name}`);
  if (value === "") return `${dial.label} is ${app.settings.sampling[dial.name]}.`;
  const wanted = legal(dial, value);
  if (wanted === null || Number.isNaN(wanted))
    return `${dial.label} goes from ${dial.low} to ${dial.high}; ${value} is neither.`;
  app.settings.set({ [dial.name]: wanted });
  return `${dial.label} is now ${wanted}.`;
}

/** Run a command line. @param {App} app @param {string} line starts with a slash @returns {string|void} what to tell */
export function runCommand(app, line) {
  const [, name, argument] = /** @type {RegExpExecArray} */ (/^(\S+)\s*([^]*)$/.exec(line));
  const command = COMMANDS.find((other) => other.name === name.toLowerCase());
  if (!command) return `There is no ${name}. Commands: ${COMMANDS.map((other) => other.name).join(" ")}`;
  return command.run(app, argument.trim());
}

/** True if this is meant for the page, not for the model: /etc/passwd is no command. @param {string} text */
export function isCommand(text) {
  return /^\/[a-z]+(\s|$)/i.test(text);
}

/** The list above the message field. */
export class Completion {
  /** @param {HTMLTextAreaElement} input */
  constructor(input) {
    this.input = input;
    this.list = byId("commands");
    /** @type {Command[]} */
    this.found = [];
    this.chosen = 0;
    input.addEventListener("input", () => this.update());
    input.addEventListener("blur", () => this.close());
  }

  update() {
    const typed = this.input.value.toLowerCase();
    this.found = /^\/[a-z]*$/.test(typed) ? COMMANDS.filter(({ name }) => name.startsWith(typed)) : [];
    this.chosen = 0;
    this.draw();
  }

  /** True if the key was for the list. @param {KeyboardEvent} event */
  key(event) {
    if (!this.found.length) return false;
    const { key } = event;
    if (key === "ArrowDown" || key === "ArrowUp") {
      this.chosen = (this.chosen + (key === "ArrowDown" ? 1 : -1) + this.found.length) % this.found.length;
      this.draw();
    } else if (
      key === "Tab" ||
      (key === "Enter" && this.input.value.toLowerCase() !== this.found[this.chosen].name)
    ) {
      this.take(this.found[this.chosen]);
    } else if (key === "Escape") {
      this.close();
    } else {
      return false;
    }
    event.preventDefault();
    event.stopPropagation();
    return true;
  }

  /** @param {Command} command */
  take(command) {
    this.input.value = command.usage ? `${command.name} ` : command.name;
    this.close();
    this.input.focus();
    this.input.dispatchEvent(new Event("change"));
  }

  close() {
    this.found = [];
    this.draw();
  }

  draw() {
    this.list.hidden = !this.found.length;
    this.input.setAttribute("aria-expanded", String(!this.list.hidden));
    const rows = this.found.map((command, n) => {
      const props = { id: `command-${n}`, role: "option", "aria-selected": String(n === this.chosen) };
      // pointerdown, for a click would first take the focus from the field and close the list
      const pick = (/** @type {Event} */ event) => (event.preventDefault(), this.take(command));
      return el(
        "li",
        { ...props, on: { pointerdown: pick } },
        el("code", {}, command.name),
        el("i", {}, command.usage),
        el("span", {}, command.about),
      );
    });
    this.list.replaceChildren(...rows);
    if (rows.length) this.input.setAttribute("aria-activedescendant", `command-${this.chosen}`);
    else this.input.removeAttribute("aria-activedescendant");
  }
}
