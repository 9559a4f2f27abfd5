/**
 * Conversations, settings and theme in this browser's localStorage: one key a conversation, so that two tabs do not
 * overwrite each other's. A value that cannot be read is left alone and passed over.
 */

import { read } from "./conversation.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */

const PREFIX = "nanochat.conversation.";
const CURRENT = "nanochat.current";

/** @returns {Conversation[]} newest first */
export function all() {
  const found = [];
  for (let n = 0; n < localStorage.length; n += 1) {
    const key = localStorage.key(n) ?? "";
    const conversation = key.startsWith(PREFIX) ? load(key.slice(PREFIX.length)) : null;
    if (conversation) found.push(conversation);
  }
  return found.sort((a, b) => b.updated - a.updated);
}

/** @param {string} id @returns {Conversation|null} */
export function load(id) {
  return fromJson(PREFIX + id, (data) => read({ ...data, id }), null);
}

/** False if the browser has no room left. @param {Conversation} conversation */
export function save(conversation) {
  return toJson(PREFIX + conversation.id, conversation);
}

/** @param {string} id */
export function forget(id) {
  localStorage.removeItem(PREFIX + id);
}

/** Call back when another tab changes a conversation. @param {(id: string) => void} callback */
export function watch(callback) {
  addEventListener("storage", ({ key }) => {
    if (key === null || key.startsWith(PREFIX)) callback(key?.slice(PREFIX.length) ?? "");
  });
}

/** The conversation that this tab shows: known to the tab, and to the browser for the next one. @returns {string|null} */
export function current() {
  return sessionStorage.getItem(CURRENT) ?? localStorage.getItem(CURRENT);
}

/** @param {string} id */
export function setCurrent(id) {
  sessionStorage.setItem(CURRENT, id);
  toJson(CURRENT, id, String);
}

/** @template T @param {string} key @param {(data: any) => T} check may throw @param {T} otherwise @returns {T} */
export function fromJson(key, check, otherwise) {
  try {
    const text = localStorage.getItem(key);
    return text === null ? otherwise : check(JSON.parse(text));
  } catch {
    return otherwise;
  }
}

/** @param {string} key @param {any} value @param {(value: any) => string} [write] */
export function toJson(key, value, write = JSON.stringify) {
  try {
    localStorage.setItem(key, write(value));
    return true;
  } catch {
    return false;
  }
}
