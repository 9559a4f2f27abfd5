"""How good is a model at a task: replies that are checked, or choices by likelihood, on any number of ranks.

What it is: two loops over a task's items, each giving a `Result`. Items are dicts; `messages` is a
conversation that ends with the user's question. A choice has `options` (reply texts), `gold` (an index) and,
for the letter form, `letter_messages` (the question with lettered options). What it is not: the tasks, the
model, or a choice of exams (`scripts/chat_eval.py`). Importing it imports no torch.
Run: `pytest tests/test_evaluate.py`.
"""

from __future__ import annotations

import dataclasses
import math
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from nanochat.item_records import wilson

if TYPE_CHECKING:
    from nanochat.distributed import World
    from nanochat.engine import Engine
    from nanochat.tokenizer import Tokenizer

Item = dict[str, Any]
Form = Literal["text", "letter"]
SUBSET_SEED = 1337  # `limit` draws at random: the first items of a task may be all of one kind
EXAMPLES = 4
REPLY_TOKENS = 128
FIGURES = ("stopped", "chance", "mean_score", "letter_score")


class Task(Protocol):
    """A sequence of items."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Item: ...


class GenerativeTask(Task, Protocol):
    """A task whose replies can be checked; `must_end`: a reply counts only if it also ended itself."""

    must_end: bool

    def check(self, item: Item, reply: str, /) -> bool: ...


class Exam(GenerativeTask, Protocol):
    """A task that knows which of the two loops it wants."""

    kind: Literal["choice", "generative"]


@dataclass(frozen=True)
class Result:
    """A score over all ranks; `examples` (prompt, reply, gold, ok) are this rank's own."""

    score: float  # share of right items, 0 to 1
    n: int
    stderr: float
    low: float  # 95 % interval (Wilson)
    high: float
    overlong: int  # items that do not fit the context; they count as wrong
    examples: list[dict[str, Any]]
    stopped: float | None = None  # generative: share of replies that ended themselves
    chance: float | None = None  # choice: the score of guessing
    mean_score: float | None = None  # choice: the score by mean log-probability a token
    letter_score: float | None = None  # choice: the score in the letter form, if that was asked, too

    def facts(self) -> dict[str, Any]:
        """The figures, for a JSON file."""
        known = {key: value for key, value in vars(self).items() if value is not None}
        del known["examples"]
        return known

    def __str__(self) -> str:
        known = self.facts()
        parts = [f"{self.score:.3f} ({self.low:.3f} to {self.high:.3f})", f"{self.n} items"]
        parts += [f"{name} {known[name]:.3f}" for name in FIGURES if name in known]
        return ", ".join([*parts, f"{self.overlong} too long"] if self.overlong else parts)


@dataclass
class _Outcome:
    """What became of one item."""

    index: int
    reply: str = ""
    ok: bool = False
    overlong: bool = False
    stopped: bool = False
    mean_ok: bool = False


# ----------------------------------------------------------------------------- the two loops


def evaluate_exam(
    engine: Engine, exam: Exam, *, batch: int = 64, limit: int | None = None, world: World | None = None
) -> Result:
    """Whichever loop the exam is for; a choice with `letter_messages` is asked in both forms."""
    if exam.kind == "generative":
        return evaluate_generative(engine, exam, batch=batch, limit=limit, world=world)
    result = evaluate_choice(engine, exam, batch=batch, limit=limit, world=world)
    if "letter_messages" not in exam[0]:
        return result
    letters = evaluate_choice(engine, exam, form="letter", batch=batch, limit=limit, world=world)
    return dataclasses.replace(result, letter_score=letters.score)


def evaluate_generative(
    engine: Engine,
    task: GenerativeTask,
    *,
    max_tokens: int = REPLY_TOKENS,
    batch: int = 64,
    limit: int | None = None,
    world: World | None = None,
) -> Result:
    """Greedy replies, checked by the task. A reply is `Tokenizer.decode` of its ids, special tokens by name.

    `batch` prompts of similar length at a time; `limit` items, drawn with a fixed seed.
    """
    outcomes: list[_Outcome] = []
    context = engine.config.context
    for group in _batches(engine.tokenizer, task, "messages", batch, _drawn(task, limit), world):
        outcomes += (_Outcome(i, overlong=True) for i, prompt in group if len(prompt) >= context)
        fitting = [(i, prompt) for i, prompt in group if len(prompt) < context]
        prompts = [prompt for _, prompt in fitting]
        completions = engine.generate_batch(prompts, max_tokens=max_tokens, temperature=0)
        for (i, _), completion in zip(fitting, completions, strict=True):
            reply, stopped = engine.tokenizer.decode(completion.ids), completion.finish == "stop"
            ok = task.check(task[i], reply) and (stopped or not task.must_end)
            outcomes.append(_Outcome(i, reply, ok, stopped=stopped))
    result = _result(task, outcomes, world)
    return dataclasses.replace(result, mean_score=None, chance=None)


