"""CORE the slow and obvious way, and the command that holds the fast way against it.

What it is: rows of the bundle to text, text to tokens, one forward pass of the whole model an option with
logits of all positions, and the rules as formulas. It shares nothing with `nanochat/core_*.py` but the table
of tasks, the model and the tokenizer. What it is not: fast. Run, for a run that was trained in BASE:

    python tests/core_twin.py --bundle BUNDLE --base-dir BASE --run d4 [--rows 16] [--tasks arc_easy,piqa]

prints a line a task (items, largest difference of a score, predictions that differ and the twin's margin
there, tokens and CPU seconds of both, which neighbours on the machine do not change) and exits with 1 if the
two do not agree. Weights and products are float32. `--threads 1` makes the seconds those of a clock.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
import yaml

from nanochat import checkpoint_manager, core_eval
from nanochat.core_bundle import CORE_TASKS, CoreTask, open_bundle, task_names
from nanochat.distributed import World
from nanochat.gpt import GPT
from nanochat.item_records import ItemRecord
from nanochat.likelihood import Likelihood
from nanochat.probe import pick_threads
from nanochat.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
CLOSE, MARGIN, LISTED = 1e-4, 2e-4, 0.005  # scores, margin that decides, share of items that may differ
FOUR_OPTIONS_TEN_SHOTS = ("arc_easy", "arc_challenge", "hellaswag")
ALONE = World(0, 0, 1, torch.device("cpu"))


@dataclass
class Answer:
    """What the twin makes of a row. `margin`: how far the decision is from the next one."""

    index: int
    scores: list[float]  # mean log-probability a token of each option
    prediction: Any
    correct: bool
    margin: float
    tokens: int


def answers(bundle: Path, task: CoreTask, model: GPT, tokenizer: Tokenizer, rows: int | None) -> list[Answer]:
    """The rows of a task, in nanochat's order: shuffled with seed 1337, then cut."""
    entries = yaml.safe_load((bundle / "core.yaml").read_text(encoding="utf-8"))["icl_tasks"]
    uri = next(entry["dataset_uri"] for entry in entries if entry["label"] == task.name)
    lines = (bundle / "eval_data" / uri).read_text(encoding="utf-8").split("\n")
    data = [{**json.loads(line), "line": i} for i, line in enumerate(lines) if line]
    random.Random(1337).shuffle(data)
    data = data[:rows]
    return [answer(task, data, i, model, tokenizer) for i in range(len(data))]


def answer(task: CoreTask, data: list[dict[str, Any]], i: int, model: GPT, tokenizer: Tokenizer) -> Answer:
    others = [j for j in range(len(data)) if j != i]
    drawn = random.Random(1234 + i).sample(others, min(task.shots, len(others)))
    shots, item, gap = [data[j] for j in drawn], data[i], task.delimiter

    def encode(text: str) -> list[int]:
        return [tokenizer.bos_id, *tokenizer.encode(text)]

    if task.kind == "multiple_choice":
        # mean loss of what follows the common beginning; the lowest is the prediction
        head = "".join(f"{s['query']}{gap}{s['choices'][s['gold']]}\n\n" for s in shots)
        rows = [encode(f"{head}{item['query']}{gap}{choice}") for choice in item["choices"]]
        start = min(_common(rows), min(map(len, rows)) - 1)  # an option inside another keeps one token
        starts = [start] * len(rows)
    elif task.kind == "schema":
        # mean loss of the common ending; the lowest is the prediction
        head = "".join(f"{s['context_options'][s['gold']]}{gap}{s['continuation']}\n\n" for s in shots)
        rows = [encode(f"{head}{context}{gap}{item['continuation']}") for context in item["context_options"]]
        ending = _common([row[::-1] for row in rows])
        starts = [max(1, len(row) - ending) for row in rows]
    else:
        # right if the greedy token equals the target at every position of the continuation
        head = "".join(f"{s['context'].strip()}{gap}{s['continuation']}\n\n" for s in shots)
        stem = f"{head}{item['context'].strip()}{gap}"
        rows = [encode(stem + item["continuation"])]
        starts = [_common([rows[0], encode(stem.strip())])]
    read = [_read(model, row, start) for row, start in zip(rows, starts, strict=True)]
    losses, tokens = [loss for loss, _ in read], sum(map(len, rows))
    if task.kind == "language_modeling":
        gaps = read[0][1]
        right = bool((gaps > 0).all())
        return Answer(item["line"], [-losses[0]], int(right), right, float(gaps.abs().min()), tokens)
    prediction = losses.index(min(losses))
    first, second = sorted(losses)[:2]
    return Answer(
        item["line"],
        [-loss for loss in losses],
        prediction,
        prediction == item["gold"],
        second - first,
        tokens,
    )


@torch.no_grad()
def _read(model: GPT, row: list[int], start: int) -> tuple[float, torch.Tensor]:
    """Mean loss of row[start:], and by how much each of its logits exceeds the best other one."""
    model.reach(len(row))
    logits = model(torch.tensor([row]))[0]  # (T, V)
    losses = F.cross_entropy(logits[:-1], torch.tensor(row[1:]), reduction="none")
    scored, targets = logits[start - 1 : -1], torch.tensor(row[start:])[:, None]
    best_other = scored.scatter(1, targets, -torch.inf).max(dim=1).values
    return float(losses[start - 1 :].mean()), scored.gather(1, targets)[:, 0] - best_other


def _common(rows: list[list[int]]) -> int:
    n = 0
    while n < min(map(len, rows)) and len({row[n] for row in rows}) == 1:
        n += 1
    return n


