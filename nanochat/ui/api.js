/**
 * The server's public API as the page uses it: list of models, one streamed chat completion, readable errors.
 * The token lives in this tab's sessionStorage and nowhere else.
 */

import { events } from "./sse.js";

const TOKEN = "nanochat.token";

/**
 * @typedef {{role: string, content: string}} ApiMessage
 * @typedef {{prompt_tokens: number, completion_tokens: number, total_tokens: number}} Usage
 * @typedef {{text?: string, tool?: {name: string, input: string, output: string}, finish?: string, usage?: Usage}} Piece
 * @typedef {{id: string, context_length?: number, max_tokens_default?: number, tools?: string[]}} Model
 */

/** What went wrong, for people: `kind` is token, busy, loading, context, network, request or server. */
export class ApiError extends Error {
  /** @param {string} kind @param {string} message @param {{status?: number, wait_s?: number, prompt_tokens?: number, context_length?: number}} [facts] */
  constructor(kind, message, facts = {}) {
    super(message);
    this.kind = kind;
    this.status = facts.status ?? 0;
    this.wait_s = facts.wait_s ?? 0;
    this.prompt_tokens = facts.prompt_tokens ?? 0;
    this.context_length = facts.context_length ?? 0;
  }
}

/** @param {string} token */
export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export function hasToken() {
  return sessionStorage.getItem(TOKEN) !== null;
}

/** @returns {Promise<Model>} the first model that the server lists */
export async function firstModel() {
  const response = await request("/v1/models", {});
  const list = await json(response);
  if (!list?.data?.length) throw new ApiError("server", "The server lists no model.");
  return list.data[0];
}

/**
 * One reply, piece by piece.
 * @param {Object<string, any>} body everything but `stream` @param {AbortSignal} signal
 * @returns {AsyncGenerator<Piece>}
 */
export async function* chat(body, signal) {
  const sent = JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } });
  const headers = { "Content-Type": "application/json" };
  const response = await request("/v1/chat/completions", { method: "POST", headers, body: sent, signal });
  if (!response.body) throw new ApiError("server", "The server's answer has no content.");
  let ended = false;
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") {
        ended = true;
        break;
      }
      yield* pieces(data);
    }
  } catch (error) {
    throw asNetwork(error);
  }
  if (!ended && !signal.aborted)
    throw new ApiError("network", "The connection broke off in the middle of the reply.");
}

/** @param {string} data one event @returns {Generator<Piece>} */
function* pieces(data) {
  let chunk;
  try {
    chunk = JSON.parse(data);
  } catch {
    throw new ApiError("server", "The server sent something that is no reply.");
  }
  if (chunk.error)
    throw new ApiError("server", String(chunk.error.message ?? "The server could not finish the reply."));
  const choice = chunk.choices?.[0];
  if (choice?.delta?.content) yield { text: String(choice.delta.content) };
  if (choice?.delta?.tool) yield { tool: toolOf(choice.delta.tool) };
  if (choice?.finish_reason) yield { finish: choice.finish_reason };
  if (chunk.usage) yield { usage: chunk.usage };
}

/** @param {any} tool a call; one that failed has no output */
function toolOf(tool) {
  return {
    name: String(tool.name ?? "tool"),
    input: String(tool.input ?? ""),
    output: String(tool.output ?? ""),
  };
}

/** @param {string} path @param {RequestInit} options */
async function request(path, options) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    throw asNetwork(error);
  }
  if (!response.ok) throw await asError(response);
  return response;
}

/** @param {Response} response */
async function json(response) {
  try {
    return await response.json();
  } catch {
    throw new ApiError("server", "The server's answer is not JSON.");
  }
}

/** @param {any} error an abort stays one, for the caller knows of it; anything else is the network's */
function asNetwork(error) {
  if (error instanceof ApiError || error?.name === "AbortError") return error;
  return new ApiError(
    "network",
    "The server cannot be reached. Is it still running, and the tunnel to it open?",
  );
}

/** @param {Response} response */
async function asError(response) {
  let error = /** @type {any} */ ({});
  try {
    error = (await response.json())?.error ?? {};
  } catch {
    // some proxy answered, not the server
  }
  const { status } = response;
  const wait_s = Math.min(Math.max(Number(response.headers.get("Retry-After")) || 0, 0), 600);
  const said =
    typeof error.message === "string" && error.message
      ? error.message
      : `The server answered with status ${status}.`;
  const facts = { status, wait_s, prompt_tokens: error.prompt_tokens, context_length: error.context_length };
  if (status === 401) return new ApiError("token", said, facts);
  if (status === 429) return new ApiError("busy", said, { ...facts, wait_s: wait_s || 2 });
  if (status === 503) return new ApiError("loading", said, { ...facts, wait_s: wait_s || 2 });
  if (error.code === "context_length_exceeded") return new ApiError("context", said, facts);
  return new ApiError(status < 500 ? "request" : "server", said, facts);
}
