"""SmolTalk: conversations for training, the smaller set for small models (arXiv 2502.02737).

Column `messages` (`role`, `content`), a system message first at times. What it is not: examined; its test
split is for validation. Run: `python -m scripts.mid_train --mixture smoltalk:10000`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.common import Item
from tasks.rows import RowTask


class SmolTalk(RowTask):
    """`split` train or test."""

    def __init__(self, root: Path, split: str) -> None:
        super().__init__("smoltalk", root, "tasks/smoltalk/data", split, ("messages",))

    def convert(self, row: dict[str, Any]) -> Item:
        if not row["messages"]:
            raise ValueError("the conversation has no message")
        return {"messages": [{"role": m["role"], "content": m["content"]} for m in row["messages"]]}
