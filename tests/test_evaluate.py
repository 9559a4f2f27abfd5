"""The evaluation loops against one item at a time, on a real model of random weights."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from nanochat.common import UsageError
from nanochat.config import GPTConfig
from nanochat.engine import Completion, Engine
from nanochat.gpt import GPT
from nanochat.tokenizer import Tokenizer, split_pattern
from tasks.evaluate import Decoding, Result, evaluate_choice, evaluate_exam, evaluate_generative, pass_at_k

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

    name = "items"
    kind = "generative"
    must_end = False
    max_tokens = TOKENS

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


def prompt_of(item: dict[str, Any]) -> str:
    return str(item["messages"][0]["content"])


def questions(n: int) -> list[str]:
    draw = random.Random(5)
    return ["".join(draw.choices("abc def?", k=draw.randint(1, 40))) for _ in range(n)]


@pytest.fixture(scope="module")
def replies_task(engine: Engine) -> Items:
    """Each item's answer is what the model says to it alone; every third one is spoilt."""
    items: list[dict[str, Any]] = []
    for text in questions(40):
        prompt = engine.tokenizer.render_for_completion({"messages": question(text)})
        alone = engine.generate_batch([prompt], max_tokens=TOKENS, temperature=0)[0]
        said = engine.tokenizer.decode(alone.ids)
        if alone.text.strip():
            items.append({"messages": question(text), "answer": said + ("no" if len(items) % 3 == 0 else "")})
    return Items(items[:30])


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
    """One of several ranks that run one after another: the last to collect sees what all of them have."""

    rank: int
    size: int
    parts: list[list[Any]]

    def collect(self, values: list[Any]) -> list[Any]:
        self.parts.append(values)
        return [value for part in self.parts for value in part]


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_replies_meet_their_items(engine: Engine, replies_task: Items, batch: int) -> None:
    result = evaluate_generative(engine, replies_task, batch=batch)
    assert (result.score, result.n, result.overlong) == (20 / 30, 30, 0)
    assert result.stderr == pytest.approx((2 / 9 / 30) ** 0.5)
    assert result.low < result.score < result.high
    assert [e["prompt"] for e in result.examples] == [prompt_of(item) for item in replies_task.items[:4]]
    assert [e["ok"] for e in result.examples] == [False, True, True, False]
    assert all((e["reply"] == e["gold"]) == e["ok"] for e in result.examples)


