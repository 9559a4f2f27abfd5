"""CORE: the mean over 22 tasks of centred accuracy (DCLM, arXiv 2406.11794), for any scorer.

What it is: tokens and spans of a bundle's questions, the choice that their likelihoods mean, and scores
with intervals. Rules: multiple choice scores what follows the options' common beginning, schema the options'
common ending, both by mean log-probability a token, the first of equals winning; language modelling wants
every token of the continuation to be the likeliest. What it is not: files and prompts (`core_bundle.py`) or
a model (`likelihood.py`, `hf_model.py`). Run: `python -m scripts.base_eval --evals core`.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from nanochat.core_bundle import CORE_TASKS, Bundle, CoreTask, Kind, Question, Questions
from nanochat.distributed import World
from nanochat.item_records import ItemRecord, bootstrap, prompt_hash, wilson
from nanochat.likelihood import Scorer, Spans, SpanScore, common_length

NOT_FINITE = "not finite"


class Outcome(NamedTuple):
    """What became of the question at a place of its task."""

    place: int
    scores: list[SpanScore]  # of each row
    tokens: int  # of all rows
    notes: list[str]


class Encoder(Protocol):
    """What a tokenizer must do."""

    @property
    def bos_id(self) -> int: ...
    def encode(self, text: list[str], /) -> list[list[int]]: ...


@dataclass(frozen=True)
class TaskScore:
    """One task's result. `counts`: what was out of the ordinary, by name, in items."""

    task: CoreTask
    n: int
    shots: int
    accuracy: float
    low: float  # 95 % interval of the accuracy (Wilson)
    high: float
    chance: float | None  # mean of 1/options; None for language modelling
    options: dict[int, int]  # number of options -> items
    counts: dict[str, int]
    tokens: int  # of all rows, each counted whole
    seconds: float

    @property
    def centered(self) -> float:
        return self.task.centered(self.accuracy)

    def facts(self) -> dict[str, Any]:
        """The figures, for a JSON file."""
        own = {key: value for key, value in vars(self).items() if key != "task"}
        return {
            "task": self.task.name, "kind": self.task.kind, "baseline": self.task.baseline,
            "centered": self.centered, **own,
        }  # fmt: skip

    def __str__(self) -> str:
        parts = [
            f"{self.task.name:<32} {self.accuracy:.4f} ({self.low:.4f} to {self.high:.4f})",
            f"centered {self.centered:+.4f}", f"{self.n} items", f"{self.shots} shots",
        ]  # fmt: skip
        if self.shots < self.task.shots:
            parts[-1] += f" instead of {self.task.shots}: there are no more rows"
        return ", ".join([*parts, *(f"{count} {name}" for name, count in self.counts.items() if count)])


