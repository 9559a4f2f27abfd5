"""Mixtures of tasks, and files of conversations or texts as tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.common import UsageError
from tasks.common import TaskMixture, load_mixture
from tasks.customjson import CustomJSON

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello\u2028there"}]}


def write(path: Path, *items: Any) -> Path:
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    return path


def test_a_mixture_is_its_tasks_end_to_end() -> None:
    mixture = TaskMixture([[{"text": "a"}], [], [{"text": "b"}, {"text": "c"}], [{"text": "a"}]])
    assert [mixture[i]["text"] for i in range(len(mixture))] == list("abca")
    assert [item["text"] for item in mixture] == list("abca")
    for index in (4, -1):
        with pytest.raises(IndexError):
            mixture[index]
    assert len(TaskMixture([])) == 0


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


def test_a_mixture_is_named_file_by_file_and_hashed(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", CHAT)
    write(tmp_path / "b.jsonl", {"text": "b"})
    mixture, digest = load_mixture(tmp_path, "a.jsonl, b.jsonl,a.jsonl")
    assert list(mixture) == [CHAT, {"text": "b"}, CHAT]
    assert load_mixture(tmp_path, "a.jsonl,b.jsonl,a.jsonl")[1] == digest
    assert load_mixture(tmp_path, "a.jsonl,b.jsonl")[1] != digest
    write(tmp_path / "b.jsonl", {"text": "c"})
    assert load_mixture(tmp_path, "a.jsonl,b.jsonl,a.jsonl")[1] != digest
    with pytest.raises(UsageError, match=r"no such file: \S*c\.jsonl"):
        load_mixture(tmp_path, "a.jsonl,c.jsonl")
    with pytest.raises(UsageError, match="none named"):
        load_mixture(tmp_path, " , ")
