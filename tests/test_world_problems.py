"""The two-step problems of the embedded world: right answers, nothing shared by practice and exam."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import pytest

from nanochat.calculator import calculate
from nanochat.tokenizer import Tokenizer, split_pattern
from nanochat.world.problems import (
    KINDS,
    Problem,
    draw_problem,
    is_exam_number,
    is_exam_template,
    write_problems,
)
from nanochat.world.sums import is_reserved
from tasks.problems import load_problems

FILES = ("problems.jsonl", "problems_exam.jsonl", "problems_sft.jsonl")


def drawn(exam: bool) -> list[Problem]:
    rng = random.Random(3)
    return [draw_problem(rng, kind, exam=exam) for kind in KINDS for _ in range(12 if exam else 40)]


@pytest.mark.parametrize("exam", [False, True])
def test_two_steps_give_the_answer_and_all_numbers_are_asked(exam: bool) -> None:
    for problem in drawn(exam):
        first, second = problem.steps
        assert calculate(first.call) == str(first.result) and second.a == first.result > 0
        assert calculate(second.call) == str(second.result) and problem.result > 0
        numbers = sorted(map(int, re.findall(r"\d+", problem.question)))
        assert numbers == sorted((first.a, first.b, second.b)) and len(set(numbers)) == 3
        assert max(numbers) <= 9_999 and "{" not in problem.question
    assert max(n for p in drawn(exam) for n in (p.steps[0].a, p.steps[1].b)) > 5_000


def test_practice_and_exam_share_no_template_and_no_number() -> None:
    practised, examined = ({problem.template for problem in drawn(exam)} for exam in (False, True))
    assert len(practised) > 200 and len(examined) > 60 and not practised & examined
    assert all(map(is_exam_template, examined)) and not any(map(is_exam_template, practised))
    for problem in drawn(False):
        assert not any(map(is_exam_number, map(int, re.findall(r"\d+", problem.question))))
        assert not any(is_reserved(step.a, step.b) for step in problem.steps)  # kept for `arithmetic`
    for problem in drawn(True):
        assert all(map(is_exam_number, map(int, re.findall(r"\d+", problem.question))))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("problems")
    assert write_problems(folder, 1) == dict(zip(FILES, (4_000, 400, 600), strict=True))
    return folder


@pytest.mark.slow
def test_the_files_are_kept_and_never_overwritten(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    texts = {name: (tmp_path / name).read_text() for name in FILES}
    (tmp_path / FILES[1]).unlink()
    write_problems(tmp_path, 1)
    assert texts == {name: (tmp_path / name).read_text() for name in FILES}
    (tmp_path / FILES[0]).write_text(texts[FILES[1]])
    with pytest.raises(ValueError, match=r"problems.jsonl holds other problems"):
        write_problems(tmp_path, 1)


def test_practice_and_exam_share_no_question(written: Path) -> None:
    train, exam = (load_problems(written, name) for name in FILES[:2])
    asked = [{item["messages"][0]["content"] for item in task} for task in (train, exam)]
    assert len(asked[0]) == 4_000 and len(asked[1]) == 400 and not asked[0] & asked[1]


def test_the_shown_replies_earn_the_reward(written: Path) -> None:
    tokenizer = Tokenizer([bytes([i]) for i in range(256)], split_pattern())
    shown = [json.loads(line) for line in (written / FILES[2]).read_text().splitlines()]
    task = load_problems(written, FILES[0])
    for chat in shown[:50]:
        calls = [part["text"] for part in chat["messages"][1]["content"] if part["type"] == "python"]
        result = int(str(calculate(calls[1])))
        ids, _ = tokenizer.render_conversation(chat)
        start = ids.index(tokenizer.special("assistant_start"))
        reply = tokenizer.decode(ids[start + 1 : -1])
        assert len(calls) == 2 and task.reward({**task[0], "result": result}, reply, True) == 1.0
        assert task.reward({**task[0], "result": result + 1}, reply, True) == 0.0
