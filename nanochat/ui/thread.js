/** The transcript: the messages of the branch that is shown, what the model no longer reads, and where we look. */

import { branch } from "./conversation.js";
import { byId, el } from "./dom.js";
import { MessageView } from "./message.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
const NEAR_PX = 60;

export class Thread {
  /** @param {import("./message.js").Actions & {fresh: () => void}} actions */
  constructor(actions) {
    this.actions = actions;
    this.place = byId("thread");
    this.scroller = byId("scroll");
    this.toEnd = byId("to-end");
    /** @type {Map<string, MessageView>} */
    this.views = new Map();
    this.follows = true;
    this.shown = "";
    /** @type {HTMLElement|null} */
    this.panel = null;
    const fresh = el(
      "button",
      { type: "button", class: "quiet", on: { click: () => actions.fresh() } },
      "New conversation",
    );
    const told = el("span", {}, "The context is full: the model no longer reads what is above this line.");
    this.divider = el("div", { class: "divider", role: "note" }, told, fresh);
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.toEnd.addEventListener("click", () => this.end());
    new ResizeObserver(() => this.follow()).observe(this.place);
  }

  /** Show the conversation as it is now; messages that are shown already stay. @param {Conversation} conversation */
  draw(conversation) {
    if (this.shown !== conversation.id) {
      this.views.clear();
      this.shown = conversation.id;
      this.panel = null;
      this.follows = true;
    }
    const messages = branch(conversation);
    const last = messages.filter(({ role }) => role === "assistant").pop();
    const start = Math.max(
      0,
      messages.findIndex(({ id }) => id === last?.facts?.from),
    );
    /** @type {HTMLElement[]} */
    const wanted = [];
    messages.forEach((message, n) => {
      const view = this.view(conversation, message.id);
      view.root.classList.toggle("forgotten", n < start);
      if (start > 0 && n === start) wanted.push(this.divider);
      wanted.push(view.root);
      view.buttons();
    });
    if (this.panel) wanted.push(this.panel);
    this.arrange(wanted);
    this.follow();
  }

  /** @param {Conversation} conversation @param {string} id */
  view(conversation, id) {
    let view = this.views.get(id);
    if (!view) {
      view = new MessageView(conversation, conversation.messages[id], this.actions);
      this.views.set(id, view);
    }
    return view;
  }

  /** Children in this order, moving none that is in place: what has the focus keeps it. @param {HTMLElement[]} wanted */
  arrange(wanted) {
    for (const node of [...this.place.children]) if (!wanted.includes(node)) node.remove();
    wanted.forEach((node, n) => {
      if (this.place.children[n] !== node) this.place.insertBefore(node, this.place.children[n] ?? null);
    });
  }

  /** Show an error below the last message, or none. @param {HTMLElement|null} panel */
  notice(panel) {
    this.panel?.remove();
    this.panel = panel;
    if (panel) this.place.append(panel);
    this.follow();
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.follows = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    this.toEnd.hidden = this.follows;
  }

  /** Stay at the end, unless the reader has scrolled up. */
  follow() {
    if (this.follows) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  end() {
    this.follows = true;
    const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.scroller.scrollTo({ top: this.scroller.scrollHeight, behavior: isStill ? "auto" : "smooth" });
  }

  /** Edit the last message of the user, if there is one. */
  editLast() {
    const roots = [...this.place.querySelectorAll(".message.user")];
    this.views.get(roots[roots.length - 1]?.dataset.id)?.edit();
  }
}
