"""From a plan to jobs in the queue: freeze the code, write the texts, submit each job behind those it waits
for.

What it is: `prepare` (the run folder), `submit_missing` (whatever is neither done nor queued: a first
submission, one that was interrupted, and a resumption are the same), `give_up`. What it is not: the plan
(`plan.py`) or sbatch's text (`sbatch.py`). Run: `python -m scripts.launch submit --preset tiny --site lab`.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from nanochat import configurator, slurm
from nanochat.assets import Preflight
from nanochat.common import UsageError, atomic_path, git_state, write_json
from nanochat.launch import plan as plans
from nanochat.launch import policy, sbatch
from nanochat.launch.ledger import RunFolder, Submitted
from nanochat.launch.plan import Job, Plan, Stage
from nanochat.launch.request import Asked
from nanochat.launch.sites import ROOT
from nanochat.slurm import Queued

PACKAGES = ("nanochat", "scripts", "tasks")  # what a job runs; copied where git does not say more
Live = Mapping[str, Queued]


# ----------------------------------------------------------------------------- the run folder


def prepare(plan: Plan, stages: Sequence[Asked], looked: Preflight) -> None:
    """Write all that the jobs read: code, options, texts; and `plan.json`, the sign that it is there."""
    run = RunFolder(plan.folder)
    for folder in (run.logs, run.texts, run.configs):  # Slurm does not make the folder of a log
        folder.mkdir(parents=True, exist_ok=True)
    freeze(run)
    write(plan, stages, looked)


def write(plan: Plan, stages: Sequence[Asked], looked: Preflight) -> None:
    """Options, texts and plan: what another plan of the same run changes."""
    run = RunFolder(plan.folder)
    write_json(run.configs / "preflight.json", configurator.to_dict(looked))
    for asked in stages:
        _write(run.configs / f"{asked.slug}.toml", asked.toml())
    for job in plan.jobs:
        _write(run.texts / f"{job.name}.sbatch", sbatch.text(plan, job))
    write_json(run.path / "plan.json", plans.to_dict(plan))


def own_words(plan: Plan) -> list[str]:
    """The words that the run was asked for with, without preset and site, which the plan holds."""
    words, kept = list(plan.words), []
    while words:
        word = words.pop(0)
        if word in ("--preset", "--site"):
            words[:1] = []
        elif not word.lstrip("-").startswith(("preset=", "site=", "fresh", "dry")):
            kept.append(word)
    return kept


def freeze(run: RunFolder) -> None:
    """Copy the code, as it is in the clone now, to `code/`; `code.json` and `code.diff` say what it is."""
    temp = run.path / "code.tmp"
    shutil.rmtree(temp, ignore_errors=True)
    for name in _tracked():
        target = temp / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    shutil.rmtree(run.code, ignore_errors=True)
    temp.rename(run.code)
    write_json(run.path / "code.json", git_state())
    _write(run.path / "code.diff", _git("diff", "HEAD"))


def _tracked() -> list[str]:
    """The files of the clone, changed ones as they are; without git, those of the packages."""
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    found = [name for name in listed if name and (ROOT / name).is_file()]
    if not found:
        inside = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
        found = [str(p.relative_to(ROOT)) for p in inside if p.is_file() and "__pycache__" not in p.parts]
    return found


def _git(*words: str) -> str:
    with contextlib.suppress(OSError):
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout
    return ""


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temp:
        temp.write_text(text, encoding="utf-8")


# ----------------------------------------------------------------------------- submission


def check(plan: Plan) -> None:
    """Let Slurm look at each kind of job before the first is submitted; UsageError has all that it says."""
    run = RunFolder(plan.folder)
    found: dict[str, list[str]] = {}
    for stage in plan.stages:
        why = slurm.test(str(run.texts / f"{stage.jobs[0].name}.sbatch"))
        if why:
            found.setdefault(why, []).append(stage.name)
    if found:
        lines = "".join(f"\n  {', '.join(names)}: {why}" for why, names in found.items())
        raise UsageError(f"Slurm refuses jobs of this plan; nothing was submitted:{lines}")


def record_first(plan: Plan, id: str) -> None:
    """The job that we are is the run's first, the data job: nobody submits it."""
    run, stage = RunFolder(plan.folder), plan.stages[0]
    if id not in {s.id for s in run.submitted()}:
        run.add_job(Submitted(stage.jobs[0].name, stage.name, id, time.time()))


def link_log(run: RunFolder, plan: Plan, id: str) -> None:
    """The first job's log lies where sbatch was called; the run's folder of logs names it."""
    link = Path(run.log(plan.stages[0].name).replace("%j", id).replace("%%", "%"))
    if (there := slurm.log_of(id)) and not link.exists():
        link.symlink_to(there)


