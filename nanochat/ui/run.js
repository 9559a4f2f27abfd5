/** One reply being written: asks the server, fills the message, counts, and ends by itself, by stop() or by an error. */

import { ApiError, chat } from "./api.js";
import { Window } from "./context.js";
import { extend, textOf } from "./conversation.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./conversation.js").Message} Message */

export class Run {
  /**
   * @param {Conversation} conversation @param {Message} reply empty, the end of the shown branch
   * @param {import("./api.js").Model} model @param {Object<string, any>} sampling
   */
  constructor(conversation, reply, model, sampling) {
    this.conversation = conversation;
    this.reply = reply;
    this.model = model;
    this.sampling = sampling;
    this.control = new AbortController();
    this.window = new Window(conversation, reply, model.context_length ?? 0, sampling.max_tokens ?? null);
    this.firstAt = 0;
    /** Settled when nothing more will be written. @type {Promise<void>} */
    this.ended = new Promise((resolve) => (this.settle = resolve));
    /** @type {import("./conversation.js").Facts} */
    this.facts = reply.facts = { tokens: 0, seconds: 0, from: this.window.from };
  }

  stop() {
    this.control.abort();
  }

  /** @param {(piece: import("./api.js").Piece) => void} onPiece @throws {ApiError} what has come until then is kept */
  async go(onPiece) {
    try {
      await this.ask(onPiece);
    } catch (error) {
      if (!this.control.signal.aborted) {
        this.facts.end = "error";
        throw error;
      }
    } finally {
      if (this.control.signal.aborted) this.facts.end = "stopped";
      this.settle();
    }
  }

  /** @param {(piece: import("./api.js").Piece) => void} onPiece */
  async ask(onPiece) {
    for (;;) {
      this.facts.from = this.window.from;
      const sampling = { ...this.sampling, max_tokens: this.window.cap }; // JSON leaves out what is undefined
      const body = { model: this.model.id, messages: this.window.request(), ...sampling };
      try {
        for await (const piece of chat(body, this.control.signal)) {
          this.take(piece);
          onPiece(piece);
        }
        return;
      } catch (error) {
        if (!(error instanceof ApiError) || error.kind !== "context") throw error;
        this.window.shrink(error);
      }
    }
  }

  /** @param {import("./api.js").Piece} piece */
  take({ text, tool, finish, usage }) {
    const now = performance.now();
    if (text !== undefined || tool) {
      this.firstAt ||= now;
      this.facts.tokens += 1; // about one a piece, until the server has counted
      extend(this.reply, tool ? { tool } : { text });
    }
    if (this.firstAt) this.facts.seconds = (now - this.firstAt) / 1000;
    if (finish) this.facts.end = finish;
    if (usage) {
      this.facts.tokens = usage.completion_tokens;
      this.facts.used = usage.total_tokens;
    }
  }

  /** Tokens of the context that are used by now, about. */
  get used() {
    return (
      this.facts.used ??
      Math.round(
        this.window.size([...this.window.messages.slice(this.window.start), this.reply], this.window.ratio),
      )
    );
  }

  /** Nothing has come, and nothing will. */
  get isEmpty() {
    return !this.reply.parts.some(({ tool }) => tool) && !textOf(this.reply);
  }
}
