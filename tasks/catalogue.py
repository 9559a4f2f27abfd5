"""Every task by name: what a mixture may name, and which exams there are.

What it is: two tables, `TRAIN` and `EXAMS`, and `load_mixture`. What it is not: which files they need
(`nanochat/assets.py` has that, for machines without torch and `tasks`). No torch.
Run: `python -m scripts.chat_eval --tasks all`, `python -m scripts.mid_train --mixture smoltalk:10000,gsm8k`.
"""

from __future__ import annotations

import collections
import difflib
from collections.abc import Callable
from pathlib import Path

from nanochat.common import UsageError
from nanochat.execution import Level
from tasks import sample_world
from tasks.arc import ARC
from tasks.common import Task, TaskSequence
from tasks.customjson import CustomJSON
from tasks.gsm8k import GSM8K
from tasks.humaneval import HumanEval
from tasks.identity import Identity
from tasks.mmlu import MMLU
from tasks.problems import load_problems as problems_of
from tasks.smoltalk import SmolTalk
from tasks.spellingbee import Spelling, SpellingBee

Maker = Callable[[Path], Task]  # from the base folder
ExamMaker = Callable[[Path, Level], Task]  # ... and the sandbox's level

TRAIN: dict[str, Maker] = {
    "smoltalk": lambda root: SmolTalk(root, "train"),
    "mmlu": lambda root: MMLU(root, "auxiliary_train"),
    "gsm8k": lambda root: GSM8K(root, "train"),
    "arc-easy": lambda root: ARC(root, "easy", "train"),
    "arc-challenge": lambda root: ARC(root, "challenge", "train"),
    "spelling": lambda root: Spelling(root, "train"),
    "spellingbee": lambda root: SpellingBee(root, "train"),
    "identity": lambda root: Identity(),
}
EXAMS: dict[str, ExamMaker] = {
    "arc-easy": lambda root, level: ARC(root, "easy", "test"),
    "arc-challenge": lambda root, level: ARC(root, "challenge", "test"),
    "mmlu": lambda root, level: MMLU(root, "test"),
    "gsm8k": lambda root, level: GSM8K(root, "test"),
    "humaneval": lambda root, level: HumanEval(root, "test", level=level),
    "spellingbee": lambda root, level: SpellingBee(root, "test"),
}


def load_mixture(root: Path, folder: Path, names: str) -> tuple[TaskSequence, str]:
    """The parts of a comma-separated list end to end, and a hash of their content.

    A part is a task of `TRAIN` (its files are below `root`) or a file in `folder`; `NAME:N` takes its first
    N items. UsageError for what is neither.
    """
    parts = [name.strip() for name in names.split(",") if name.strip()]
    if not parts:
        raise UsageError(f"mixture {names!r}: none named; name files in {folder} or {', '.join(TRAIN)}")
    made: dict[str, Task] = {}
    for part in parts:  # named twice, it is read once
        if part not in made:
            made[part] = _part(root, folder, part)
    mixture = TaskSequence([made[part] for part in parts])
    return mixture, mixture.fingerprint


def _part(root: Path, folder: Path, part: str) -> Task:
    name, _, count = part.partition(":")
    if count and not (count.isdigit() and int(count)):
        raise UsageError(f"mixture {part!r}: {count!r} is no number of items; write NAME:N")
    path = folder / name
    if name not in TRAIN and not path.is_file():
        close = difflib.get_close_matches(name, TRAIN, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UsageError(f"mixture: no such file: {path}; {hint}tasks are {', '.join(TRAIN)}")
    task = TRAIN[name](root) if name in TRAIN else CustomJSON(path)
    if count and int(count) > len(task):
        raise UsageError(f"mixture {part!r}: {name} has {len(task):,} items")
    return task[: int(count)] if count else task


def load_problems(root: Path, folder: Path, names: str) -> Task:
    """What RL practises: a task of `TRAIN` whose replies are checked, or files in `folder`."""
    if names not in TRAIN:
        return problems_of(folder, names)
    task = TRAIN[names](root)
    if task.kind != "generative":
        raise UsageError(
            f"--problems {names}: its replies are not checked; name gsm8k, spellingbee or files in {folder}"
        )
    return task


def load_exams(
    root: Path, world: Path, problems: Path, names: str, level: Level = "strict"
) -> dict[str, Task]:
    """The exams of a comma-separated list or `all`, or those of the embedded world, in the file `world` and,
    where it is, the file `problems`. `level`: the sandbox's.

    Every item is made once (0.3 s for all), so that a bad row is named before a model is loaded.
    """
    if names == "world":
        sums = {"problems": problems_of(problems.parent, problems.name)} if problems.is_file() else {}
        return {**sample_world.load_exams(world), **sums}
    wanted = list(EXAMS) if names == "all" else [name.strip() for name in names.split(",") if name.strip()]
    odd = [name for name in wanted if name not in EXAMS]
    if odd or not wanted:
        what = f"there is no exam {odd[0]!r}" if odd else "none is named"
        raise UsageError(f"--tasks {names!r}: {what}; name some of {', '.join(EXAMS)}, or all, or world")
    exams = {name: EXAMS[name](root, level) for name in dict.fromkeys(wanted)}
    for exam in exams.values():
        collections.deque(exam, maxlen=0)
    return exams
