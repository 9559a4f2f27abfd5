"""Chat evaluation as a whole: guessing and knowing, ChatCORE by hand, the program on real rows, two ranks."""

from __future__ import annotations

import csv
import dataclasses
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy import save_model

from nanochat.assets import MIXTURES
from nanochat.common import UsageError, read_json, write_json
from nanochat.item_records import ItemRecord, compare, read_records
from nanochat.tokenizer import Tokenizer, split_pattern
from scripts import chat_sft, mid_train
from scripts.chat_eval import main
from tasks import chatcore
from tasks.common import Item, Kind, Task, multiple_choice
from tasks.evaluate import evaluate_exam

ROOT = Path(__file__).resolve().parent.parent
SCORES = {
    "arc-easy": 0.55, "arc-challenge": 0.4, "mmlu": 0.25, "gsm8k": 0.1, "humaneval": 0.2, "spellingbee": 0.9,
}  # fmt: skip
STEMS = ("apple", "ban", "cher", "let", "straw", "miss", "or", "lem", "mel", "gra", "kiwi", "plum")
WORLD_EXAMS = ("world_mc", "world_generative", "world_generative_unseen", "arithmetic", "identity", "stop")


class Choices(Task):
    """Questions with two to five options."""

    kind: Kind = "letter"

    def __init__(self, size: int) -> None:
        super().__init__("choices", size)

    def item(self, index: int) -> Item:
        options = 2 + index % 4
        return multiple_choice(
            f"q{index}", [f"text {i}" for i in range(options)], "ABCDE"[:options], index % options
        )


class Scorer:
    """Stands where the model is: gives each option the score that `draw(item, option)` says."""

    def __init__(self, draw: Callable[[int, int], float]) -> None:
        self.tokenizer = Tokenizer([bytes([i]) for i in range(256)], split_pattern())
        self.config = SimpleNamespace(context=4096)
        self.draw = draw

    def score(self, prompts: Sequence[Any], options: Sequence[Sequence[Any]]) -> list[list[float]]:
        items = [int(self.tokenizer.decode(ids).split("question: q")[1].split("\n")[0]) for ids in prompts]
        return [[self.draw(item, i) for i in range(len(of))] for item, of in zip(items, options, strict=True)]


def score(task: Task, draw: Callable[[int, int], float]) -> float:
    return evaluate_exam(Scorer(draw), task).score  # type: ignore[arg-type]


@pytest.mark.slow
def test_guessing_gives_chance_knowing_gives_one_and_a_tie_the_first() -> None:
    """Over 1,000 seeds the mean is (mean of 1/options) within 4 standard errors."""
    task, rng = Choices(4), random.Random(2)
    found = [score(task, lambda item, option: rng.random()) for _ in range(1000)]
    chance = statistics.fmean(1 / len(item["options"]) for item in task)
    error = statistics.stdev(found) / len(found) ** 0.5
    assert abs(statistics.fmean(found) - chance) < 4 * error < 0.04
    assert evaluate_exam(Scorer(lambda *_: 0.0), task).chance == pytest.approx(chance)  # type: ignore[arg-type]
    assert score(task, lambda item, option: float(option == item % (2 + item % 4))) == 1
    assert score(task, lambda item, option: -5.0) == statistics.fmean(item["gold"] == 0 for item in task)


def records(**scores: float) -> dict[str, list[ItemRecord]]:
    """Of each task 100 items, so many of them right."""
    return {
        task: [ItemRecord(task, i, f"p{i}", [], "", "", float(i < round(100 * share))) for i in range(100)]
        for task, share in scores.items()
    }


def test_chatcore_is_the_centred_mean_of_its_tasks() -> None:
    found = chatcore.chatcore(records(**SCORES))
    five = (0.30 / 0.75 + 0.15 / 0.75 + 0 + 0.1 + 0.2) / 5
    assert found["ChatCORE-5"]["score"] == pytest.approx(five)
    assert found["ChatCORE-6"]["score"] == pytest.approx((5 * five + 0.9) / 6)
    assert found["ChatCORE-5"]["low"] < five < found["ChatCORE-5"]["high"]
    assert (found["ChatCORE-5"]["n"], found["ChatCORE-6"]["n"]) == (500, 600)
    assert "0.1800 (0.1" in chatcore.describe("ChatCORE-5", found["ChatCORE-5"])
    less = {task: share for task, share in SCORES.items() if task not in ("humaneval", "spellingbee")}
    found = chatcore.chatcore(records(**less))
    assert found["ChatCORE-6"] == {"missing": ["humaneval", "spellingbee"]}
    assert "not computed: it needs humaneval, too" in chatcore.describe("ChatCORE-5", found["ChatCORE-5"])


