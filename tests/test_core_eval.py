"""CORE: the slow twin, chance and the oracle, ties, small populations, ranks, bundles with faults.

The long forms read the real bundle (NANOCHAT_TEST_DATA/eval_bundle) and, for the twin, train a small d4 on
real text first; `python tests/core_twin.py --help` does all rows of any trained run.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import core_twin
import numpy as np
import pytest
import torch
import toy
import yaml

from nanochat import core_eval
from nanochat.checkpoint_manager import load_model
from nanochat.common import UsageError
from nanochat.config import GPTConfig
from nanochat.core_bundle import CORE_TASKS, Question, open_bundle, task_names
from nanochat.core_eval import batches, choose, spans_of
from nanochat.gpt import GPT
from nanochat.likelihood import Likelihood, Spans, SpanScore
from nanochat.tokenizer import Tokenizer, split_pattern

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parent.parent
KINDS = {"multiple_choice": "choices", "schema": "context_options", "language_modeling": "continuation"}
SMALL = ["copa", "winograd", "jeopardy", "piqa"]


def make_row(rng: random.Random, kind: str, options: int) -> dict[str, Any]:
    def words(n: int) -> str:
        return " ".join(rng.choices(toy.WORDS, k=n))

    if kind == "language_modeling":
        return {"context": words(9) + " ", "continuation": words(rng.randint(1, 2))}
    texts = [f"{word} {words(rng.randint(0, 2))}".strip() for word in rng.sample(toy.WORDS, options)]
    gold = rng.randrange(options)
    if kind == "schema":
        return {"context_options": texts, "continuation": words(2), "gold": gold}
    return {"query": words(8), "choices": texts, "gold": gold}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 22 tasks with a few rows of random words."""
    return make_bundle(tmp_path_factory.mktemp("bundle"), 3)


def make_bundle(folder: Path, rows: int) -> Path:
    rng, entries = random.Random(1), []
    for task in CORE_TASKS.values():
        options = round(1 / task.baseline) if 0 < task.baseline <= 0.5 else 2
        lines = [json.dumps(make_row(rng, task.kind, options)) for _ in range(rows)]
        path = folder / "eval_data" / "some" / f"{task.name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        entry = {"label": task.name, "dataset_uri": f"some/{task.name}.jsonl", "num_fewshot": [task.shots]}
        delimiter = {} if task.delimiter == " " else {"continuation_delimiter": task.delimiter}
        entries.append({**entry, "icl_task_type": task.kind, **delimiter})
    (folder / "core.yaml").write_text(yaml.safe_dump({"icl_tasks": entries}), encoding="utf-8")
    table = [f"{task.name},{100 * task.baseline:g}" for task in CORE_TASKS.values()]
    (folder / "eval_meta_data.csv").write_text("Eval Task,Random baseline\n" + "\n".join(table) + "\n")
    return folder


def small_model(arch: str) -> GPT:
    """Random weights, all of which matter; windows and context are shorter than the prompts."""
    shape = {"vocab_size": 265, "depth": 2, "width": 32, "heads": 2, "kv_heads": 1, "context": 160}
    pattern = "SL" if arch == "modern" else "L"
    model = GPT(GPTConfig(**shape, arch=arch, window_pattern=pattern)).init_weights(0)  # type: ignore[arg-type]
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2:
                p.normal_(0, 1 if "embed" in name else 1.5 * p.size(1) ** -0.5, generator=rng)
    return model


# ----------------------------------------------------------------------------- against the twin


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["modern", "classic"])
def test_every_task_agrees_with_the_twin(arch: str, bundle: Path, tokenizer: Tokenizer) -> None:
    model = small_model(arch)
    found = [
        core_twin.compare(bundle, task, model, tokenizer, None, 4096)
        for task in CORE_TASKS.values()
        if arch == "modern" or task.name in SMALL
    ]
    assert not [fault for one in found for fault in one.faults]
    assert sum(one.items for one in found) == 3 * len(found)
    assert all(one.fed < one.tokens for one in found if one.task.name == "arc_easy")


@pytest.mark.slow
def test_a_trained_d4_agrees_with_the_twin_on_the_real_bundle(test_data: Path, tmp_path: Path) -> None:
    """16 rows a task; all rows: `python tests/core_twin.py`, which also says how much faster it is."""
    base = core_twin.trained(test_data, tmp_path, "modern")
    model, tokenizer, _ = load_model(base, "base", "modern", torch.device("cpu"))
    folder = test_data / "eval_bundle"
    found = [core_twin.compare(folder, task, model, tokenizer, 16, 1 << 14) for task in CORE_TASKS.values()]
    print(*found, sep="\n")
    assert core_twin.verdict(found) == []
    assert sum(one.tokens for one in found) > 1.5 * sum(one.fed for one in found)


