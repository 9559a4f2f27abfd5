"""CORE's multiple choice under lm-evaluation-harness, from local task files with our prompts, beside ours.

What it is: a trained `classic` model is exported, the harness (extra `harness`) reads it with transformers
and asks it the bundle's questions, rendered with their shots; its logged log-likelihoods and choices are
held against ours. The context is the text that all options share, so that it scores what we score. Where its
tokens of an option are others than ours (it moves blanks at the end of a context into the option, and encodes
the context alone), the item is counted with the reason. Run, nothing is fetched:

    python tests/core_harness.py --bundle BUNDLE --base-dir BASE --run classic [--rows 16] [--tasks piqa]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import yaml
from core_twin import ALONE, arguments

from nanochat import checkpoint_manager, export_hf
from nanochat.core_bundle import open_bundle
from nanochat.core_eval import choose, spans_of
from nanochat.gpt import GPT
from nanochat.likelihood import Likelihood, Spans, SpanScore
from nanochat.probe import pick_threads
from nanochat.tokenizer import Tokenizer

TASKS = ("arc_easy", "hellaswag", "piqa")
CLOSE, SAME_CHOICE, OF_ITEMS = 1e-3, 0.99, 0.95


@dataclass
class Asked:
    """A question as the harness gets it, and as we read it."""

    context: str
    options: list[str]
    gold: int
    spans: Spans


def rendered(bundle: Path, task: str, rows: int | None, tokenizer: Tokenizer, longest: int) -> list[Asked]:
    """Context and options that joined are our prompts, cut where our targets begin.

    Prompts of more than `longest` tokens, the model's context, are left out: the harness cuts, we read on.
    """
    asked = []
    for item in open_bundle(bundle, [task]).questions(task, rows).items:
        spans, _ = spans_of(item, "multiple_choice", tokenizer, None)
        if max(map(len, spans.rows)) > longest:
            continue
        shared = tokenizer.decode_bytes(spans.rows[0][1 : spans.starts[0]])
        context = shared.decode("utf-8", errors="ignore")  # a character may begin there and end in the option
        assert all(prompt.startswith(context) for prompt in item.prompts)
        asked.append(Asked(context, [prompt[len(context) :] for prompt in item.prompts], item.gold, spans))
    return asked


def write_task(folder: Path, name: str, asked: list[Asked]) -> None:
    """A task file of the harness, and its rows."""
    rows = [{"context": one.context, "options": one.options, "gold": one.gold} for one in asked]
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = {
        "task": f"core_{name}", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test", "output_type": "multiple_choice", "num_fewshot": 0, "target_delimiter": "",
        "doc_to_text": "context", "doc_to_choice": "options", "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")


def hugging_face(model: Path, batch: int) -> Any:
    """The harness's own model of an exported folder."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(model), device="cpu", dtype="float32", add_bos_token=True, batch_size=batch)