@dataclass
class CoreResult:
    """All tasks. `core` is the published figure if all 22 are there, and whole: `is_core`, `TaskScore.n`."""

    scores: list[TaskScore]
    records: list[ItemRecord]
    tokens_fed: int
    seconds: float
    notes: list[str] = field(default_factory=list)

    @property
    def is_core(self) -> bool:
        return {score.task.name for score in self.scores} == set(CORE_TASKS)

    @property
    def core(self) -> float:
        return statistics.fmean(score.centered for score in self.scores)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `core`: items are resampled within each task."""
        tasks = {score.task.name: score.task for score in self.scores}
        values: dict[str, list[float]] = {name: [] for name in tasks}
        for record in self.records:
            values[record.task].append(tasks[record.task].centered(record.correct))
        return bootstrap(values)

    def facts(self) -> dict[str, Any]:
        low, high = self.interval
        return {
            "core": self.core, "low": low, "high": high, "n_tasks": len(self.scores), "seconds": self.seconds,
            "tokens": sum(score.tokens for score in self.scores), "tokens_fed": self.tokens_fed,
            "notes": self.notes, "tasks": [score.facts() for score in self.scores],
        }  # fmt: skip


# ----------------------------------------------------------------------------- tokens


def spans_of(
    question: Question, kind: Kind, encoder: Encoder, crop_to: int | None
) -> tuple[Spans, list[str]]:
    """A question's token rows and what counts in them; notes name what is out of the ordinary.

    Every row has at least one token that counts and one before it. So where an option begins with the whole
    of another, the last token of that one counts in all of them.
    """
    texts = [*question.prompts] if question.stem is None else [*question.prompts, question.stem]
    rows = [[encoder.bos_id, *ids] for ids in encoder.encode(texts)]
    notes = []
    if kind == "language_modeling":
        row, stem = rows
        rows, starts = [row], [min(common_length([row, stem]), len(row) - 1)]
        if starts[0] < len(stem):
            notes.append("with tokens across the end of the context")
    elif kind == "multiple_choice":
        starts = [min(common_length(rows), min(map(len, rows)) - 1)] * len(rows)
        if starts[0] < common_length(rows):
            notes.append("with an option inside another")
    else:
        ending = common_length([row[::-1] for row in rows])
        starts = [max(1, len(row) - ending) for row in rows]
    over = [max(0, len(row) - crop_to) if crop_to else 0 for row in rows]
    if any(over):
        notes.append("cropped on the left")
        rows = [row[n:] for row, n in zip(rows, over, strict=True)]
        starts = [max(1, start - n) for start, n in zip(starts, over, strict=True)]
    return Spans(rows, starts), notes


def batches(items: Sequence[Question], budget: int) -> list[list[int]]:
    """Places of questions of similar length, together at most `budget` bytes of padded prompts (or one each).

    By bytes rather than tokens, of which there are fewer, so that no rank must tokenize what others score.
    The longest come first: a batch too large for the memory fails at once.
    """
    sizes = [max(len(prompt.encode()) for prompt in item.prompts) for item in items]
    found: list[list[int]] = []
    width = rows = 0
    for place in sorted(range(len(items)), key=lambda place: (-sizes[place], place)):
        options = len(items[place].prompts)
        if not found or width * (rows + options) > budget:
            found.append([])
            width, rows = sizes[place], 0
        found[-1].append(place)
        rows += options
    return found


# ----------------------------------------------------------------------------- scoring


def evaluate(
    bundle: Bundle,
    encoder: Encoder,
    scorer: Scorer,
    world: World,
    *,
    context: int,
    budget: int,
    limit: int | None = None,
    tell: Callable[[int, TaskScore | None], None] = lambda done, score: None,
) -> CoreResult:
    """Ask all questions. Batches do not depend on the number of ranks, and so neither do scores.

    `context`: tokens beyond which a row is counted as too long for the model's training; `budget`: bytes of
    text in a batch; `tell(questions done by this rank, a task's score or None)` is for progress.
    """
    started, fed, done = time.monotonic(), scorer.tokens_fed, 0
    result = CoreResult([], [], 0, 0.0, list(bundle.notes))
    for name in bundle.rows:
        began, questions = time.monotonic(), bundle.questions(name, limit)
        mine: list[Outcome] = []
        for group in batches(questions.items, budget)[world.rank :: world.size]:
            mine += _ask(questions, group, encoder, scorer, context)
            tell(done + len(mine) * world.size, None)
        outcomes = sorted((Outcome(*one) for one in world.collect(mine)), key=lambda one: one.place)
        done += len(outcomes)
        score, records = judge(questions, outcomes, time.monotonic() - began)
        result.scores.append(score)
        result.records += records
        tell(done, score)
    result.tokens_fed = sum(world.collect([scorer.tokens_fed - fed]))
    result.seconds = time.monotonic() - started
    return result


def _ask(
    questions: Questions, group: Sequence[int], encoder: Encoder, scorer: Scorer, context: int
) -> list[Outcome]:
    """Score the questions at these places."""
    found = []
    asked = [(i, *spans_of(questions.items[i], questions.task.kind, encoder, scorer.crop_to)) for i in group]
    for forked in (False, True):
        some = [one for one in asked if (one[1].fork > 0) == forked]
        scored = scorer.score([spans for _, spans, _ in some]) if some else []
        for (place, spans, notes), scores in zip(some, scored, strict=True):
            if max(map(len, spans.rows)) > context:
                notes.append("beyond the context")
            if not all(math.isfinite(score.log_prob) for score in scores):
                notes.append(NOT_FINITE)
            found.append(Outcome(place, scores, sum(map(len, spans.rows)), notes))
    return found


def choose(scores: Sequence[SpanScore]) -> int:
    """The option with the highest mean log-probability a token; the first of equals."""
    means = [score.mean for score in scores]
    return means.index(max(means))


def judge(
    questions: Questions, outcomes: Sequence[Outcome], seconds: float
) -> tuple[TaskScore, list[ItemRecord]]:
    """The score of a task, and a record of each item."""
    task, records = questions.task, []
    for one in outcomes:
        item = questions.items[one.place]
        if task.kind == "language_modeling":
            prediction, gold = int(one.scores[0].is_greedy), 1
        else:
            prediction, gold = choose(one.scores), item.gold
        answered = NOT_FINITE not in one.notes
        records.append(ItemRecord(
            task.name, item.number, prompt_hash(*item.prompts), [score.mean for score in one.scores],
            prediction if answered else None, gold, float(answered and prediction == gold),
            "" if answered else NOT_FINITE,
        ))  # fmt: skip
    n, right = len(records), sum(record.correct for record in records)
    widths = [len(one.scores) for one in outcomes]
    score = TaskScore(
        task, n, questions.shots, right / n, *wilson(right, n),
        chance=None if task.kind == "language_modeling" else statistics.fmean(1 / w for w in widths),
        options=dict(sorted(Counter(widths).items())),
        counts=dict(Counter(note for one in outcomes for note in one.notes)),
        tokens=sum(one.tokens for one in outcomes), seconds=seconds,
    )  # fmt: skip
    return score, records
