"""A completion: from a prompt, or many, to requests for the engine, and to OpenAI's older answer.

What it is: `requests` and `TextAnswer`. A prompt is text, which gets <|bos|> before it, or ids, which are
taken as they are. `echo` repeats the prompt, with `logprobs` scored: what evaluation harnesses ask for. What
it is not: a conversation (`chat.py`). Run: `pytest tests/serve`.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from nanochat.request import Request, Sampling
from nanochat.serve.chat import require_number, require_room, seed_of
from nanochat.serve.errors import APIError
from nanochat.serve.follow import Follower, Piece, Token
from nanochat.serve.model import Model
from nanochat.serve.schemas import TextBody

TOKENS = 16
PLAIN = Sampling()  # OpenAI's defaults: temperature 1, nothing cut


def requests(body: TextBody, model: Model) -> list[Request]:
    """`n` for each prompt, side by side. APIError 400 if one does not suit the model."""
    prompts = prompts_of(body, model)
    if body.max_tokens == 0 and not body.echo:
        raise APIError(400, "max_tokens 0 needs echo: true", "invalid_value", param="max_tokens")
    require_number(model, len(prompts) * (body.n or 1), "prompt")
    scored = 1 if body.echo and (body.logprobs is not None or body.max_tokens == 0) else None
    sampling, seed = body.sampling(PLAIN), seed_of(body)
    # Harnesses cut off the last max_tokens scores: if a reply ended early, they would cut the prompt's own.
    ends = body.ends if scored is None else frozenset()
    found = []
    for prompt in prompts:
        tokens = body.max_tokens
        if tokens is None:
            tokens = min(TOKENS, max(1, model.context - len(prompt)))
        require_room(model, len(prompt), tokens, "prompt", body.max_tokens is not None)
        found += [
            Request(
                prompt, tokens, sampling, seed, sample, ends, body.stops, body.logprobs, scored
            )
            for sample in range(body.n or 1)
        ]  # fmt: skip
    return found


def prompts_of(body: TextBody, model: Model) -> list[Sequence[int]]:
    """Ids of each prompt."""
    tokenizer = model.rules.tokenizer
    prompt = body.prompt
    if isinstance(prompt, str):
        prompt = [prompt]
    if not prompt:
        raise APIError(400, "the list of prompts is empty", "invalid_value", param="prompt")
    if isinstance(prompt[0], int):
        return [prompt]  # type: ignore[list-item]
    return [[tokenizer.bos_id, *tokenizer.encode(p)] if isinstance(p, str) else p for p in prompt]  # type: ignore[misc]


class TextAnswer:
    """Writes the choices of a completion."""

    kind, chunk_kind, prefix = "text_completion", "text_completion", "cmpl"

    def __init__(self, requests: Sequence[Request], followers: Sequence[Follower], echo: bool) -> None:
        self.requests, self.followers, self.echo = requests, followers, echo
        self._places = [_Places(follower) for follower in followers]
        self._is_opened = [False] * len(requests)

    def opening(self, index: int) -> None:
        """What an answer begins with comes with its first piece: by then the prompt is scored."""

    def chunk(self, index: int, piece: Piece) -> dict[str, Any]:
        text, tokens = piece.text, piece.tokens
        if self.echo and not self._is_opened[index]:
            prompt_text, prompt_tokens = self._prompt(index)
            text, tokens = prompt_text + text, prompt_tokens + tokens
        self._is_opened[index] = True
        wanted = self.requests[index].logprobs is not None
        logprobs = self._places[index].logprobs(tokens) if wanted else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": piece.finish}

    def whole(self, index: int, pieces: list[Piece]) -> dict[str, Any]:
        text = "".join(piece.text for piece in pieces)
        tokens = [token for piece in pieces for token in piece.tokens]
        return self.chunk(index, Piece(text, tokens=tokens, finish=pieces[-1].finish))

    def _prompt(self, index: int) -> tuple[str, list[Token]]:
        rules, ids = self.followers[index].model.rules, self.requests[index].prompt
        text = rules.tokenizer.decode(i for i in ids if i not in rules.specials)
        first = Token(rules.tokenizer.decode_bytes(ids[:1]), None)
        return text, [first, *self.followers[index].prompt_tokens]


class _Places:
    """Where in the text each token of a choice begins."""

    def __init__(self, follower: Follower) -> None:
        tokenizer = follower.model.rules.tokenizer
        self._specials = {tokenizer.decode_bytes([i]) for i in follower.model.rules.specials}
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at = 0

    def logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        offsets = []
        for token in tokens:
            offsets.append(self._at)
            if token.raw not in self._specials:
                self._at += len(self._decoder.decode(token.raw))
        return {
            "tokens": [_name(token) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                None if token.logprob is None else {_name(top): top.logprob for top in token.top or [token]}
                for token in tokens
            ],
            "text_offset": offsets,
        }


def _name(token: Token) -> str:
    """Its text; the bytes of a part of a character, so that no two tokens have one name."""
    try:
        return token.raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.raw)
