"""Replies without a model: stop strings, visible text, what a request refuses."""

from __future__ import annotations

import random
from typing import Any

import pytest

from nanochat.common import UsageError
from nanochat.reply import Reply, Rules, StopText
from nanochat.request import Request, Sampling
from nanochat.tokenizer import Tokenizer, split_pattern


@pytest.fixture(scope="module")
def rules() -> Rules:
    return Rules(Tokenizer([bytes([i]) for i in range(256)], split_pattern()), lambda call: call.upper())


def test_stop_text_equals_a_search_in_the_whole() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        text = "".join(draw.choice("ab\n") for _ in range(draw.randint(0, 12)))
        stops = ["".join(draw.choice("ab\n") for _ in range(draw.randint(1, 4))) for _ in range(2)]
        stop, out, at = StopText(stops), "", 0
        while at < len(text):
            n = draw.randint(1, 3)
            out += stop.push(text[at : at + n])
            at += n
            if stop.found is not None:
                break
            ends = [s[:k] for s in stops for k in range(1, len(s)) if text[:at].endswith(s[:k])]
            assert len(text[:at]) - len(out) == max(map(len, ends), default=0)  # no more is held back
        found = [(i + len(s), i) for s in stops if (i := text.find(s)) >= 0]
        assert (stop.found is not None) == bool(found)
        assert out + stop.flush() == (text[: min(found)[1]] if found else text)


def spoken(rules: Rules, words: str | list[int], **options: Any) -> tuple[Reply, str]:
    ids = rules.tokenizer.encode(words) if isinstance(words, str) else words
    reply = Reply(Request([rules.tokenizer.bos_id], 50, **options), rules, 64, with_text=True)
    text = ""
    for token in ids:
        reply.take(token)
        text += reply.piece
        if reply.finish:
            break
    return reply, text


def test_a_stop_string_ends_the_reply(rules: Rules) -> None:
    reply, text = spoken(rules, "one\n\ntwo", stop_strings=("\n\n", "zzz"))
    assert (text, reply.finish, reply.completion().text) == ("one", "stop", "one")
    assert rules.tokenizer.decode(reply.ids) == "one\n\n"


def test_what_was_held_back_comes_at_the_end(rules: Rules) -> None:
    reply, text = spoken(rules, "ab" * 25, stop_strings=("babc",))
    assert (text, reply.finish) == ("ab" * 25, "length")


def test_tool_calls_are_neither_seen_nor_searched(rules: Rules) -> None:
    markers, encode = rules.markers, rules.tokenizer.encode
    ids = [*encode("a"), markers.python_start, *encode("x!"), markers.python_end, *[0] * 4, *encode("b")]
    reply, text = spoken(rules, [*ids, rules.tokenizer.special("assistant_end")], stop_strings=("!", "X"))
    assert (text, reply.finish) == ("ab", "stop")
    assert rules.tokenizer.decode(reply.ids[5:9]).startswith("<|output_start|>X!")


def test_a_split_character_appears_whole(rules: Rules) -> None:
    reply, text = spoken(rules, "Größe ✓")
    assert text == "Größe ✓"
    reply.piece = ""
    reply.end("cancelled")
    assert reply.piece == "" and reply.completion().finish == "cancelled"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens 0 must be at least 1"),
        ({"max_tokens": -1, "score_from": 1}, "max_tokens -1"),
        ({"seed": -1}, "seed -1 is negative"),
        ({"stop_strings": ("a", "")}, "a stop string is empty"),
        ({"logprobs": 21}, "logprobs 21 must be from 0 to 20"),
        ({"score_from": 0}, "score_from 0 must be from 1"),
        ({"score_from": 4}, "score_from 4"),
    ],
)
def test_requests_refuse(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Request(**{"prompt": [1, 2, 3], "max_tokens": 4, **options})


def test_sampling_refuses_min_p() -> None:
    with pytest.raises(UsageError, match=r"min_p 1\.5"):
        Sampling(min_p=1.5)
