"""Talk to a trained model in the terminal: `python -m scripts.chat_cli --preset laptop`.

One question, for scripts: `python -m scripts.chat_cli -p "Who are you?"` prints the reply and nothing else.
A pipe is a conversation with one message a line. /help lists the commands, Ctrl-C stops a reply.
"""

from __future__ import annotations

import sys

from nanochat.common import base_dir, run_main
from nanochat.config import ChatCLI
from nanochat.configurator import parse
from nanochat.request import Sampling
from nanochat.terminal import Terminal, converse, typed_lines


def main(argv: list[str]) -> None:
    config = parse(ChatCLI, argv, prog="chat_cli", about=__doc__)
    sampling = Sampling(config.temperature, config.top_k, config.top_p)  # refuses before the model is loaded
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]

    from nanochat.calculator import calculate
    from nanochat.engine import Engine
    from nanochat.evaluation import loaded

    with loaded(config, config.source, config.depth) as (_, model, tokenizer, _):
        engine = Engine(model, tokenizer, calculate)
        terminal = Terminal(engine, sampling, config.max_tokens, config.seed)
        is_typed = sys.stdin.isatty() and sys.stdout.isatty()
        if config.prompt is not None:
            terminal.show(sys.stdin.read().strip() if config.prompt == "-" else config.prompt)
        elif is_typed:
            history = base_dir(config.base_dir) / "chat_history"
            converse(terminal, typed_lines(terminal, history), is_typed=True)
        else:
            converse(terminal, sys.stdin, is_typed=False)


if __name__ == "__main__":
    run_main(main)
