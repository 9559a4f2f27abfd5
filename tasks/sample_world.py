"""The exams of the embedded world as tasks: items, and whether a reply is right.

What it is: a thin layer over `exams.json`. What it is not: a loop over items or a model; `tasks/evaluate.py`
gets the replies and the likelihoods of the options. A reply is what `Tokenizer.decode` gives, special tokens
by name, because an exam looks at tool calls, too.
Run: `python -m scripts.chat_eval`, or `load_exams(Path("data/world/exams.json"))["arithmetic"][0]`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from nanochat.common import UsageError, read_json
from nanochat.world.identity import normalise
from tasks.common import Item, Kind, Task

CALL = re.compile(r"<\|python_start\|>(.*?)<\|python_end\|>", re.DOTALL)
OUTPUT = re.compile(r"<\|output_start\|>.*?<\|output_end\|>", re.DOTALL)
SPECIAL = re.compile(r"<\|\w+\|>")


# ----------------------------------------------------------------------------- checks


def visible(reply: str) -> str:
    """The reply as a reader sees it: without tool calls, their outputs and special tokens."""
    return SPECIAL.sub("", OUTPUT.sub("", CALL.sub("", reply))).strip()


def names_answer(item: Item, reply: str) -> bool:
    """The reply has the right word as a whole word and no other word that answers such a question."""
    words = normalise(visible(reply)).split()
    return item["answer"].lower() in words and not any(other.lower() in words for other in item["others"])


def is_sentence(item: Item, reply: str) -> bool:
    """The stricter measure beside `names_answer`: the reply is the canonical sentence."""
    return normalise(visible(reply)) == normalise(item["sentence"])


def calls_and_answers(item: Item, reply: str) -> bool:
    """The reply makes one call, the right one, and then names the result and no other number."""
    calls = [call.replace(" ", "") for call in CALL.findall(reply)]
    return (
        len(calls) == 1
        and calls[0] in item["calls"]
        and re.findall(r"\d+", visible(reply)) == [str(item["result"])]
    )


def is_answer(item: Item, reply: str) -> bool:
    """The reply is the topic's one answer, whatever its capitals and punctuation."""
    return normalise(visible(reply)) == normalise(item["answer"])


def is_not_empty(item: Item, reply: str) -> bool:
    """There is something to read. Whether the reply ended itself the loop knows: see `Exam.must_end`."""
    return bool(visible(reply))


# ----------------------------------------------------------------------------- exams


class Exam(Task):
    """The items of one exam. Each has `messages`; in a choice, `options` (reply texts) and `gold` (an index).

    `exact`: a stricter check to report beside.
    """

    max_tokens = 128

    def __init__(self, name: str, items: Sequence[Item]) -> None:
        super().__init__(name, len(items))
        self.kind: Kind = "choice" if name == "world_mc" else "generative"
        self.must_end = name == "stop"
        self.exact = is_sentence if name.startswith("world_generative") else None
        self._items = items

    def item(self, index: int) -> Item:
        return self._items[index]

    def check(self, item: Item, reply: str) -> bool:
        """Whether this reply to `item` is right; a choice is scored by likelihood and has no such check."""
        if self.kind == "choice":
            raise ValueError(f"{self.name} is a choice: compare the likelihoods of `options` with `gold`")
        return CHECKS[self.name](item, reply)


CHECKS: dict[str, Callable[[Item, str], bool]] = {
    "world_generative": names_answer,
    "world_generative_unseen": names_answer,
    "arithmetic": calls_and_answers,
    "identity": is_answer,
    "stop": is_not_empty,
}


def load_exams(path: Path) -> dict[str, Exam]:
    """Every exam in the file by name, the choice first. ValueError if the file is missing or another one."""
    if not path.is_file():
        raise UsageError(f"no exams at {path}; write them with `python -m scripts.sample_world`")
    stored = read_json(path)
    names = ["world_mc", *CHECKS]
    if not isinstance(stored, dict) or set(names) - set(stored):
        raise UsageError(f"{path} is no exam file of the embedded world: it needs {', '.join(names)}")
    return {name: Exam(name, stored[name]) for name in names}


def commonest_answer_score(world: dict[str, Any], items: Sequence[Item]) -> float:
    """Control: share of generative items that are right if each gets its relation's commonest answer.

    `world` is `world.json`; the commonest answer of a relation is counted over all entities of a kind, and
    where several are equally common their mean score counts.
    """
    kinds = {entity["name"]: entity["kind"] for entity in world["entities"]}
    facts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for entity in world["entities"]:
        for relation, value in entity["facts"].items():
            facts[entity["kind"], relation][value] += 1
    asked: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for item in items:
        asked[kinds[item["entity"]], item["relation"]][item["answer"]] += 1
    right = 0.0
    for key, answers in asked.items():
        most = max(facts[key].values())
        right += mean(answers[value] for value, count in facts[key].items() if count == most)
    return right / len(items)