def submit_missing(plan: Plan) -> list[Submitted]:
    """Submit each job that is neither done nor in the queue.

    Returns what was submitted now. Whoever is killed on the way leaves a ledger that the next call completes.
    """
    run, queue, now = RunFolder(plan.folder), slurm.queue(), time.time()  # one time for all of a submission
    _adopt(plan, run, queue)
    ids = {s.job: s.id for s in run.submitted() if s.id in queue and queue[s.id].is_live}
    new: list[Submitted] = []
    for stage in plan.stages:
        if policy.finished(plan, stage):
            continue
        queued = max((job.segment for job in stage.jobs if job.name in ids), default=0)
        for job in stage.jobs[queued:]:
            after = dependency(plan, job, ids)
            taken = slurm.submit(
                str(run.texts / f"{job.name}.sbatch"), after, excluded(plan) if stage.gpus else ""
            )
            ids[job.name] = taken
            new.append(Submitted(job.name, stage.name, taken, now, after))
            run.add_job(new[-1])
    return new


def excluded(plan: Plan) -> str:
    """The nodes that no GPU job may use, where a check has found bad ones; else "": a text has its site's."""
    bad = RunFolder(plan.folder).bad_nodes()
    return ",".join([*filter(None, [plan.site.exclude]), *bad]) if bad else ""


def keep_off(plan: Plan, bad: dict[str, str]) -> bool:
    """No job of the run uses these nodes any more. False where jobs may not say so: then `to_type` does."""
    RunFolder(plan.folder).add_bad_nodes(bad)
    try:
        slurm.exclude(_exposed(plan), excluded(plan))
    except slurm.SlurmError:
        return False
    return True


def to_type(plan: Plan) -> str:
    """The command that keeps the run's waiting jobs off its bad nodes; "" if they are."""
    ids = _exposed(plan)
    return f"scontrol update JobId={','.join(ids)} ExcNodeList={excluded(plan)}" if ids else ""


def _exposed(plan: Plan) -> list[str]:
    """The waiting jobs that Slurm may still give a bad node."""
    bad = RunFolder(plan.folder).bad_nodes().keys()
    gpus = {stage.name for stage in plan.stages if stage.gpus}
    waiting = [(s, q) for s, q in live_jobs(plan) if q.state == "PENDING" and s.stage in gpus] if bad else []
    return [s.id for s, q in waiting if not bad <= set(slurm.hostnames(q.excluded))]


def _adopt(plan: Plan, run: RunFolder, queue: Live) -> None:
    """Jobs that were submitted and not recorded, because the submitter was killed between the two."""
    known = {s.id for s in run.submitted()}
    for found in queue.values():
        mark, _, name = found.comment.rpartition(":")
        if mark == f"nanochat:{plan.run_id}" and found.is_live and found.id not in known:
            job = next(job for job in plan.jobs if job.name == name)
            run.add_job(Submitted(name, job.stage.name, found.id, time.time()))


def dependency(plan: Plan, job: Job, ids: Mapping[str, str]) -> str:
    """What a job waits for; `ids`: the jobs that are in the queue, by name.

    Slurm takes "all of" or "one of", never both in one: a later segment waits for the one before it to end
    without success, and where its parent is a single job also for that.
    """
    stage = job.stage
    if stage.kind == "report":
        return _join("afterany", ":", [i for name, i in ids.items() if name != job.name])
    parents = [ids[j.name] for j in plan.stage(stage.parent).jobs if j.name in ids] if stage.parent else []
    before = ids.get(stage.jobs[job.segment - 2].name) if job.segment > 1 else None
    if before is None:
        return "?".join(f"afterok:{parent}" for parent in parents)
    single = [f"afterok:{parents[0]}"] if len(parents) == 1 else []
    return ",".join([*single, f"afternotok:{before}"])


def _join(kind: str, by: str, ids: Sequence[str]) -> str:
    return f"{kind}:{by.join(ids)}" if ids else ""


def live_jobs(plan: Plan) -> list[tuple[Submitted, Queued]]:
    """The run's jobs that wait or run, in the order of their submission."""
    queue = slurm.queue()
    found = [(s, queue[s.id]) for s in RunFolder(plan.folder).submitted() if s.id in queue]
    return [(s, q) for s, q in found if q.is_live]


def drop_later(plan: Plan, stage: Stage, job: Job, and_behind: bool) -> None:
    """Cancel the later segments of a stage, and all stages `and_behind` it, the last one first.

    Called in the job itself, when the stage is done or hopeless: a cancelled segment starts the next one.
    Where jobs may not do that, each of them sees that it has nothing to do.
    """
    later = {j.name for j in stage.jobs if j.segment > job.segment}
    later |= {j.name for s in plan.after(stage) for j in s.jobs} if and_behind else set()
    with contextlib.suppress(slurm.SlurmError):
        slurm.cancel([s.id for s, q in reversed(live_jobs(plan)) if s.job in later and q.state == "PENDING"])
