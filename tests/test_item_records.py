"""Records of items: files that come back, faults by name, intervals, differences that are paired."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanochat.common import UsageError
from nanochat.item_records import (
    ItemRecord,
    bootstrap,
    compare,
    prompt_hash,
    read_records,
    wilson,
    write_records,
)


def record(index: int, correct: float = 1.0, task: str = "arc", **changed: Any) -> ItemRecord:
    made = ItemRecord(task, index, prompt_hash(task, str(index)), [0.5, -1.0], "é\u2028", "B", correct)
    return dataclasses.replace(made, **changed)


def test_records_come_back_in_order(tmp_path: Path) -> None:
    records = [record(2), record(0, 0.25, note="empty"), record(1, task="aa", prediction=[1, None])]
    write_records(tmp_path / "items.jsonl", records)
    assert read_records(tmp_path / "items.jsonl") == [records[2], records[1], records[0]]
    write_records(tmp_path / "items.jsonl", [record(0, scores=(float("nan"), 1.0))])
    assert read_records(tmp_path / "items.jsonl")[0].scores == [None, 1.0]
    assert [path.name for path in tmp_path.iterdir()] == ["items.jsonl"]


def test_a_prompt_hash_knows_where_a_text_ends() -> None:
    assert prompt_hash("a", "b") != prompt_hash("ab") != prompt_hash("b", "a")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: Expecting"),
        ("[1]", "line 2: an item record needs exactly correct, gold"),
        ({"index": None}, "line 2: `index` is None, not a int"),
        ({"correct": 1.5}, "line 2: `correct` is 1.5, not a number from 0 to 1"),
        ({"extra": 1}, "line 2: an item record needs exactly"),
        ({"index": 0}, "line 2: item 0 of arc stands twice"),
    ],
)
def test_a_fault_of_a_file_is_named(tmp_path: Path, line: Any, message: str) -> None:
    path = tmp_path / "items.jsonl"
    write_records(path, [record(0), record(1)])
    lines = path.read_text(encoding="utf-8").split("\n")
    lines[1] = line if isinstance(line, str) else json.dumps({**json.loads(lines[1]), **line})
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UsageError, match=message) as error:
        read_records(path)
    assert str(path) in str(error.value)


def test_no_file_and_no_line_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no item records at"):
        read_records(tmp_path / "items.jsonl")
    (tmp_path / "items.jsonl").touch()
    with pytest.raises(UsageError, match="is empty"):
        read_records(tmp_path / "items.jsonl")


def test_wilson_interval() -> None:
    assert wilson(0, 10) == pytest.approx((0, 0.27753), abs=1e-5)  # the closed form z2 / (n + z2)
    assert wilson(10, 10) == pytest.approx((1 - 0.27753, 1), abs=1e-5)
    low, high = wilson(50, 100)
    assert (low + high) / 2 == pytest.approx(0.5)
    assert high - low == pytest.approx(2 * 1.959964 * 0.5 / (100 + 1.959964**2) ** 0.5)


def test_bootstrap_is_what_drawing_items_gives() -> None:
    """Against the plain way, an index drawn for each item, and against the normal limit."""
    draw = np.random.default_rng(1)
    values = draw.choice([0.0, 0.25, 1.0], size=400, p=[0.5, 0.2, 0.3])
    plain = draw.choice(values, size=(4000, 400)).mean(axis=1)
    assert bootstrap({"a": values}) == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])), abs=0.004)
    half = 1.959964 * values.std() / 20
    assert bootstrap({"a": values}) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.004)
    two = bootstrap({"a": values, "b": [0.5] * 10})
    assert two == pytest.approx([(bound + 0.5) / 2 for bound in bootstrap({"a": values})])
    assert bootstrap({"a": values}, seed=1) != bootstrap({"a": values}) == bootstrap({"a": values})


def test_comparing_uses_the_pairs() -> None:
    """Models that agree on all but 8 of 200 items differ by little and surely; unpaired they would not."""
    chance = random.Random(3)
    a = [record(i, chance.random() < 0.5) for i in range(200)]
    wrong = [one.index for one in a if not one.correct][:8]
    b = [dataclasses.replace(one, correct=1.0) if one.index in wrong else one for one in a]
    found = compare(a, b[::-1])["arc"]
    assert (found.n, found.mean) == (200, pytest.approx(0.04))
    assert 0.01 < found.low < 0.04 < found.high < 0.08
    assert found.share > 0.999
    back = compare(b, a)["arc"]
    assert (back.mean, back.share) == (-found.mean, pytest.approx(1 - found.share))
    same = compare(a, a)
    assert list(same) == ["arc"]
    assert (same["arc"].mean, same["arc"].low, same["arc"].high, same["arc"].share) == (0, 0, 0, 0.5)
    assert "+0.0400 (95 %: +0.01" in str(found)


def test_tasks_count_the_same_and_baselines_centre() -> None:
    a = [record(i, 0, "x") for i in range(10)] + [record(0, 0.25, "y")]
    b = [record(i, 1, "x") for i in range(10)] + [record(0, 0.25, "y")]
    found = compare(a, b)
    assert (found["mean"].a, found["mean"].mean, found["mean"].n) == (0.125, 0.5, 11)
    centred = compare(a, b, baselines={"x": 0.5, "y": 0.25})
    assert (centred["x"].a, centred["x"].b, centred["y"].a) == (-1, 1, 0)
    assert centred["mean"].mean == 1


def test_other_items_and_other_prompts_are_refused() -> None:
    a = [record(i) for i in range(3)]
    with pytest.raises(UsageError, match="1 items are in one file only, such as arc 2 in the first"):
        compare(a, a[:2])
    with pytest.raises(UsageError, match="1 items are in one file only, such as arc 2 in the second"):
        compare(a[:2], a)
    with pytest.raises(UsageError, match="the prompts of 1 items differ, such as arc 1"):
        compare(a, [a[0], dataclasses.replace(a[1], prompt="0"), a[2]])
