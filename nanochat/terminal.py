"""Talk to a model in a terminal: questions, replies as they come, and a few commands.

What it is: `Terminal`, whose `show` prints a reply as it comes and whose `obey` runs a command, `typed_lines`
(prompt_toolkit: editing, a history, completion), and `converse`, which answers lines typed or piped. What it
is not: the model's work (`engine.py`), or what it remembers (`conversation.py`).
Run: `python -m scripts.chat_cli`.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nanochat.common import UsageError, atomic_path, write_json
from nanochat.conversation import Conversation, Part, parts
from nanochat.request import Request, Sampling

if TYPE_CHECKING:
    from nanochat.engine import Engine

N = TypeVar("N", int, float)
DIM, PLAIN = "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True)
class Command:
    argument: str
    help: str
    run: Callable[[Terminal, str], str]


class Terminal:
    """One conversation with one model. What it says besides the replies goes through `note`."""

    def __init__(self, engine: Engine, sampling: Sampling, max_tokens: int, seed: int = 0) -> None:
        self.engine, self.sampling = engine, sampling
        self.max_tokens, self.seed = max_tokens, seed
        self.asked = 0
        self.talk = Conversation(engine.tokenizer, engine.config.context)

    @property
    def status(self) -> str:
        """How full the context is, and how tokens are chosen."""
        used, context = len(self.talk), self.engine.config.context
        temperature, top_k = self.sampling.temperature, self.sampling.top_k or "all"
        return f"context {used:,} of {context:,} tokens · temperature {temperature:g} · top-k {top_k}"

    def reply(self, question: str, prompt: list[int]) -> Generator[Part, None, None]:
        """The reply, part by part. One that is broken off stays in the conversation as far as it got."""
        seed, self.asked = self.seed + self.asked, self.asked + 1
        ids: list[int] = []

        def written() -> Iterator[int]:
            for token in self.engine.stream(Request(prompt, self.max_tokens, self.sampling, seed)):
                ids.append(token)
                yield token

        try:
            yield from parts(written(), self.engine.tokenizer)
        finally:
            if ids:
                self.talk.add(question, ids)

    def show(self, question: str, *, is_typed: bool = False) -> None:
        """Print a reply as it comes; on a terminal also what a tool was asked and answered."""
        before, is_shown = self.talk.forgotten, is_typed or sys.stdout.isatty()
        prompt = self.talk.prompt(question, self.max_tokens)
        if gone := self.talk.forgotten - before:
            note(f"the context is full: forgot the oldest {gone} turn{'s' * (gone > 1)}", is_typed)
        with contextlib.closing(self.reply(question, prompt)) as pieces:
            for kind, text in pieces:
                if kind == "text":
                    print(printable(text) if is_shown else text, end="", flush=True)
                elif is_typed:
                    sign = "= " if kind == "python_output" else ""
                    print(f"{DIM}[{sign}{printable(text)}]{PLAIN}", end="", flush=True)
        print(flush=True)

    def obey(self, line: str) -> str:
        """Run a command such as "/topk 5"; returns what there is to say. UsageError if it is none."""
        name, _, argument = line.partition(" ")
        if name not in COMMANDS:
            raise UsageError(f"{name} is no command; there are {' '.join(COMMANDS)}")
        return COMMANDS[name].run(self, argument.strip())

    # ------------------------------------------------------------------ commands

    def _help(self, _: str) -> str:
        lines = [f"{f'{name} {c.argument}'.strip():<22}{c.help}" for name, c in COMMANDS.items()]
        return "\n".join([*lines, f"{'Ctrl-C':<22}stop the reply", f"{'Ctrl-D':<22}leave"])

    def _clear(self, _: str) -> str:
        self.talk.clear()
        return "a new conversation"

    def _temperature(self, argument: str) -> str:
        self.sampling = replace(self.sampling, temperature=_number(float, "/temperature", argument, 0.7))
        return self.status

    def _top_k(self, argument: str) -> str:
        self.sampling = replace(self.sampling, top_k=_number(int, "/topk", argument, 50))
        return self.status

    def _system(self, argument: str) -> str:
        self.talk.clear()
        self.talk.system = argument
        return f"a new conversation {'with' if argument else 'without'} a system prompt"

    def _save(self, argument: str) -> str:
        path = Path(argument or f"chat-{time.strftime('%Y%m%d-%H%M%S')}.json")
        if not self.talk.turns:
            raise UsageError("/save: nothing was said yet")
        try:
            path = path.expanduser()
            if path.exists():
                raise UsageError(f"/save: {path} exists already; give another name")
            write_json(path, {"messages": self.talk.messages()})
        except (OSError, RuntimeError) as error:  # expanduser's, where there is no such user
            why = getattr(error, "strerror", None) or error
            raise UsageError(f"/save: {path} cannot be written: {why}") from error
        return f"saved as {path}"

    def _quit(self, _: str) -> str:
        raise EOFError


COMMANDS = {
    "/help": Command("", "this list", Terminal._help),
    "/clear": Command("", "forget the conversation", Terminal._clear),
    "/temperature": Command("NUMBER", "0 = always the likeliest token", Terminal._temperature),
    "/topk": Command("NUMBER", "choose among the k likeliest tokens; 0 = all", Terminal._top_k),
    "/system": Command("[TEXT]", "begin anew with this system prompt", Terminal._system),
    "/save": Command("[FILE]", "write the conversation as JSON", Terminal._save),
    "/quit": Command("", "leave", Terminal._quit),
}


def _number(kind: Callable[[str], N], name: str, argument: str, example: N) -> N:
    try:
        return kind(argument)
    except ValueError:
        raise UsageError(f"{name} {argument}: give a number, as in {name} {example}") from None


def printable(text: str) -> str:
    """Without characters that steer a terminal: a model may write any."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def note(text: str, is_typed: bool) -> None:
    """A line that is no reply; in a pipe it must not get among the replies."""
    if is_typed:
        print(f"{DIM}{text}{PLAIN}")
    else:
        print(text, file=sys.stderr)


def typed_lines(terminal: Terminal, history: Path) -> Iterator[str]:
    """Lines from the keyboard, until Ctrl-D. The history is the user's alone to read."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory

    if not history.exists():
        with atomic_path(history) as new:
            new.touch(mode=0o600)
    meta = {name: command.help for name, command in COMMANDS.items()}
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)),
        completer=WordCompleter(list(COMMANDS), meta_dict=meta, sentence=True),  # type: ignore[arg-type]
        complete_while_typing=True,
        bottom_toolbar=lambda: terminal.status,
    )
    print("/help lists the commands")
    while True:
        try:
            yield session.prompt("> ")
        except KeyboardInterrupt:
            note("(/quit or Ctrl-D leaves)", is_typed=True)
        except EOFError:
            return


def converse(terminal: Terminal, lines: Iterator[str], *, is_typed: bool) -> None:
    """Answer lines and obey commands until there are no more."""
    for line in map(str.strip, lines):
        try:
            if line.startswith("/"):
                note(terminal.obey(line), is_typed)
            elif line:
                terminal.show(line, is_typed=is_typed)
        except EOFError:
            return
        except KeyboardInterrupt:
            if not is_typed:
                raise
            note("\n(stopped)", is_typed)
        except ValueError as error:  # a message that does not fit: the conversation goes on
            note(f"error: {error}", is_typed)
