"""The commands of `scripts/launch.py`: each takes its words, prints, and returns an exit code.

What it is: the order of calls behind each command. What it is not: how any of it is done (the modules beside it).
Run: `python -m scripts.launch --help`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from nanochat.common import EXIT_DONE, EXIT_FAULT, UsageError, base_dir
from nanochat.launch import plan as plans
from nanochat.launch import checks, request, sites, slurm, submission
from nanochat.launch import status as states
from nanochat.launch.ledger import RunFolder, gpu_hours
from nanochat.launch.plan import Plan


def plan(argv: list[str]) -> int:
    asked = request.read(argv)
    if shutil.which("sinfo"):  # elsewhere a plan is of use, too
        asked = checks.fit(asked)
    built, _ = plans.build(asked, "0")
    print(plans.mermaid(built) if asked.launch.mermaid else plans.describe(built))
    return EXIT_DONE


def submit(argv: list[str]) -> int:
    """Plan and submit from a login node; the data job is one of the jobs."""
    asked = request.read(argv)
    return _submit(asked, first="")


def entry(argv: list[str]) -> int:
    """Inside the first job: submit the others behind it, then become the body of the data job."""
    asked = request.read(argv)
    job = os.environ["SLURM_JOB_ID"]
    code = _submit(asked, first=job)
    if code != EXIT_DONE or asked.launch.dry_run:
        return code
    found = plans.load(asked.root / "runs" / asked.run)
    folder = RunFolder(found.folder)
    print(f"the other jobs' logs are in {folder.logs}", flush=True)
    os.chdir(folder.code)
    words = [found.python, "-m", "nanochat.launch.body", str(found.folder), found.stages[0].jobs[0].name]
    os.execv(words[0], words)


def _submit(asked: request.Request, first: str) -> int:
    asked = checks.fit(asked)
    built, fitted = plans.build(asked, secrets.token_hex(4))
    if asked.launch.dry_run:
        print(plans.describe(built))
        return EXIT_DONE
    folder = RunFolder(built.folder)
    if (folder.path / "plan.json").is_file() and not _is_mine(folder, first):
        checks.refuse_live(plans.load(folder.path))
        if asked.launch.fresh:
            checks.move_aside(asked)
    if (folder.path / "plan.json").is_file():
        built = plans.load(folder.path)
        checks.refuse_other(built, fitted)
        folder.release()
    else:
        submission.prepare(built, fitted)
        submission.check(built)
    print(plans.describe(built), flush=True)
    new = submission.submit_missing(built, first)
    print(f"submitted: {', '.join(f'{s.job} {s.id}' for s in new) or 'nothing; every job is there'}", flush=True)
    print(f"watch it: python -m scripts.launch status {built.run}", flush=True)
    return EXIT_DONE


def _is_mine(folder: RunFolder, first: str) -> bool:
    """Whether this run was submitted by this very job, which Slurm has started again."""
    return bool(first) and any(s.id == first for s in folder.submitted())


# ----------------------------------------------------------------------------- a run that is there


def _load(argv: Sequence[str]) -> tuple[Plan, list[str]]:
    """The plan of the run that the first word names, and the words behind it."""
    keys, words = sites.split(argv)
    root = None
    if "--base-dir" in words:
        at = words.index("--base-dir")
        root = words[at + 1] if at + 1 < len(words) else None
        words = words[:at] + words[at + 2 :]
    site = sites.load(None, keys)
    place = base_dir(root or site.base_dir or None) / "runs"
    if not words:
        there = ", ".join(sorted(p.parent.name for p in place.glob("*/plan.json"))) or "none"
        raise UsageError(f"which run? runs in {place}: {there}")
    return plans.load(place / words[0]), words[1:]


def status(argv: list[str]) -> int:
    found, _ = _load(argv)
    print(states.describe(found))
    return EXIT_DONE


def stop(argv: list[str]) -> int:
    """Nothing new begins; what trains gets a stop file, saves and ends."""
    found, _ = _load(argv)
    folder = RunFolder(found.folder)
    folder.hold("stop")
    live = submission.live_jobs(found)
    slurm.cancel([s.id for s, q in reversed(live) if q.state == "PENDING"])
    running = [s for s, q in live if q.state != "PENDING"]
    for job in running:
        trains = found.stage(job.stage).trains
        if trains:
            (Path(found.base_dir) / f"{trains}_{found.run}" / "STOP").touch()
    names = ", ".join(s.job for s in running) or "nothing"
    print(f"running and asked to stop: {names}; go on with: python -m scripts.launch resume {found.run}")
    return EXIT_DONE


def cancel(argv: list[str]) -> int:
    """Cancel from the chain's end, so that the end of one job starts no other."""
    found, _ = _load(argv)
    RunFolder(found.folder).hold("cancel")
    live = submission.live_jobs(found)
    waiting = [s.id for s, q in reversed(live) if q.state == "PENDING"]
    running = [s.id for s, q in reversed(live) if q.state != "PENDING"]
    slurm.cancel([*waiting, *running])
    print(f"cancelled {len(live)} jobs; go on with: python -m scripts.launch resume {found.run}")
    return EXIT_DONE


def resume(argv: list[str]) -> int:
    found, _ = _load(argv)
    RunFolder(found.folder).release()
    new = submission.submit_missing(found)
    print(f"submitted: {', '.join(f'{s.job} {s.id}' for s in new) or 'nothing; all is done or in the queue'}")
    return EXIT_DONE


def logs(argv: list[str]) -> int:
    """Print the end of the newest log of the run, of a stage, or of a job."""
    found, words = _load(argv)
    wanted = words[0].split(".")[0] if words else "*"
    files = sorted(RunFolder(found.folder).logs.glob(f"{wanted}.*.out"), key=lambda p: p.stat().st_mtime)
    if not files:
        print(f"no log of {wanted} yet in {found.folder / 'logs'}", file=sys.stderr)
        return EXIT_FAULT
    print(f"==> {files[-1]}")
    print("\n".join(files[-1].read_text(encoding="utf-8", errors="replace").splitlines()[-40:]))
    return EXIT_DONE


def cost(argv: list[str]) -> int:
    """GPU-hours of each stage: every start counts, those that were lost, too."""
    found, _ = _load(argv)
    price, folder = found.site.price_per_gpu_hour, RunFolder(found.folder)
    total = 0.0
    for stage in found.stages:
        attempts = folder.attempts(stage.name)
        hours = gpu_hours(attempts)
        total += hours
        print(f"{stage.name:<24} {len(attempts):>2} starts {hours:>10.3f} GPU-hours")
    money = f", {total * price:,.2f} at {price:g} each" if price else ""
    print(f"{'total':<24} {'':>9} {total:>10.3f} GPU-hours{money} ({time.strftime('%Y-%m-%d %H:%M')})")
    return EXIT_DONE


def doctor(argv: list[str]) -> int:
    raise UsageError("not there yet")
