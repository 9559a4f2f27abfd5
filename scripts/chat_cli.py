"""Talk to a trained model in the terminal: `python -m scripts.chat_cli --preset laptop`.

One question, for scripts: `python -m scripts.chat_cli -p "Who are you?"` prints the reply and nothing else.
A pipe is a conversation with one message a line. /help lists the commands, Ctrl-C stops a reply.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from nanochat.common import run_main
from nanochat.config import ChatCLI
from nanochat.configurator import parse
from nanochat.tokenizer import StreamDecoder

if TYPE_CHECKING:
    from nanochat.engine import Engine

HELP = """\
/help    this list
/clear   forget the conversation
/quit    leave (or Ctrl-D)
Ctrl-C   stop the reply"""


class Chat:
    """A conversation as token ids: one list for each question with its reply, the oldest first."""

    def __init__(self, engine: Engine, config: ChatCLI) -> None:
        self.engine, self.config = engine, config
        self.turns: list[list[int]] = []

    def ask(self, text: str) -> Generator[str, None, None]:
        """The reply, piece by piece. One that is broken off stays in the conversation as far as it got."""
        tokenizer = self.engine.tokenizer
        question = tokenizer.render_for_completion({"messages": [{"role": "user", "content": text}]})
        reply: list[int] = []
        decoder = StreamDecoder(tokenizer)
        try:
            for token in self.engine.visible(self._tokens(question[1:], reply)):
                yield decoder.push(token)
            yield decoder.flush()
        finally:
            if reply:
                self.turns.append([*question[1:], *reply, tokenizer.special("assistant_end")])

    def _tokens(self, question: list[int], reply: list[int]) -> Iterator[int]:
        """The engine's ids for a question, also appended to `reply`. The oldest turns go if room is short."""
        config, context = self.config, self.engine.config.context
        wanted = min(config.max_tokens, context // 2)
        while self.turns and 1 + sum(map(len, [*self.turns, question])) + wanted > context:
            del self.turns[0]
        prompt = [self.engine.tokenizer.bos_id, *(i for turn in self.turns for i in turn), *question]
        for token in self.engine.stream(
            prompt, max_tokens=config.max_tokens, temperature=config.temperature, top_k=config.top_k,
            top_p=config.top_p, seed=config.seed + len(self.turns),
        ):  # fmt: skip
            reply.append(token)
            yield token


def show(chat: Chat, text: str) -> None:
    """Print a reply as it comes."""
    with contextlib.closing(chat.ask(text)) as pieces:
        for piece in pieces:
            print(piece, end="", flush=True)
    print(flush=True)


def converse(chat: Chat) -> None:
    """Read messages and commands until the end of the input."""
    typed = sys.stdin.isatty() and sys.stdout.isatty()
    if typed:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  input() then has line editing and a history
        print("/help lists the commands")
    while True:
        try:
            text = input("\n> " if typed else "").strip()
            if text == "/quit":
                return
            if text == "/clear":
                chat.turns.clear()
            elif text.startswith("/"):
                print(HELP)
            elif text:
                show(chat, text)
        except EOFError:
            print(end="\n" if typed else "")
            return
        except KeyboardInterrupt:
            print("\n(stopped; /quit leaves)")
        except ValueError as error:  # a message that does not fit: the conversation goes on
            print(f"error: {error}", file=sys.stderr)


def main(argv: list[str]) -> None:
    config = parse(ChatCLI, argv, prog="chat_cli", about=__doc__)
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]

    from nanochat.calculator import calculate
    from nanochat.engine import Engine
    from nanochat.evaluation import loaded
    from nanochat.sampling import Sampling

    Sampling(config.temperature, config.top_k, config.top_p)  # refuses before the model is loaded
    with loaded(config, config.source, config.depth) as (_, model, tokenizer, _):
        chat = Chat(Engine(model, tokenizer, calculate), config)
        if config.prompt is None:
            converse(chat)
        else:
            show(chat, sys.stdin.read().strip() if config.prompt == "-" else config.prompt)


if __name__ == "__main__":
    run_main(main)
