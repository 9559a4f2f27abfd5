"""The model that is served: what requests must know of it, and its tools.

What it is: facts, and tools by name. What it is not: the model itself, which is in the engines' processes
(`worker.py`): a checkpoint that is replaced on the disk changes nothing. No torch.
Run: `python -m scripts.chat_web`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nanochat.calculator import calculate
from nanochat.common import UsageError
from nanochat.config_serve import ChatWeb
from nanochat.execution import SandboxError, SandboxUnavailable, run_python
from nanochat.reply import Rules
from nanochat.request import Sampling
from nanochat.serve.wire import Ready
from nanochat.tokenizer import Tokenizer

PYTHON_S = 2.0  # the other replies wait for it
PYTHON_MIB = 256
OUTPUT_CHARACTERS = 400  # of a program; a context is small


@dataclass(frozen=True)
class Tools:
    """What a model may call. A call that the calculator cannot answer is a program, if those are allowed."""

    names: tuple[str, ...] = ("calculator",)

    def __call__(self, call: str) -> str | None:
        result = calculate(call)
        if result is not None or "python" not in self.names:
            return result
        try:
            run = run_python(call, seconds=PYTHON_S, memory_mib=PYTHON_MIB)
        except (SandboxError, SandboxUnavailable, OSError):  # say, a full /tmp: the replies go on without
            return None
        text = (
            run.stdout if run.ok else f"{run.stdout}{run.stderr.strip().rpartition(chr(10))[2] or run.status}"
        )
        return text.strip()[:OUTPUT_CHARACTERS]

    def name(self, call: str) -> str:
        """The tool that answers a call."""
        is_program = "python" in self.names and calculate(call) is None
        return "python" if is_program else "calculator"


def tools_of(asked: str) -> Tools:
    return Tools(("calculator", "python") if asked == "python" else ("calculator",))


@dataclass(frozen=True)
class Model:
    """What a route has to know."""

    id: str
    context: int
    vocab_size: int
    rules: Rules
    tools: Tools
    sampling: Sampling  # of a chat that says nothing else
    most_requests: int  # in one HTTP request
    created: int = field(default_factory=lambda: int(time.time()))


def run_of(config: ChatWeb) -> str:
    return config.run or f"d{config.depth}"


def require_sandbox(config: ChatWeb) -> None:
    """SandboxUnavailable now, rather than in the middle of a reply."""
    if config.tools == "python":
        run_python("pass", seconds=PYTHON_S, memory_mib=PYTHON_MIB)


def model_of(config: ChatWeb, engines: Sequence[Ready]) -> Model:
    """What the engines loaded. UsageError if the disk holds another tokenizer by now."""
    first = engines[0]
    tokenizer = Tokenizer.load(Path(first.tokenizer))
    if {tokenizer.hash} != {engine.tokenizer_hash for engine in engines}:
        raise UsageError(
            f"the tokenizer in {first.tokenizer} changed while the model was loaded; start again"
        )
    return Model(
        f"{config.source}_{run_of(config)}", first.context, first.vocab_size,
        Rules(tokenizer, None), tools_of(config.tools),
        Sampling(config.temperature, config.top_k, config.top_p), first.waiting,
    )  # fmt: skip