def test_a_reply_that_must_end_has_to(engine: Engine, replies_task: Items) -> None:
    must = Items(replies_task.items)
    must.must_end = True
    result = evaluate_generative(engine, must)
    assert result.score < 20 / 30
    assert result.stopped is not None and result.score <= result.stopped < 1
    longer = evaluate_generative(engine, must, decoding=Decoding(max_tokens=TOKENS - 1))
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


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", ["generative", "choice"])
def test_ranks_share_the_items(
    engine: Engine, replies_task: Items, choice_task: Items, kind: str, size: int
) -> None:
    """Together they have what one has alone, and no item twice."""
    task, loop = (choice_task, evaluate_choice) if kind == "choice" else (replies_task, evaluate_generative)
    alone, parts = loop(engine, task, batch=4, limit=20), []
    for rank in range(size):
        world: Any = Ranks(rank, size, parts)
        result = loop(engine, task, batch=4, limit=20, world=world)
    assert [len(part) for part in parts] == [20 // size + (rank < 20 % size) for rank in range(size)]
    assert result.facts() == alone.facts()
    for one, other in zip(result.records, alone.records, strict=True):
        assert dataclasses.replace(one, scores=[]) == dataclasses.replace(other, scores=[])
        assert one.scores == pytest.approx(other.scores, abs=1e-4)


def test_limit_draws_the_same_items_again(engine: Engine, replies_task: Items) -> None:
    first, again = (evaluate_generative(engine, replies_task, limit=9) for _ in range(2))
    assert first == again
    assert first.n == 9
    assert [e["prompt"] for e in first.examples] != [prompt_of(item) for item in replies_task.items[:4]]


def test_what_does_not_fit_counts_as_wrong(engine: Engine, replies_task: Items, choice_task: Items) -> None:
    long = {"messages": question("x" * CONTEXT), "answer": "", "options": ["a", "b"], "gold": 0}
    result = evaluate_generative(engine, Items([*replies_task.items, long]))
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


def test_samples_are_the_items_own(engine: Engine, replies_task: Items) -> None:
    """The same samples whatever the batch; pass@k grows with k; another seed gives others."""
    warm = Decoding(samples=4, temperature=1.0)
    found = [evaluate_generative(engine, replies_task, decoding=warm, batch=n) for n in (4, 64)]
    assert [one.prediction for one in found[0].records] == [one.prediction for one in found[1].records]
    first = found[0].records[0]
    assert len(first.prediction) == 4 and first.correct == sum(filter(None, first.scores)) / 4
    other = evaluate_generative(engine, replies_task, decoding=dataclasses.replace(warm, seed=1))
    assert other.records[0].prediction != first.prediction
    easy = Items([{**item, "answer": "e"} for item in replies_task.items])
    easy.check = lambda item, reply: "e" in reply  # type: ignore[method-assign]
    result = evaluate_generative(engine, easy, decoding=warm)
    at = result.pass_at or {}
    assert list(at) == [1, 2, 4] and result.score == pytest.approx(at[1])
    assert 0 < at[1] < at[2] < at[4] < 1 and result.low < result.score < result.high
    assert "pass@4 0." in str(result) and "pass@1" not in str(result)


@pytest.mark.parametrize(("n", "right"), [(1, 0), (1, 1), (5, 2), (8, 8), (6, 0)])
def test_pass_at_k_is_the_share_of_draws(n: int, right: int) -> None:
    """Against all ways to draw k of n samples."""
    samples = [i < right for i in range(n)]
    for k in range(1, n + 1):
        draws = list(itertools.combinations(samples, k))
        assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_an_empty_reply_and_a_check_that_raises_are_counted(engine: Engine, replies_task: Items) -> None:
    """An item whose reply is a stop at once, and one whose check fails: wrong, and said so."""
    broken = Items(replies_task.items)

    def check(item: dict[str, Any], reply: str) -> bool:
        if item is broken.items[2]:
            raise ZeroDivisionError("of the check")
        return bool(item["answer"] == reply)

    broken.check = check  # type: ignore[method-assign]
    result = evaluate_generative(engine, broken)
    assert (result.score, result.raised, result.empty) == (19 / 30, 1, 0)
    assert result.records[2].note == "check raised ZeroDivisionError: of the check"
    assert "1 checks failed" in str(result)
    silent = SilentEngine(engine)
    result = evaluate_generative(silent, replies_task)  # type: ignore[arg-type]
    assert (result.score, result.empty, result.raised) == (0, 30, 0)
    assert {one.note for one in result.records} == {"empty reply"}
    assert "30 empty" in str(result)


def test_a_check_that_cannot_begin_ends_the_evaluation(engine: Engine, replies_task: Items) -> None:
    no_sandbox = Items(replies_task.items)

    def check(item: dict[str, Any], reply: str) -> bool:
        raise UsageError("no sandbox here")

    no_sandbox.check = check  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="no sandbox here"):
        evaluate_generative(engine, no_sandbox)


class SilentEngine:
    """An engine whose model says assistant_end at once."""

    def __init__(self, engine: Engine) -> None:
        self.config, self.tokenizer = engine.config, engine.tokenizer

    def generate_batch(self, prompts: Sequence[Sequence[int]], **_: Any) -> list[Completion]:
        return [Completion([], [], "", "stop") for _ in prompts]


def test_the_answer_of_the_data_set_is_not_shown(engine: Engine, replies_task: Items) -> None:
    told = [
        {**item, "messages": [*item["messages"], {"role": "assistant", "content": "the answer"}]}
        for item in replies_task.items
    ]
    plain, taught = (evaluate_generative(engine, Items(items)) for items in (replies_task.items, told))
    assert plain.records == taught.records


@pytest.mark.parametrize(
    ("values", "message"),
    [({"samples": 0}, "--samples 0 must be"), ({"samples": 2}, "at temperature 0 are all the same reply")],
)
def test_decoding_without_sense_is_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Decoding(**values)  # type: ignore[arg-type]


def test_facts_and_line_show_what_is_known() -> None:
    result = Result(0.5, 4, 0.25, 0.15, 0.85, 0, [{"ok": True}], stopped=0.75)
    assert result.facts() == {
        "score": 0.5, "n": 4, "stderr": 0.25, "low": 0.15, "high": 0.85, "overlong": 0, "stopped": 0.75,
    }  # fmt: skip
    assert str(result) == "0.500 (0.150 to 0.850), 4 items, stopped 0.750"
