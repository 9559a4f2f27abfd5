"""A tiny world to train in, and real processes that train in it: started, stopped, killed, compared.

What it is: data and a byte tokenizer made in a moment; `start` (a new process, forked from a server that
has imported torch) and `torchrun` (the real one); faults that strike at an exact point: a signal at a
training micro-batch or at the n-th filesystem event below `checkpoints/`, a slow rank, a NaN. A fault is
`kind:n:what:rank`:

    micro:7:SIGTERM:0   the signal in the 7th micro-batch of rank 0
    file:12:SIGKILL:0   the signal before the 12th mkdir, open, rename, remove or rmdir of any checkpoint
    file8:5:SIGTERM:0   the same, but only what is done to the checkpoint of step 8 counts
    nan:7:loss:1        loss, gradient or weights of rank 1 become NaN in its 7th micro-batch
    slow:0.2::1         rank 1 sleeps that long in each micro-batch
    late:4::1           rank 1 sleeps that long when it is about to exit
    reward:5::1         the 5th reward of rank 1 raises

What it is not: a replacement of anything in the package. Run: `pytest tests/test_resume.py -m slow`.
"""

from __future__ import annotations

import atexit
import importlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nanochat import dataset, metrics
from nanochat.common import launched, read_json, run_main
from nanochat.tokenizer import Tokenizer, split_pattern

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {"base": "base_train", "mid": "mid_train", "sft": "chat_sft", "rl": "chat_rl"}
ROWS, CONTEXT, BATCH_ROWS = 2, 32, 8
LONG = bool(os.environ.get("NANOCHAT_LONG"))
WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "mat",
    "ran",
    "far",
    "blue",
    "red",
    "sky",
    "sun",
    "moon",
    "tree",
    "likes",
    "eats",
    "sees",
    "small",
    "big",
]
FILE_EVENTS = {"os.mkdir", "open", "os.rename", "os.remove", "os.rmdir"}


# ----------------------------------------------------------------------------- the world


def conversation(rng: random.Random) -> dict[str, Any]:
    question, answer = (" ".join(rng.choices(WORDS, k=2)) for _ in range(2))
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def make_world(root: Path) -> None:
    """`data/` (three shards, mid.jsonl, sft.jsonl, problems.jsonl), `tok/`: about five steps an epoch."""
    rng = random.Random(5)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 12))) for _ in range(70)]
    dataset.write_shards(root / "data", texts[:50], texts[50:], shard_mb=0.001)
    Tokenizer([bytes([i]) for i in range(256)], split_pattern(1)).save(root / "tok")
    for name in ("mid", "sft"):
        lines = [json.dumps(conversation(rng)) for _ in range(48)]
        (root / "data" / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    problems = [{"messages": conversation(rng)["messages"][:1], "result": i} for i in range(20)]
    text = "".join(json.dumps(problem) + "\n" for problem in problems)
    (root / "data" / "problems.jsonl").write_text(text, encoding="utf-8")


def save_model(root: Path, tokenizer: Tokenizer, run: str, *stages: str, context: int) -> None:
    """`tok/` and a model of random weights that is sure of itself, as each of `stages` of a run left it."""
    import torch

    from nanochat import checkpoint_manager
    from nanochat.config import GPTConfig, Training
    from nanochat.distributed import World
    from nanochat.gpt import GPT
    from nanochat.optimizers import build
    from nanochat.schedule import Schedule

    tokenizer.save(root / "tok")
    config = GPTConfig(vocab_size=265, depth=2, width=32, heads=1, kv_heads=1, context=context)
    model, rng = GPT(config).init_weights(0), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.normal_(0, 1.5 * p.size(1) ** -0.5, generator=rng)
    world = World(0, 0, 1, torch.device("cpu"))
    optimizers = build(model, Training(), world, Schedule(10), 512, 0.1)
    state = {"tok_dir": "tok", "identity": {"tokenizer": tokenizer.hash}, "batch_tokens": 1024}
    for stage in stages:
        checkpoint_manager.save(root / f"{stage}_{run}", 1, model, optimizers, state, world)


def parity(task: Any, item: dict[str, Any], reply: str, ended: bool) -> float:
    """A reward that a model which has learned nothing gets for about every other reply."""
    return float(len(reply) % 2)


def options(stage: str, world: Path, base: Path, *extra: str) -> list[str]:
    """Flags of a tiny run of a stage in `base` on the data of `world`; `extra` adds or replaces some."""
    flags = {
        "--base-dir": str(base), "--data-dir": str(world / "data"), "--tok-dir": str(world / "tok"),
        "--device-batch-rows": str(ROWS), "--total-batch-tokens": str(BATCH_ROWS * CONTEXT), "--steps": "12",
        "--save-every-steps": "3", "--eval-every-steps": "6", "--eval-tokens": "256", "--threads": "1",
    }  # fmt: skip
    if stage == "base":  # at the preset's rates a step of 256 tokens overshoots after a few
        flags |= {"--context": str(CONTEXT), "--lr-scale": "0.25"}
    flags |= dict(zip(extra[::2], extra[1::2], strict=True))
    return ["--preset", "tiny", "--device", "cpu", *(word for pair in flags.items() for word in pair)]


def outcome(folder: Path) -> dict[str, Any]:
    """What two runs must share to be the same: hashes of the newest checkpoint, and all that was logged."""
    newest = max((folder / "checkpoints").glob("step_*"))
    clocks = {"time", "step_s", "tokens_per_s", "eval_s", "sample_s"}
    log = [
        {k: v for k, v in record.items() if k not in clocks}
        for record in metrics.read(folder / "metrics.jsonl")
        if "save_s" not in record  # a run that was stopped has saved more often
    ]
    return {"files": read_json(newest / "manifest.json")["files"], "log": log}


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in metrics.read(folder / "metrics.jsonl") if "loss" in record]


