"""Two controls of the laptop run, each as long as the run itself: `python -m scripts.world_controls`.

1. No pretraining: mid-training and SFT of random weights on the same conversations, without the documents
   that mid-training repeats. What it cannot answer, documents taught.
2. Another world seed: the whole run again on other facts. What differs is luck.
Needs a finished `laptop` run (`bash scripts/local_cpu_train.sh`). Prints a table and writes
`runs/laptop/controls.json`; what is finished is not repeated.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from nanochat.common import UsageError, atomic_path, base_dir, print0, read_json, run_main, write_json
from nanochat.config import Pipeline
from nanochat.configurator import parse

CHATS = "mid_chats.jsonl"


def write_chats(folder: Path) -> None:
    """The conversations of the mid mixture, without its documents, as a mixture of their own."""
    lines = (folder / "mid.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    with atomic_path(folder / CHATS) as path:
        path.write_text("".join(line for line in lines if "messages" in json.loads(line)), encoding="utf-8")


def commands(config: Pipeline) -> list[list[str]]:
    """Both controls as commands of the pipeline's own scripts."""
    seed = str(config.world_seed + 1)
    data = f"data/world_{seed}"
    places = ["--data-dir", data, "--tok-dir", f"tok/laptop_{seed}"]
    other = ["--run", f"laptop_{seed}", *places]
    scratch = ["--run", "scratch"]
    return [
        ["mid_train", *scratch, "--source-run", "laptop", "--from-scratch", "--mixture", CHATS],
        ["chat_sft", *scratch],
        ["chat_eval", *scratch, "--source", "sft"],
        ["sample_world", "--data-dir", data, "--world-seed", seed],
        ["tok_train", *places],
        ["base_train", *other],
        ["mid_train", *other],
        ["chat_sft", *other],
        ["chat_eval", *other, "--source", "sft"],
    ]


def main(argv: list[str]) -> None:
    config = parse(Pipeline, argv, prog="world_controls", about=__doc__)
    root = base_dir(config.base_dir)
    if not (root / "sft_laptop" / "evals" / "exams.json").is_file():
        raise UsageError(f"no examined laptop run in {root}; first: bash scripts/local_cpu_train.sh")
    write_chats(root / "data" / "world")
    for script, *args in commands(config):
        shared = ["--preset", "laptop", "--base-dir", str(root)]
        command = [sys.executable, "-m", f"scripts.{script}", *shared, *args]
        print0(f"\n> {script} {' '.join(args)}")
        subprocess.run(command, check=True)
    other = config.world_seed + 1
    runs = {"laptop": "laptop", "no pretraining": "scratch", f"world {other}": f"laptop_{other}"}
    scores = {}
    for name, run in runs.items():
        exams = read_json(root / f"sft_{run}" / "evals" / "exams.json")["exams"]
        scores[name] = {exam: facts["score"] for exam, facts in exams.items()}
    print0(f"\n{'exam':<26}" + "".join(f"{name:>18}" for name in scores))
    for exam in scores["laptop"]:
        print0(f"{exam:<26}" + "".join(f"{found[exam]:>18.3f}" for found in scores.values()))
    write_json(root / "runs" / "laptop" / "controls.json", scores)


if __name__ == "__main__":
    run_main(main)
