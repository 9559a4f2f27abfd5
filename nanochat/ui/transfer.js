/** Conversations as files: out as JSON or Markdown, in as JSON. */

import { newId, read, toMarkdown } from "./conversation.js";
import { el } from "./dom.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */

const FORMAT = "nanochat-conversations";
const LARGEST_MB = 20;

/** @param {Conversation} conversation @param {"md"|"json"} format */
export function saveOne(conversation, format) {
  const name =
    (conversation.title || "conversation")
      .toLowerCase()
      .replace(/[^\p{L}\p{N}]+/gu, "-")
      .replace(/^-+|-+$/g, "")
      .slice(0, 60) || "conversation";
  if (format === "md") download(`${name}.md`, "text/markdown", toMarkdown(conversation));
  else saveAll([conversation], name);
}

/** @param {Conversation[]} conversations @param {string} [name] */
export function saveAll(conversations, name = "nanochat-conversations") {
  download(
    `${name}.json`,
    "application/json",
    `${JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1)}\n`,
  );
}

/** @param {string} name @param {string} type @param {string} text */
function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Let the user choose a file. @returns {Promise<File|null>} */
export function chooseFile() {
  return new Promise((resolve) => {
    const input = el("input", {
      type: "file",
      accept: ".json,application/json",
      id: "import-file",
      class: "visually-hidden",
      tabIndex: -1,
      "aria-hidden": "true",
    });
    const done = (/** @type {File|null} */ file) => (input.remove(), resolve(file));
    input.addEventListener("change", () => done(input.files[0] ?? null));
    input.addEventListener("cancel", () => done(null));
    document.body.append(input);
    input.click();
  });
}

/** The conversations in a file, each with a new id: an import never overwrites. @param {File} file @returns {Promise<Conversation[]>} */
export async function readFile(file) {
  if (file.size > LARGEST_MB * 1e6) throw new Error(`${file.name} has more than ${LARGEST_MB} MB.`);
  let data;
  try {
    data = JSON.parse(await file.text());
  } catch {
    throw new Error(`${file.name} is not JSON.`);
  }
  if (data?.format !== FORMAT || !Array.isArray(data.conversations))
    throw new Error(`${file.name} was not exported by this page: "format" is not "${FORMAT}".`);
  return data.conversations.map((/** @type {any} */ raw, /** @type {number} */ n) => {
    try {
      return { ...read(raw), id: newId() };
    } catch (error) {
      throw new Error(`${file.name}, conversation ${n + 1}: ${/** @type {Error} */ (error).message}.`);
    }
  });
}
