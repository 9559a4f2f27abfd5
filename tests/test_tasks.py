"""Slices, sequences and mixtures of tasks; files of conversations or texts as tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.assets import MIXTURES, TASK_FILES
from nanochat.common import UsageError
from nanochat.presets import PRESETS
from tasks.catalogue import TRAIN, load_mixture
from tasks.common import Item, Task, TaskMixture, TaskSequence
from tasks.customjson import CustomJSON
from tasks.identity import Identity

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello\u2028there"}]}


def write(path: Path, *items: Any) -> Path:
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    return path


class Letters(Task):
    """An item a letter."""

    def __init__(self, letters: str) -> None:
        super().__init__(f"letters {letters}", len(letters), letters)
        self.letters = letters

    def item(self, index: int) -> Item:
        return {"text": self.letters[index]}


def text(task: Task) -> str:
    return "".join(item["text"] for item in task)


def test_a_slice_is_a_task() -> None:
    task = Letters("abcdefgh")
    assert isinstance(task[2:6], Letters)
    assert (text(task[2:6]), text(task[::3]), text(task[2:6][1:][::-1]), len(task[3:])) == (
        "cdef",
        "adg",
        "fed",
        5,
    )
    assert (task[-1]["text"], task[2:6][-1]["text"], text(task), text(task[5:5])) == (
        "h",
        "f",
        "abcdefgh",
        "",
    )
    assert len({task.fingerprint, task[:3].fingerprint, task[1:].fingerprint, task[:3][:2].fingerprint}) == 4
    for wrong in (8, -9):
        with pytest.raises(IndexError):
            task[wrong]
    with pytest.raises(UsageError, match="letters abcdefgh is a chat task: its replies are not checked"):
        task.check({}, "")


def test_a_sequence_is_its_tasks_end_to_end() -> None:
    tasks = [Letters("a"), Letters(""), Letters("bc"), Letters("a")]
    assert text(TaskSequence(tasks)) == "abca"
    assert text(TaskSequence(tasks)[1:3]) == "bc"
    assert len(TaskSequence([])) == 0
    assert TaskSequence(tasks).fingerprint != TaskSequence(tasks[::-1]).fingerprint


def test_a_mixture_is_lazy_and_the_same_each_time() -> None:
    tasks = [Letters("abcdefgh"), Letters("ijklmnop")]
    mixture = TaskMixture(tasks)
    assert sorted(text(mixture)) == sorted("abcdefghijklmnop") != list(text(mixture))
    assert text(mixture) == text(TaskMixture(tasks)) != text(TaskMixture(tasks, seed=1))
    asked: list[int] = []
    tasks[0].item = lambda index: {"text": str(asked.append(index))}  # type: ignore[method-assign]
    huge = TaskMixture([tasks[0], tasks[1]])
    huge[3], huge[4]
    assert len(asked) <= 2


def test_jsonl_and_parquet_give_the_same_items(tmp_path: Path) -> None:
    items = [CHAT, {"messages": [*CHAT["messages"], *CHAT["messages"]]}]
    lines = write(tmp_path / "a.jsonl", *items)
    pq.write_table(pa.Table.from_pylist(items), tmp_path / "a.parquet")
    assert list(CustomJSON(lines)) == items == list(CustomJSON(tmp_path / "a.parquet"))


def test_blank_lines_marks_and_line_ends_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n\r\n   \n{"text": "two"}')
    assert [item["text"] for item in CustomJSON(path)] == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"{", "record 1: not JSON"),
        (b'"\xff"', "record 1: not JSON"),
        (b"[1]", "record 1: needs `messages` or `text`"),
        (b'{"prompt": "x"}', "record 1: needs `messages` or `text`"),
    ],
)
def test_a_file_of_another_kind_is_refused_at_once(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        CustomJSON(path)
    assert str(path) in str(error.value)


def test_a_later_bad_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": \n', encoding="utf-8")
    with pytest.raises(UsageError, match="record 2: not JSON"):
        CustomJSON(path)[1]


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 no, not really PAR1")
    with pytest.raises(UsageError, match=r"a\.parquet cannot be read as Parquet"):
        CustomJSON(path)


def test_a_mixture_is_named_part_by_part_and_hashed(tmp_path: Path) -> None:
    def load(names: str) -> tuple[TaskSequence, str]:
        return load_mixture(tmp_path, tmp_path, names)

    write(tmp_path / "a.jsonl", CHAT)
    write(tmp_path / "b.jsonl", {"text": "b"}, {"text": "c"})
    mixture, digest = load("a.jsonl, b.jsonl:1,a.jsonl")
    assert list(mixture) == [CHAT, {"text": "b"}, CHAT]
    assert load("a.jsonl,b.jsonl:1,a.jsonl")[1] == digest
    assert len({digest, *(load(names)[1] for names in ("a.jsonl,b.jsonl:1", "a.jsonl,b.jsonl"))}) == 3
    write(tmp_path / "b.jsonl", {"text": "d"}, {"text": "c"})
    assert load("a.jsonl,b.jsonl:1,a.jsonl")[1] != digest
    mixture, _ = load("a.jsonl,identity:5,identity:5")
    assert len(mixture) == 11 and mixture[1] == mixture[6]
    for names, message in (
        ("a.jsonl,c.jsonl", r"no such file: \S*c\.jsonl; tasks are smoltalk, mmlu"),
        ("smoltalc", "did you mean smoltalk"),
        (" , ", "none named; name files in"),
        ("b.jsonl:0", "'0' is no number of items; write NAME:N"),
        ("b.jsonl:x", "'x' is no number of items"),
        ("b.jsonl:3", "'b.jsonl:3': b.jsonl has 2 items"),
        ("spelling", "no list of words at .*words_alpha.txt; fetch it"),
    ):
        with pytest.raises(UsageError, match=message):
            load(names)


def test_the_cluster_recipe_names_tasks_that_exist() -> None:
    """What preflight fetches files for is what a mixture may name, and the presets name nothing else."""
    assert set(TASK_FILES) == set(TRAIN)
    for names in MIXTURES.values():
        assert {part.partition(":")[0] for part in names.split(",")} <= set(TRAIN)
    for preset in ("speedrun", "run1000"):
        assert PRESETS[preset]["MidTrain"]["mixture"] == MIXTURES["mid"]


def test_identity_is_the_assistants_and_not_the_small_worlds() -> None:
    task = Identity()
    said = {
        message["content"] for item in task for message in item["messages"] if message["role"] == "assistant"
    }
    assert len(task) == 1000 and 6 <= len(said) <= 12
    assert "I am nanochat, a small language model." in said and not any("world" in text for text in said)
    assert list(task[:20]) == list(Identity()[:20])
    asked = {item["messages"][0]["content"] for item in task}
    assert len(asked) > 500
