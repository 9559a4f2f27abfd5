/**
 * Markdown within a line, as DOM nodes: code, bold, italic, struck out, links to http and https. What it is not:
 * HTML (shown as the text that it is), images (a link to click instead: a picture could carry the text away).
 */

import { el } from "./dom.js";

const DEEPEST = 8; // marks within marks
const LONGEST_LINK = 4000;
const SPECIAL = /[\\`*_~[!h\n]/g;
const BARE_LINK = /^https?:\/\/[^\s<>"'`|\\^{}]+/i;
const ESCAPABLE = "\\`*_{}[]()#+-.!|~<>$";
/** Longest first: `**` is never two `*`. @type {[string, string][]} */
const MARKS = [
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "del"],
  ["*", "em"],
  ["_", "em"],
];

/** @param {string} text @param {number} [depth] @returns {DocumentFragment} */
export function inline(text, depth = 0) {
  return new Inline(text, depth).read();
}

/** One pass over a text. */
class Inline {
  /** @param {string} text @param {number} depth */
  constructor(text, depth) {
    this.text = text;
    this.depth = depth;
    this.at = 0;
    this.plain = "";
    this.out = document.createDocumentFragment();
    /** Marks that no later place closes: looked for once only, which keeps long texts linear. @type {Set<string>} */
    this.hopeless = new Set();
  }

  read() {
    const { text } = this;
    while (this.at < text.length) {
      SPECIAL.lastIndex = this.at;
      const next = SPECIAL.exec(text)?.index ?? text.length;
      this.plain += text.slice(this.at, next);
      this.at = next;
      if (next < text.length && !this.special(text[next])) this.plain += text[this.at++];
    }
    this.flush();
    return this.out;
  }

  /** True if what stands here was more than plain text, and has been read. @param {string} char */
  special(char) {
    if (char === "\n") return this.lineBreak();
    if (char === "\\") return this.escaped();
    if (char === "`") return this.code();
    if (char === "h") return this.bareLink();
    if (char === "[" || char === "!") return this.link(char === "!" ? 1 : 0);
    return this.marked();
  }

  lineBreak() {
    this.plain = this.plain.trimEnd();
    this.add(el("br"), 1);
    return true;
  }

  escaped() {
    const next = this.text[this.at + 1];
    if (!next || !ESCAPABLE.includes(next)) return false;
    this.plain += next;
    this.at += 2;
    return true;
  }

  code() {
    const ticks = /** @type {RegExpExecArray} */ (/^`+/.exec(this.text.slice(this.at, this.at + 40)))[0];
    const end = this.find(ticks, this.at + ticks.length);
    if (end < 0) {
      this.plain += ticks;
      this.at += ticks.length;
      return true;
    }
    const inside = this.text.slice(this.at + ticks.length, end).replace(/^ (.*\S.*) $/s, "$1");
    this.add(el("code", {}, inside), end + ticks.length - this.at);
    return true;
  }

  bareLink() {
    if (/\w/.test(this.text[this.at - 1] ?? "") || !this.text.startsWith("http", this.at)) return false;
    const found = BARE_LINK.exec(this.text.slice(this.at, this.at + LONGEST_LINK))?.[0].replace(
      /[.,;:!?)\]*_~]+$/,
      "",
    );
    const node = found && anchor(found, [found]);
    if (node) this.add(node, found.length);
    return Boolean(node);
  }

  /** `[text](url)`; of an image `![text](url)` only the link is made. @param {number} bang */
  link(bang) {
    if (this.depth >= DEEPEST || this.text[this.at + bang] !== "[") return false;
    const text = this.text.slice(this.at + bang + 1, this.at + LONGEST_LINK);
    const middle = text.indexOf("](");
    const end = middle < 0 ? -1 : text.indexOf(")", middle);
    if (end < 0) return false;
    const url = text
      .slice(middle + 2, end)
      .trim()
      .split(/\s/)[0]; // a title may follow
    const node = anchor(url, [inline(text.slice(0, middle) || url, DEEPEST)]);
    if (node) this.add(node, bang + 1 + end + 1);
    return Boolean(node);
  }

  /** Bold, italic, struck out; an underscore within a word is a letter of it. */
  marked() {
    const { text, at } = this;
    for (const [mark, tag] of MARKS) {
      if (!text.startsWith(mark, at)) continue;
      const start = at + mark.length;
      const inWord = mark[0] === "_" && /\w/.test(text[at - 1] ?? "");
      const end =
        this.depth >= DEEPEST || inWord || /\s/.test(text[start] ?? " ") ? -1 : this.closing(mark, start);
      if (end >= 0) {
        this.add(el(tag, {}, inline(text.slice(start, end), this.depth + 1)), end + mark.length - at);
      } else {
        this.plain += mark;
        this.at = start;
      }
      return true;
    }
    return false;
  }

  /** Where the mark is closed: after a letter, and not as half of a longer mark. @param {string} mark @param {number} start */
  closing(mark, start) {
    for (let end = this.find(mark, start + 1); end >= 0; end = this.find(mark, end + mark.length)) {
      const { text } = this;
      const doubled = mark.length === 1 && (text[end + 1] === mark || text[end - 1] === mark);
      const inWord = mark[0] === "_" && /\w/.test(text[end + mark.length] ?? "");
      if (!doubled && !inWord && !/\s/.test(text[end - 1])) return end;
      if (doubled && text[end + 1] === mark) end += 1;
    }
    this.hopeless.add(mark);
    return -1;
  }

  /** @param {string} what @param {number} from */
  find(what, from) {
    if (this.hopeless.has(what)) return -1;
    const found = this.text.indexOf(what, from);
    if (found < 0) this.hopeless.add(what);
    return found;
  }

  /** @param {Node} node @param {number} length of what it was made from */
  add(node, length) {
    this.flush();
    this.out.append(node);
    this.at += length;
  }

  flush() {
    if (this.plain) this.out.append(this.plain);
    this.plain = "";
  }
}

/** A link to the web, or null for any other address. @param {string} address @param {(Node|string)[]} children */
function anchor(address, children) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return null;
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return null;
  return el(
    "a",
    { href: url.href, target: "_blank", rel: "noopener noreferrer", title: url.href },
    ...children,
  );
}
