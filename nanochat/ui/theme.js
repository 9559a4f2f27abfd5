/** Light, dark, or as the system is: chosen before the first paint, changed by a button. */

import { byId, icon } from "./dom.js";
import { fromJson, toJson } from "./store.js";

const KEY = "nanochat.theme";
const NEXT = /** @type {Object<string, string>} */ ({ auto: "light", light: "dark", dark: "auto" });
const DRAWING = /** @type {Object<string, string>} */ ({ auto: "auto", light: "sun", dark: "moon" });
const NAME = /** @type {Object<string, string>} */ ({ auto: "as the system", light: "light", dark: "dark" });

const chosen = () => fromJson(KEY, (value) => (value in NEXT ? value : "auto"), "auto");

/** @param {string} theme */
function apply(theme) {
  document.documentElement.dataset.theme = theme;
}

/** Let the button go through the three. */
export function wireTheme() {
  const button = byId("theme");
  const draw = (/** @type {string} */ theme) => {
    const label = `Theme: ${NAME[theme]}. Change to ${NAME[NEXT[theme]]}`;
    button.replaceChildren(icon(DRAWING[theme]));
    button.setAttribute("aria-label", label);
    button.title = label;
  };
  button.addEventListener("click", () => {
    const theme = NEXT[document.documentElement.dataset.theme ?? "auto"];
    toJson(KEY, theme);
    apply(theme);
    draw(theme);
  });
  draw(chosen());
}

apply(chosen());