def test_rows_beyond_the_context_are_read_whole_and_counted(bundle: Path, tokenizer: Tokenizer) -> None:
    score = evaluate(bundle, ["piqa"], Likelihood(small_model("modern")), tokenizer, context=150).scores[0]
    assert score.counts == {"beyond the context": 3}
    longest = max(len(p) for q in open_bundle(bundle, ["piqa"]).questions("piqa").items for p in q.prompts)
    assert longest > 160  # the model's context


def evaluate(
    folder: Path, names: Sequence[str], scorer: Any, encoder: Any, context: int = 10**6, **more: Any
) -> core_eval.CoreResult:
    opened = open_bundle(folder, names)
    return core_eval.evaluate(
        opened, encoder, scorer, core_twin.ALONE, context=context, budget=1 << 15, **more
    )


# ----------------------------------------------------------------------------- chance, oracle, ties


class Fixed:
    """A scorer without a model: the mean log-probability of a row, by its tokens and its place among them."""

    crop_to = None
    tokens_fed = 0

    def __init__(self, value: Callable[[list[int], int], float], is_greedy: bool = True) -> None:
        self.value, self.is_greedy = value, is_greedy

    def score(self, group: Sequence[Spans]) -> list[list[SpanScore]]:
        return [
            [
                SpanScore(self.value(row, j) * (len(row) - start), len(row) - start, self.is_greedy)
                for j, (row, start) in enumerate(zip(spans.rows, spans.starts, strict=True))
            ]
            for spans in group
        ]


def check_chance(folder: Path, encoder: Any, seeds: int, vocabulary: int, **more: Any) -> None:
    """A guesser draws an option, or one of `vocabulary` tokens for each target of language modelling.

    Its mean over seeds must be that of the formula, (mean of 1/options - baseline) / (1 - baseline).
    """
    for name, task in CORE_TASKS.items():
        opened = open_bundle(folder, [name])
        questions = opened.questions(name, **more)
        asked = [(i, *spans_of(one, task.kind, encoder, None)) for i, one in enumerate(questions.items)]
        rng = np.random.default_rng([7, *name.encode()])
        scores = []
        for _ in range(seeds):
            outcomes = [guess(i, spans, rng, vocabulary) for i, spans, _ in asked]
            scores.append(core_eval.judge(questions, outcomes, 0.0)[0].centered)
        if task.kind == "language_modeling":
            chances = [vocabulary ** -float(len(s.rows[0]) - s.starts[0]) for _, s, _ in asked]
        else:
            chances = [1 / len(spans.rows) for _, spans, _ in asked]
        expected = (statistics.fmean(chances) - task.baseline) / (1 - task.baseline)
        spread = math.sqrt(sum(p * (1 - p) for p in chances)) / len(chances) / (1 - task.baseline)
        off = abs(statistics.fmean(scores) - expected)
        assert off <= 4 * spread / math.sqrt(seeds), f"{name}: off by {off}, spread {spread}"


def guess(place: int, spans: Spans, rng: np.random.Generator, vocabulary: int) -> core_eval.Outcome:
    counts = [len(row) - start for row, start in zip(spans.rows, spans.starts, strict=True)]
    hits = [bool((rng.integers(vocabulary, size=n) == 0).all()) for n in counts]
    draws = rng.standard_normal(len(counts))
    return core_eval.Outcome(
        place, [SpanScore(d * n, n, hit) for d, n, hit in zip(draws, counts, hits, strict=True)], 0, []
    )


def test_chance_is_what_the_formula_says(bundle: Path, tokenizer: Tokenizer) -> None:
    check_chance(bundle, tokenizer, seeds=60, vocabulary=2)


@pytest.mark.slow
def test_chance_of_the_real_bundle(test_data: Path, tokenizer: Tokenizer) -> None:
    check_chance(test_data / "eval_bundle", tokenizer, seeds=1000, vocabulary=3)


