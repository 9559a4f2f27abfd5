"""GSM8K: word problems of grade schools (arXiv 2110.14168); the answer stands behind `####`.

Columns: `question`, `answer`, in which `<<48/2=24>>` are calls of a calculator: they become tool calls of the
conversation. `final_number` is the reference's rule, to the letter. What it is not: lenient; a reply without
`#### number` is wrong, and so are `#### $5` and `#### 5.0` where the answer is 5.
Run: `python -m scripts.chat_eval --tasks gsm8k`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tasks.common import Item, Kind
from tasks.rows import RowTask

FINAL = re.compile(r"#### (-?[0-9.,]+)")
CALL = re.compile(r"<<([^<>]*)=([^<>=]*)>>")


def final_number(text: str) -> str | None:
    """What stands behind the first `#### `, without commas; None if that is no number."""
    found = FINAL.search(text)
    return found[1].replace(",", "") if found else None


def is_right(item: Item, reply: str) -> bool:
    """The reply has a final number, and it is the answer's, character by character."""
    return final_number(reply) == item["answer"]


def with_calls(text: str) -> list[dict[str, str]]:
    """A solution as parts of a message: text, calls (`python`) and their results (`python_output`)."""
    parts, end = [], 0
    for call in CALL.finditer(text):
        parts.append({"type": "text", "text": text[end : call.start()]})
        parts.append({"type": "python", "text": call[1]})
        parts.append({"type": "python_output", "text": call[2]})
        end = call.end()
    parts.append({"type": "text", "text": text[end:]})
    return [part for part in parts if part["text"]]


class GSM8K(RowTask):
    """`split` train or test."""

    kind: Kind = "generative"

    def __init__(self, root: Path, split: str) -> None:
        super().__init__("gsm8k", root, "tasks/gsm8k/main", split, ("question", "answer"))

    def convert(self, row: dict[str, Any]) -> Item:
        number = final_number(row["answer"])
        if number is None:
            raise ValueError(f"no `#### number` in the answer {row['answer'][-40:]!r}")
        messages = [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": with_calls(row["answer"])},
        ]
        return {"messages": messages, "answer": number}

    def check(self, item: Item, reply: str) -> bool:
        return is_right(item, reply)
