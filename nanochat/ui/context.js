/**
 * What of a conversation the model is asked to read. Contexts are small and fill in a few turns: whole turns go, the
 * oldest first; the system prompt stays. How many tokens a text has is estimated from the last reply's count, and
 * corrected by the server's if that was wrong.
 */

import { ApiError } from "./api.js";
import { branch, textOf } from "./conversation.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./conversation.js").Message} Message */

const TOKENS_PER_LETTER = 0.3; // before the first count; the template's tokens are within it
const TOKENS_PER_MESSAGE = 2;

export class Window {
  /**
   * @param {Conversation} conversation @param {Message} reply the reply to be, the end of the branch
   * @param {number} context tokens that the model can read, 0 if unknown @param {number|null} wanted tokens of the reply at most
   */
  constructor(conversation, reply, context, wanted) {
    this.system = conversation.system;
    this.messages = branch(conversation).filter(({ id }) => id !== reply.id);
    this.context = context;
    this.wanted = wanted;
    this.ratio = TOKENS_PER_LETTER;
    this.start = 0;
    const before = this.messages.filter(({ facts }) => facts?.used).pop();
    if (before) this.learn(before);
    this.fit();
  }

  /** Tokens to ask for at most: those that are wanted, or what the prompt leaves of them; undefined = no limit. */
  get cap() {
    if (this.wanted === null || !this.context) return this.wanted ?? undefined;
    return Math.max(1, Math.min(this.wanted, Math.floor(this.context - this.estimate())));
  }

  /** Tokens of what is to be read, about. */
  estimate() {
    return this.size(this.messages.slice(this.start), this.ratio);
  }

  /** Tokens kept for the reply. */
  get room() {
    return Math.min(this.wanted ?? Number.POSITIVE_INFINITY, Math.floor(this.context / 4));
  }

  /** Id of the first message that is read. */
  get from() {
    return this.messages[this.start]?.id;
  }

  /** @param {Message} reply the last one on this branch that was counted */
  learn(reply) {
    const end = this.messages.indexOf(reply) + 1;
    this.start = Math.max(
      0,
      this.messages.findIndex(({ id }) => id === reply.facts?.from),
    );
    const read = this.messages.slice(this.start, end);
    this.ratio = Math.max(0.02, (reply.facts?.used ?? 0) / this.size(read, 1));
  }

  /** @param {Message[]} messages @param {number} ratio */
  size(messages, ratio) {
    const letters = messages.reduce(
      (sum, message) => sum + textOf(message).length + TOKENS_PER_MESSAGE / TOKENS_PER_LETTER,
      this.system.length,
    );
    return letters * ratio;
  }

  /** Drop turns until prompt and reply fit, by our estimate. */
  fit() {
    if (!this.context) return;
    while (this.estimate() + this.room > this.context && this.drop());
  }

  /** Drop the oldest turn; false if only the newest message is left. */
  drop() {
    const next = this.messages.findIndex(({ role }, n) => n > this.start && role === "user");
    if (next < 0) return false;
    this.start = next;
    return true;
  }

  /** The server found it too long: drop what must go, or ask for a shorter reply. @param {ApiError} error */
  shrink(error) {
    const { cap } = this;
    this.context = error.context_length || this.context;
    if (error.prompt_tokens) this.ratio *= Math.max(error.prompt_tokens / this.estimate(), 1e-3);
    const left = this.context - error.prompt_tokens;
    const isShorter = this.cap !== cap; // now that the server has counted
    if (left >= this.room && isShorter) return;
    if (this.drop()) {
      this.fit();
    } else if (left <= 0 || !isShorter) {
      const what = this.system ? "Your message and the system prompt have" : "Your message has";
      throw new ApiError(
        "context",
        `${what} ${error.prompt_tokens} tokens, and the model reads ${this.context} at most. Edit the message to shorten it.`,
      );
    }
  }

  /** @returns {import("./api.js").ApiMessage[]} */
  request() {
    const said = this.messages
      .slice(this.start)
      .map((message) => ({ role: message.role, content: textOf(message), ...toolUses(message) }));
    return this.system ? [{ role: "system", content: this.system }, ...said] : said;
  }
}

/** The model's tool calls, with the number of letters before each: it reads its replies as it wrote them. @param {Message} message */
function toolUses(message) {
  const found = [];
  let at = 0;
  for (const { text, tool } of message.parts) {
    if (tool) found.push({ ...tool, output: tool.output || null, at });
    at += [...(text ?? "")].length; // Python counts code points
  }
  return found.length ? { tool_uses: found } : {};
}
