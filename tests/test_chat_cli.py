"""The terminal chat: what it remembers, forgets and shows, on a real model of random weights."""

from __future__ import annotations

import io
import itertools

import pytest
import torch

from nanochat.config import ChatCLI, GPTConfig
from nanochat.engine import Engine
from nanochat.gpt import GPT
from nanochat.tokenizer import Tokenizer, split_pattern
from scripts.chat_cli import HELP, Chat, converse

CONTEXT = 96


@pytest.fixture
def chat() -> Chat:
    model = GPT(GPTConfig(vocab_size=265, depth=1, width=32, heads=1, kv_heads=1, context=CONTEXT))
    model.init_weights(0)
    with torch.no_grad():
        model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr]
    tokenizer = Tokenizer([bytes([i]) for i in range(256)], split_pattern())
    return Chat(Engine(model, tokenizer), ChatCLI(max_tokens=10, temperature=1.0))


def prompts_of(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The prompts that the engine is given from now on."""
    seen: list[list[int]] = []
    stream = chat.engine.stream
    monkeypatch.setattr(chat.engine, "stream", lambda prompt, **o: seen.append(prompt) or stream(prompt, **o))
    return seen


def test_a_conversation_is_rendered_as_in_training(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = prompts_of(chat, monkeypatch)
    replies = ["".join(chat.ask(text)) for text in ("Hi", "Why?")]
    tokenizer = chat.engine.tokenizer
    end = tokenizer.special("assistant_end")
    first = tokenizer.render_for_completion({"messages": [{"role": "user", "content": "Hi"}]})
    again = tokenizer.render_for_completion({"messages": [{"role": "user", "content": "Why?"}]})
    said = chat.turns[0][len(first) - 1 : -1]
    assert seen == [first, [*first, *said, end, *again[1:]]]
    assert replies[0] == tokenizer.decode(chat.engine.visible(said))
    assert chat.turns[1][-1] == end


def test_the_oldest_turns_are_forgotten(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = prompts_of(chat, monkeypatch)
    for i in range(8):
        list(chat.ask(f"question {i}"))
    assert max(map(len, seen)) <= CONTEXT - 10
    assert len(chat.turns) > 1
    assert all(prompt[0] == chat.engine.tokenizer.bos_id for prompt in seen)
    assert "question 6" in chat.engine.tokenizer.decode(seen[7])
    assert "question 0" not in chat.engine.tokenizer.decode(seen[7])


def test_a_reply_that_is_broken_off_is_remembered(chat: Chat) -> None:
    pieces = chat.ask("Hi")
    list(itertools.islice(pieces, 3))
    pieces.close()
    question = chat.engine.tokenizer.render_for_completion({"messages": [{"role": "user", "content": "Hi"}]})
    assert len(chat.turns) == 1
    assert 3 <= len(chat.turns[0]) - len(question) <= 10


def test_a_pipe_is_a_conversation(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "x" * CONTEXT
    monkeypatch.setattr("sys.stdin", io.StringIO(f"Hi\n\n/help\n{long}\n/clear\nHi\n/quit\nnever\n"))
    seen = prompts_of(chat, monkeypatch)
    converse(chat)
    shown = capsys.readouterr()
    assert [len(prompt) < CONTEXT for prompt in seen] == [True, False, True]
    assert seen[0] == seen[2]
    assert HELP in shown.out
    assert "leaves no room for a reply" in shown.err
    assert len(chat.turns) == 1
