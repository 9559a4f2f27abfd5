"""Whether this installation works: import, tokenizer, one optimizer step on the CPU, and on a GPU if any.

What it is: `run()`, a few seconds in which any connection to another machine fails; it is an image's health
check. What it is not: the tests of the code (`scripts/run_tests.sh`). Run: `python -m scripts.info
--self-test`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from nanochat import accelerator, facts, info, offline
from nanochat.common import EXIT_DONE

TEXTS = (
    "The tide comes in, the tide goes out.",
    "12 times 34 is 408.",
    "na\u00efve \u4f60\u597d \U0001f642\n\ttab",
)
VOCABULARY, ROWS, CONTEXT = 300, 4, 32


@dataclass(frozen=True)
class Part:
    """One part of the self-test: what it found, or why it failed; `ok` None: there was nothing to test."""

    name: str
    ok: bool | None
    text: str
    seconds: float = 0.0

    def __str__(self) -> str:
        word = {True: "ok", False: "FAILED", None: "-"}[self.ok]
        return f"{self.name:<10} {word:<6} {self.seconds:5.1f} s  {self.text}"


def run() -> Iterator[Part]:
    """The parts, each as soon as it is done; without torch the rest is left out."""
    first = _timed("import", _import)
    yield first
    if not first.ok:
        return
    with offline.guard():
        yield _timed("tokenizer", _tokenizer)
        yield _timed("step, cpu", partial(_step, "cpu"))
        yield from _gpu()


def _timed(name: str, part: Callable[[], str]) -> Part:
    """A part, whatever it raises: the next ones may say more."""
    started = time.perf_counter()
    try:
        text, ok = part(), True
    except Exception as error:
        text, ok = f"{type(error).__name__}: {error}", False
    return Part(name, ok, text, time.perf_counter() - started)


def _import() -> str:
    import torch

    from nanochat import encoding, gpt, optimizers  # noqa: F401

    if encoding.import_rustbpe() is None:
        raise ImportError("rustbpe is not built: bash env/setup.sh, or pip install ./rustbpe")
    return f"torch {torch.__version__}, rustbpe"


def _tokenizer() -> str:
    from nanochat.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(["the tide in and out of the harbour, then again " * 9], 270, threads=1)
    for text in TEXTS:
        back = tokenizer.decode(tokenizer.encode(text))
        if back != text:
            raise ValueError(f"{text!r} came back as {back!r}")
    return f"{tokenizer.vocab_size} ids, {len(TEXTS)} texts there and back"


def _step(device: str) -> str:
    """One step on one batch; the loss of that batch is lower behind it, from ln V, that of guessing."""
    import torch

    from nanochat import optimizers
    from nanochat.config import GPTConfig, Training
    from nanochat.distributed import World
    from nanochat.gpt import GPT
    from nanochat.schedule import Schedule

    where = torch.device(device)
    config = GPTConfig(VOCABULARY, depth=2, width=64, heads=2, kv_heads=2, context=CONTEXT)
    model = GPT(config).init_weights(0).to(where)
    batch = torch.randint(VOCABULARY, (ROWS, CONTEXT + 1), generator=torch.Generator().manual_seed(0)).to(
        where
    )
    inputs, targets = batch[:, :-1].contiguous(), batch[:, 1:].contiguous()
    world = World(0, 0, 1, where)
    tuned = optimizers.build(model, Training(), world, Schedule(10, warmup=1), batch.numel(), 0.1)
    before = model.loss_sum(inputs, targets) / targets.numel()
    before.backward()
    tuned.step(0)
    with torch.no_grad():
        after = (model.loss_sum(inputs, targets) / targets.numel()).item()
    if not (abs(before.item() - math.log(VOCABULARY)) < 0.5 and after < before.item()):
        raise ValueError(f"loss {before.item():.3f} before a step, {after:.3f} behind it")
    return f"loss {before.item():.3f}, then {after:.3f}"


def _gpu() -> Iterator[Part]:
    """A step on the GPU; without one, why, if torch was built for it."""
    import torch

    amiss = list(accelerator.judge(facts.torch_build(), accelerator.look(), info.container()))
    for finding in amiss:
        yield Part("gpu", None if finding.code == EXIT_DONE else False, f"{finding.text}; {finding.remedy}")
    if torch.cuda.is_available():
        yield _timed("step, cuda", partial(_step, "cuda"))
    elif not amiss and torch.backends.cuda.is_built():
        yield Part(
            "gpu",
            False,
            "driver and GPUs are there, and torch cannot use them: python -m torch.utils.collect_env",
        )
