"""The terminal chat on a real model of random weights: commands, pipes, a real keyboard."""

from __future__ import annotations

import io
import itertools
import json
import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
import toy
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from nanochat.common import UsageError
from nanochat.config import GPTConfig
from nanochat.conversation import Part
from nanochat.engine import Engine
from nanochat.gpt import GPT
from nanochat.request import Sampling
from nanochat.terminal import COMMANDS, Terminal, converse, printable, typed_lines
from nanochat.tokenizer import Tokenizer

CONTEXT = 96


@pytest.fixture
def terminal(tokenizer: Tokenizer) -> Terminal:
    model = GPT(GPTConfig(vocab_size=265, depth=1, width=32, heads=1, kv_heads=1, context=CONTEXT))
    model.init_weights(0)
    with torch.no_grad():
        model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr]
    return Terminal(Engine(model, tokenizer), Sampling(1.0, 50), max_tokens=10)


def shown(terminal: Terminal, lines: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    converse(terminal, io.StringIO(lines), is_typed=False)
    return capsys.readouterr()


def test_a_pipe_is_a_conversation(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    long = "y" * (CONTEXT - 20)
    out, err = shown(terminal, f"Hi\n\n{'x' * CONTEXT}\nWhy?\n{long}\n/quit\nnever\n", capsys)
    refused, forgot = err.splitlines()
    assert "and the model reads 96, its reply included" in refused
    assert forgot == "the context is full: forgot the oldest 2 turns"  # what was refused cost none
    assert [turn.question for turn in terminal.talk.turns] == [long]
    reply = terminal.engine.tokenizer.decode(list(terminal.engine.visible(terminal.talk.turns[0].reply)))
    assert out.endswith(reply + "\n")


def test_replies_depend_on_seed_and_history_alone(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    first = shown(terminal, "Hi\nWhy?\n", capsys)
    terminal.talk.clear()
    terminal.asked = 0
    assert shown(terminal, "Hi\nWhy?\n", capsys) == first


def test_a_reply_that_is_broken_off_is_remembered(terminal: Terminal) -> None:
    pieces = terminal.reply("Hi", terminal.talk.prompt("Hi", 10))
    list(itertools.islice(pieces, 3))
    pieces.close()
    assert len(terminal.talk.turns) == 1
    assert 1 <= len(terminal.talk.turns[0].reply) <= 10


def test_commands(terminal: Terminal, tmp_path: Path) -> None:
    assert all(name in terminal.obey("/help") for name in COMMANDS)
    assert "temperature 0.3" in terminal.obey("/temperature 0.3")
    assert "top-k 7" in terminal.obey("/topk 7")
    assert terminal.sampling == Sampling(0.3, 7)
    terminal.obey("/system Be brief.")
    terminal.talk.add("Hi", terminal.engine.tokenizer.encode("Yes"))
    path = tmp_path / "talk.json"
    assert str(path) in terminal.obey(f"/save {path}")
    said = json.loads(path.read_text())["messages"]
    assert [message["content"] for message in said] == ["Be brief.", "Hi", "Yes"]
    terminal.obey("/clear")
    assert (terminal.talk.turns, terminal.talk.system) == ([], "Be brief.")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("/temperature", "give a number, as in /temperature 0.7"),
        ("/temperature hot", "give a number"),
        ("/temperature -1", "must be 0"),
        ("/temperature nan", "must be 0"),
        ("/topk 1.5", "give a number, as in /topk 50"),
        ("/topk -1", "at least 1"),
        ("/save", "nothing was said"),
        ("/nonsense", "is no command; there are /help /clear"),
    ],
)
def test_bad_commands_change_nothing(terminal: Terminal, line: str, why: str) -> None:
    before = terminal.sampling
    with pytest.raises(UsageError, match=why):
        terminal.obey(line)
    assert terminal.sampling == before


def test_nothing_is_overwritten(terminal: Terminal, tmp_path: Path) -> None:
    terminal.talk.add("Hi", [65])
    taken = tmp_path / "taken.json"
    taken.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        terminal.obey(f"/save {taken}")
    for name in (f"{taken}/deeper.json", "~nobody-here/x.json", "x" * 300):
        with pytest.raises(UsageError, match="cannot be written"):
            terminal.obey(f"/save {name}")
    assert taken.read_text() == "mine"


def test_the_terminal_is_not_steered_by_the_model() -> None:
    assert printable("a\x1b[2Jb\x07\x9bc\n\té🙂") == "a\ufffd[2Jb\ufffd\ufffdc\n\té🙂"


def test_one_question_on_a_terminal_does_not_steer_it_either(
    terminal: Terminal, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-p`: the reply goes as it is into a pipe, without its steering characters to a screen."""
    said = iter([Part("text", "a\x1b[2Jb")] * 2)
    monkeypatch.setattr(terminal, "reply", lambda *_: (part for part in [next(said)]))
    terminal.show("Hi")
    assert capsys.readouterr().out == "a\x1b[2Jb\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    terminal.show("Hi")
    assert capsys.readouterr().out == "a\ufffd[2Jb\n"


def test_typed_lines_have_a_private_history(terminal: Terminal, tmp_path: Path) -> None:
    history = tmp_path / "deep" / "history"
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        keys.send_text("Hello\r/to\x03again\r\x04")
        assert list(typed_lines(terminal, history)) == ["Hello", "again"]
    assert history.stat().st_mode & 0o777 == 0o600
    assert "+again" in history.read_text()


PROMPT = "\x1b[?2004h"  # "bracketed paste": what prompt_toolkit shows when it reads key by key


class Keyboard:
    """A program on a terminal of its own: what it shows, what is typed."""

    def __init__(self, command: list[str]) -> None:
        self.screen, self._seen = "", 0
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.execvpe(command[0], command, {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"})

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Until the screen shows `text` behind what was waited for last."""
        end = time.monotonic() + seconds
        while (at := self.screen.find(text, self._seen)) < 0:
            assert select.select([self._terminal], [], [], max(0.0, end - time.monotonic()))[0], self.screen
            self.screen += os.read(self._terminal, 65536).decode(errors="replace")
        self._seen = at + len(text)

    def exit_code(self, seconds: float = 60) -> int:
        end = time.monotonic() + seconds
        while (found := os.waitpid(self._pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > end:
                os.kill(self._pid, signal.SIGKILL)
            time.sleep(0.05)
        return os.waitstatus_to_exitcode(found[1])


@pytest.mark.slow
def test_a_real_keyboard(tmp_path: Path) -> None:
    """A model that has learned little repeats itself for a thousand tokens, unless Ctrl-C stops it."""
    toy.make_world(tmp_path)
    flags = "--depth 1 --steps 2 --lr-scale 0.25 --context 4096 --device-batch-rows 1"
    flags += " --total-batch-tokens 4096 --eval-tokens 4096"
    argv = toy.options("base", tmp_path, tmp_path, *flags.split())
    assert toy.run("base", argv, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    chat = [sys.executable, "-m", "scripts.chat_cli", "--preset", "tiny", f"--base-dir={tmp_path}"]
    keyboard = Keyboard([*chat, "--source=base", "--temperature=0", "--max-tokens=100000", "--threads=1"])
    keyboard.wait_for("/help lists")
    keyboard.type("/help\r")
    keyboard.wait_for("stop the reply")
    keyboard.type("Hello\r")
    time.sleep(0.5)
    keyboard.type("\x03")
    keyboard.wait_for("(stopped)")
    keyboard.type("/save " + str(tmp_path / "talk.json") + "\r")
    keyboard.wait_for("saved as ")
    keyboard.wait_for(PROMPT)  # until then Ctrl-D is the terminal's, not the program's, and comes to nothing
    keyboard.type("\x04")
    assert keyboard.exit_code() == 0
    said = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert said[0] == {"role": "user", "content": "Hello"}
    assert said[1]["content"]
