"""The options of the chat server; those of the other programs are in `config.py` and its neighbours.

What it is: plain data, as there. What it is not: parsing (`configurator.py`) or meaning (`serve/`). No torch.
How to look at it: `python -m scripts.chat_web --help`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nanochat.config import Sampled
from nanochat.options import opt


@dataclass(frozen=True)
class ChatWeb(Sampled):
    """A model behind an OpenAI-compatible API and a page. Sampling options are what a chat does not set."""

    host: str = opt("127.0.0.1", "address to listen on; any but loopback needs a token, and so does Slurm")
    port: int = opt(8000, "port to listen on; 0 = any free one, which is printed", low=0, high=65_535)
    token_file: str | None = opt(
        None, "file with the token that clients send; made (mode 0600) if absent, and used on loopback, too"
    )
    allow_host: tuple[str, ...] = opt((), "further names that clients may call the server by")
    slots: int = opt(16, "requests that run at once, on each device", low=1)
    waiting: int = opt(256, "requests that wait at most, on each device; more get 429", low=1)
    workers: int | None = opt(None, "copies of the model (default: one on each GPU, one on a CPU)", low=1)
    body_kib: int = opt(256, "largest body of a request, in KiB", low=1)
    tools: Literal["calculator", "python"] = opt(
        "calculator", "what the model may call; python = also programs, confined strictly, all others wait"
    )
