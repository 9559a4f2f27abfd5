/** Short messages that pass by, with an undo; and what to show of an error, with a countdown and a retry. */

import { byId, el, icon } from "./dom.js";

const SHOWN_MS = 9000;

/** @typedef {import("./api.js").ApiError} ApiError */

/** @param {string} text @param {() => void} [undo] */
export function toast(text, undo) {
  const place = byId("toasts");
  const close = () => {
    clearTimeout(timer);
    shown.remove();
  };
  const button =
    undo && el("button", { type: "button", class: "quiet", on: { click: () => (close(), undo()) } }, "Undo");
  const shown = el("div", { class: "toast" }, el("span", {}, text), button);
  let timer = setTimeout(close, SHOWN_MS);
  shown.addEventListener("pointerenter", () => clearTimeout(timer));
  shown.addEventListener("focusin", () => clearTimeout(timer));
  shown.addEventListener("pointerleave", () => (timer = setTimeout(close, SHOWN_MS)));
  while (place.childElementCount > 1) place.firstElementChild.remove();
  place.append(shown);
}

const HEADLINES = /** @type {Object<string, string>} */ ({
  token: "A token is needed",
  busy: "The server is busy",
  loading: "The model is loading",
  context: "This does not fit",
  network: "Connection lost",
  request: "The server refused this",
  server: "Something went wrong on the server",
});

/**
 * An error as a panel. If the server said when to come back, it counts down and retries by itself.
 * @param {ApiError} error @param {() => void} [retry]
 * @returns {HTMLElement}
 */
export function errorPanel(error, retry) {
  const left = el("span", { class: "left" });
  const button =
    retry && el("button", { type: "button", class: "primary", on: { click: retry } }, "Try again");
  const words = el(
    "div",
    { class: "words" },
    el("strong", {}, HEADLINES[error.kind] ?? "Something went wrong"),
    el("p", {}, error.message),
    left,
  );
  const panel = el("div", { class: `notice ${error.kind}`, role: "alert" }, icon("warn"), words, button);
  if (retry && error.wait_s) countdown(panel, left, error.wait_s, retry);
  return panel;
}

/** Until the panel is taken away. @param {HTMLElement} panel @param {HTMLElement} left @param {number} wait_s @param {() => void} retry */
function countdown(panel, left, wait_s, retry) {
  const until = Date.now() + wait_s * 1000;
  const tick = () => {
    const seconds = Math.ceil((until - Date.now()) / 1000);
    if (seconds > 0) left.textContent = `Next try in ${seconds} s`;
    if (seconds > 0 || !panel.isConnected) return;
    clearInterval(timer);
    retry();
  };
  const timer = setInterval(() => (panel.isConnected ? tick() : clearInterval(timer)), 250);
  tick();
}
