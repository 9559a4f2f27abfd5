/** The list of saved conversations, and the menu of each: rename, export, delete. A drawer on narrow screens. */

import { byId, el, iconButton, when } from "./dom.js";
import { fromJson, toJson } from "./store.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {{open: (id: string) => void, rename: (id: string, title: string) => void, remove: (id: string) => void, save: (id: string, format: "md"|"json") => void}} Actions */

const KEY = "nanochat.sidebar";
const NARROW = "(max-width: 820px)";

export class Sidebar {
  /** @param {Actions} actions */
  constructor(actions) {
    this.actions = actions;
    this.list = byId("conversations");
    this.menu = byId("row-menu");
    this.narrow = matchMedia(NARROW);
    this.isOpen = !this.narrow.matches && fromJson(KEY, Boolean, true);
    byId("menu").addEventListener("click", () => this.toggle(!this.isOpen));
    byId("sidebar-close").addEventListener("click", () => this.toggle(false));
    byId("scrim").addEventListener("click", () => this.toggle(false));
    byId("sidebar").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape" && this.narrow.matches) this.toggle(false);
    });
    this.menu.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.menuKey(event));
    this.narrow.addEventListener("change", () =>
      this.toggle(!this.narrow.matches && fromJson(KEY, Boolean, true), false),
    );
    this.toggle(this.isOpen, false);
  }

  /** @param {boolean} isOpen @param {boolean} [byUser] */
  toggle(isOpen, byUser = true) {
    this.isOpen = isOpen;
    const isDrawer = this.narrow.matches;
    document.body.classList.toggle("sidebar-open", isOpen);
    byId("sidebar").inert = !isOpen;
    byId("main").inert = isOpen && isDrawer;
    byId("menu").setAttribute("aria-expanded", String(isOpen));
    if (!byUser) return;
    if (!isDrawer) toJson(KEY, isOpen);
    byId(isOpen ? "new" : "menu").focus();
  }

  /** After something was chosen in it. */
  chosen() {
    if (this.narrow.matches && this.isOpen) this.toggle(false);
  }

  /** @param {Conversation[]} conversations @param {string} current @param {Set<string>} running ids */
  draw(conversations, current, running) {
    const focused = /** @type {HTMLElement|null} */ (document.activeElement)
      ?.closest?.("#conversations li")
      ?.getAttribute("data-id");
    const rows = conversations.map((conversation) =>
      this.row(conversation, conversation.id === current, running.has(conversation.id)),
    );
    this.list.replaceChildren(...rows);
    if (focused) this.list.querySelector(`[data-id="${focused}"] button`)?.focus();
  }

  /** @param {Conversation} conversation @param {boolean} isCurrent @param {boolean} isRunning */
  row(conversation, isCurrent, isRunning) {
    const title = conversation.title || "New conversation";
    const words = [
      el("span", { class: "name" }, title),
      el("small", {}, isRunning ? "writing…" : when(conversation.updated)),
    ];
    const open = el(
      "button",
      {
        type: "button",
        class: "open",
        title,
        ...(isCurrent ? { "aria-current": "true" } : {}),
        on: { click: () => this.actions.open(conversation.id) },
      },
      ...words,
    );
    const more = iconButton(
      "more",
      `More about ${title}`,
      () => this.openMenu(more, conversation, row),
      "more",
    );
    const row = el("li", { data: { id: conversation.id }, class: isCurrent ? "current" : "" }, open, more);
    return row;
  }

  /** @param {HTMLElement} button @param {Conversation} conversation @param {HTMLElement} row */
  openMenu(button, conversation, row) {
    const { id } = conversation;
    const item = (/** @type {string} */ label, /** @type {() => void} */ run, extra = "") =>
      el(
        "button",
        {
          type: "button",
          role: "menuitem",
          class: extra,
          on: { click: () => (this.menu.hidePopover(), run()) },
        },
        label,
      );
    this.menu.replaceChildren(
      item("Rename", () => this.rename(conversation, row)),
      item("Export as Markdown", () => this.actions.save(id, "md")),
      item("Export as JSON", () => this.actions.save(id, "json")),
      item("Delete", () => this.actions.remove(id), "danger"),
    );
    this.menu.showPopover();
    const place = button.getBoundingClientRect();
    this.menu.style.left = `${Math.min(place.left, innerWidth - this.menu.offsetWidth - 8)}px`;
    this.menu.style.top = `${Math.min(place.bottom + 4, innerHeight - this.menu.offsetHeight - 8)}px`;
    this.menu.firstElementChild.focus();
  }

  /** @param {KeyboardEvent} event */
  menuKey(event) {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    event.preventDefault();
    const items = [...this.menu.children];
    const at = items.indexOf(document.activeElement);
    items[(at + (event.key === "ArrowDown" ? 1 : -1) + items.length) % items.length].focus();
  }

  /** @param {Conversation} conversation @param {HTMLElement} row */
  rename(conversation, row) {
    const field = el("input", {
      type: "text",
      value: conversation.title,
      maxLength: 120,
      "aria-label": "Name of the conversation",
    });
    let isDone = false;
    const done = (/** @type {boolean} */ keep) => {
      if (isDone) return;
      isDone = true;
      this.actions.rename(
        conversation.id,
        keep && field.value.trim() ? field.value.trim() : conversation.title,
      );
    };
    field.addEventListener("blur", () => done(true));
    field.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter") done(true);
      if (event.key === "Escape") done(false);
      if (event.key === "Escape") event.stopPropagation();
    });
    row.replaceChildren(field);
    field.select();
  }
}
