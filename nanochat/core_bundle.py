"""The CORE tasks as DCLM v1 has them (arXiv 2406.11794), and the prompts that a bundle's rows become.

What it is: the 22 tasks with their shots and baselines, pinned by value; a reader of the published bundle
(`core.yaml`, `eval_meta_data.csv`, `eval_data/`) that names every fault; few-shot draws and prompt texts as
in nanochat's `core_eval.py`, so that scores can be compared. What it is not: tokens or models
(`core_eval.py`). No torch. Run: `pytest tests/test_core_eval.py -k bundle`.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nanochat.common import UsageError

Kind = Literal["multiple_choice", "schema", "language_modeling"]

ORDER_SEED = 1337  # rows are shuffled with it, then cut to the limit
SHOTS_SEED = 1234  # plus the row's place in that order: the few-shot draw
ANSWER = "\nAnswer: "
BUNDLE_FILES = ("core.yaml", "eval_meta_data.csv", "eval_data")


@dataclass(frozen=True)
class CoreTask:
    """One task. `baseline` is the score that counts as 0; `delimiter` stands before what is scored."""

    name: str
    kind: Kind
    shots: int
    baseline: float  # 0 to 1; DCLM v1's, which is not always what guessing gives
    delimiter: str = " "

    def centered(self, accuracy: float) -> float:
        """(accuracy - baseline) / (1 - baseline): 0 at the baseline, 1 if all is right."""
        return (accuracy - self.baseline) / (1 - self.baseline)


_MC: Kind = "multiple_choice"
_LM: Kind = "language_modeling"
_LIST = (
    CoreTask("hellaswag_zeroshot", _MC, 0, 0.25),
    CoreTask("jeopardy", _LM, 10, 0.0, ANSWER),
    CoreTask("bigbench_qa_wikidata", _LM, 10, 0.0),
    CoreTask("arc_easy", _MC, 10, 0.25, ANSWER),
    CoreTask("arc_challenge", _MC, 10, 0.25, ANSWER),
    CoreTask("copa", _MC, 0, 0.50),
    CoreTask("commonsense_qa", _MC, 10, 0.20),
    CoreTask("piqa", _MC, 10, 0.50, ANSWER),
    CoreTask("openbook_qa", _MC, 0, 0.25),
    CoreTask("lambada_openai", _LM, 0, 0.0),
    CoreTask("hellaswag", _MC, 10, 0.25),
    CoreTask("winograd", "schema", 0, 0.50),
    CoreTask("winogrande", "schema", 0, 0.50),
    CoreTask("bigbench_dyck_languages", _LM, 10, 0.0),
    CoreTask("agi_eval_lsat_ar", _MC, 3, 0.20),
    CoreTask("bigbench_cs_algorithms", _LM, 10, 0.0),
    CoreTask("bigbench_operators", _LM, 10, 0.0),
    CoreTask("bigbench_repeat_copy_logic", _LM, 10, 0.0),
    CoreTask("squad", _LM, 10, 0.0),
    CoreTask("coqa", _LM, 0, 0.0),
    CoreTask("boolq", _MC, 10, 0.62, ANSWER),
    CoreTask("bigbench_language_identification", _MC, 10, 0.091),
)
CORE_TASKS = {task.name: task for task in _LIST}


@dataclass(frozen=True)
class Row:
    """One line of a task's file as pairs of context and continuation, one an option (a single one in LM)."""

    number: int  # line in the file, from 0
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    gold: int

    def example(self, delimiter: str) -> str:
        """The row as a shot."""
        return f"{self.contexts[self.gold]}{delimiter}{self.continuations[self.gold]}\n\n"


@dataclass(frozen=True)
class Question:
    """What a model is shown of a row: one prompt an option, shots included."""

    number: int  # line in the task's file
    prompts: tuple[str, ...]
    gold: int
    stem: str | None = None  # LM: the prompt without the continuation


@dataclass(frozen=True)
class Questions:
    """A task's questions. `shots` is less than the task's where there are too few other rows."""

    task: CoreTask
    shots: int
    items: list[Question]


# ----------------------------------------------------------------------------- the bundle


@dataclass(frozen=True)
class Bundle:
    """Every row of the wanted tasks, and where the bundle's own tables differ from the pinned values."""

    rows: dict[str, list[Row]]
    notes: list[str]

    def count(self, limit: int | None = None) -> int:
        """Questions of all tasks."""
        return sum(len(rows[:limit]) for rows in self.rows.values())

    def questions(self, name: str, limit: int | None = None) -> Questions:
        """The questions of a task, at most `limit`; shots come from the other rows within the limit."""
        task, rows = CORE_TASKS[name], list(self.rows[name])
        random.Random(ORDER_SEED).shuffle(rows)
        rows = rows[:limit]
        shots = min(task.shots, len(rows) - 1)
        return Questions(task, shots, [_question(task, rows, place, shots) for place in range(len(rows))])


def task_names(asked: str) -> list[str]:
    """Names from a comma-separated list; an empty one means all."""
    names = [name.strip() for name in asked.split(",") if name.strip()]
    if unknown := [name for name in names if name not in CORE_TASKS]:
        raise UsageError(f"no CORE task {', '.join(unknown)}; they are {', '.join(CORE_TASKS)}")
    return names or list(CORE_TASKS)