def evaluate_choice(
    engine: Engine,
    task: Task,
    *,
    form: Form = "text",
    batch: int = 64,
    limit: int | None = None,
    world: World | None = None,
) -> Result:
    """The option whose text is the likeliest reply, by total log-probability, assistant_end included.

    `mean_score` compares by mean log-probability a token instead, which does not favour short options.
    `form="letter"` asks with `letter_messages` and compares the letters alone.
    """
    field = "messages" if form == "text" else "letter_messages"
    outcomes: list[_Outcome] = []
    for group in _batches(engine.tokenizer, task, field, batch, _drawn(task, limit), world):
        asked = [(i, prompt, _option_ids(engine.tokenizer, task[i], form)) for i, prompt in group]
        fitting = [one for one in asked if len(one[1]) + max(map(len, one[2])) <= engine.config.context]
        outcomes += (_Outcome(one[0], overlong=True) for one in asked if one not in fitting)
        if fitting:
            scores = engine.score([one[1] for one in fitting], [one[2] for one in fitting])
            for (i, _, options), totals in zip(fitting, scores, strict=True):
                outcomes.append(_chosen(task, i, options, totals))
    return dataclasses.replace(_result(task, outcomes, world), stopped=None)


def _option_ids(tokenizer: Tokenizer, item: Item, form: Form) -> list[list[int]]:
    if form == "letter":
        return tokenizer.encode(list(string.ascii_uppercase[: len(item["options"])]))
    return [[*ids, tokenizer.special("assistant_end")] for ids in tokenizer.encode(list(item["options"]))]


def _chosen(task: Task, i: int, options: Sequence[Sequence[int]], totals: Sequence[float]) -> _Outcome:
    means = [total / len(option) for total, option in zip(totals, options, strict=True)]
    picked, gold = totals.index(max(totals)), task[i]["gold"]
    by_mean = means.index(max(means))
    return _Outcome(i, task[i]["options"][picked], picked == gold, mean_ok=by_mean == gold)


# ----------------------------------------------------------------------------- shared


def _drawn(task: Task, limit: int | None) -> list[int]:
    """Indices of the items to evaluate."""
    if len(task) == 0:
        raise ValueError("the task has no items")
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit} must be at least 1")
    everything = range(len(task))
    if limit is None or limit >= len(task):
        return list(everything)
    return random.Random(SUBSET_SEED).sample(everything, limit)


def _batches(
    tokenizer: Tokenizer, task: Task, field: str, batch: int, indices: list[int], world: World | None
) -> Iterator[list[tuple[int, list[int]]]]:
    """(index, prompt ids) of this rank's items, in batches of similar length.

    The longest come first, so that a batch too large for the memory fails at once.
    """
    if batch < 1:
        raise ValueError(f"batch {batch} must be at least 1")
    if field not in task[indices[0]]:
        raise ValueError(f"the items have no {field!r}; they have {', '.join(task[indices[0]])}")
    prompts = [(i, tokenizer.render_for_completion({"messages": task[i][field]})) for i in indices]
    prompts.sort(key=lambda pair: (-len(pair[1]), pair[0]))
    mine = prompts if world is None else prompts[world.rank :: world.size]
    for start in range(0, len(mine), batch):
        yield mine[start : start + batch]


def _result(task: Task, outcomes: list[_Outcome], world: World | None) -> Result:
    chances = [1 / len(task[one.index].get("options", [0])) for one in outcomes]
    names = ("ok", "overlong", "stopped", "mean_ok")
    sums = [len(outcomes), sum(chances), *(sum(getattr(one, name) for one in outcomes) for name in names)]
    n, chance, right, overlong, stopped, mean_right = _over_ranks(sums, world)
    score, (low, high) = right / n, wilson(right, n)
    outcomes.sort(key=lambda one: one.index)
    return Result(
        score=score,
        n=int(n),
        stderr=math.sqrt(score * (1 - score) / n),
        low=low,
        high=high,
        overlong=int(overlong),
        examples=[_example(task[one.index], one) for one in outcomes[:EXAMPLES]],
        stopped=stopped / n,
        chance=chance / n,
        mean_score=mean_right / n,
    )


def _over_ranks(sums: list[float], world: World | None) -> list[float]:
    if world is None or world.size == 1:
        return sums
    import torch

    return world.sum(torch.tensor(sums, dtype=torch.float32, device=world.device)).tolist()


def _example(item: Item, outcome: _Outcome) -> dict[str, Any]:
    gold = item["options"][item["gold"]] if "options" in item else item.get("answer", item.get("result", ""))
    prompt = item["messages"][-1]["content"]
    return {"prompt": prompt, "reply": outcome.reply, "gold": gold, "ok": outcome.ok}