def test_two_models_are_compared_by_task_and_by_chatcore(tmp_path: Path) -> None:
    better = {**SCORES, "gsm8k": 0.3}
    facts: dict[str, Any] = {"exams": {task: {"score": share, "n": 100} for task, share in SCORES.items()}}
    for name, scores in (("a", SCORES), ("b", better)):
        chatcore.write_results(tmp_path, name, facts, records(**scores))
    found = chatcore.compare_files(tmp_path / "a_items.jsonl", tmp_path / "b_items.jsonl")
    assert found["gsm8k"].mean == pytest.approx(0.2) and found["mmlu"].mean == 0
    assert found["ChatCORE-5"].mean == pytest.approx(0.04) and found["ChatCORE-5"].share > 0.999
    assert found["ChatCORE-6"].mean == pytest.approx(found["mean"].mean) == pytest.approx(0.2 / 6)
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert [row["task"] for row in rows] == list(SCORES)
    assert float(rows[0]["centred"]) == pytest.approx(0.4) and rows[3]["baseline"] == "0.0"
    main(["--compare", str(tmp_path / "a_items.jsonl"), str(tmp_path / "b_items.jsonl")])


# ----------------------------------------------------------------------------- the program


@pytest.fixture(scope="module")
def trained(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base folder with real rows, words and a model of random weights."""
    root = tmp_path_factory.mktemp("base")
    (root / "tasks").mkdir()
    for name, source in (
        ("arc", "ai2_arc"),
        ("mmlu", "mmlu"),
        ("gsm8k", "gsm8k"),
        ("humaneval", "humaneval"),
    ):
        (root / "tasks" / name).symlink_to(test_data / "tasks" / source)
    (root / "words_alpha.txt").write_text("\n".join(a + b for a in STEMS for b in STEMS))
    tokenizer = Tokenizer([bytes([i]) for i in range(256)], split_pattern())
    save_model(root, tokenizer, "r", "base", "sft", context=1024)
    return root


def options(root: Path, *more: str) -> list[str]:
    return [
        "--base-dir", str(root), "--run", "r", "--device", "cpu", "--dtype", "float32", "--threads", "1",
        "--max-tokens", "16", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_all_tasks_on_real_rows(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results are whole, reproducible, and say what is missing; samples go to files of their own."""
    folder = trained / "sft_r" / "evals"
    everything = options(trained, "--tasks", "all", "--limit", "20", "--sandbox", "best-effort")
    main(everything)
    first = read_json(folder / "chat.json")
    items = read_records(folder / "chat_items.jsonl")
    for task, facts in first["exams"].items():
        mine = [one.correct for one in items if one.task == task]
        assert (facts["n"], facts["score"]) == (20, statistics.fmean(mine))
        assert facts["low"] <= facts["score"] <= facts["high"] and facts["wall_s"] > 0
    assert set(first["exams"]) == set(first["data"]) and first["chatcore"]["ChatCORE-5"]["n"] == 100
    assert first["exams"]["humaneval"]["sandbox"] in ("strict", "best-effort")
    assert "mmlu 100 %  item 20/20" in capsys.readouterr().out
    main(everything)
    assert compare(items, read_records(folder / "chat_items.jsonl"))["mean"].mean == 0
    warm = ["--tasks", "gsm8k", "--limit", "4", "--samples", "4", "--temperature", "1"]
    main(options(trained, *warm))
    sampled = read_json(folder / "chat_4_samples.json")
    assert list(sampled["exams"]["gsm8k"]["pass_at"]) == ["1", "2", "4"]
    assert sampled["decoding"]["samples"] == 4 and sampled["decoding"]["seed"] == 42
    assert len(read_records(folder / "chat_4_samples_items.jsonl")[0].prediction) == 4
    assert "ChatCORE-5                 not computed: it needs arc-easy" in capsys.readouterr().out


@pytest.mark.slow
def test_the_recipes_mixtures_train(trained: Path, test_data: Path, tmp_path: Path) -> None:
    """mid and SFT on every task that the cluster recipe names; what stands in for a split is named as it."""
    stand_ins = {
        "mmlu/all/auxiliary_train": "tasks/mmlu/all/dev", "smoltalk/data/train": "chat/train",
        "gsm8k/main/train": "tasks/gsm8k/main/train",
        "arc/ARC-Easy/train": "tasks/ai2_arc/ARC-Easy/validation",
        "arc/ARC-Challenge/train": "tasks/ai2_arc/ARC-Challenge/validation",
    }  # fmt: skip
    for place, source in stand_ins.items():
        file = tmp_path / "tasks" / f"{place}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True)
        file.symlink_to(test_data / f"{source}.parquet")
    for name in ("words_alpha.txt", "tok", "base_r"):
        (tmp_path / name).symlink_to(trained / name)
    shared = ["--base-dir", str(tmp_path), "--run", "r", "--device", "cpu", "--threads", "1", "--no-compile",
              "--steps", "3", "--device-batch-rows", "1", "--eval-tokens", "1024"]  # fmt: skip
    assert mid_train.main([*shared, "--mixture", MIXTURES["mid"]]) == 0
    assert chat_sft.main([*shared, "--mixture", MIXTURES["sft"]]) == 0
    for stage in ("mid", "sft"):
        counters = read_json(tmp_path / f"{stage}_r" / "DONE")["data"]["counters"]
        assert counters["rows"] == 3 and counters["refused"] < 100 and counters["targets"] > 100


@pytest.mark.dist
def test_two_ranks_are_as_one(trained: Path) -> None:
    """The same predictions and scores on every item, through the real torchrun."""
    wanted = ["--tasks", "arc-easy,gsm8k,spellingbee", "--limit", "33", "--batch", "8"]
    main(options(trained, *wanted))
    items = trained / "sft_r" / "evals" / "chat_items.jsonl"
    one, facts = read_records(items), read_json(items.with_name("chat.json"))
    items.unlink()
    launcher = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "--",
        "scripts.chat_eval",
    ]
    subprocess.run([sys.executable, *launcher, *options(trained, *wanted)], cwd=ROOT, check=True)
    two, again = read_records(items), read_json(items.with_name("chat.json"))
    assert [dataclasses.replace(item, scores=[]) for item in one] == [
        dataclasses.replace(item, scores=[]) for item in two
    ]
    for a, b in zip(one, two, strict=True):
        assert a.scores == pytest.approx(b.scores, abs=1e-4)
    for task, found in facts["exams"].items():
        assert {**found, "wall_s": 0} == {**again["exams"][task], "wall_s": 0}


