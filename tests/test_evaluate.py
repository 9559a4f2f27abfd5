"""The evaluation loops against one item at a time, on a real model of random weights."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from nanochat.config import GPTConfig
from nanochat.engine import Engine
from nanochat.gpt import GPT
from nanochat.tokenizer import Tokenizer, split_pattern
from tasks.evaluate import Result, evaluate_choice, evaluate_exam, evaluate_generative

CONTEXT = 96
TOKENS = 6


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    config = GPTConfig(vocab_size=265, depth=2, width=32, heads=2, kv_heads=2, context=CONTEXT)
    model = GPT(config).init_weights(0)
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2:
                p.normal_(0, 1 if "embed" in name else 1.5 * p.size(1) ** -0.5, generator=rng)
    yield Engine(model, Tokenizer([bytes([i]) for i in range(256)], split_pattern()))


class Items(Sequence[dict[str, Any]]):
    """A task whose item knows its one right reply."""

    kind = "generative"
    must_end = False

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        return self.items[index]

    def check(self, item: dict[str, Any], reply: str) -> bool:
        return bool(item["answer"] == reply)


def question(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def questions(n: int) -> list[str]:
    draw = random.Random(5)
    return ["".join(draw.choices("abc def?", k=draw.randint(1, 40))) for _ in range(n)]


@pytest.fixture(scope="module")
def replies_task(engine: Engine) -> Items:
    """Each item's answer is what the model says to it alone; every third one is spoilt."""
    items = []
    for i, text in enumerate(questions(30)):
        prompt = engine.tokenizer.render_for_completion({"messages": question(text)})
        alone = engine.generate_batch([prompt], max_tokens=TOKENS, temperature=0)[0]
        said = engine.tokenizer.decode(alone.ids)
        items.append({"messages": question(text), "answer": said + ("no" if i % 3 == 0 else "")})
    return Items(items)


@pytest.fixture(scope="module")
def choice_task(engine: Engine) -> Items:
    """`gold` is the likeliest option by whole sequences, one at a time; every fourth one is spoilt."""
    draw, items = random.Random(6), []
    for i, text in enumerate(questions(24)):
        options = ["".join(draw.choices("xyz ", k=draw.randint(1, 8))) for _ in range(draw.randint(2, 4))]
        prompt = engine.tokenizer.render_for_completion({"messages": question(text)})
        totals = [slow_log_probability(engine, prompt, option) for option in options]
        gold = totals.index(max(totals))
        gold = (gold + 1) % len(options) if i % 4 == 0 else gold
        items.append({"messages": question(text), "options": options, "gold": gold})
    return Items(items)


@torch.no_grad()
def slow_log_probability(engine: Engine, prompt: list[int], option: str) -> float:
    ids = [*engine.tokenizer.encode(option), engine.tokenizer.special("assistant_end")]
    log_probs = engine.model(torch.tensor([[*prompt, *ids]]))[0].log_softmax(-1)
    return sum(float(log_probs[len(prompt) - 1 + i, token]) for i, token in enumerate(ids))


@dataclass
class Ranks:
    """One rank of several, all of which have the same sums; each sum is kept for a look."""

    rank: int
    size: int
    sums: list[list[float]]
    device: str = "cpu"

    def sum(self, values: Tensor) -> Tensor:
        self.sums.append(values.tolist())
        return values.mul_(self.size)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_replies_meet_their_items(engine: Engine, replies_task: Items, batch: int) -> None:
    result = evaluate_generative(engine, replies_task, max_tokens=TOKENS, batch=batch)
    assert (result.score, result.n, result.overlong) == (20 / 30, 30, 0)
    assert result.stderr == pytest.approx((2 / 9 / 30) ** 0.5)
    assert result.low < result.score < result.high
    assert [e["prompt"] for e in result.examples] == questions(30)[:4]
    assert [e["ok"] for e in result.examples] == [False, True, True, False]
    assert all((e["reply"] == e["gold"]) == e["ok"] for e in result.examples)


def test_a_reply_that_must_end_has_to(engine: Engine, replies_task: Items) -> None:
    must = Items(replies_task.items)
    must.must_end = True
    result = evaluate_generative(engine, must, max_tokens=TOKENS)
    assert result.score < 20 / 30
    assert result.stopped is not None and result.score <= result.stopped < 1
    longer = evaluate_generative(engine, must, max_tokens=TOKENS - 1)
    assert longer.stopped is not None and longer.stopped <= result.stopped


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_choices_meet_their_items(engine: Engine, choice_task: Items, batch: int) -> None:
    result = evaluate_choice(engine, choice_task, batch=batch)
    assert (result.score, result.n, result.stopped) == (18 / 24, 24, None)
    assert result.chance == pytest.approx(sum(1 / len(i["options"]) for i in choice_task.items) / 24)
    assert result.mean_score is not None and 0 < result.mean_score < 1
    assert [e["ok"] for e in result.examples] == [False, True, True, True]


