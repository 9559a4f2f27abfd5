/** The conversation that is shown, what can be done with it and with the saved ones, and the parts of the page. */

import { isCommand, runCommand } from "./commands.js";
import { Composer } from "./composer.js";
import * as tree from "./conversation.js";
import { byId } from "./dom.js";
import { toast } from "./notices.js";
import { Settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { showUse } from "./status.js";
import * as store from "./store.js";
import { Talk } from "./talk.js";
import { Thread } from "./thread.js";
import { chooseFile, readFile, saveAll, saveOne } from "./transfer.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */

export class App {
  constructor() {
    this.talk = new Talk(this);
    this.settings = new Settings((system) => this.setSystem(system));
    this.thread = new Thread({
      edit: (message, text) => this.talk.edit(message, text),
      again: (message) => this.talk.again(message),
      show: (id) => this.show(id),
      fresh: () => this.fresh(),
    });
    this.composer = new Composer({
      send: (text) => this.send(text),
      stop: () => this.stop(),
      editLast: () => this.thread.editLast(),
    });
    this.sidebar = new Sidebar({
      open: (id) => this.open(id),
      rename: (id, title) => this.rename(id, title),
      remove: (id) => this.remove(id),
      save: (id, format) => this.withStored(id, (it) => saveOne(it, format)),
    });
    this.conversation = store.load(store.current() ?? "") ?? tree.create();
    this.draw();
    store.watch((id) => this.changedElsewhere(id));
  }

  /** @param {string} text @returns {boolean} whether it was taken */
  send(text) {
    if (isCommand(text)) {
      const told = runCommand(this, text);
      if (told) toast(told);
      return true;
    }
    if (this.talk.runs.has(this.conversation.id)) return false;
    this.thread.follows = true;
    this.talk.reply(tree.add(this.conversation, "user", tree.answered(this.conversation), text));
    return true;
  }

  stop() {
    return this.talk.stop(this.conversation);
  }

  /** Show the branch through a message. @param {string} id */
  async show(id) {
    const { conversation } = this;
    await this.stop();
    tree.show(conversation, id);
    this.keep(conversation);
    this.draw();
  }

  /** A new conversation; an empty one is used again. */
  fresh() {
    if (this.conversation.leaf) this.change(tree.create());
    this.sidebar.chosen();
    this.composer.focus();
  }

  /** @param {string} id */
  open(id) {
    this.withStored(id, (it) => this.change(it));
    this.sidebar.chosen();
  }

  /** @param {Conversation} conversation */
  change(conversation) {
    this.conversation = conversation;
    store.setCurrent(conversation.id);
    this.draw();
    this.thread.end();
  }

  /** The conversation as it is in this tab, or as it is stored. @param {string} id @param {(it: Conversation) => void} then */
  withStored(id, then) {
    const here = id === this.conversation.id ? this.conversation : this.talk.runs.get(id)?.conversation;
    const found = here ?? store.load(id);
    if (found) then(found);
  }

  /** @param {string} id @param {string} title */
  rename(id, title) {
    this.withStored(id, (it) => {
      it.title = title;
      this.keep(it);
    });
    this.draw();
  }

  /** @param {string} id */
  remove(id) {
    this.withStored(id, async (it) => {
      await this.talk.stop(it);
      store.forget(id);
      if (id === this.conversation.id) this.change(tree.create());
      else this.drawSidebar();
      toast(`“${it.title || "New conversation"}” is deleted.`, () => (this.keep(it), this.change(it)));
    });
  }

  async clear() {
    const { conversation } = this;
    await this.stop();
    const { messages, leaf } = conversation;
    if (!leaf) return;
    const put = (/** @type {Partial<Conversation>} */ content) => {
      Object.assign(conversation, content);
      this.keep(conversation);
      this.draw();
    };
    put({ messages: {}, leaf: null });
    toast("The conversation is empty.", () => put({ messages, leaf }));
  }

  /** @param {string} text @returns {string} what to tell */
  setSystem(text) {
    this.conversation.system = text;
    if (this.conversation.leaf) this.keep(this.conversation);
    return text ? "The system prompt of this conversation is set." : "There is no system prompt.";
  }

  /** @param {string} format */
  save(format) {
    if (format && format !== "md" && format !== "json")
      return `/save md or /save json; ${format} is neither.`;
    saveOne(this.conversation, format === "json" ? "json" : "md");
  }

  saveAll() {
    saveAll(store.all());
  }

  async import() {
    const file = await chooseFile();
    if (!file) return;
    try {
      const found = await readFile(file);
      found.forEach((it) => this.keep(it));
      if (found.length) this.change(found[0]);
      toast(`${found.length} ${found.length === 1 ? "conversation" : "conversations"} imported.`);
    } catch (error) {
      toast(/** @type {Error} */ (error).message);
    }
  }

  help() {
    byId("help").showModal();
  }

  /** @param {Conversation} conversation */
  keep(conversation) {
    store.setCurrent(this.conversation.id);
    if (!store.save(conversation))
      toast("The browser has no room left for conversations: export some, and delete them.");
  }

  /** Another tab has changed a conversation. @param {string} id */
  changedElsewhere(id) {
    const stored = id === this.conversation.id && !this.talk.runs.has(id) ? store.load(id) : null;
    if (!stored) return this.drawSidebar();
    this.conversation = stored;
    this.thread.shown = "";
    this.draw();
  }

  draw() {
    const { conversation, talk } = this;
    const run = talk.runs.get(conversation.id);
    byId("welcome").hidden = conversation.leaf !== null;
    byId("title").textContent = conversation.title || "New conversation";
    document.title = conversation.title ? `${conversation.title} · nanochat` : "nanochat";
    this.thread.draw(conversation);
    if (run) this.thread.view(conversation, run.reply.id).running(true);
    this.composer.running(Boolean(run));
    const facts = tree
      .branch(conversation)
      .map((message) => message.facts)
      .filter(Boolean)
      .pop();
    showUse(facts, run?.used ?? facts?.used ?? 0, talk.context);
    this.drawSidebar();
  }

  drawSidebar() {
    this.sidebar.draw(store.all(), this.conversation.id, new Set(this.talk.runs.keys()));
  }
}
