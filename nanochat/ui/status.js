/** The line below the message field: which model, how fast, how much of its context is used. */

import { byId } from "./dom.js";

const NEARLY_FULL = 0.8;

/** @param {import("./api.js").Model|null} model @param {string} [instead] what to say while there is none */
export function showModel(model, instead = "connecting…") {
  byId("model").textContent = model?.id ?? instead;
  const facts = [
    model?.context_length && `reads ${model.context_length.toLocaleString()} tokens`,
    model?.tools?.length && `tools: ${model.tools.join(", ")}`,
  ];
  byId("model").title = facts.filter(Boolean).join("; ");
  if (model?.context_length) {
    byId("welcome-model").textContent =
      `A language model that was trained from scratch. It reads ${model.context_length.toLocaleString()} tokens at most, a few turns of a conversation.`;
  }
}

/** @param {import("./conversation.js").Facts|undefined} facts of the last reply @param {number} used tokens @param {number} context */
export function showUse(facts, used, context) {
  const rate = facts && facts.seconds > 0.05 && facts.tokens > 1 ? (facts.tokens - 1) / facts.seconds : 0;
  byId("speed").textContent = rate ? `${rate.toFixed(rate < 10 ? 1 : 0)} tokens/s` : "";
  byId("context").hidden = !context || !used;
  if (!context) return;
  const bar = byId("context-bar");
  bar.max = context;
  bar.value = Math.min(used, context);
  bar.classList.toggle("full", used > NEARLY_FULL * context);
  byId("context-text").textContent = `${used.toLocaleString()} / ${context.toLocaleString()}`;
  byId("context").title =
    `The model reads ${context.toLocaleString()} tokens; this conversation uses ${used.toLocaleString()} of them. When they are used up, the oldest turns are left out.`;
}
