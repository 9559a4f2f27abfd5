/**
 * Markdown as DOM nodes, also while it is still being written: closed blocks stay as they are, only the last one is
 * made anew, or two where the last one may yet turn out to go on with the one before. Headings, paragraphs, lists,
 * quotes, code with a copy button, tables, rules; no HTML, no images.
 */

import { copy, el, iconButton } from "./dom.js";
import { inline } from "./inline.js";

const DEEPEST = 8;
const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(\s.*)$/s;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,9})([-*+]|\d{1,9}[.)])(\s.*|$)/s;

/** @typedef {{kind: string, lines: string[], start: number}} Block `start`: number of its first line */

/** A text that grows. */
export class Markdown {
  /** @param {HTMLElement} place whose children are ours */
  constructor(place) {
    this.place = place;
    this.open = ""; // source of the blocks that are not closed yet
    /** @type {Node[]} */
    this.openNodes = [];
  }

  /** @param {string} text */
  push(text) {
    this.open += text;
    const lines = this.open.split("\n");
    const found = blocks(lines);
    for (const node of this.openNodes) this.place.removeChild(node);
    const open = found.splice(-openBlocks(found));
    this.openNodes = open.map((block) => render(block, 0));
    this.place.append(...found.map((block) => render(block, 0)), ...this.openNodes);
    if (open.length) this.open = lines.slice(open[0].start).join("\n");
  }
}

/** All of a text at once. @param {string} text @returns {HTMLElement} */
export function markdown(text) {
  const place = el("div", { class: "prose" });
  new Markdown(place).push(text);
  return place;
}

/** How many blocks may still change: a line that begins a list, a rule or a table may be text when it is whole. @param {Block[]} found */
function openBlocks(found) {
  const [before, last] = found.slice(-2);
  return last?.lines.length <= 2 && ["paragraph", "list"].includes(before.kind) ? 2 : 1;
}

/** @param {string[]} lines @returns {Block[]} */
function blocks(lines) {
  const found = [];
  for (let at = 0; at < lines.length;) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const kind = kindOf(lines, at);
    const end = END[kind](lines, at);
    found.push({ kind, lines: lines.slice(at, end), start: at });
    at = end;
  }
  return found;
}

/** @param {string[]} lines @param {number} at */
function kindOf(lines, at) {
  const line = lines[at];
  if (FENCE.test(line)) return "fence";
  if (HEADING.test(line)) return "heading";
  if (RULE.test(line)) return "rule";
  if (QUOTE.test(line)) return "quote";
  if (ITEM.test(line)) return "list";
  if (line.includes("|") && isDelimiters(lines[at + 1] ?? "")) return "table";
  return "paragraph";
}

/** For each kind of block: the number of the line after its last. @type {Object<string, (lines: string[], at: number) => number>} */
const END = {
  fence(lines, at) {
    const mark = /** @type {RegExpExecArray} */ (FENCE.exec(lines[at]))[1];
    let end = at + 1;
    while (end < lines.length && !isFenceEnd(lines[end], mark)) end += 1;
    return Math.min(end + 1, lines.length);
  },
  heading: (_, at) => at + 1,
  rule: (_, at) => at + 1,
  quote: (lines, at) => count(lines, at, (line) => QUOTE.test(line)),
  table: (lines, at) => count(lines, at, (line) => line.includes("|")),
  paragraph: (lines, at) => {
    let end = at + 1;
    while (end < lines.length && lines[end].trim() && kindOf(lines, end) === "paragraph") end += 1;
    return end;
  },
  list(lines, at) {
    let end = at + 1;
    for (let next = end; next < lines.length; next += 1) {
      const line = lines[next];
      if (!line.trim()) continue; // what follows decides whether the list goes on
      const goesOn = ITEM.test(line)
        ? !RULE.test(line)
        : /^\s{2,}/.test(line) || (next === end && kindOf(lines, next) === "paragraph");
      if (!goesOn) break;
      end = next + 1;
    }
    return end;
  },
};

/** @param {string[]} lines @param {number} at @param {(line: string) => boolean} belongs */
function count(lines, at, belongs) {
  let end = at + 1;
  while (end < lines.length && belongs(lines[end])) end += 1;
  return end;
}