# ----------------------------------------------------------------------------- side by side


@dataclass
class Agreement:
    """One task, both ways."""

    task: CoreTask
    items: int
    difference: float  # largest, of any score
    close_calls: list[tuple[int, float]]  # items decided otherwise within the margin, and the twin's margin
    faults: list[str]
    tokens: int  # the twin's
    fed: int  # ours, padding included
    twin_s: float
    ours_s: float

    def __str__(self) -> str:
        calls = "".join(f", row {row} decided by {margin:.1e}" for row, margin in self.close_calls)
        return (
            f"{self.task.name:<32} {self.items:>4} items, scores within {self.difference:.1e}{calls}; tokens "
            f"{self.tokens:>9,} : {self.fed:>9,}, CPU seconds {self.twin_s:>6.1f} : {self.ours_s:>5.1f} = "
            f"{self.twin_s / self.ours_s:.1f}"
        )


def compare(
    bundle: Path, task: CoreTask, model: GPT, tokenizer: Tokenizer, rows: int | None, budget: int
) -> Agreement:
    """Ours, then the twin, in one process: the same weights, precision, threads and kernels."""
    opened = open_bundle(bundle, [task.name])
    started = time.process_time()
    ours = core_eval.evaluate(
        opened, tokenizer, Likelihood(model), ALONE, context=model.config.context, budget=budget, limit=rows
    )
    ours_s = time.process_time() - started
    started = time.process_time()
    twins = {one.index: one for one in answers(bundle, task, model, tokenizer, rows)}
    twin_s = time.process_time() - started
    assert twins.keys() == {record.index for record in ours.records}
    difference, calls, faults = 0.0, [], []
    for record in ours.records:
        twin = twins[record.index]
        off = _difference(record, twin)
        difference = max(difference, off)
        if off > CLOSE:
            faults.append(f"{task.name} row {record.index}: scores differ by {off:.1e}")
        if (record.prediction, record.correct) != (twin.prediction, twin.correct):
            if twin.margin > MARGIN:
                faults.append(f"{task.name} row {record.index}: {record.prediction}, twin {twin.prediction}")
            calls.append((record.index, twin.margin))
    tokens = sum(twin.tokens for twin in twins.values())
    return Agreement(task, len(twins), difference, calls, faults, tokens, ours.tokens_fed, twin_s, ours_s)


def _difference(record: ItemRecord, twin: Answer) -> float:
    assert len(record.scores) == len(twin.scores)
    return max(
        abs(a - b) if a is not None else float("inf") for a, b in zip(record.scores, twin.scores, strict=True)
    )


def verdict(found: list[Agreement]) -> list[str]:
    """Faults of all tasks; prints the sums."""
    faults = [fault for one in found for fault in one.faults]
    items, calls = sum(one.items for one in found), sum(len(one.close_calls) for one in found)
    if calls > LISTED * items:
        faults.append(f"{calls} of {items} items are decided otherwise, more than {LISTED:.1%}")
    for name, some in (
        ("4 options, 10 shots", [one for one in found if one.task.name in FOUR_OPTIONS_TEN_SHOTS]),
        ("all", found),
    ):
        if some:
            twin_s, ours_s = sum(one.twin_s for one in some), sum(one.ours_s for one in some)
            tokens, fed = sum(one.tokens for one in some), sum(one.fed for one in some)
            ratios = f"{tokens:,} : {fed:,} = {tokens / fed:.2f}, CPU seconds {twin_s:.1f} : {ours_s:.1f}"
            print(f"{name}: tokens {ratios} = {twin_s / ours_s:.2f}")
    print(
        f"{items} items, {calls} decided otherwise, all within the margin of {MARGIN:g}" if not faults else ""
    )
    return faults


def trained(test_data: Path, folder: Path, arch: str, context: int = 512) -> Path:
    """A base folder with the run `arch`: a d4 after 40 short steps on real text (a minute on two cores)."""
    where = ["--base-dir", str(folder), "--data-dir", str(test_data / "pretrain")]
    shape = ["--depth", "4", "--head-dim", "64", "--context", str(context), "--device-batch-rows", "4"]
    recipe = ["--preset", "short", "--steps", "40", "--total-batch-tokens", "4096", "--eval-tokens", "4096"]
    for command in (
        ["scripts.tok_train", "--vocab-size", "4096", "--max-chars", "5_000_000"],
        ["scripts.base_train", *recipe, *shape, "--run", arch, "--arch", arch, "--no-compile"],
    ):
        subprocess.run([sys.executable, "-m", *command, *where], cwd=ROOT, check=True)
    return folder


def arguments(about: str | None, run: str, tasks: str) -> argparse.ArgumentParser:
    """What this command and that of `core_harness.py` share."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--base-dir", type=Path, required=True)
    parser.add_argument("--run", default=run)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--tasks", default=tasks)
    parser.add_argument("--threads", type=int)
    return parser


def main() -> int:
    parser = arguments(__doc__, "d4", "")
    parser.add_argument("--budget", type=int, default=16384)
    options = parser.parse_args()
    torch.set_num_threads(pick_threads(options.threads))
    model, tokenizer, _ = checkpoint_manager.load_model(options.base_dir, "base", options.run, ALONE.device)
    found = []
    for name in task_names(options.tasks):
        found.append(
            compare(options.bundle, CORE_TASKS[name], model, tokenizer, options.rows, options.budget)
        )
        print(found[-1], flush=True)
    faults = verdict(found)
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
