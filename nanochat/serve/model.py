"""The model that is served: what requests must know of it, its tools, and how it comes off the disk.

What it is: facts, tools by name, and `load`, which puts a copy on each device. What it is not: the queue
(`pool.py`). A loaded model is in memory: a checkpoint that is replaced on the disk changes nothing.
Run: `python -m scripts.chat_web`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from nanochat.calculator import calculate
from nanochat.common import base_dir, print0
from nanochat.config_serve import ChatWeb
from nanochat.execution import SandboxError, run_python
from nanochat.reply import Rules
from nanochat.request import Sampling
from nanochat.scheduler import Scheduler
from nanochat.serve.pool import Worker

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
        except SandboxError:
            return None
        text = (
            run.stdout if run.ok else f"{run.stdout}{run.stderr.strip().rpartition(chr(10))[2] or run.status}"
        )
        return text.strip()[:OUTPUT_CHARACTERS]

    def name(self, call: str) -> str:
        """The tool that answers a call."""
        is_program = "python" in self.names and calculate(call) is None
        return "python" if is_program else "calculator"


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


def require_sandbox(config: ChatWeb) -> None:
    """SandboxUnavailable now, rather than in the middle of a reply."""
    if config.tools == "python":
        run_python("pass", seconds=PYTHON_S, memory_mib=PYTHON_MIB)


def load(config: ChatWeb) -> tuple[Model, list[Worker]]:
    """The newest checkpoint on each device, with its scheduler running."""
    import torch

    from nanochat import checkpoint_manager
    from nanochat.distributed import pick_device
    from nanochat.engine import Engine
    from nanochat.probe import pick_dtype, pick_threads

    start = time.perf_counter()
    torch.set_num_threads(pick_threads(config.threads))
    root, run = base_dir(config.base_dir), config.run or f"d{config.depth}"
    tools = Tools(("calculator", "python") if config.tools == "python" else ("calculator",))
    first = pick_device(config.device)
    count = torch.cuda.device_count() if first.type == "cuda" else 1
    workers = []
    for i in range(config.workers or count):
        device = torch.device("cuda", i % count) if first.type == "cuda" else first
        dtype, _ = pick_dtype(config.dtype, device)
        gpt, tokenizer, _ = checkpoint_manager.load_model(root, config.source, run, device, dtype)
        engine = Engine(gpt, tokenizer, tools)
        workers.append(Worker(f"{device}/{i}", Scheduler(engine, config.slots, waiting=config.waiting)))
        print0(f"{config.source}_{run} on {device}, {dtype}, {time.perf_counter() - start:.1f} s")
    model = Model(
        f"{config.source}_{run}", engine.config.context, engine.config.vocab_size, engine.rules, tools,
        Sampling(config.temperature, config.top_k, config.top_p), config.waiting,
    )  # fmt: skip
    return model, workers
