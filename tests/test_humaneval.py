"""HumanEval on its real rows: solutions pass, mutants fail, and a reply's code is found where it stands."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rewrites import mutants, rewrites

from nanochat.common import UsageError
from nanochat.execution import SandboxUnavailable
from tasks.evaluate import Exam
from tasks.humaneval import COLUMNS, FOLDER, HumanEval, Item, extract_code, program

MUTANTS, REWRITES, SEED = 200, 50, 8

ROW = {
    "task_id": "Test/0",
    "prompt": 'import math\n\n\ndef half(x):\n    return x / 2\n\n\ndef area(r):\n    """Of a circle."""\n',
    "canonical_solution": "    return math.pi * r * r\n",
    "test": "def check(candidate):\n    assert abs(candidate(half(4)) - 12.566) < 0.001\n",
    "entry_point": "area",
}
SOLUTION = "def area(r):\n    return math.pi * r ** 2\n"
WRONG = "def area(r):\n    return 3 * r ** 2\n"


def save(root: Path, *rows: dict[str, Any], name: str = "test-00000-of-00001.parquet") -> Path:
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), root / FOLDER / name)
    return root


def load(root: Path) -> HumanEval:
    try:
        return HumanEval(root)
    except SandboxUnavailable:
        return HumanEval(root, level="best-effort")


@pytest.fixture(scope="module")
def real(test_data: Path) -> HumanEval:
    return load(test_data)


# ----------------------------------------------------------------------------- replies


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (f"Here it is:\n```python\n{SOLUTION}```\nDone.", SOLUTION),
        (f"```\n{SOLUTION}```<|assistant_end|>", SOLUTION),
        (f"```python\nprint(1)\n```\nand\n```py\n{SOLUTION}```", SOLUTION),
        (f"```python\n{SOLUTION}", SOLUTION),
        (f"Sure. This is it.\nimport math\n{SOLUTION}", f"import math\n{SOLUTION}"),
        (SOLUTION, SOLUTION),
        ("    return math.pi * r ** 2\n\nprint(area(1))\n", "    return math.pi * r ** 2\n\n"),
        ("    x = r\n\n    return x", "    x = r\n\n    return x"),
        ("I do not know.", ""),
        ("", ""),
    ],
)
def test_code_is_found(reply: str, code: str) -> None:
    assert extract_code(reply, "area") == code


def test_replies_are_judged_by_running_them(tmp_path: Path) -> None:
    task = load(save(tmp_path, ROW))
    exam: Exam = task
    assert (len(exam), exam.kind, task.facts()["sandbox"]) == (1, "generative", task.level)
    item = task[0]
    assert item["messages"] == [{"role": "user", "content": ROW["prompt"]}]
    assert task.check(item, item["answer"]) and task.check(item, f"```python\n{SOLUTION}```")
    assert not task.check(item, f"```python\n{WRONG}```")
    assert not task.check(item, "    raise SystemExit(0)")  # leaving before the test is not passing it


def test_nothing_runs_for_an_empty_reply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load(save(tmp_path, ROW))
    monkeypatch.setattr("tasks.humaneval.run_python", None)
    assert not task.check(task[0], " \n<|assistant_end|>")


@pytest.mark.parametrize(
    ("rows", "name", "fault"),
    [
        ([ROW], "train.parquet", "no split 'test'"),
        ([{key: ROW[key] for key in COLUMNS[:3]}], "test.parquet", "test"),
        ([ROW, {**ROW, "test": None}], "test.parquet", r"row 2: `test` is empty"),
        ([{**ROW, "entry_point": "volume"}], "test.parquet", "row 1: the prompt does not define 'volume'"),
    ],
)
def test_faults_are_named(tmp_path: Path, rows: list[dict[str, Any]], name: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        list(load(save(tmp_path, *rows, name=name)))


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, ROW) / FOLDER / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path)


# ----------------------------------------------------------------------------- the real rows


Attempt = tuple[str, str, Item]  # what was done to which task, the reply, the task


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def passing(real: HumanEval, attempts: list[Attempt], pool: ThreadPoolExecutor) -> list[str]:
    """What was done in those attempts that pass, judged in the sandbox."""
    verdicts = pool.map(lambda attempt: real.check(attempt[2], attempt[1]), attempts)
    return [attempt[0] for attempt, ok in zip(attempts, verdicts, strict=True) if ok]


def attempts(real: HumanEval, change: Callable[[str, str], Iterator[tuple[str, str]]]) -> list[Attempt]:
    """Every change of every canonical solution, in a seeded order."""
    found = [
        (f"{item['task_id']}: {what}", f"```python\n{source}\n```", item)
        for item in real
        for what, source in change(item["prompt"] + item["answer"], item["entry_point"])
    ]
    return random.Random(SEED).sample(found, len(found))


def bare_code(attempt: Attempt) -> int | None:
    """Exit code of a bare interpreter, None if it takes too long."""
    command = [sys.executable, "-I", "-S", "-c", program(attempt[2], attempt[1])]
    try:
        return subprocess.run(command, capture_output=True, timeout=3, check=False).returncode
    except subprocess.TimeoutExpired:
        return None


@pytest.mark.slow
def test_canonical_solutions_pass(real: HumanEval, pool: ThreadPoolExecutor) -> None:
    solutions = [(item["task_id"], item["answer"], item) for item in real]
    assert len(solutions) >= 80
    assert sorted(passing(real, solutions, pool)) == sorted(item["task_id"] for item in real)


@pytest.mark.slow
def test_mutants_fail(real: HumanEval, pool: ThreadPoolExecutor) -> None:
    """Each is first proven to fail by a bare interpreter: exit code 1, an assertion or another exception."""
    candidates = attempts(real, mutants)[: MUTANTS * 3 // 2]
    codes = pool.map(bare_code, candidates)
    proven = [attempt for attempt, code in zip(candidates, codes, strict=True) if code == 1][:MUTANTS]
    assert len(proven) == MUTANTS
    assert passing(real, proven, pool) == []


@pytest.mark.slow
def test_equivalent_rewrites_pass(real: HumanEval, pool: ThreadPoolExecutor) -> None:
    found = attempts(real, rewrites)
    kinds = {what.split(": ")[1] for what, _, _ in found[:REWRITES]}
    assert len(found) > 4 * REWRITES and kinds >= {"rename_locals", "swap_branches", "name_results"}
    assert len(passing(real, found[:REWRITES], pool)) == REWRITES
