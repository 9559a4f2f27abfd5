"""What a task is, slices of it, and several tasks as one.

What it is: `Task`, a lazy sequence of items with, where it has a score, the check of a reply; `TaskSequence`
(tasks end to end) and `TaskMixture` (the same in a fixed random order). An item is a text (`{"text": ...}`)
or a conversation (`{"messages": [...]}`); one that can be examined ends with the answer of the data set, or
with the question. What it is not: the tasks (`catalogue.py` lists them), the loops over items
(`evaluate.py`), or a loader: that shuffles anew each epoch. No torch. Run: `pytest tests/test_tasks.py`.
"""

from __future__ import annotations

import bisect
import copy
import hashlib
import itertools
import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, overload

import numpy as np

from nanochat.common import UsageError

Item = dict[str, Any]
Kind = Literal["chat", "choice", "letter", "generative"]
Self = TypeVar("Self", bound="Task")


class Task(Sequence[Item]):
    """`size` items, made by `item(index)` when they are asked for; a slice is a task, too.

    `kind`: "generative" (replies are checked), "letter" (the letters of the options are compared), "choice"
    (their texts are) or "chat" (to train on). `must_end`: a reply counts only if it also ended itself.
    `fingerprint` stands for the content, in the identity of a run that trains on it.
    """

    kind: Kind = "chat"
    must_end = False
    max_tokens = 512  # of a reply

    def __init__(self, name: str, size: int, fingerprint: str = "") -> None:
        self.name, self.fingerprint = name, fingerprint
        self.indices = range(size)

    @abstractmethod
    def item(self, index: int) -> Item:
        """Item `index` of the whole task."""

    def check(self, item: Item, reply: str) -> bool:
        """Whether this reply to `item` is right; special tokens stand in it by name."""
        raise UsageError(f"{self.name} is a {self.kind} task: its replies are not checked")

    def reward(self, item: Item, reply: str, ended: bool) -> float:
        """What a reply is worth to RL, 0 to 1: here 1 if it is right, and ended itself if it must."""
        return float(self.check(item, reply) and (ended or not self.must_end))

    def facts(self) -> dict[str, Any]:
        """What a result has to say of how it came about, beside the score."""
        return {}

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self: Self, index: slice) -> Self: ...
    def __getitem__(self: Self, index: int | slice) -> Item | Self:
        if isinstance(index, int):
            return self.item(self.indices[index])
        part = copy.copy(self)
        part.indices = self.indices[index]
        r = part.indices
        part.fingerprint = digest(self.fingerprint, [r.start, r.stop, r.step])
        return part


class TaskSequence(Task):
    """Several tasks end to end; a task that is named twice is seen twice an epoch."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = list(tasks)
        self.ends = list(itertools.accumulate(len(task) for task in self.tasks))
        names = ",".join(task.name for task in tasks)
        fingerprint = digest(*(task.fingerprint for task in tasks))
        super().__init__(names, self.ends[-1] if self.ends else 0, fingerprint)

    def item(self, index: int) -> Item:
        task = bisect.bisect_right(self.ends, index)
        return self.tasks[task][index - (self.ends[task - 1] if task else 0)]


class TaskMixture(TaskSequence):
    """Several tasks in one random order, the same each time: for whoever takes items one after another."""

    def __init__(self, tasks: Sequence[Task], seed: int = 42) -> None:
        super().__init__(tasks)
        self.order = np.random.default_rng(seed).permutation(len(self))
        self.fingerprint = digest(self.fingerprint, seed)

    def item(self, index: int) -> Item:
        return super().item(int(self.order[index]))


def digest(*facts: Any) -> str:
    """sha256 of some facts in JSON's types."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


# ----------------------------------------------------------------------------- multiple choice


def multiple_choice(question: str, texts: Sequence[str], labels: Sequence[str], gold: int) -> Item:
    """A question whose answer is a letter, as it is trained and examined.

    The letter stands behind its option and without a blank before it, so that it is the very token that the
    answer begins with. Raises ValueError for options that do not go with their letters or the answer.
    """
    if len(texts) != len(labels) or len(texts) < 2:
        raise ValueError(
            f"{len(texts)} options and {len(labels)} letters; two or more of each belong together"
        )
    if len(set(labels)) < len(labels):
        raise ValueError(f"the letters {', '.join(labels)} are not all different")
    if not 0 <= gold < len(texts):
        raise ValueError(f"the answer is option {gold}, and there are {len(texts)} (from 0)")
    options = "".join(f"- {text}={label}\n" for text, label in zip(texts, labels, strict=True))
    asked = f"Multiple Choice question: {question}\n{options}\nAnswer with the letter alone."
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": labels[gold]}]
    return {"messages": messages, "options": list(texts), "labels": list(labels), "gold": gold}
