"""Tools behind the server: what a client reads of a call, however its events come, and when python is run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from served import Served, chat_of, served, toy_engine
from test_engine import scripted_engine

from nanochat.engine import Engine
from nanochat.execution import SandboxUnavailable, run_python
from nanochat.reply import Reply, Rules
from nanochat.request import GREEDY, Request
from nanochat.scheduler import Event, Handle
from nanochat.serve.follow import Follower, Piece
from nanochat.serve.model import Model, Tools
from nanochat.tokenizer import Tokenizer

PYTHON = Tools(("calculator", "python"))
PROGRAM = "print(7*191)"
CALL, CALLED, OUT, OUT_END, END = (
    "python_start", "python_end", "output_start", "output_end", "assistant_end",
)  # fmt: skip


@pytest.fixture(scope="module")
def strict() -> None:
    try:
        run_python("pass")
    except SandboxUnavailable as error:
        pytest.skip(str(error))


# ----------------------------------------------------------------------------- a follower

Said = list[tuple[str, Any]]


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """`a[1+1]=2;b` is a, a call, its answer, b: [ ] stand for the markers of a call, = ; of an answer."""
    names = {"[": CALL, "]": CALLED, "=": OUT, ";": OUT_END}
    return [tokenizer.special(names[c]) if c in names else tokenizer.encode(c)[0] for c in text]


def told(tokenizer: Tokenizer, model: Model, text: str, width: int, stops: tuple[str, ...] = ()) -> Said:
    """What a client reads of a model's own words, `width` ids an event; at the end finish and whole text."""
    reply = Reply(
        Request([0], 100, GREEDY, stop_strings=stops), Rules(tokenizer, lambda _: None), 200, with_text=True
    )
    events: list[Event] = []
    handle, held = Handle(reply, events.append), ""
    for number, id in enumerate(ids_of(tokenizer, text), 1):
        reply.take(id)
        held += reply.piece
        if number % width == 0 or reply.finish:
            reply.piece, held = held, ""
            handle.tell()
        if reply.finish:
            break
    else:
        reply.piece = held
        reply.end("length")
        handle.tell()
    follower = Follower(model)
    return joined(piece for event in events for piece in follower.pieces(event))


def joined(pieces: Iterable[Piece]) -> Said:
    """Texts next to each other as one, and calls as (input, output, at)."""
    said: Said = []
    for piece in pieces:
        if piece.tool is not None:
            said.append(("tool", tuple(piece.tool[k] for k in ("input", "output", "at"))))
        elif said and said[-1][0] == "text":
            said[-1] = ("text", said[-1][1] + piece.text)
        elif piece.text:
            said.append(("text", piece.text))
    return said


@pytest.fixture(scope="module")
def model(engine: Engine) -> Model:
    return Model("toy", 192, 265, engine.rules, Tools(), GREEDY, 64)


CASES: dict[str, Said] = {
    "ab[1+1]=2;cd": [("text", "ab"), ("tool", ("1+1", "2", 2)), ("text", "cd")],
    "[1+1]=2;[2*3]=6;": [("tool", ("1+1", "2", 0)), ("tool", ("2*3", "6", 0))],
    "a[x]b[y]=1;": [("text", "a"), ("tool", ("x", None, 1)), ("text", "b"), ("tool", ("y", "1", 2))],
    "a[x]": [("text", "a"), ("tool", ("x", None, 1))],  # never answered
    "a[x": [("text", "a")],  # never ended: never run
    "a[x]=1": [("text", "a"), ("tool", ("x", None, 1))],  # the answer is cut off
    "a[1[2]=2;b": [("text", "a"), ("tool", ("2", "2", 1)), ("text", "b")],  # begins anew, as in the engine
    "a]b=c;d": [("text", "abd")],  # ends that end nothing; an answer to nothing
    "[]=;a": [("tool", ("", "", 0)), ("text", "a")],
    "": [],
}  # fmt: skip


@pytest.mark.parametrize("width", [1, 2, 3, 100])
@pytest.mark.parametrize("text", CASES)
def test_calls_stand_where_they_were_made(tokenizer: Tokenizer, model: Model, text: str, width: int) -> None:
    assert told(tokenizer, model, text, width) == CASES[text]