# ----------------------------------------------------------------------------- processes


def start(stage: str, argv: list[str], log: Path, fault: str = "") -> multiprocessing.process.BaseProcess:
    """`python -m scripts.base_train ARGV` (or mid, sft) in a new process; its output goes to `log`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "nanochat.stages", "nanochat.runner"])
    child = context.Process(target=_child, args=(stage, argv, fault, str(log)))
    child.start()
    return child


def run(stage: str, argv: list[str], log: Path, fault: str = "") -> int | None:
    """Exit code of a process that ran to its end; minus the signal if one killed it."""
    child = start(stage, argv, log, fault)
    child.join(300)
    return child.exitcode


def torchrun(ranks: int, stage: str, argv: list[str], log: Path, fault: str = "") -> subprocess.Popen[bytes]:
    """The same on several ranks, under the real torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TOY_FAULT": fault, "OMP_NUM_THREADS": "1"}
    with open(log, "ab") as output:
        return subprocess.Popen(
            [*launcher, __file__, stage, *argv],
            cwd=ROOT, env=env, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


def _child(stage: str, argv: list[str], fault: str, log: str | None) -> None:
    if log is not None:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
    if stage == "rl":
        importlib.import_module("tasks.problems").Problems.reward = parity
    if fault:
        arm(fault)
    sys.argv = [stage, *argv]
    run_main(importlib.import_module(f"scripts.{SCRIPTS[stage]}").main)


# ----------------------------------------------------------------------------- faults


def arm(fault: str) -> None:
    """Let a fault strike in this process, if it is this rank's."""
    kind, number, what, rank = fault.split(":")
    if int(rank) != launched()[0]:
        return
    if kind.startswith("file"):
        _arm_files(kind[4:], int(number), getattr(signal, what))
    elif kind == "late":
        atexit.register(lambda: (time.sleep(float(number)), print(f"rank {rank} has left", flush=True)))
    elif kind == "reward":
        _spoil_reward(int(number))
    elif kind == "slow":
        strike(None, lambda model, loss: time.sleep(float(number)))
    elif kind == "micro":
        strike(int(number), lambda model, loss: os.kill(os.getpid(), getattr(signal, what)))
    else:
        strike(int(number), NAN[what])


def _arm_files(step: str, number: int, what: signal.Signals) -> None:
    seen = 0
    wanted = f"step_{int(step):07d}" if step else "checkpoints"

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in FILE_EVENTS:
            return
        # rmtree names what it removes within an open folder
        inside = event in ("os.remove", "os.rmdir") and args[-1] != -1 and not step
        if inside or wanted in str(args[0]):
            seen += 1
            os.write(1, f"file event {seen}: {event} {' '.join(map(str, args))}\n".encode())
            if seen == number:
                os.kill(os.getpid(), what)

    sys.addaudithook(hook)


def _spoil_reward(number: int) -> None:
    seen = 0

    def reward(*args: Any) -> float:
        nonlocal seen
        seen += 1
        return 1 / 0 if seen == number else parity(*args)

    importlib.import_module("tasks.problems").Problems.reward = reward


def strike(number: int | None, action: Callable[[Any, Any], Any]) -> None:
    """Call `action(model, loss)` in the `number`-th training micro-batch, or each; it may change the loss."""
    import torch

    from nanochat.gpt import GPT

    original, seen = GPT.loss_sum, 0

    def loss_sum(self: Any, *batch: Any) -> Any:
        nonlocal seen
        loss = original(self, *batch)
        seen += torch.is_grad_enabled()
        changed = action(self, loss) if torch.is_grad_enabled() and number in (None, seen) else None
        return loss if changed is None else changed

    GPT.loss_sum = loss_sum  # type: ignore[method-assign]


def _spoil_gradient(model: Any, loss: Any) -> None:
    loss.register_hook(lambda gradient: gradient * float("nan"))


def _spoil_weights(model: Any, loss: Any) -> None:
    model.embed.weight.data[-1] = float(
        "nan"
    )  # a row that no token uses: only the check of the weights sees it


NAN: dict[str, Callable[[Any, Any], Any]] = {
    "loss": lambda model, loss: loss * float("nan"),
    "gradient": _spoil_gradient,
    "weights": _spoil_weights,
}


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2:], os.environ.get("TOY_FAULT", ""), None)