def test_an_oracle_scores_one_and_its_opposite_the_least(bundle: Path, tokenizer: Tokenizer) -> None:
    names = list(CORE_TASKS)
    items = [item for name in names for item in open_bundle(bundle, names).questions(name).items]
    golden = {(tokenizer.bos_id, *tokenizer.encode(item.prompts[item.gold])) for item in items}
    result = evaluate(bundle, names, Fixed(lambda row, j: -2.0 + (tuple(row) in golden)), tokenizer)
    assert result.is_core and result.core == 1 and result.interval == (1, 1)
    worst = Fixed(lambda row, j: -2.0 - (tuple(row) in golden), is_greedy=False)
    least = [-task.baseline / (1 - task.baseline) for task in CORE_TASKS.values()]
    assert evaluate(bundle, names, worst, tokenizer).core == pytest.approx(statistics.fmean(least))


def test_the_first_of_equals_wins() -> None:
    scores = [SpanScore(-4.0, 2, False), SpanScore(-1.0, 1, False), SpanScore(-2.0, 2, False)]
    assert choose(scores) == 1
    assert choose(scores[:1] * 3) == 0


def test_a_score_that_is_not_finite_is_wrong_and_counted(bundle: Path, tokenizer: Tokenizer) -> None:
    first = open_bundle(bundle, ["arc_easy"]).questions("arc_easy").items[0].prompts[1]
    bad = [tokenizer.bos_id, *tokenizer.encode(first)]
    spoilt = Fixed(lambda row, j: float("nan") if row == bad else -1.0 - j)
    result = evaluate(bundle, ["arc_easy"], spoilt, tokenizer)
    assert result.scores[0].counts == {"not finite": 1}
    [record] = [record for record in result.records if record.note]
    assert (record.prediction, record.correct, record.note) == (None, 0, "not finite")


# ----------------------------------------------------------------------------- questions


def test_too_few_rows_for_the_shots(bundle: Path, tokenizer: Tokenizer) -> None:
    scorer = Fixed(lambda row, j: -1.0)
    score = evaluate(bundle, ["piqa"], scorer, tokenizer, limit=3).scores[0]
    assert (score.n, score.shots) == (3, 2)
    assert "2 shots instead of 10: there are no more rows" in str(score)
    alone = open_bundle(bundle, ["piqa"]).questions("piqa", limit=1)
    assert alone.shots == 0 and len(alone.items) == 1


def test_prompts_of_each_kind(bundle: Path) -> None:
    for name in SMALL:
        questions = open_bundle(bundle, [name]).questions(name)
        lines = (bundle / "eval_data" / "some" / f"{name}.jsonl").read_text().splitlines()
        for item in questions.items:
            row = json.loads(lines[item.number])
            if questions.task.kind == "schema":
                texts = [f"{context} {row['continuation']}" for context in row["context_options"]]
            elif questions.task.kind == "multiple_choice":
                texts = [f"{row['query']}{questions.task.delimiter}{choice}" for choice in row["choices"]]
            else:
                texts = [f"{row['context'].strip()}\nAnswer: {row['continuation']}"]
                assert item.stem is not None and item.prompts[0].startswith(item.stem + " ")
            assert all(p.endswith(text) for p, text in zip(item.prompts, texts, strict=True))
            assert all(prompt.count("\n\n") == questions.shots for prompt in item.prompts)


def spans(prompts: Sequence[str], kind: Any, crop: int | None = None, stem: str | None = None) -> Any:
    byte_level = Tokenizer([bytes([i]) for i in range(256)], split_pattern())
    return spans_of(Question(0, tuple(prompts), 0, stem), kind, byte_level, crop)


def test_what_counts() -> None:
    found, notes = spans(["q: abc", "q: abxyz"], "multiple_choice")
    assert (found.starts, notes) == ([6, 6], [])  # bos and "q: ab" are common
    found, notes = spans(["x likes y", "some likes y"], "schema")
    assert (found.starts, notes) == ([2, 5], [])  # " likes y"
    found, notes = spans(["q: ab"], "language_modeling", stem="q:")
    assert (found.starts, len(found.rows), notes) == ([3], 1, [])


def test_what_counts_in_odd_rows() -> None:
    found, notes = spans(["q: ab", "q: abc", "q: ab"], "multiple_choice")
    assert (found.starts, notes) == ([5, 5, 5], ["with an option inside another"])
    found, notes = spans(["ab c", "b c"], "schema")  # the second is a part of the first
    assert (found.starts, notes) == ([2, 1], [])
    found, notes = spans(["q: abc", "q: abde"], "multiple_choice", crop=4)
    assert [len(row) for row in found.rows] == [4, 4]
    assert (found.starts, notes) == ([3, 2], ["cropped on the left"])