def test_a_bad_row_is_named_before_a_model_is_loaded(base: Path) -> None:
    rows = [{"question": "q", "subject": "s", "choices": list("abcd")[:n], "answer": 0} for n in (4, 4, 3)]
    place = base / "tasks" / "mmlu" / "all" / "test.parquet"
    place.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), place)
    with pytest.raises(UsageError, match=r"test\.parquet, row 3: 3 options and 4 letters; .*fetch the file"):
        main(["--base-dir", str(base), "--tasks", "mmlu"])


def test_what_is_not_there_is_named_before_a_model_is_loaded(base: Path) -> None:
    for words, message in (
        (["--tasks", "mmlu"], r"no split 'test' in \S*tasks/mmlu/all \(there is nothing\); fetch it"),
        (["--tasks", "arc"], "there is no exam 'arc'; name some of arc-easy, "),
        (["--tasks", ","], "none is named; name some of"),
        ([], "no exams at .*exams.json; write them with"),
        (["--samples", "4"], "--samples 4 at temperature 0 are all the same reply; use --temperature 1"),
    ):
        if "--samples" in words:
            write_json(base / "data" / "exams.json", {name: [] for name in WORLD_EXAMS})
        with pytest.raises(UsageError, match=message):
            main(["--base-dir", str(base), *words])
