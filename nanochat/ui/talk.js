/**
 * Asking and answering: the model, the replies being written, stop, edit, ask again, and what to do about errors.
 * A reply goes on being written when another conversation is opened.
 */

import { ApiError, firstModel, hasToken } from "./api.js";
import * as tree from "./conversation.js";
import { errorPanel, toast } from "./notices.js";
import { Run } from "./run.js";
import { Speech } from "./speech.js";
import { showModel, showUse } from "./status.js";
import { askForToken } from "./token.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./conversation.js").Message} Message */

const SAVE_EVERY_MS = 1000;

export class Talk {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    /** @type {import("./api.js").Model|null} */
    this.model = null;
    /** By conversation. @type {Map<string, Run>} */
    this.runs = new Map();
    this.speech = new Speech();
    this.frame = 0;
    this.savedAt = 0;
  }

  /** Tokens that the model reads; 0 if unknown. */
  get context() {
    return this.model?.context_length ?? 0;
  }

  /** Do something with the server; show what goes wrong, with a way to try again. @param {() => Promise<void>} action */
  async attempt(action) {
    const { conversation, thread } = this.app;
    thread.notice(null);
    try {
      await action();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (!this.model) showModel(null, error.kind === "loading" ? "loading…" : "not connected");
      const again = () => this.attempt(action);
      if (error.kind === "token" && (await askForToken(hasToken()))) return again();
      if (conversation === this.app.conversation)
        thread.notice(errorPanel(error, error.kind === "context" ? undefined : again));
    }
  }

  /** Ask what model there is. */
  async connect() {
    if (this.model) return;
    this.model = await firstModel();
    showModel(this.model);
    if (this.context) this.app.settings.limit(this.context);
    this.app.draw();
  }

  /** Let the model answer a message of the user. @param {Message} question */
  reply(question) {
    const { conversation } = this.app;
    this.app.keep(conversation);
    this.app.draw();
    return this.attempt(async () => {
      await this.connect();
      const message = tree.add(conversation, "assistant", question.id);
      const run = new Run(
        conversation,
        message,
        /** @type {any} */ (this.model),
        this.app.settings.request(),
      );
      this.runs.set(conversation.id, run);
      this.app.draw();
      try {
        await run.go((piece) => this.arrived(run, piece));
      } finally {
        this.finished(run);
      }
    });
  }

  /** @param {Run} run @param {import("./api.js").Piece} piece */
  arrived(run, piece) {
    if (run.conversation === this.app.conversation) {
      if (piece.text) this.speech.push(piece.text);
      this.frame ||= requestAnimationFrame(() => this.drawReply(run));
    }
    if (Date.now() - this.savedAt < SAVE_EVERY_MS) return;
    this.savedAt = Date.now();
    this.app.keep(run.conversation);
  }

  /** @param {Run} run */
  drawReply(run) {
    this.frame = 0;
    if (run.conversation !== this.app.conversation) return;
    this.app.thread.view(run.conversation, run.reply.id).update();
    showUse(run.facts, run.used, this.context);
    this.app.thread.follow();
  }

  /** @param {Run} run */
  finished(run) {
    const { conversation, reply } = run;
    this.runs.delete(conversation.id);
    if (run.isEmpty && (run.facts.end === "error" || run.facts.end === "stopped")) tree.remove(conversation, reply);
    conversation.updated = Date.now();
    this.app.keep(conversation);
    if (conversation === this.app.conversation) {
      this.app.thread.views.get(reply.id)?.running(false);
      this.speech.end(run.facts.end === "stopped" ? "Stopped." : "");
    }
    this.app.draw();
  }

  /** @param {Conversation} conversation @returns {Promise<void>} when nothing is being written in it any more */
  async stop(conversation) {
    const run = this.runs.get(conversation.id);
    run?.stop();
    await run?.ended;
  }

  /** Send another version of a message; the earlier one stays, with all that followed it. @param {Message} message @param {string} text */
  async edit(message, text) {
    const { conversation } = this.app;
    await this.stop(conversation);
    const before = conversation.leaf; // a reply that had not begun is gone by now
    if (conversation !== this.app.conversation) return;
    toast(
      "Sent as a new version. The earlier one is kept.",
      () => conversation === this.app.conversation && this.app.show(before ?? message.id),
    );
    await this.reply(tree.add(conversation, "user", message.parent, text));
  }

  /** Another answer to the same question. @param {Message} message the answer, or a question that got none */
  async again(message) {
    const { conversation } = this.app;
    await this.stop(conversation);
    const question = message.role === "user" ? message : conversation.messages[message.parent ?? ""];
    if (question && conversation === this.app.conversation) await this.reply(question);
  }
}
