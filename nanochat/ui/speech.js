/**
 * What a screen reader hears of a reply: whole sentences, one at a time, at most one every second or so. The
 * transcript itself is silent, for it grows by a few letters many times a second.
 */

import { byId, el } from "./dom.js";

const PAUSE_MS = 900;
const KEPT = 4;
const SENTENCE = /[^.!?\n]*(?:[.!?]+(?=\s)|\n)/g;

export class Speech {
  constructor() {
    this.place = byId("speech");
    this.rest = "";
    /** @type {string[]} */
    this.queue = [];
    this.timer = 0;
  }

  /** @param {string} text as it arrives */
  push(text) {
    this.rest += text;
    let end = 0;
    for (const found of this.rest.matchAll(SENTENCE)) end = found.index + found[0].length;
    if (end) this.say(this.rest.slice(0, end));
    this.rest = this.rest.slice(end);
  }

  /** Say what is left of a reply. @param {string} [last] */
  end(last = "") {
    this.say(`${this.rest} ${last}`);
    this.rest = "";
  }

  /** @param {string} text */
  say(text) {
    const spoken = text
      .replace(/[*_`#|>~]+/g, " ")
      .replace(/\s+/g, " ")
      .trim();
    if (spoken) this.queue.push(spoken);
    if (!this.timer) this.speak();
  }

  speak() {
    this.timer = 0;
    if (!this.queue.length) return;
    this.place.append(el("p", {}, this.queue.splice(0).join(" ")));
    while (this.place.childElementCount > KEPT) this.place.firstElementChild.remove();
    this.timer = window.setTimeout(() => this.speak(), PAUSE_MS);
  }
}
