/** One message on the page: its text as it grows, tool calls, versions, and the buttons below it. */

import { textOf, versions } from "./conversation.js";
import { copy, el, icon, iconButton } from "./dom.js";
import { Markdown } from "./markdown.js";

/** @typedef {import("./conversation.js").Message} Message */
/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {{edit: (message: Message, text: string) => void, again: (message: Message) => void, show: (id: string) => void}} Actions */

const ENDED = /** @type {Object<string, string>} */ ({
  stopped: "Stopped.",
  length: "Cut off: the reply reached its greatest length.",
  error: "Broken off.",
});

export class MessageView {
  /** @param {Conversation} conversation @param {Message} message @param {Actions} actions */
  constructor(conversation, message, actions) {
    this.conversation = conversation;
    this.message = message;
    this.actions = actions;
    this.body = el("div", { class: "body" });
    this.foot = el("div", { class: "foot" });
    const who = message.role === "user" ? "You said" : "nanochat said";
    this.root = el(
      "article",
      { class: `message ${message.role}`, data: { id: message.id } },
      el("h2", { class: "visually-hidden" }, who),
      this.body,
      this.foot,
    );
    /** What is drawn of each part: its place, and how many letters of it. @type {{place: HTMLElement, text?: Markdown, length: number}[]} */
    this.drawn = [];
    this.isRunning = false;
    this.update();
  }

  /** Draw what has been added since the last time. */
  update() {
    if (this.message.role === "user") this.body.textContent = textOf(this.message);
    else this.message.parts.forEach((part, n) => this.updatePart(part, n));
    this.body.classList.toggle("waiting", this.isRunning && !this.message.parts.length);
    this.root.classList.toggle("running", this.isRunning);
  }

  /** @param {import("./conversation.js").Part} part @param {number} n */
  updatePart(part, n) {
    if (!this.drawn[n]) {
      const place = part.tool ? toolCall(part.tool) : el("div", { class: "prose" });
      this.drawn[n] = { place, text: part.tool ? undefined : new Markdown(place), length: 0 };
      this.body.append(place);
    }
    const drawn = this.drawn[n];
    const text = part.text ?? "";
    if (drawn.text && text.length > drawn.length) drawn.text.push(text.slice(drawn.length));
    drawn.length = text.length;
  }

  /** @param {boolean} isRunning this reply is being written */
  running(isRunning) {
    this.isRunning = isRunning;
    this.update();
    this.buttons();
  }

  /** The line below the message. */
  buttons() {
    const { message, actions } = this;
    if (this.isRunning || this.body.classList.contains("editing")) return this.foot.replaceChildren();
    const isUser = message.role === "user";
    const ended = ENDED[message.facts?.end ?? ""];
    const copyButton = iconButton("copy", "Copy message", (event) =>
      copy(textOf(message), /** @type {HTMLElement} */ (event.currentTarget)),
    );
    const edit = isUser && iconButton("edit", "Edit message", () => this.edit());
    const isUnanswered = isUser && this.conversation.leaf === message.id;
    const again = (!isUser || isUnanswered) && iconButton("again", "Ask again", () => actions.again(message));
    const told = ended && el("span", { class: "ended" }, ended);
    this.foot.replaceChildren(...[told, this.versions(), copyButton, edit, again].filter(Boolean));
  }

  /** `‹ 2 / 3 ›`, if the message was edited or the question asked again. */
  versions() {
    const all = versions(this.conversation, this.message);
    if (all.length < 2) return null;
    const at = all.indexOf(this.message);
    const step = (/** @type {number} */ by) => () =>
      this.actions.show(all[(at + by + all.length) % all.length].id);
    const words = el(
      "span",
      { "aria-label": `Version ${at + 1} of ${all.length}` },
      `${at + 1} / ${all.length}`,
    );
    return el(
      "span",
      { class: "versions" },
      iconButton("left", "Earlier version", step(-1)),
      words,
      iconButton("right", "Later version", step(1)),
    );
  }

  /** Change a sent message in place; sending it makes a new branch. */
  edit() {
    const before = textOf(this.message);
    const area = el("textarea", {
      value: before,
      "aria-label": "Edit message",
      rows: Math.min(12, before.split("\n").length + 1),
    });
    const close = () => {
      this.body.classList.remove("editing");
      this.update();
      this.buttons();
      this.foot.querySelector("[aria-label='Edit message']")?.focus();
    };
    const send = () => {
      const text = area.value.trim();
      close();
      if (text && text !== before) this.actions.edit(this.message, text);
    };
    area.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.isComposing || (event.key !== "Escape" && !(event.key === "Enter" && !event.shiftKey)))
        return;
      event.preventDefault();
      event.stopPropagation();
      if (event.key === "Escape") close();
      else send();
    });
    const buttons = el(
      "div",
      { class: "buttons" },
      el("button", { type: "button", class: "quiet", on: { click: close } }, "Cancel"),
      el("button", { type: "button", class: "primary", on: { click: send } }, "Send"),
    );
    this.body.classList.add("editing");
    this.body.replaceChildren(area, buttons);
    this.buttons();
    area.focus();
    area.setSelectionRange(before.length, before.length);
  }
}

/** @param {import("./conversation.js").Tool} tool */
function toolCall({ name, input, output }) {
  const line = (/** @type {string} */ label, /** @type {string} */ text) =>
    el("div", {}, el("span", { class: "label" }, label), el("pre", { tabIndex: 0 }, el("code", {}, text)));
  const short = input.length > 60 || input.includes("\n") ? "" : `${input} = ${output || "?"}`.slice(0, 90);
  return el(
    "details",
    { class: "tool" },
    el("summary", {}, icon("tool"), el("span", {}, name), el("code", {}, short)),
    line("Input", input),
    line("Output", output || "(none)"),
  );
}