@pytest.mark.parametrize("width", [1, 2, 100])
def test_stop_strings_around_a_call(tokenizer: Tokenizer, model: Model, width: int) -> None:
    """Text that is held back, as it may become a stop string, still comes before the call behind it."""
    call = ("tool", ("x", "1", 2))
    assert told(tokenizer, model, "ab[x]=1;d", width, ("bc",)) == [("text", "ab"), call, ("text", "d")]
    assert told(tokenizer, model, "ab[x]=1;cd", width, ("bc",)) == [("text", "a"), ("tool", ("x", "1", 1))]
    assert told(tokenizer, model, "ab[bc]=bc;", width, ("bc",)) == [("text", "ab"), ("tool", ("bc", "bc", 2))]
    assert told(tokenizer, model, "abc[x]=1;d", width, ("bc",)) == [("text", "a")]


# ----------------------------------------------------------------------------- over HTTP


def speaking(tokenizer: Tokenizer, tools: Tools, *parts: str) -> Engine:
    """An engine whose model answers the chat "a" with these texts and markers."""
    markers = {CALL, CALLED, END}
    script = tokenizer.render_for_completion({"messages": chat_of("a")["messages"]})
    for part in parts:
        script += [tokenizer.special(part)] if part in markers else tokenizer.encode(part)
    return scripted_engine(tokenizer, script, tools)


def asked(one: Served) -> dict[str, Any]:
    """The message; a stream says the same."""
    body = chat_of("a", max_tokens=50)
    message: dict[str, Any] = one.post("/v1/chat/completions", body).json()["choices"][0]["message"]
    stream = one.post("/v1/chat/completions", body | {"stream": True}).text
    chunks = [json.loads(line[6:]) for line in stream.split("\n\n") if line.startswith("data: {")]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == message["content"]
    tools = [{k: use[k] for k in ("name", "input", "output")} for use in message.get("tool_uses", [])]
    assert [delta["tool"] for delta in deltas if "tool" in delta] == tools
    return message


@pytest.mark.slow
@pytest.mark.usefixtures("strict", "one_thread")
def test_python_runs_if_it_was_asked_for(tokenizer: Tokenizer) -> None:
    said = ("it is ", CALL, PROGRAM, CALLED, "......", "!", END)  # the dots are overruled by the answer
    with served(speaking(tokenizer, PYTHON, *said)) as one:
        message = asked(one)
        assert one.http.get("/v1/models/toy").json()["tools"] == ["calculator", "python"]
    use = {"name": "python", "input": PROGRAM, "output": "1337", "at": 6}
    assert (message["content"], message["tool_uses"]) == ("it is !", [use])


def test_a_machine_that_cannot_run_it_costs_the_call_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert PYTHON(PROGRAM) is None and PYTHON("1+1") == "2"


@pytest.mark.usefixtures("one_thread")
def test_without_the_flag_python_is_never_run(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr("nanochat.serve.model.run_python", lambda program, **_: ran.append(program))
    with served(speaking(tokenizer, Tools(), "it is ", CALL, PROGRAM, CALLED, "!", END)) as one:
        message = asked(one)
        assert one.http.get("/v1/models/toy").json()["tools"] == ["calculator"]
    use = {"name": "calculator", "input": PROGRAM, "output": None, "at": 6}
    assert (message["content"], message["tool_uses"], ran) == ("it is !", [use], [])


@pytest.mark.slow
@pytest.mark.usefixtures("strict")
def test_programs_are_confined_and_short() -> None:
    assert PYTHON("12*12") == "144"  # the calculator's
    for program in (
        "print(open('/etc/passwd').read())",
        "import socket; socket.create_connection(('::1', 1))",
    ):
        said = PYTHON(program)
        assert said is not None and "PermissionError" in said and "root:" not in said
    assert PYTHON("print('x' * 10_000)") == "x" * 400
    assert "ZeroDivisionError" in (PYTHON("1/0") or "")


@pytest.mark.slow
@pytest.mark.usefixtures("strict")
def test_a_program_that_does_not_end_is_ended() -> None:
    said = PYTHON("while True: pass")
    assert said is not None and "\n" not in said and len(said) < 40


# ----------------------------------------------------------------------------- the event loop


@pytest.mark.usefixtures("one_thread")
def test_events_of_many_slots_come_together(tokenizer: Tokenizer) -> None:
    """64 replies bring 64 events a step, in one frame."""
    with served(toy_engine(tokenizer), slots=64) as one:
        requests = [Request([256, 1], 24, GREEDY, seed=i, stop=frozenset()) for i in range(64)]
        (link,) = one.pool.links
        frames = link.frames
        one.in_loop(lambda: one.pool.submit(requests))
        one.idle()
        stats = one.scheduler.stats()
        assert stats.completion_tokens == 64 * 24
        assert link.frames - frames <= 1.25 * stats.steps + 8, (
            link.frames,
            stats.steps,
        )  # and those of joins