/** @param {string} line @param {string} mark */
function isFenceEnd(line, mark) {
  const text = line.trim();
  return text.length >= mark.length && text === mark[0].repeat(text.length);
}

/** @param {Block} block @param {number} depth of lists and quotes around it @returns {Node} */
function render({ kind, lines }, depth) {
  if (kind === "fence") return codeBlock(lines);
  if (kind === "rule") return el("hr");
  if (kind === "table") return table(lines);
  if (kind === "heading") {
    const [, marks, text] = /** @type {RegExpExecArray} */ (HEADING.exec(lines[0]));
    return el(`h${Math.min(marks.length + 2, 6)}`, {}, inline(text.trim())); // the page has h1 and h2 of its own
  }
  if (depth < DEEPEST && kind === "quote")
    return el(
      "blockquote",
      {},
      ...nested(
        lines.map((line) => line.replace(QUOTE, "")),
        depth,
      ),
    );
  if (depth < DEEPEST && kind === "list") return list(lines, depth);
  return el("p", {}, inline(lines.map((line) => line.trimStart()).join("\n")));
}

/** @param {string[]} lines @param {number} depth */
function nested(lines, depth) {
  return blocks(lines).map((block) => render(block, depth + 1));
}

/** @param {string[]} lines */
function codeBlock(lines) {
  const [, mark, info] = /** @type {RegExpExecArray} */ (FENCE.exec(lines[0]));
  const closed = lines.length > 1 && isFenceEnd(lines[lines.length - 1], mark);
  const code = lines.slice(1, closed ? -1 : undefined).join("\n");
  const button = iconButton("copy", "Copy code", (event) =>
    copy(code, /** @type {HTMLElement} */ (event.currentTarget)),
  );
  const head = el("figcaption", {}, el("span", {}, info.trim().split(/\s/)[0] || "text"), button);
  return el("figure", { class: "code" }, head, el("pre", { tabIndex: 0 }, el("code", {}, code)));
}

/** @param {string[]} lines */
function table(lines) {
  const [head, delimiters, ...rows] = lines.map(cells);
  const sides = delimiters.map((cell) =>
    cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : "left",
  );
  /** @param {string} tag @param {string[]} row */
  const line = (tag, row) =>
    el("tr", {}, ...head.map((_, n) => el(tag, { class: sides[n] ?? "left" }, inline(row[n] ?? ""))));
  const body = el("tbody", {}, ...rows.map((row) => line("td", row)));
  return el(
    "div",
    { class: "table", tabIndex: 0, role: "region", "aria-label": "Table" },
    el("table", {}, el("thead", {}, line("th", head)), body),
  );
}

/** The line below a table's head. @param {string} line */
function isDelimiters(line) {
  return line.includes("|") && line.includes("-") && cells(line).every((cell) => /^:?-+:?$/.test(cell));
}

/** @param {string} line @returns {string[]} */
function cells(line) {
  const inside = line
    .trim()
    .replace(/^\|/, "")
    .replace(/(?<!\\)\|$/, "");
  return inside
    .split(/(?<!\\)\|/)
    .slice(0, 50)
    .map((cell) => cell.trim().replaceAll("\\|", "|"));
}

/** @param {string[]} lines @param {number} depth */
function list(lines, depth) {
  const [, indent, bullet] = /** @type {RegExpExecArray} */ (ITEM.exec(lines[0]));
  /** @type {string[][]} */
  const items = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length <= indent.length + 1) items.push([item[3].trimStart()]);
    else
      items[items.length - 1].push(
        line.replace(new RegExp(`^ {0,${indent.length + bullet.length + 1}}`), ""),
      );
  }
  const isTight = !lines.some((line) => !line.trim());
  const made = items.map((item) => {
    const inside = nested(item, depth);
    if (isTight && inside[0] instanceof HTMLParagraphElement) inside.splice(0, 1, ...inside[0].childNodes);
    return el("li", {}, ...inside);
  });
  const number = Number.parseInt(bullet, 10);
  return Number.isNaN(number) ? el("ul", {}, ...made) : el("ol", { start: number }, ...made);
}
