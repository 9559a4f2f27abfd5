"""HumanEval: Python functions from their docstrings, 164 of them (arXiv 2107.03374), checked by running them.

Columns: `task_id`, `prompt`, `canonical_solution`, `test`, `entry_point`. The question is the bare prompt.
A reply may be the function (fenced or not) or the body that completes the prompt; what counts is that the
task's own test then runs to its end in the sandbox. What it is not: a defence against a reply that was
written to deceive its judge, which shares its process (docs/explanation/sandbox.md).
Run: `pytest tests/test_humaneval.py`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nanochat.execution import Level, run_python
from tasks.common import Item, Kind
from tasks.rows import RowTask
from tasks.sample_world import SPECIAL

FOLDER = "tasks/humaneval/openai_humaneval"
COLUMNS = ("task_id", "prompt", "canonical_solution", "test", "entry_point")
FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
TOP_LEVEL = re.compile(r"^(?:def |class |import |from |@|async )", re.MULTILINE)


# ----------------------------------------------------------------------------- from a reply to a program


def extract_code(reply: str, entry_point: str) -> str:
    """The code of a reply: the fenced block that defines the function, else the first one, else the text.

    A reply without a fence starts at its first definition or import if it defines the function, and is the
    function's body otherwise.
    """
    reply = SPECIAL.sub("", reply)
    blocks: list[str] = FENCE.findall(reply)
    if blocks:
        return next((block for block in blocks if defines(block, entry_point)), blocks[0])
    if defines(reply, entry_point):
        start = TOP_LEVEL.search(reply)
        return reply[start.start() :] if start else reply
    return body(reply)


def defines(code: str, function: str) -> bool:
    return re.search(rf"^(?:async )?def {re.escape(function)}\b", code, re.MULTILINE) is not None


def body(text: str) -> str:
    """The lines up to the first one that is not indented: there a completion has left the function."""
    lines = text.splitlines(keepends=True)
    inside = [not line.strip() or line[0] in " \t" for line in lines]
    return "".join(lines[: inside.index(False)] if False in inside else lines)


def program(item: Item, reply: str) -> str:
    """The program that runs to its end exactly if the reply passes the task's test."""
    code, prompt = extract_code(reply, item["entry_point"]), item["prompt"]
    if defines(code, item["entry_point"]):
        # It brings its own signature; imports and helpers are the prompt's.
        prompt = prompt[: prompt.rindex(f"def {item['entry_point']}")]
    return f"{prompt}{code}\n\n{item['test']}\n\ncheck({item['entry_point']})\n"


# ----------------------------------------------------------------------------- the task


class HumanEval(RowTask):
    """Whether a reply's function passes. A sandbox that is not there is found out at once.

    `level` is asked of the sandbox; what it gave is in `facts`, which belong into every result.
    """

    kind: Kind = "generative"

    def __init__(
        self, root: Path, split: str = "test", *, level: Level = "strict", seconds: float = 5.0
    ) -> None:
        super().__init__("humaneval", root, FOLDER, split, COLUMNS)
        self.level, self.seconds = level, seconds
        self.trial = run_python("", level=level)

    def facts(self) -> dict[str, Any]:
        return {"sandbox": self.trial.level, "guards": list(self.trial.guards)}

    def convert(self, row: dict[str, Any]) -> Item:
        for name in COLUMNS:
            if not row[name].strip():
                raise ValueError(f"`{name}` is empty")
        if not defines(row["prompt"], row["entry_point"]):
            raise ValueError(f"the prompt does not define {row['entry_point']!r}")
        known = {name: row[name] for name in ("task_id", "prompt", "test", "entry_point")}
        messages = [{"role": "user", "content": row["prompt"]}]
        return {**known, "messages": messages, "answer": row["canonical_solution"]}

    def check(self, item: Item, reply: str) -> bool:
        if not SPECIAL.sub("", reply).strip():
            return False
        return run_python(program(item, reply), seconds=self.seconds, level=self.level).ok
