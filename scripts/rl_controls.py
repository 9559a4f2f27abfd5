"""What RL gains over seeds, and what a control gains: `python -m scripts.rl_controls --preset laptop`.

Trains RL from the run's SFT model with each seed, and once with the rewards of each group given to its
replies at random. Each model sits the exams, and the problems that no stage has seen: greedily, and sampled
at temperature 1. Prints a table and writes `runs/RUN/rl_controls.json`; what is finished is not repeated.
Needs an examined SFT model (`bash scripts/local_cpu_train.sh`).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from nanochat import metrics
from nanochat.common import UsageError, base_dir, print0, read_json, resolve, run_main, write_json
from nanochat.config_rl import ChatRL, RLControls
from nanochat.configurator import parse


def run_script(name: str, *args: str) -> None:
    print0(f"\n> {name} {' '.join(args)}")
    subprocess.run([sys.executable, "-m", f"scripts.{name}", *args], check=True)


def minutes(folder: Path) -> float:
    """Wall time of a run: steps with their rollouts, validations, checkpoints."""
    clocks = ("step_s", "eval_s", "save_s")
    return sum(r.get(clock, 0.0) for r in metrics.read(folder / "metrics.jsonl") for clock in clocks) / 60


def held_out(config: RLControls, options: ChatRL, stage: str, run: str) -> dict[str, float]:
    """Shares of the unseen problems that are solved: greedily, and pass@k of sampled replies."""
    import dataclasses

    from nanochat import evaluation, rollout
    from tasks.problems import load_problems

    where = dataclasses.replace(options, run=run)
    task = load_problems(resolve(base_dir(config.base_dir), config.data_dir), config.exam)
    with evaluation.loaded(where, stage, options.depth) as (world, model, tokenizer, _):
        room = (model.config.context, options.max_tokens)
        asked = rollout.fixed_prompts(task, range(len(task)), tokenizer, *room)
        writer = rollout.writer_of(model, tokenizer, task, options, world)
        return rollout.held_out_rates(writer, asked, config.num_samples)


def examine(config: RLControls, options: ChatRL, shared: list[str], stage: str, run: str) -> dict[str, Any]:
    folder = base_dir(config.base_dir) / f"{stage}_{run}"
    path = folder / "evals" / "held_out.json"
    if not path.is_file() or path.stat().st_mtime < (folder / "DONE").stat().st_mtime:
        run_script("chat_eval", *shared, "--run", run, "--source", stage)
        write_json(path, held_out(config, options, stage, run))
    exams = {
        name: facts["score"] for name, facts in read_json(folder / "evals" / "exams.json")["exams"].items()
    }
    exams.pop("problems", None)
    return {**read_json(path), **exams, "minutes": minutes(folder)}


def table(rows: dict[str, dict[str, float]]) -> list[str]:
    """One line a figure; gains over the first column, in points, behind the mean of the seeds."""
    names = list(rows)
    lines = ["".join([f"{'':<26}", *(f"{name:>11}" for name in names), f"{'gain':>8}{'control':>9}"])]
    for figure in rows[names[0]]:
        values = [row[figure] for row in rows.values()]
        seeds, control = values[1:-1], values[-1]
        gains = [100 * (other - values[0]) for other in (statistics.fmean(seeds), control)]
        ends = "" if figure == "minutes" else f"{gains[0]:>+8.1f}{gains[1]:>+9.1f}"
        lines.append("".join([f"{figure:<26}", *(f"{value:>11.3f}" for value in values), ends]))
    return lines


def main(argv: list[str]) -> None:
    config = parse(RLControls, argv, prog="rl_controls", about=__doc__)
    root, run = base_dir(config.base_dir), config.run or "laptop"
    if not (root / f"sft_{run}" / "DONE").is_file():
        raise UsageError(f"no finished sft_{run} in {root}; first: bash scripts/local_cpu_train.sh")
    places = ["--base-dir", str(root), "--data-dir", config.data_dir, "--tok-dir", config.tok_dir]
    shared = ["--preset", config.recipe, *places, "--threads", str(config.threads)]
    options = parse(ChatRL, shared, prog="chat_rl", about=None)
    runs = {f"seed {n}": (f"{run}_rl{n}", ["--seed", str(n)]) for n in range(1, config.seeds + 1)}
    runs["shuffled"] = (f"{run}_rl_shuffled", ["--seed", "1", "--shuffle-rewards"])
    rows = {"SFT": examine(config, options, shared, "sft", run)}
    for name, (folder, extra) in runs.items():
        run_script("chat_rl", *shared, "--run", folder, "--source-run", run, *extra)
        rows[name] = examine(config, options, shared, "rl", folder)
    print0("\n" + "\n".join(table(rows)))
    write_json(root / "runs" / run / "rl_controls.json", rows)


if __name__ == "__main__":
    run_main(main)