def ask_harness(lm: Any, tasks: Path, names: list[str]) -> dict[str, list[Any]]:
    """Per task the logged samples of one of the harness's models, in the order of the rows."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model=lm, tasks=[f"core_{name}" for name in names], log_samples=True, bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
    )  # fmt: skip
    samples = {name: found["samples"][f"core_{name}"] for name in names}
    return {name: sorted(some, key=lambda one: one["doc_id"]) for name, some in samples.items()}


@dataclass
class Agreement:
    """One task: how far apart the log-likelihoods are, and how often the choices are the same."""

    name: str
    items: int
    off: float  # largest difference in nats, over the harness's own targets
    same_tokens: int  # items whose targets are ours
    same_choice: int  # of them
    rest: Counter[str]  # reason -> items

    def __str__(self) -> str:
        rest = "; ".join(f"{n} {reason}" for reason, n in self.rest.items()) or "none"
        return (
            f"{self.name:<12} {self.items} items, log-likelihoods within {self.off:.1e}, same choice on "
            f"{self.same_choice} of {self.same_tokens} with the same targets; the rest: {rest}"
        )


def verdict(found: list[Agreement]) -> list[str]:
    """Faults: log-likelihoods too far apart, or choices that differ beyond 99 % of 95 % of all items."""
    items, same = sum(one.items for one in found), sum(one.same_tokens for one in found)
    chosen = sum(one.same_choice for one in found)
    others = sum(n for one in found for reason, n in one.rest.items() if reason.endswith("same choice"))
    print(
        f"{items} items, {same} with the same targets ({same / items:.1%}), same choice on {chosen} of them"
    )
    print(f"with other targets: same choice on {others} of {items - same}")
    faults = [f"{one.name}: no question fits the context" for one in found if not one.items]
    faults += [f"{one.name}: log-likelihoods differ by {one.off:.1e}" for one in found if one.off > CLOSE]
    if chosen < SAME_CHOICE * same:
        faults.append(f"only {chosen} of {same} choices with the same targets are the same")
    if chosen + others < SAME_CHOICE * OF_ITEMS * items:
        faults.append(f"only {chosen + others} of {items} choices are the same")
    return faults


def compare(name: str, asked: list[Asked], samples: list[Any], lm: Any, scorer: Likelihood) -> Agreement:
    """Hold a task's logged samples against our scores of the same rows."""
    found = Agreement(name, len(asked), 0.0, 0, 0, Counter())
    for one, sample in zip(asked, samples, strict=True):
        theirs = [float(resp[0][0]) for resp in sample["resps"]]
        targets = [lm._encode_pair(one.context, option)[1] for option in one.options]
        starts = [len(row) - len(t) for row, t in zip(one.spans.rows, targets, strict=True)]
        assert all(row[s:] == t for row, s, t in zip(one.spans.rows, starts, targets, strict=True))
        [ours] = scorer.score([Spans(one.spans.rows, starts)])
        found.off = max(found.off, *(abs(a.log_prob - b) for a, b in zip(ours, theirs, strict=True)))
        [our_scores] = scorer.score([one.spans])
        choice = choose(our_scores)
        their_choice = choose([SpanScore(ll, len(t), False) for ll, t in zip(theirs, targets, strict=True)])
        if starts == list(one.spans.starts):
            found.same_tokens += 1
            found.same_choice += choice == their_choice
        else:
            blank = one.context != one.context.rstrip()
            reason = (
                "where it moves a blank into the options"
                if blank
                else "where the context alone has other tokens"
            )
            found.rest[f"{reason}, {'same' if choice == their_choice else 'other'} choice"] += 1
    return found


def run(
    model: GPT,
    tokenizer: Tokenizer,
    bundle: Path,
    rows: int | None,
    folder: Path,
    names: tuple[str, ...] = TASKS,
) -> list[Agreement]:
    """Export, ask the harness, ask ourselves; `folder` takes the files."""
    export_hf.export(model, tokenizer, folder / "model")
    (folder / "tasks").mkdir()
    asked = {name: rendered(bundle, name, rows, tokenizer, model.config.context) for name in names}
    for name in names:
        write_task(folder / "tasks", name, asked[name])
    lm = hugging_face(folder / "model", batch=4)
    samples = ask_harness(lm, folder / "tasks", list(names))
    return [compare(name, asked[name], samples[name], lm, Likelihood(model)) for name in names]


def main() -> int:
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    options = arguments(__doc__, "classic", ",".join(TASKS)).parse_args()
    torch.set_num_threads(pick_threads(options.threads))
    model, tokenizer, _ = checkpoint_manager.load_model(options.base_dir, "base", options.run, ALONE.device)
    names = tuple(options.tasks.split(","))
    with tempfile.TemporaryDirectory() as folder:
        found = run(model, tokenizer, options.bundle, options.rows, Path(folder), names)
    print(*found, sep="\n")
    faults = verdict(found)
    print(*faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
