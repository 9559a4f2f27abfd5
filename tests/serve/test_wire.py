"""What server and engines say to each other: every message there and back, in frames cut anywhere."""

from __future__ import annotations

import json
import math
import random
import socket
import threading
from dataclasses import replace
from typing import Any

import pytest
from served import LIMIT_S

from nanochat.engine import Engine
from nanochat.request import GREEDY, Request, Sampling, TokenLogprob, Usage
from nanochat.scheduler import Event, Stats
from nanochat.serve import wire
from nanochat.serve.worker import Worker, messages

STATS = Stats(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13.5)
SCORE = TokenLogprob(7, -0.25, [(7, -0.25), (8, -1e-300)])
LEAST = TokenLogprob(9, -math.inf, [(9, -math.inf), (1, -2.0)])
LAST = Event([1], "\U0001f600", [SCORE], [LEAST, SCORE], "stop", Usage(5, 1, 3))
MESSAGES: list[wire.Message] = [
    wire.Load("/base", "sft", "d4", "auto", 3, 4, "auto", None, 16, 256, "calculator"),
    wire.Submission(0, Request([0, 1], 5)),
    wire.Submission(1, Request((0,) * 3, 0, Sampling(0.7, 5, 0.9, 0.1), 2**31, 4, frozenset((3, 1)),
                               ("a\ud800", "\0"), 20, 2)),
    wire.Cancellation(1),
    wire.Devices(8),
    wire.Ready("cuda:1", "torch.bfloat16", 8, 1.5, 2048, 65536, "/base/tok", "f00", 256, STATS),
    wire.Failure(2, "error: no checkpoint in /base"),
    wire.News([], STATS),
    wire.News([(0, LAST), (2**40, Event([1, 2], "ab")), (1, Event([], "", error="it broke"))], STATS),
]  # fmt: skip


def plain(message: wire.Message) -> wire.Message:
    """With a prompt of the one type that comes back."""
    if not isinstance(message, wire.Submission):
        return message
    return replace(message, request=replace(message.request, prompt=list(message.request.prompt)))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_was(message: wire.Message) -> None:
    frame = wire.encode(message)
    assert wire.Frames().feed(frame) == [plain(message)]
    json.loads(frame[4:], parse_constant=pytest.fail)  # strict JSON, without Infinity or NaN


def test_a_usual_event_is_short() -> None:
    news = wire.News([(3, Event([17], " the"))], STATS)
    assert news.to_json()["events"] == [{"id": 3, "ids": [17], "text": " the"}]


def test_what_is_no_number_is_the_least() -> None:
    """A model whose logits are NaN must not take the server with it."""
    sent = wire.News([(0, Event([1], "", [TokenLogprob(1, math.nan, [(1, math.nan)])]))], STATS)
    (got,) = wire.Frames().feed(wire.encode(sent))
    assert isinstance(got, wire.News)
    assert got.events[0][1].logprobs == [TokenLogprob(1, -math.inf, [(1, -math.inf)])]


def test_frames_may_be_cut_anywhere() -> None:
    rng = random.Random(0)
    for _ in range(300):
        sent = rng.choices(MESSAGES, k=rng.randrange(1, 8))
        data = b"".join(map(wire.encode, sent))
        cuts = sorted(rng.choices(range(len(data) + 1), k=rng.choice((0, 1, 5, len(data)))))
        frames = wire.Frames()
        parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert [one for part in parts for one in frames.feed(part)] == [plain(one) for one in sent]


def test_a_long_frame_costs_no_more_than_its_bytes() -> None:
    """A prompt of a million ids, in pieces of 1 KiB."""
    sent = wire.Submission(0, Request(list(range(1_000_000)), 1))
    data, frames = wire.encode(sent), wire.Frames()
    found = [one for at in range(0, len(data), 1024) for one in frames.feed(data[at : at + 1024])]
    assert found == [sent]


@pytest.mark.parametrize(
    "text", [b"Warning: something\n", b"\xff" * 8, b"\0\0\0\2{}", b'\0\0\0\x09{"No":{}}']
)
def test_what_is_no_frame_is_refused(text: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        wire.Frames().feed(text)


# ----------------------------------------------------------------------------- a worker at the other end


def talk(engine: Engine, slots: int, *sent: wire.Message, most: int | None = None) -> list[Any]:
    """All that a worker says to these messages until each of them is over; then it must end by itself."""
    ours, theirs = socket.socketpair()
    ours.settimeout(LIMIT_S)
    worker = Worker(theirs, engine, slots, 8)
    thread = threading.Thread(target=worker.run, args=(wire.Frames(),))
    thread.start()
    left = {one.id for one in sent if isinstance(one, wire.Submission)}
    found: list[Any] = []
    with ours:
        ours.sendall(b"".join(map(wire.encode, sent)))
        for news in messages(ours, wire.Frames()):
            assert isinstance(news, wire.News)
            found.append(news)
            left -= {id for id, event in news.events if event.is_last}
            if not left or len(found) == most:
                break
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert worker._handles == {}
    return found


def test_a_step_is_a_frame(engine: Engine) -> None:
    asked = [Request([256, i], 6, GREEDY, stop=frozenset()) for i in range(3)]
    news = talk(engine, 3, *(wire.Submission(i, request) for i, request in enumerate(asked)))
    for i, request in enumerate(asked):
        (alone,) = engine.generate_batch([request.prompt], max_tokens=6, temperature=0, stop=())
        own = [event for one in news for id, event in one.events if id == i]
        assert [token for event in own for token in event.ids] == alone.ids
        assert (own[-1].finish, own[-1].usage) == ("length", Usage(2, 6, 0))
    assert any(len(one.events) == 3 for one in news)
    last = news[-1].stats
    assert (last.running, last.waiting, last.tokens_reserved, last.finished) == (0, 0, 0, 3)


def test_a_cancellation_is_told_with_what_it_freed(engine: Engine) -> None:
    long = Request([256, 1], 150, GREEDY, stop=frozenset())
    cancelled = wire.Cancellation(0)
    for sent in (
        [wire.Submission(0, long), cancelled],
        [cancelled, wire.Submission(0, long), cancelled, cancelled],
    ):
        last = talk(engine, 1, *sent)[-1]
        assert [(id, event.finish) for id, event in last.events] == [(0, "cancelled")]
        assert (last.stats.running, last.stats.tokens_reserved, last.stats.cancelled) == (0, 0, 1)


def test_a_server_that_has_gone_ends_the_worker(engine: Engine) -> None:
    """In the middle of replies, which nobody reads."""
    asked = [wire.Submission(i, Request([256, i], 180, GREEDY, stop=frozenset())) for i in range(4)]
    talk(engine, 2, *asked, most=3)
