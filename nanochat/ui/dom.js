/**
 * Elements are made here and nowhere else: from tag names, properties and text, never from strings of HTML.
 */

import { PATHS } from "./icons.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. Properties: `on` maps events to listeners, `data` maps dataset names to values, `class` is the
 * class; names with a dash and `role` become attributes, others properties. Children that are null are left out.
 * @param {string} tag
 * @param {Object<string, any>} [props]
 * @param {...(Node|string|null|undefined)} children
 * @returns {any}
 */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name === "on")
      for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else if (name === "data") Object.assign(made.dataset, value);
    else if (name === "class") made.className = value;
    else if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, String(value));
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** The element with this id, which ui.html has. @param {string} id @returns {any} */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`ui.html has no #${id}`);
  return found;
}

/** A line drawing of `icons.js`, silent for screen readers. @param {string} name */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const settings = { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" };
  for (const [key, value] of Object.entries(settings)) svg.setAttribute(key, value);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/**
 * A button that shows only an icon; its label is read aloud and shown on hover.
 * @param {string} name @param {string} label @param {(event: Event) => void} onclick @param {string} [extra] class
 */
export function iconButton(name, label, onclick, extra = "") {
  const props = { type: "button", class: `icon-button ${extra}`.trim(), title: label, "aria-label": label };
  return el("button", { ...props, on: { click: onclick } }, icon(name));
}

/** Give ui.html's buttons with `data-icon` their drawings. */
export function drawIcons() {
  for (const button of document.querySelectorAll("[data-icon]")) {
    button.prepend(icon(/** @type {HTMLElement} */ (button).dataset.icon ?? ""));
  }
}

/** Copy to the clipboard, and let the button say so for a moment. @param {string} text @param {HTMLElement} button */
export async function copy(text, button) {
  const label = button.getAttribute("aria-label") ?? "Copy";
  let said = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    said = copyBySelection(text) ? said : "The browser does not let the page copy";
  }
  const drawing = button.querySelector("svg");
  if (said === "Copied") drawing?.replaceWith(icon("check"));
  button.setAttribute("aria-label", said);
  button.title = said;
  setTimeout(() => {
    button.querySelector("svg")?.replaceWith(icon("copy"));
    button.setAttribute("aria-label", label);
    button.title = label;
  }, 1600);
}

/** Where the clipboard is not to be had (http on another host than localhost). @param {string} text */
function copyBySelection(text) {
  const active = /** @type {HTMLElement} */ (document.activeElement);
  const area = el("textarea", { value: text, class: "visually-hidden", "aria-hidden": "true" });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  active?.focus();
  return done;
}

/** Time of day or date, as people write it. @param {number} time */
export function when(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  return today
    ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString([], { day: "numeric", month: "short" });
}
