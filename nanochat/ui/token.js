/** The question for the server's token, when it answers 401. */

import { keepToken } from "./api.js";
import { byId } from "./dom.js";

/** @param {boolean} isWrong the one that we have was refused @returns {Promise<boolean>} false if the user does not want to */
export function askForToken(isWrong) {
  const dialog = byId("token");
  const field = byId("token-input");
  if (isWrong)
    byId("token-why").textContent =
      "That token is not the server's. It is in the file that the server named when it started.";
  return new Promise((resolve) => {
    const done = (/** @type {boolean} */ given) => {
      const token = field.value.trim();
      field.value = "";
      if (given && !/^[\x21-\x7e]+$/.test(token)) {
        byId("token-why").textContent =
          "That holds a character that no token has, perhaps one that cannot be seen. Copy it anew.";
        return;
      }
      if (given) keepToken(token);
      dialog.close();
      resolve(given);
    };
    dialog.querySelector("form").onsubmit = (/** @type {Event} */ event) => (
      event.preventDefault(),
      done(true)
    );
    dialog.oncancel = () => done(false);
    byId("token-cancel").onclick = () => done(false);
    dialog.showModal();
    field.focus();
  });
}
