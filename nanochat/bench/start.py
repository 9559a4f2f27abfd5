"""What a one-shot chat costs before its first token, against `import torch` alone.

What it is: CPU seconds (user and system) of whole processes, alternating: `chat_cli -p hi --max-tokens 1`,
which ends behind its first token, and `python -c "import torch"`. What it is not: wall time, which depends on
the disk and on who else runs. Run: `python -m scripts.bench start --base-dir DIR --model sft_laptop`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

from nanochat.bench import Row, figure
from nanochat.config import Bench


def run(config: Bench) -> Iterator[Row]:
    """Row `start_cpu`: milliseconds to the first token; the ratio is those of `import torch` over ours."""
    source, _, name = config.model.partition("_")
    chat = ["-m", "scripts.chat_cli", "--source", source, "--run", name, "-p", "hi", "--max-tokens", "1"]
    if config.base_dir is not None:
        chat += ["--base-dir", config.base_dir]
    sides = {"chat": chat, "torch": ["-c", "import torch"]}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for repetition in range(config.repetitions + 1):
        for side, words in sides.items():
            spent = _cpu_seconds([sys.executable, *words])
            if repetition > 0:  # the first round fills the caches of the disk
                seconds[side].append(spent)
    ours, theirs = (statistics.median(seconds[side]) for side in sides)
    spread = (max(seconds["chat"]) - min(seconds["chat"])) / ours
    cost = figure("start_cpu", 1e3 * ours, "ms", config.repetitions, 1)
    yield replace(cost, peer="import torch", ratio=theirs / ours, spread=spread)


def _cpu_seconds(command: list[str]) -> float:
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system
