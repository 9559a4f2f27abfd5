/** Starts the page: examples, buttons, keys, help; then asks the server what model it has. */

import { App } from "./app.js";
import { COMMANDS } from "./commands.js";
import { byId, drawIcons, el } from "./dom.js";
import { wireTheme } from "./theme.js";

const EXAMPLES = [
  ["Who are you?", "A first acquaintance"],
  ["What is 715 divided by 11?", "It has a calculator"],
  ["How do you spell creamy?", "Letter by letter"],
  ["How did you learn?", "About its training"],
];

const KEYS = [
  ["Enter", "send; on a touch screen, a new line"],
  ["Shift+Enter", "a new line"],
  ["Esc", "stop the reply; close what is open"],
  ["↑", "in an empty field: edit the last message"],
  ["/", "go to the message field; there, the commands"],
  ["Ctrl+Alt+N", "a new conversation"],
];

/** @param {App} app */
function wireButtons(app) {
  byId("new").addEventListener("click", () => app.fresh());
  byId("import").addEventListener("click", () => app.import());
  byId("export").addEventListener("click", () => app.saveAll());
  byId("help-open").addEventListener("click", () => app.help());
  byId("settings-open").addEventListener("click", () => app.settings.open(app.conversation.system));
  for (const dialog of document.querySelectorAll("dialog.sheet")) {
    // a click on the backdrop is one on the dialog itself
    dialog.addEventListener(
      "click",
      (event) => event.target === dialog && /** @type {HTMLDialogElement} */ (dialog).close(),
    );
  }
}

/** @param {App} app */
function wireKeys(app) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
    const isTyping = /** @type {HTMLElement} */ (event.target).matches?.("input, textarea");
    if (event.key === "Escape") {
      app.stop();
    } else if (event.key === "/" && !isTyping) {
      event.preventDefault();
      app.composer.set("/");
      app.composer.focus();
      app.composer.completion.update();
    } else if (event.code === "KeyN" && event.altKey && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      app.fresh();
    }
  });
}

/** @param {App} app */
function fill(app) {
  const cards = EXAMPLES.map(([question, about]) =>
    el(
      "li",
      {},
      el(
        "button",
        { type: "button", on: { click: () => app.send(question) } },
        el("strong", {}, question),
        el("span", {}, about),
      ),
    ),
  );
  byId("examples").replaceChildren(...cards);
  byId("help-commands").replaceChildren(
    ...COMMANDS.flatMap(({ name, usage, about }) => [
      el("dt", {}, el("code", {}, name), usage && el("i", {}, ` ${usage}`)),
      el("dd", {}, about),
    ]),
  );
  byId("help-keys").replaceChildren(
    ...KEYS.flatMap(([key, about]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, about)]),
  );
}

drawIcons();
wireTheme();
const app = new App();
wireButtons(app);
wireKeys(app);
fill(app);
if (matchMedia("(pointer: fine)").matches) app.composer.focus();
app.talk.attempt(() => app.talk.connect());
