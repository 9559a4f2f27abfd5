"""How good is a model at a task: replies that are checked, or choices by likelihood, on any number of ranks.

What it is: two loops over a task's items, each giving a `Result` with a record of every item. Items are
dicts; `messages` is a conversation that ends with the user's question, or with the data set's answer, which
is not shown. A choice has `options` (texts), `gold` (an index) and, for the letter form, `labels` or
`letter_messages` (the question with lettered options). What it is not: the tasks, the model, or a choice of
exams (`scripts/chat_eval.py`). Importing it imports no torch. Run: `pytest tests/test_evaluate.py`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
import statistics
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from nanochat.common import UsageError
from nanochat.item_records import ItemRecord, bootstrap, prompt_hash, wilson
from nanochat.tokenizer import without_answer

if TYPE_CHECKING:
    from nanochat.distributed import World
    from nanochat.engine import Completion, Engine
    from nanochat.tokenizer import Tokenizer

Item = dict[str, Any]
Form = Literal["text", "letter"]
Tick = Callable[[int], object]  # is told how many items more are done on this rank
SUBSET_SEED = 1337  # `limit` draws at random: the first items of a task may be all of one kind
EXAMPLES = 4
FIGURES = ("stopped", "chance", "mean_score", "letter_score")
OVERLONG, EMPTY, RAISED = "does not fit the context", "empty reply", "check raised"


class Exam(Protocol):
    """Items, and which loop they are for; `must_end`: a reply counts only if it ended itself."""

    name: str
    must_end: bool
    max_tokens: int  # of a reply

    @property
    def kind(self) -> str: ...  # "generative", "choice" (by text), "letter"
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Item: ...
    def check(self, item: Item, reply: str, /) -> bool: ...


@dataclass(frozen=True)
class Decoding:
    """How replies are drawn: greedily, or `samples` of each item, the same ones whatever batch and ranks."""

    samples: int = 1
    temperature: float = 0.0
    top_k: int | None = None
    seed: int = 0
    max_tokens: int | None = None  # default: the task's

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UsageError(f"--samples {self.samples} must be at least 1")
        if self.samples > 1 and self.temperature == 0:
            raise UsageError(
                f"--samples {self.samples} at temperature 0 are all the same reply; use --temperature 1"
            )


@dataclass(frozen=True)
class Result:
    """A score over all ranks; `examples` are (prompt, reply, gold, ok)."""

    score: float  # mean of `correct`, 0 to 1; of several samples it is pass@1
    n: int
    stderr: float
    low: float  # 95 % interval: Wilson, of several samples bootstrap
    high: float
    overlong: int  # items that do not fit the context; they count as wrong
    examples: list[dict[str, Any]]
    stopped: float | None = None  # generative: share of replies that ended themselves
    empty: int | None = None  # generative: replies without anything to read; they count as wrong
    raised: int | None = None  # generative: checks that failed themselves; the reply counts as wrong
    pass_at: dict[int, float] | None = None  # several samples: k -> share of items that k of them solve
    chance: float | None = None  # choice: the score of guessing
    mean_score: float | None = None  # choice: the score by mean log-probability a token
    letter_score: float | None = None  # choice: the score in the letter form, if that was asked, too
    records: list[ItemRecord] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """The figures, for a JSON file."""
        known = {key: value for key, value in vars(self).items() if value is not None}
        del known["examples"], known["records"]
        return known

    def __str__(self) -> str:
        known = self.facts()
        parts = [f"{self.score:.3f} ({self.low:.3f} to {self.high:.3f})", f"{self.n} items"]
        parts += [f"{name} {known[name]:.3f}" for name in FIGURES if name in known]
        parts += [f"pass@{k} {share:.3f}" for k, share in (self.pass_at or {}).items() if k > 1]
        counted = (("too long", self.overlong), ("empty", self.empty), ("checks failed", self.raised))
        return ", ".join([*parts, *(f"{count} {what}" for what, count in counted if count)])


@dataclass
class _Outcome:
    """What became of one item, on the rank that had it."""

    record: ItemRecord
    right: list[bool] = field(default_factory=list)  # of each sample
    stopped: int = 0  # samples
    empty: int = 0
    raised: int = 0
    mean_ok: bool = False


# ----------------------------------------------------------------------------- the two loops


def evaluate_exam(
    engine: Engine,
    exam: Exam,
    *,
    decoding: Decoding | None = None,
    batch: int = 64,
    limit: int | None = None,
    world: World | None = None,
    tick: Tick | None = None,
) -> Result:
    """Whichever loop the exam is for; a choice with `letter_messages` is asked in both forms."""
    shared: dict[str, Any] = {"batch": batch, "limit": limit, "world": world, "tick": tick}
    if exam.kind == "generative":
        return evaluate_generative(engine, exam, decoding=decoding, **shared)
    if exam.kind == "letter":
        return evaluate_choice(engine, exam, form="letter", **shared)
    if exam.kind != "choice":
        raise ValueError(f"{exam.name} is a {exam.kind} task, which has no score")
    result = evaluate_choice(engine, exam, **shared)
    if "letter_messages" not in exam[0]:
        return result
    letters = evaluate_choice(engine, exam, form="letter", **{**shared, "tick": None})
    return dataclasses.replace(result, letter_score=letters.score)


def evaluate_generative(
    engine: Engine,
    task: Exam,
    *,
    decoding: Decoding | None = None,
    batch: int = 64,
    limit: int | None = None,
    world: World | None = None,
    tick: Tick | None = None,
) -> Result:
    """Replies, checked by the task. A reply is `Tokenizer.decode` of its ids, special tokens by name.

    `batch` replies to prompts of similar length at a time; `limit` items, drawn with a fixed seed.
    """
    how = decoding or Decoding()
    outcomes: list[_Outcome] = []
    prompts = max(1, batch // how.samples) if batch > 0 else batch
    for group in _batches(engine.tokenizer, task, "messages", prompts, _drawn(task, limit), world):
        outcomes += (_overlong(task, i) for i, prompt in group if len(prompt) >= engine.config.context)
        fitting = [(i, prompt) for i, prompt in group if len(prompt) < engine.config.context]
        completions = iter(
            engine.generate_batch(
                [prompt for _, prompt in fitting],
                max_tokens=how.max_tokens or task.max_tokens,
                temperature=how.temperature, top_k=how.top_k, num_samples=how.samples,
                seed=[how.seed << 32 | i for i, _ in fitting],
            )
        )  # fmt: skip
        for i, _ in fitting:
            replies = list(itertools.islice(completions, how.samples))
            outcomes.append(_judged(engine.tokenizer, task, i, replies))
        if tick:
            tick(len(group))
    return _generative_result(task, _everyones(outcomes, world), how.samples)


def evaluate_choice(
    engine: Engine,
    task: Exam,
    *,
    form: Form = "text",
    batch: int = 64,
    limit: int | None = None,
    world: World | None = None,
    tick: Tick | None = None,
) -> Result:
    """The option whose text is the likeliest reply, by total log-probability, assistant_end included.

    `mean_score` compares by mean log-probability a token instead, which does not favour short options.
    `form="letter"` compares the letters alone. Of equally likely options the first one is chosen.
    """
    outcomes: list[_Outcome] = []
    field = "letter_messages" if form == "letter" and "labels" not in _first(task) else "messages"
    for group in _batches(engine.tokenizer, task, field, batch, _drawn(task, limit), world):
        asked = [(i, prompt, _option_ids(engine.tokenizer, task[i], form)) for i, prompt in group]
        fitting = [one for one in asked if len(one[1]) + max(map(len, one[2])) <= engine.config.context]
        outcomes += (_overlong(task, one[0], field) for one in asked if one not in fitting)
        if fitting:
            scores = engine.score([one[1] for one in fitting], [one[2] for one in fitting])
            for (i, _, options), totals in zip(fitting, scores, strict=True):
                outcomes.append(_chosen(task, i, field, options, totals))
        if tick:
            tick(len(group))
    outcomes = _everyones(outcomes, world)
    chance = statistics.fmean(1 / len(task[one.record.index]["options"]) for one in outcomes)
    mean_score = statistics.fmean(one.mean_ok for one in outcomes) if form == "text" else None
    return dataclasses.replace(_result(task, outcomes), chance=chance, mean_score=mean_score)


# ----------------------------------------------------------------------------- one item


def _record(task: Exam, i: int, field: str = "messages", **values: Any) -> ItemRecord:
    item = task[i]
    prompt = prompt_hash(json.dumps(without_answer(item[field])), *item.get("options", ()))
    return ItemRecord(task.name, i, prompt, gold=_gold(item), **values)


def _gold(item: Item) -> Any:
    return item["options"][item["gold"]] if "options" in item else item.get("answer", item.get("result", ""))


def _overlong(task: Exam, i: int, field: str = "messages") -> _Outcome:
    record = _record(task, i, field, scores=[], prediction=None, correct=0.0, note=OVERLONG)
    return _Outcome(record, right=[False])


def _judged(tokenizer: Tokenizer, task: Exam, i: int, completions: Sequence[Completion]) -> _Outcome:
    """The verdict on each sample. A check that fails is counted; a UsageError of it ends the evaluation."""
    item, replies, right, notes = task[i], [], [], []
    for completion in completions:
        reply, ok, note = tokenizer.decode(completion.ids), False, ""
        if not completion.text.strip():
            note = EMPTY
        else:
            try:
                ok = bool(task.check(item, reply)) and (completion.finish == "stop" or not task.must_end)
            except UsageError:
                raise
            except Exception as error:  # a fault of the task, or of what a sandbox met
                note = f"{RAISED} {type(error).__name__}: {error}"
        replies.append(reply)
        right.append(ok)
        notes.append(note)
    record = _record(
        task, i, scores=[float(ok) for ok in right], prediction=replies if len(replies) > 1 else replies[0],
        correct=statistics.fmean(right), note="; ".join(dict.fromkeys(filter(None, notes))),
    )  # fmt: skip
    return _Outcome(
        record, right,
        stopped=sum(completion.finish == "stop" for completion in completions),
        empty=notes.count(EMPTY), raised=sum(note.startswith(RAISED) for note in notes),
    )  # fmt: skip


def _option_ids(tokenizer: Tokenizer, item: Item, form: Form) -> list[list[int]]:
    options = list(item["options"])
    if form == "letter":
        return tokenizer.encode(list(item.get("labels", string.ascii_uppercase[: len(options)])))
    return [[*ids, tokenizer.special("assistant_end")] for ids in tokenizer.encode(options)]


def _chosen(
    task: Exam, i: int, field: str, options: Sequence[Sequence[int]], totals: Sequence[float]
) -> _Outcome:
    item = task[i]
    means = [total / len(option) for total, option in zip(totals, options, strict=True)]
    picked, by_mean = totals.index(max(totals)), means.index(max(means))
    ok, text = picked == item["gold"], item["options"][picked]
    record = _record(task, i, field, scores=list(totals), prediction=text, correct=float(ok))
    return _Outcome(record, [ok], mean_ok=by_mean == item["gold"])


# ----------------------------------------------------------------------------- all items


def _first(task: Exam) -> Item:
    if len(task) == 0:
        raise ValueError("the task has no items")
    return task[0]


def _drawn(task: Exam, limit: int | None) -> list[int]:
    """Indices of the items to evaluate."""
    _first(task)
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit} must be at least 1")
    everything = range(len(task))
    if limit is None or limit >= len(task):
        return list(everything)
    return random.Random(SUBSET_SEED).sample(everything, limit)


def _batches(
    tokenizer: Tokenizer, task: Exam, field: str, batch: int, indices: list[int], world: World | None
) -> Iterator[list[tuple[int, list[int]]]]:
    """(index, prompt ids) of this rank's items, in batches of similar length.

    The longest come first, so that a batch too large for the memory fails at once.
    """
    if batch < 1:
        raise ValueError(f"batch {batch} must be at least 1")
    if field not in task[indices[0]]:
        raise ValueError(f"the items have no {field!r}; they have {', '.join(task[indices[0]])}")
    prompts = [
        (i, tokenizer.render_for_completion({"messages": without_answer(task[i][field])})) for i in indices
    ]
    prompts.sort(key=lambda pair: (-len(pair[1]), pair[0]))
    mine = prompts if world is None else prompts[world.rank :: world.size]
    for start in range(0, len(mine), batch):
        yield mine[start : start + batch]


def _everyones(outcomes: list[_Outcome], world: World | None) -> list[_Outcome]:
    """The outcomes of all ranks by index, on every rank."""
    collected = outcomes if world is None else world.collect(outcomes)
    return sorted(collected, key=lambda outcome: outcome.record.index)


def _result(task: Exam, outcomes: list[_Outcome]) -> Result:
    values = [one.record.correct for one in outcomes]
    n, score = len(values), statistics.fmean(values)
    several = any(len(one.right) > 1 for one in outcomes)
    low, high = bootstrap({task.name: values}) if several else wilson(sum(values), n)
    return Result(
        score=score,
        n=n,
        stderr=statistics.pstdev(values) / math.sqrt(n),
        low=low,
        high=high,
        overlong=sum(one.record.note == OVERLONG for one in outcomes),
        examples=[_example(task[one.record.index], one.record) for one in outcomes[:EXAMPLES]],
        records=[one.record for one in outcomes],
    )


def _generative_result(task: Exam, outcomes: list[_Outcome], samples: int) -> Result:
    ks = sorted({*(2**j for j in range(samples.bit_length())), samples}) if samples > 1 else []
    at = {k: statistics.fmean(pass_at_k(samples, sum(one.right), k) for one in outcomes) for k in ks}
    return dataclasses.replace(
        _result(task, outcomes),
        stopped=sum(one.stopped for one in outcomes) / (samples * len(outcomes)),
        empty=sum(one.empty for one in outcomes),
        raised=sum(one.raised for one in outcomes),
        pass_at=at or None,
    )


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that one of k samples is right, estimated without bias from n (arXiv 2107.03374)."""
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def _example(item: Item, record: ItemRecord) -> dict[str, Any]:
    prompt = without_answer(item["messages"])[-1]["content"]
    reply = record.prediction[0] if isinstance(record.prediction, list) else record.prediction
    return {"prompt": prompt, "reply": reply or "", "gold": record.gold, "ok": record.correct == 1}
