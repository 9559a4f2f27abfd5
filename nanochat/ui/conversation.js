/**
 * A conversation as data. Messages form a tree: editing one, or asking again, adds a branch beside it, and nothing
 * is ever overwritten. `leaf` is the end of the branch that is shown. What it is not: storage (store.js) or display.
 */

/**
 * @typedef {{name: string, input: string, output: string}} Tool
 * @typedef {{text?: string, tool?: Tool}} Part
 * @typedef {{tokens: number, seconds: number, used?: number, from?: string, end?: string}} Facts
 *   of a reply: tokens and seconds of writing, tokens used of the context, id of the first message that
 *   the model read, why it ended (stop, length, stopped by the user, error)
 * @typedef {{id: string, parent: string|null, role: "user"|"assistant", parts: Part[], facts?: Facts}} Message
 * @typedef {{id: string, title: string, system: string, created: number, updated: number, leaf: string|null, messages: Object<string, Message>}} Conversation
 */

const LONGEST_TITLE = 120;

/** @returns {string} */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}

/** @param {string} [system] @returns {Conversation} */
export function create(system = "") {
  const now = Date.now();
  return { id: newId(), title: "", system, created: now, updated: now, leaf: null, messages: {} };
}

/** Add a message below `parent` and show its branch. @param {Conversation} it @param {"user"|"assistant"} role @param {string|null} parent @param {string} [text] */
export function add(it, role, parent, text = "") {
  /** @type {Message} */
  const message = { id: newId(), parent, role, parts: text ? [{ text }] : [] };
  it.messages[message.id] = message;
  it.leaf = message.id;
  it.updated = Date.now();
  if (!it.title && role === "user") it.title = titleOf(text);
  return message;
}

/** Take a message without children away, as if it had not been. @param {Conversation} it @param {Message} message */
export function remove(it, message) {
  delete it.messages[message.id];
  if (it.leaf === message.id) it.leaf = message.parent;
}

/** What a new question follows: the last reply. A question that got none becomes another version of it. @param {Conversation} it */
export function answered(it) {
  const last = it.messages[it.leaf ?? ""];
  return last?.role === "user" ? last.parent : it.leaf;
}

/** The messages of the branch that is shown, oldest first. @param {Conversation} it @returns {Message[]} */
export function branch(it) {
  const found = [];
  for (let id = it.leaf; id; id = it.messages[id].parent) found.push(it.messages[id]);
  return found.reverse();
}

/** The versions of a message, itself included, oldest first. @param {Conversation} it @param {Message} message */
export function versions(it, message) {
  return Object.values(it.messages).filter(
    (other) => other.parent === message.parent && other.role === message.role,
  );
}

/** Show the branch that goes through a message, down to its newest end; nothing if it is gone. @param {Conversation} it @param {string} id */
export function show(it, id) {
  if (!it.messages[id]) return;
  it.leaf = id;
  const all = Object.values(it.messages);
  for (let child; (child = all.filter((message) => message.parent === it.leaf).pop());) it.leaf = child.id;
}

/** What a message says, without its tool calls. @param {Message} message */
export function textOf(message) {
  return message.parts.map((part) => part.text ?? "").join("");
}

/** Append a piece of a reply. @param {Message} message @param {Part} piece */
export function extend(message, piece) {
  const last = message.parts[message.parts.length - 1];
  if (piece.text !== undefined && last?.text !== undefined) last.text += piece.text;
  else message.parts.push({ ...piece });
}

/** First line of a text, shortened at a word. @param {string} text */
export function titleOf(text) {
  const line = text.trim().split("\n")[0].trim();
  if (line.length <= 48) return line;
  return `${line.slice(0, 48).replace(/\s+\S*$/, "")}…`;
}

/** The branch that is shown, as Markdown. @param {Conversation} it */
export function toMarkdown(it) {
  const said = branch(it).map((message) => {
    const tools = message.parts
      .filter((part) => part.tool)
      .map(({ tool }) => fenced(`${tool?.input}\n= ${tool?.output}`, tool?.name ?? ""));
    return `## ${message.role === "user" ? "You" : "nanochat"}\n\n${[...tools, textOf(message)].join("\n\n")}`;
  });
  const system = it.system ? [`> ${it.system.replaceAll("\n", "\n> ")}`] : [];
  return `${[`# ${it.title || "Conversation"}`, ...system, ...said].join("\n\n")}\n`;
}

/** @param {string} text @param {string} language */
function fenced(text, language) {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((run) => run.length));
  const mark = "`".repeat(longest + 1);
  return `${mark}${language}\n${text}\n${mark}`;
}

/**
 * A conversation from data of unknown origin: every field is checked and copied, and what is not ours is left out.
 * @param {any} data @returns {Conversation} @throws {Error} saying what is wrong
 */
export function read(data) {
  if (typeof data !== "object" || !data || typeof data.messages !== "object" || !data.messages)
    throw new Error("it has no messages");
  /** @type {Map<string, Message>} */
  const messages = new Map();
  for (const [id, raw] of Object.entries(data.messages)) messages.set(id, readMessage(id, raw));
  for (const { parent } of messages.values()) {
    if (parent !== null && !messages.has(parent)) throw new Error("a message follows one that is missing");
  }
  const leaf = data.leaf ?? null;
  if (leaf !== null && !messages.has(leaf)) throw new Error("its last message is missing");
  for (const start of messages.keys()) checkRooted(messages, start);
  const time = (/** @type {any} */ value) => (Number.isFinite(value) ? value : Date.now());
  return {
    id: readId(data.id),
    title: readText(data.title ?? "").slice(0, LONGEST_TITLE),
    system: readText(data.system ?? ""),
    created: time(data.created),
    updated: time(data.updated),
    leaf,
    messages: Object.fromEntries(messages),
  };
}

/** @param {string} id @param {any} raw @returns {Message} */
function readMessage(id, raw) {
  if (raw?.role !== "user" && raw?.role !== "assistant")
    throw new Error(`a message's role is ${JSON.stringify(raw?.role)}, not user or assistant`);
  if (!Array.isArray(raw.parts)) throw new Error("a message has no parts");
  const parts = raw.parts.map((/** @type {any} */ part) => {
    if (!part?.tool) return { text: readText(part?.text) };
    const { name, input, output } = part.tool;
    return { tool: { name: readText(name), input: readText(input), output: readText(output) } };
  });
  const parent = raw.parent === null ? null : readId(raw.parent);
  const facts = raw.facts ? { facts: readFacts(raw.facts) } : {};
  return { id: readId(id), parent, role: raw.role, parts, ...facts };
}

/** @param {any} raw @returns {Facts} */
function readFacts(raw) {
  const number = (/** @type {any} */ value) => (Number.isFinite(value) ? Number(value) : 0);
  return {
    tokens: number(raw.tokens),
    seconds: number(raw.seconds),
    used: number(raw.used),
    from: typeof raw.from === "string" ? raw.from : undefined,
    end: typeof raw.end === "string" ? raw.end : undefined,
  };
}

/** @param {any} value */
function readText(value) {
  if (typeof value !== "string") throw new Error("a text is missing");
  return value;
}

/** @param {any} value */
function readId(value) {
  if (typeof value !== "string" || !/^[0-9a-f]{16}$/.test(value))
    throw new Error(`${JSON.stringify(value)} is no id`);
  return value;
}

/** @param {Map<string, Message>} messages @param {string} start */
function checkRooted(messages, start) {
  let steps = 0;
  for (let id = /** @type {string|null} */ (start); id; id = messages.get(id)?.parent ?? null) {
    if (++steps > messages.size) throw new Error("its messages follow each other in a circle");
  }
}
