/**
 * The message field: grows with its text; Enter sends and Shift+Enter is a new line, on a touch screen Enter is the
 * new line; Arrow up in an empty field edits the last message. A draft outlives a reload of the tab.
 */

import { byId } from "./dom.js";
import { Completion } from "./commands.js";

const DRAFT = "nanochat.draft";

export class Composer {
  /** @param {{send: (text: string) => boolean, stop: () => void, editLast: () => void}} actions `send` is true if the text was taken */
  constructor(actions) {
    this.actions = actions;
    this.input = byId("input");
    this.sendButton = byId("send");
    this.stopButton = byId("stop");
    this.completion = new Completion(this.input);
    this.isRunning = false;
    byId("composer").addEventListener(
      "submit",
      (/** @type {Event} */ event) => (event.preventDefault(), this.send()),
    );
    this.stopButton.addEventListener("click", () => (actions.stop(), this.input.focus()));
    this.input.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.key(event));
    for (const type of ["input", "change"]) this.input.addEventListener(type, () => this.changed());
    this.input.value = sessionStorage.getItem(DRAFT) ?? "";
    this.changed();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.isComposing || this.completion.key(event)) return;
    const isTouch = matchMedia("(pointer: coarse)").matches && !matchMedia("(any-pointer: fine)").matches;
    if (event.key === "Enter" && !event.shiftKey && !isTouch) {
      event.preventDefault();
      this.send();
    } else if (event.key === "ArrowUp" && !this.input.value) {
      event.preventDefault();
      this.actions.editLast();
    }
  }

  send() {
    const text = this.input.value.trim();
    if (text && this.actions.send(text)) this.set("");
  }

  /** @param {string} text */
  set(text) {
    this.input.value = text;
    this.completion.close();
    this.changed();
  }

  focus() {
    this.input.focus();
  }

  /** @param {boolean} isRunning a reply is being written */
  running(isRunning) {
    const hadFocus = document.activeElement === this.stopButton || document.activeElement === this.sendButton;
    this.isRunning = isRunning;
    this.stopButton.hidden = !isRunning;
    this.sendButton.hidden = isRunning;
    if (hadFocus) this.input.focus();
  }

  changed() {
    this.sendButton.disabled = !this.input.value.trim();
    this.input.style.height = "auto"; // lets it shrink before it is measured
    this.input.style.height = `${this.input.scrollHeight}px`;
    sessionStorage.setItem(DRAFT, this.input.value);
  }
}
