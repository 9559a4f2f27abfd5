"""A chat: from messages to requests for the engine, and from what it brings to OpenAI's answer.

What it is: `requests` and `ChatAnswer`. Roles are kept apart by token ids, which only the tokenizer's
renderer makes: text that spells a special token stays text. What it is not: HTTP, or the choice of which old
turns to drop: a chat that does not fit is refused with its counts. Run: `pytest tests/serve`.
"""

from __future__ import annotations

import secrets
from typing import Any

from nanochat.request import Request
from nanochat.serve.errors import APIError
from nanochat.serve.follow import Piece, Token
from nanochat.serve.model import Model
from nanochat.serve.schemas import ChatBody, Message, Sampled


def requests(body: ChatBody, model: Model) -> list[Request]:
    """One for each of the `n` replies. ValueError or APIError 400 if the chat does not suit the model."""
    messages = [{"role": _role(m), "content": _parts(m)} for m in body.messages]
    prompt = model.rules.tokenizer.render_for_completion({"messages": messages})
    asked = body.max_completion_tokens or body.max_tokens
    tokens = asked or max(1, model.context - len(prompt))
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    if body.top_logprobs is not None and not body.logprobs:
        raise APIError(400, "top_logprobs needs logprobs: true", "invalid_value", param="top_logprobs")
    require_room(model, len(prompt), tokens, "messages", asked is not None)
    require_number(model, body.n or 1, "n")
    sampling, seed = body.sampling(model.sampling), seed_of(body)
    return [
        Request(prompt, tokens, sampling, seed, sample, body.ends, body.stops, logprobs)
        for sample in range(body.n or 1)
    ]


def seed_of(body: Sampled) -> int:
    return secrets.randbelow(1 << 31) if body.seed is None else body.seed


def require_number(model: Model, replies: int, param: str) -> None:
    """APIError 400 if the server never has room for so many replies at once."""
    if replies > (most := model.most_requests):
        message = f"{replies} replies at once are more than {most}; ask for fewer"
        raise APIError(400, message, "too_many_replies", param=param)


def require_room(model: Model, prompt: int, tokens: int, param: str, was_asked: bool) -> None:
    """APIError 400, with the counts, if prompt and reply do not fit the context together."""
    if prompt + tokens <= model.context:
        return
    more = f" and {tokens} more are asked for" if was_asked else " and leaves no room for a reply"
    raise APIError(
        400, f"the prompt has {prompt} tokens{more}; the model's context is {model.context}",
        "context_length_exceeded", param=param,
        extra={"prompt_tokens": prompt, "context_length": model.context},
    )  # fmt: skip


def _role(message: Message) -> str:
    return "system" if message.role == "developer" else message.role


def _parts(message: Message) -> str | list[dict[str, str]]:
    """Text, with the calls of an earlier reply where the model made them."""
    text = message.text
    if message.role != "assistant" or not message.tool_uses:
        return text
    parts, done = [], 0
    for use in sorted(message.tool_uses, key=lambda use: use.at):
        parts.append({"type": "text", "text": text[done : use.at]})
        parts.append({"type": "python", "text": use.input})
        if use.output is not None:
            parts.append({"type": "python_output", "text": use.output})
        done = max(done, use.at)
    parts.append({"type": "text", "text": text[done:]})
    return [part for part in parts if part["text"] or part["type"] != "text"]


class ChatAnswer:
    """Writes the choices of a chat."""

    kind, chunk_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def opening(self, index: int) -> dict[str, Any]:
        return _choice(index, {"role": "assistant", "content": ""})

    def chunk(self, index: int, piece: Piece) -> dict[str, Any]:
        delta: dict[str, Any] = {}
        if piece.tool is not None:
            delta["tool"] = {k: piece.tool[k] for k in ("name", "input", "output")}
        elif piece.text or piece.tokens:
            delta["content"] = piece.text
        return _choice(index, delta, piece.finish, _logprobs(piece.tokens) if piece.tokens else None)

    def whole(self, index: int, pieces: list[Piece]) -> dict[str, Any]:
        content = "".join(piece.text for piece in pieces)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if tools := [piece.tool for piece in pieces if piece.tool is not None]:
            message["tool_uses"] = tools
        tokens = [token for piece in pieces for token in piece.tokens]
        choice = _choice(index, {}, pieces[-1].finish, _logprobs(tokens) if tokens else None)
        del choice["delta"]
        return {**choice, "message": message}


def _choice(
    index: int, delta: dict[str, Any], finish: str | None = None, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _logprobs(tokens: list[Token]) -> dict[str, Any]:
    entries = [{**_entry(token), "top_logprobs": [_entry(top) for top in token.top]} for token in tokens]
    return {"content": entries, "refusal": None}


def _entry(token: Token) -> dict[str, Any]:
    text = token.raw.decode("utf-8", errors="replace")
    return {"token": text, "logprob": token.logprob, "bytes": list(token.raw)}
