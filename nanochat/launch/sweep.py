"""Many short runs as one job array, through submitit: each trains with another set of values.

What it is: `--grid` words -> trials, each a run of its own (`RUN-0`, `RUN-1`, ...) with its options in a
file; an executor of submitit's with a site's flags, also for functions of your own; the small function that
submitit carries to the node. It starts the trainer as a child and holds no training state: that is in the
run's checkpoints, from which a requeued trial goes on. What it is not: a search. Run: `python -m
scripts.launch sweep --grid base.lr-scale=0.5,1,2`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nanochat import metrics, slurm
from nanochat.common import EXIT_DONE, EXIT_STOPPED, UsageError, atomic_path, read_json, write_json
from nanochat.launch import checks, request, sbatch, submission
from nanochat.launch import plan as plans
from nanochat.launch.ledger import RunFolder, last_step
from nanochat.launch.plan import Plan
from nanochat.launch.request import Request
from nanochat.launch.sites import Site

SIGNAL_S = 90  # submitit's signal comes so long before the limit, without a margin
MAX_TRIALS = 1000
REQUEUES = 20
STOP_WAIT_S = 60.0


# ----------------------------------------------------------------------------- trials


def split(words: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """(the words of each trial, the others): `--grid base.seed=1,2 --grid base.depth=2,3` are four trials."""
    axes, rest, queue = [], [], list(words)
    while queue:
        word = queue.pop(0)
        if word != "--grid":
            rest.append(word)
            continue
        name, equals, values = (queue.pop(0) if queue else "").partition("=")
        if not (equals and values and name):
            raise UsageError("--grid: write --grid base.lr-scale=0.5,1,2")
        axes.append([f"--{name}={value}" for value in values.split(",")])
    if not axes:
        raise UsageError("a sweep needs --grid, such as --grid base.lr-scale=0.5,1,2")
    trials = [list(values) for values in itertools.product(*axes)]
    if len(trials) > MAX_TRIALS:
        raise UsageError(f"{len(trials)} trials: use at most {MAX_TRIALS}")
    return trials, rest


def plan(words: Sequence[str]) -> list[Request]:
    """A request a trial: pretraining alone, on one node."""
    trials, rest = split(words)
    first = request.read(rest)
    if first.site.nodes > 1:
        raise UsageError(f"NODES={first.site.nodes}: a trial runs on one node; set NODES=1")
    found = [request.read(rest, [f"--run={first.run}-{i}", *values]) for i, values in enumerate(trials)]
    for one in found:
        plans.build(one, "0")  # refuses what cannot run
    return found


# ----------------------------------------------------------------------------- what submitit carries


@dataclasses.dataclass
class Trial:
    """Trains one configuration in a child process. All of its state is on disk."""

    command: list[str]
    code: str
    folder: str  # of the stage

    def __call__(self) -> int:
        self._child = subprocess.Popen(self.command, cwd=self.code)
        code = self._child.wait()
        if code not in (EXIT_DONE, EXIT_STOPPED):
            raise RuntimeError(f"{' '.join(self.command)}: exit {code}")
        return code

    def checkpoint(self) -> Any:
        """submitit calls this when the time is over: the trainer saves and ends, then the job is requeued."""
        from submitit.helpers import DelayedSubmission

        (Path(self.folder) / "STOP").touch()
        # A signal handler may have interrupted the wait above, and Popen's own would then find it locked.
        until, how = time.monotonic() + STOP_WAIT_S, os.WEXITED | os.WNOWAIT | os.WNOHANG
        with contextlib.suppress(ChildProcessError):
            while os.waitid(os.P_PID, self._child.pid, how) is None and time.monotonic() < until:
                time.sleep(0.1)
        return DelayedSubmission(Trial(self.command, self.code, self.folder))


def executor(site: Site, name: str, folder: Path, minutes: int, gpus: int = 1) -> Any:
    """submitit's executor with a site's flags: for arrays, and for functions of your own."""
    import submitit

    request_words = shlex.split(f"{site.gpu_request.format(type=site.gpu_type, gpus=gpus)} {site.gpu_extra}")
    flags = [word.removeprefix("--").partition("=") for word in [*request_words, *shlex.split(site.extra)]]
    made = submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=REQUEUES)
    optional = {
        "slurm_account": site.account, "slurm_partition": site.gpu_partition, "slurm_qos": site.qos,
        "slurm_mem": site.gpu_memory, "slurm_exclude": site.exclude,
    }  # fmt: skip
    made.update_parameters(
        name=name, timeout_min=minutes, nodes=1, tasks_per_node=1, cpus_per_task=site.cpus_per_gpu * gpus,
        slurm_signal_delay_s=site.stop_margin_s or SIGNAL_S,
        slurm_setup=sbatch.setup(site),
        slurm_additional_parameters={name: value or True for name, _, value in flags},
        **{name: value for name, value in optional.items() if value},
    )  # fmt: skip
    return made


# ----------------------------------------------------------------------------- submission and state


def submit(words: Sequence[str], parallel: int = 0) -> Path:
    """Submit a sweep; returns its folder. The data and the tokenizer must be there."""
    trials = [checks.fit(one) for one in plan(words)]
    name = trials[0].run.rpartition("-")[0]
    root = trials[0].root
    run = RunFolder(root / "runs" / name)
    asked = [list(one.words) for one in trials]
    if (run.path / "sweep.json").exists():
        if [trial["words"] for trial in read_json(run.path / "sweep.json")["trials"]] == asked:
            return run.path  # this very sweep: Slurm has started the job again
        raise UsageError(f"{run.path} holds another sweep; choose another --run")
    checks.refuse_mistakes(trials[0], ("base",))
    first, _ = plans.build(trials[0], "0")
    first = dataclasses.replace(first, run=name)
    run.configs.mkdir(parents=True, exist_ok=True)
    submission.freeze(run)
    stage = first.stage("base")
    records, carried = [], []
    for one in trials:
        base = next(asked for asked in plans.build(one, "0")[1] if asked.slug == "base")
        config = run.configs / f"{one.run}.toml"
        with atomic_path(config) as temp:
            temp.write_text(base.toml(), encoding="utf-8")
        carried.append(_trial(first, one.run, stage.ranks, config, run))
        records.append({"run": one.run, "words": list(one.words)})
    for name in os.environ.keys() - slurm.environment().keys():  # of the job that we may be in
        del os.environ[name]
    made = executor(first.site, run.path.name, run.path / "submitit", stage.minutes, stage.gpus)
    made.update_parameters(slurm_array_parallelism=parallel or len(carried))
    jobs = made.submit_array(carried)
    write_json(run.path / "sweep.json", {
        "trials": [record | {"id": job.job_id} for record, job in zip(records, jobs, strict=True)],
        "submitted": time.time(), "base_dir": str(root),
    })  # fmt: skip
    return run.path


def _trial(plan: Plan, name: str, ranks: int, config: Path, run: RunFolder) -> Trial:
    node = [sys.executable, "-m", "nanochat.launch.node", f"--ranks={ranks}"]
    script = ["--", "scripts.base_train", "--config", str(config)]
    return Trial([*node, *script], str(run.code), str(Path(plan.base_dir) / f"base_{name}"))


def describe(folder: Path) -> str:
    """A line a trial: state, step, last validation."""
    facts = read_json(folder / "sweep.json")
    lines = []
    for trial in facts["trials"]:
        stage = Path(facts["base_dir"]) / f"base_{trial['run']}"
        marker = next((m for m in ("DONE", "FAULT", "STOPPED") if (stage / m).is_file()), "")
        scores = [r["val_bpb"] for r in metrics.read(stage / "metrics.jsonl") if "val_bpb" in r]
        state = {"DONE": "done", "FAULT": "failed", "STOPPED": "stopped"}.get(marker, "waiting or running")
        bpb = f", {scores[-1]:.4f} bits per byte" if scores else ""
        lines.append(f"{trial['run']}  {trial['id']}  {state}, step {last_step(stage) or 0}{bpb}")
    return "\n".join(lines)