def test_mean_and_total_differ_where_lengths_do(engine: Engine) -> None:
    """A long option loses by total and may win by mean; `gold` is the long one."""
    items = [{"messages": question(t), "options": ["x", "x" * 20], "gold": 1} for t in questions(12)]
    result = evaluate_choice(engine, Items(items))
    assert result.score == 0
    assert result.mean_score is not None and result.mean_score > 0


def test_letters(engine: Engine, choice_task: Items) -> None:
    items = []
    for item in choice_task.items:
        prompt = engine.tokenizer.render_for_completion({"messages": question("letters!")})
        with torch.no_grad():
            logits = engine.model(torch.tensor([prompt]))[0, -1]
        gold = int(logits[[ord(c) for c in "ABCD"[: len(item["options"])]]].argmax())
        items.append({**item, "gold": gold, "letter_messages": question("letters!")})
    assert evaluate_choice(engine, Items(items), form="letter").score == 1
    both = Items(items)
    both.kind = "choice"
    result = evaluate_exam(engine, both)  # type: ignore[arg-type]
    assert result.letter_score == 1
    assert result.score == evaluate_choice(engine, both).score
    with pytest.raises(ValueError, match="the items have no 'letter_messages'; they have messages"):
        evaluate_choice(engine, choice_task, form="letter")


@pytest.mark.parametrize("kind", ["generative", "choice"])
def test_ranks_share_the_items(engine: Engine, replies_task: Items, choice_task: Items, kind: str) -> None:
    """The sums over two ranks are those over three, and no item is seen twice."""

    def sums(size: int) -> list[list[float]]:
        found: list[list[float]] = []
        for rank in range(size):
            world: Any = Ranks(rank, size, found)
            if kind == "choice":
                evaluate_choice(engine, choice_task, batch=4, limit=20, world=world)
            else:
                evaluate_generative(engine, replies_task, max_tokens=TOKENS, batch=4, limit=20, world=world)
        return found

    totals = {size: [sum(column) for column in zip(*sums(size), strict=True)] for size in (2, 3)}
    assert [shares[0] for shares in sums(3)] == [7, 7, 6]
    assert totals[2] == pytest.approx(totals[3])
    assert totals[3][0] == 20


def test_a_score_is_that_of_all_ranks(engine: Engine, choice_task: Items) -> None:
    world: Any = Ranks(1, 2, [])
    result = evaluate_choice(engine, choice_task, world=world)
    assert result.n == 24
    assert len(world.sums) == 1
    assert result.score == world.sums[0][2] / 12


def test_limit_draws_the_same_items_again(engine: Engine, replies_task: Items) -> None:
    first, again = (evaluate_generative(engine, replies_task, max_tokens=TOKENS, limit=9) for _ in range(2))
    assert first == again
    assert first.n == 9
    assert [e["prompt"] for e in first.examples] != questions(30)[:4]


def test_what_does_not_fit_counts_as_wrong(engine: Engine, replies_task: Items, choice_task: Items) -> None:
    long = {"messages": question("x" * CONTEXT), "answer": "", "options": ["a", "b"], "gold": 0}
    result = evaluate_generative(engine, Items([*replies_task.items, long]), max_tokens=TOKENS)
    assert (result.n, result.overlong, result.score) == (31, 1, 20 / 31)
    result = evaluate_choice(engine, Items([long, *choice_task.items]))
    assert (result.n, result.overlong, result.score) == (25, 1, 18 / 25)
    assert not result.examples[0]["ok"]
    only = evaluate_choice(engine, Items([long]))
    assert (only.score, only.low) == (0, 0)
    assert "1 too long" in str(only)


@pytest.mark.parametrize(
    ("items", "options", "message"),
    [
        ([], {}, "the task has no items"),
        ([{"messages": question("a")}], {"limit": 0}, "limit 0 must be at least 1"),
        ([{"messages": question("a")}], {"batch": 0}, "batch 0 must be at least 1"),
        ([{"text": "a"}], {}, "the items have no 'messages'; they have text"),
    ],
)
def test_faults_are_named(engine: Engine, items: list[Any], options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_generative(engine, Items(items), **options)


def test_facts_and_line_show_what_is_known() -> None:
    result = Result(0.5, 4, 0.25, 0.15, 0.85, 0, [{"ok": True}], stopped=0.75)
    assert result.facts() == {
        "score": 0.5, "n": 4, "stderr": 0.25, "low": 0.15, "high": 0.85, "overlong": 0, "stopped": 0.75,
    }  # fmt: skip
    assert str(result) == "0.500 (0.150 to 0.850), 4 items, stopped 0.750"