def test_batches_hold_every_question_once_within_the_budget() -> None:
    rng = random.Random(2)
    items = [Question(i, ("x" * rng.randint(1, 90),) * rng.randint(1, 4), 0) for i in range(50)]
    found = batches(items, 200)
    assert sorted(place for group in found for place in group) == list(range(50))
    for group in found:
        width = max(len(items[place].prompts[0]) for place in group)
        assert len(group) == 1 or width * sum(len(items[place].prompts) for place in group) <= 200
    assert len(found[0][:1]) == 1 and len(items[found[0][0]].prompts[0]) == max(
        len(i.prompts[0]) for i in items
    )


# ----------------------------------------------------------------------------- bundles with faults


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 2"),
        ("[1, 2]", "a row is an object"),
        ('{"query": "q", "choices": ["a", "b"]}', "no field 'gold'"),
        ('{"query": "q", "choices": ["a", "b"], "gold": 2}', "`gold` is 2, not the number of one of 2"),
        ('{"query": "q", "choices": ["a", "b"], "gold": true}', "`gold` is True"),
        ('{"query": "q", "choices": ["a"], "gold": 0}', "not a list of at least two texts"),
        ('{"query": "", "choices": ["a", "b"], "gold": 0}', "`query` is '', not a text"),
    ],
)
def test_a_corrupt_row_is_named(line: str, message: str, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, 3)
    path = folder / "eval_data" / "some" / "arc_easy.jsonl"
    path.write_text(path.read_text().splitlines()[0] + f"\n{line}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"arc_easy\.jsonl, line 2") as caught:
        open_bundle(folder)
    assert message in str(caught.value)


def test_a_list_of_another_length_is_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = make_bundle(tmp_path, 3)
    path = folder / "eval_data" / "some" / "arc_easy.jsonl"
    with path.open("a") as file:
        file.write('{"query": "q", "choices": ["a", "b"], "gold": 1}\n')
    scorer = Fixed(lambda row, j: -1.0)
    score = evaluate(folder, ["arc_easy"], scorer, tokenizer).scores[0]
    assert score.options == {2: 1, 4: 3}
    assert score.chance == pytest.approx((3 * 0.25 + 0.5) / 4)


def test_a_bundle_with_a_part_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"core\.yaml is missing.*download_data"):
        open_bundle(tmp_path)
    folder = make_bundle(tmp_path, 3)
    (folder / "eval_data" / "some" / "copa.jsonl").write_text("")
    with pytest.raises(UsageError, match=r"copa\.jsonl has no rows"):
        open_bundle(folder)
    (folder / "eval_data" / "some" / "copa.jsonl").unlink()
    with pytest.raises(UsageError, match="the rows of copa are missing"):
        open_bundle(folder)
    assert open_bundle(folder, ["piqa"]).count(2) == 2
    (folder / "core.yaml").write_text("icl_tasks: []\n")
    with pytest.raises(UsageError, match="does not list hellaswag_zeroshot"):
        open_bundle(folder)
    (folder / "core.yaml").write_text("icl_tasks: [\n")
    with pytest.raises(UsageError, match="is no list of tasks"):
        open_bundle(folder)
    with pytest.raises(UsageError, match="no CORE task arc_eazy; they are hellaswag_zeroshot"):
        task_names("arc_eazy")


def test_other_baselines_and_shots_are_noted(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, 3)
    table = folder / "eval_meta_data.csv"
    table.write_text(table.read_text().replace("agi_eval_lsat_ar,20", "agi_eval_lsat_ar,25"))
    listed = folder / "core.yaml"
    entries = yaml.safe_load(listed.read_text())
    entries["icl_tasks"][0]["num_fewshot"] = [5]
    listed.write_text(yaml.safe_dump(entries))
    first, second = open_bundle(folder).notes
    assert "shots [5], CORE's 0 are used" in first
    assert "baseline 25, DCLM v1's 20 is used" in second
    entries["icl_tasks"][0]["icl_task_type"] = "schema"
    listed.write_text(yaml.safe_dump(entries))
    with pytest.raises(UsageError, match="hellaswag_zeroshot is 'schema' in core"):
        open_bundle(folder)


def test_the_real_tables_say_what_is_pinned(test_data: Path) -> None:
    assert open_bundle(test_data / "eval_bundle", ["copa", "agi_eval_lsat_ar", "piqa"]).notes == []
