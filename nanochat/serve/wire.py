"""What the server and an engine's process say to each other: JSON in frames, over a socket.

What it is: the messages, their bytes, and `Frames`, which finds them in a stream again. A frame is a length
(4 bytes, big-endian) and as many bytes of JSON. What it is not: the two ends (`link.py` in the server,
`worker.py` in the engine's process); nothing that could be executed is ever sent. No torch.
Run: `pytest tests/serve/test_wire.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nanochat.request import Request, Sampling, TokenLogprob, Usage
from nanochat.scheduler import Event, Stats

LENGTH_BYTES = 4
MOST_BYTES = 1 << 30  # of a frame; more is not one: the first bytes of a stray text


class Message:
    """One frame. Its fields are JSON's unless a class says how they become so."""

    def to_json(self) -> dict[str, Any]:
        return vars(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Message:
        return cls(**body)


# ----------------------------------------------------------------------------- to the engine


@dataclass(frozen=True)
class Load(Message):
    """The first message: which model, on which of the devices, for how many requests; as the options."""

    base_dir: str
    source: str
    run: str
    device: str
    index: int  # of the engine; they take the devices in turn
    engines: int  # that start together, as far as known; on a CPU they share its cores
    dtype: str
    threads: int | None  # of this engine; None: its share of the cores
    slots: int
    waiting: int
    tools: str


@dataclass(frozen=True)
class Submission(Message):
    """A request, and the number by which both sides call it."""

    id: int
    request: Request

    def to_json(self) -> dict[str, Any]:
        request = self.request
        stop = None if request.stop is None else sorted(request.stop)
        plain = {"prompt": list(request.prompt), "sampling": vars(request.sampling), "stop": stop}
        return {"id": self.id, "request": vars(request) | plain}

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Submission:
        fields = body["request"]
        fields["sampling"] = Sampling(**fields["sampling"])
        fields["stop"] = None if fields["stop"] is None else frozenset(fields["stop"])
        fields["stop_strings"] = tuple(fields["stop_strings"])
        return cls(body["id"], Request(**fields))


@dataclass(frozen=True)
class Cancellation(Message):
    """Nobody waits for the reply any more."""

    id: int


# ----------------------------------------------------------------------------- from the engine


@dataclass(frozen=True)
class Devices(Message):
    """How many there are; said before the model is loaded."""

    count: int


@dataclass(frozen=True)
class Ready(Message):
    """The model is loaded; what the server has to know of it."""

    device: str
    dtype: str
    threads: int
    seconds: float  # that it took
    context: int
    vocab_size: int
    tokenizer: str  # its folder ...
    tokenizer_hash: str  # ... may hold another one by now
    waiting: int  # requests beside those that run
    stats: Stats

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"stats": vars(self.stats)}

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Ready:
        return cls(**body | {"stats": Stats(**body["stats"])})


@dataclass(frozen=True)
class Failure(Message):
    """The model could not be loaded: the exit code, and the message for whoever started the server."""

    code: int
    message: str


@dataclass(frozen=True)
class News(Message):
    """What a step brought to each request, by its number."""

    events: Sequence[tuple[int, Event]]
    stats: Stats

    def to_json(self) -> dict[str, Any]:
        return {"events": [_event(id, event) for id, event in self.events], "stats": vars(self.stats)}

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> News:
        return cls([_read_event(entry) for entry in body["events"]], Stats(**body["stats"]))


def _event(id: int, event: Event) -> dict[str, Any]:
    """Only what there is: most events are an id and a few letters."""
    usage = event.usage and vars(event.usage)
    entry = vars(event) | {"id": id, "usage": usage}
    for name in ("logprobs", "prompt_logprobs"):
        entry[name] = [_score(one) for one in entry[name]]
    return {name: value for name, value in entry.items() if value or name == "id"}


def _read_event(entry: dict[str, Any]) -> tuple[int, Event]:
    usage = Usage(**entry["usage"]) if "usage" in entry else None
    logprobs, prompt_logprobs = (
        [_read_score(*one) for one in entry.get(name, ())] for name in ("logprobs", "prompt_logprobs")
    )
    return entry["id"], Event(
        entry.get("ids", []), entry.get("text", ""), logprobs, prompt_logprobs, entry.get("finish"), usage,
        entry.get("error"),
    )  # fmt: skip


def _score(score: TokenLogprob) -> tuple[int, float | None, list[tuple[int, float | None]]]:
    return score.id, _finite(score.logprob), [(id, _finite(logprob)) for id, logprob in score.top]


def _read_score(id: int, logprob: float | None, top: list[tuple[int, float | None]]) -> TokenLogprob:
    return TokenLogprob(id, _number(logprob), [(other, _number(its)) for other, its in top])


def _finite(logprob: float) -> float | None:
    return logprob if math.isfinite(logprob) else None  # JSON has no minus infinity


def _number(logprob: float | None) -> float:
    return -math.inf if logprob is None else logprob


# ----------------------------------------------------------------------------- frames

_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind for kind in (Load, Submission, Cancellation, Devices, Ready, Failure, News)
}


def encode(message: Message) -> bytes:
    """A frame. ASCII, as half a surrogate pair in a stop string must not break it."""
    body = {type(message).__name__: message.to_json()}
    text = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    return len(text).to_bytes(LENGTH_BYTES, "big") + text


def decode(text: bytes | bytearray) -> Message:
    """The message of a frame, its length taken off."""
    ((kind, body),) = json.loads(text).items()
    return _KINDS[kind].from_json(body)


class Frames:
    """Takes the bytes of a stream as they come, and gives the messages that are whole."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        held, at, found = self._held, 0, []
        held += data
        while len(held) >= at + LENGTH_BYTES:
            start = at + LENGTH_BYTES
            size = int.from_bytes(held[at:start], "big")
            if size > MOST_BYTES:
                raise ValueError(f"this is no frame: {bytes(held[at : at + 40])!r}")
            if len(held) < start + size:
                break
            at = start + size
            found.append(decode(held[start:at]))
        del held[:at]
        return found