def open_bundle(folder: Path, names: Sequence[str] = tuple(CORE_TASKS)) -> Bundle:
    """Read the rows of the named tasks; UsageError, which says what and where, if something is not right."""
    for name in BUNDLE_FILES:
        if not (folder / name).exists():
            raise UsageError(
                f"no CORE bundle in {folder}: {name} is missing. Fetch it with python -m "
                "scripts.download_data --stages base_eval, or leave core out of --evals"
            )
    entries = _read_yaml(folder / "core.yaml")
    if missing := [name for name in names if name not in entries]:
        raise UsageError(f"{folder / 'core.yaml'} does not list {', '.join(missing)}; fetch the bundle again")
    baselines = _read_baselines(folder / "eval_meta_data.csv")
    rows: dict[str, list[Row]] = {}
    notes: list[str] = []
    for name in names:
        task, file = CORE_TASKS[name], folder / "eval_data" / str(entries[name].get("dataset_uri"))
        if not file.is_file():
            raise UsageError(f"the rows of {name} are missing: no file {file}; fetch the bundle again")
        rows[name] = _read_rows(file, task.kind)
        notes += _differences(task, entries[name])
        if baselines.get(name) != f"{100 * task.baseline:g}":
            found = f"{name}: eval_meta_data.csv has baseline {baselines.get(name)}"
            notes.append(f"{found}, DCLM v1's {100 * task.baseline:g} is used")
    return Bundle(rows, notes)


def _read_yaml(path: Path) -> dict[str, dict[str, Any]]:
    """label -> entry."""
    import yaml  # type: ignore[import-untyped]

    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["icl_tasks"]
        return {str(entry["label"]): entry for entry in entries}
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no list of tasks ({error!r:.200}); fetch the bundle again") from error


def _read_baselines(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        wanted = {"Eval Task", "Random baseline"}
        if not wanted <= set(table.fieldnames or ()):
            raise UsageError(f"{path} has no columns {', '.join(sorted(wanted))}; fetch the bundle again")
        return {row["Eval Task"]: row["Random baseline"] for row in table}


def _differences(task: CoreTask, entry: dict[str, Any]) -> Iterator[str]:
    """What core.yaml says otherwise. The kind is an error, since it decides how rows are read."""
    if entry.get("icl_task_type") != task.kind:
        raise UsageError(
            f"{task.name} is {entry.get('icl_task_type')!r} in core.yaml, but {task.kind} in CORE"
        )
    if entry.get("num_fewshot") != [task.shots]:
        yield f"{task.name}: core.yaml has shots {entry.get('num_fewshot')}, CORE's {task.shots} are used"
    if (delimiter := entry.get("continuation_delimiter", " ")) != task.delimiter:
        yield f"{task.name}: core.yaml has delimiter {delimiter!r}, CORE's {task.delimiter!r} is used"


# ----------------------------------------------------------------------------- rows


def _read_rows(path: Path, kind: Kind) -> list[Row]:
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines()):
        try:
            rows.append(_row(number, kind, json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            fault = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise UsageError(f"{path}, line {number + 1}: {fault}; fetch the bundle again") from error
    if not rows:
        raise UsageError(f"{path} has no rows; fetch the bundle again")
    return rows


def _row(number: int, kind: Kind, stored: Any) -> Row:
    if not isinstance(stored, dict):
        raise ValueError(f"a row is an object, not {stored!r:.80}")
    if kind == "language_modeling":
        return Row(number, (_text(stored, "context").strip(),), (_text(stored, "continuation"),), 0)
    if kind == "multiple_choice":
        continuations = _texts(stored, "choices")
        contexts = (_text(stored, "query"),) * len(continuations)
    else:
        contexts = _texts(stored, "context_options")
        continuations = (_text(stored, "continuation"),) * len(contexts)
    gold = stored["gold"]
    if type(gold) is not int or not 0 <= gold < len(contexts):
        raise ValueError(f"`gold` is {gold!r}, not the number of one of {len(contexts)} options")
    return Row(number, contexts, continuations, gold)


def _text(stored: dict[str, Any], field: str) -> str:
    if not isinstance(stored[field], str) or not stored[field].strip():
        raise ValueError(f"`{field}` is {stored[field]!r:.80}, not a text")
    return str(stored[field])


def _texts(stored: dict[str, Any], field: str) -> tuple[str, ...]:
    found = stored[field]
    if not isinstance(found, list) or len(found) < 2 or not all(isinstance(t, str) and t for t in found):
        raise ValueError(f"`{field}` is {found!r:.80}, not a list of at least two texts")
    return tuple(found)


def _question(task: CoreTask, rows: Sequence[Row], place: int, shots: int) -> Question:
    """The prompts of the row at a place, its shots drawn from all other rows."""
    drawn = random.Random(SHOTS_SEED + place).sample(range(len(rows) - 1), shots)
    others = (rows[i + (i >= place)] for i in drawn)
    before = "".join(other.example(task.delimiter) for other in others)
    row = rows[place]
    stems = [f"{before}{context}{task.delimiter}" for context in row.contexts]
    prompts = tuple(stem + text for stem, text in zip(stems, row.continuations, strict=True))
    # A blank at the end of the stem would be part of the continuation's first token.
    stem = stems[0].strip() if task.kind == "language_modeling" else None
    return Question(row.number, prompts, row.gold, stem)
