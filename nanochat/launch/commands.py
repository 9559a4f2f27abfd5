"""The commands of `scripts/launch.py`: each takes its words, prints, and returns an exit code.

What it is: the order of calls behind each command. What it is not: how any of it is done (the modules beside
it). Run: `python -m scripts.launch --help`.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from nanochat import slurm
from nanochat.common import EXIT_DONE, EXIT_FAULT, UsageError, atomic_path, base_dir
from nanochat.launch import account, checks, request, sbatch, sites, submission
from nanochat.launch import detect as detection
from nanochat.launch import doctor as doctors
from nanochat.launch import plan as plans
from nanochat.launch import serve as servers
from nanochat.launch import status as states
from nanochat.launch import sweep as sweeps
from nanochat.launch.ledger import RunFolder
from nanochat.launch.plan import Plan


def plan(argv: list[str]) -> int:
    asked = request.read(argv)
    try:
        asked = checks.fit(asked)
    except slurm.SlurmError:  # a plan is of use elsewhere, too
        print("no Slurm answers here: partitions and their limits are not looked at")
    built, _ = plans.build(asked, "0")
    if asked.launch.texts:
        print("\n".join(sbatch.text(built, job) for job in built.jobs))
        return EXIT_DONE
    if not asked.launch.mermaid:
        print(plans.describe(built))
    if asked.launch.mermaid or asked.launch.dry_run:
        print(plans.mermaid(built))
    return EXIT_DONE


def submit(argv: list[str]) -> int:
    """Plan and submit from a login node; the data job is one of the jobs."""
    asked = checks.fit(request.read(argv))
    built, fitted = plans.build(asked, secrets.token_hex(4))
    if asked.launch.dry_run:
        print(plans.describe(built))
        return EXIT_DONE
    checks.refuse_mistakes(asked)
    built = _prepared(asked, built, fitted, first="")
    print(plans.describe(built), flush=True)
    _submit(built)
    return EXIT_DONE


def entry(argv: list[str]) -> int:
    """Inside the first job: submit the others behind it, then become the body of the data job."""
    job, asked = os.environ["SLURM_JOB_ID"], request.read(argv)
    if shutil.which("sinfo"):
        asked = checks.fit(asked)
    built, fitted = plans.build(asked, secrets.token_hex(4))
    print(plans.describe(built), flush=True)
    if asked.launch.dry_run:
        return EXIT_DONE
    if not _is_first(built, job):
        checks.refuse_mistakes(asked, fetches_here=True)
    built = _prepared(asked, built, fitted, first=job)
    folder = RunFolder(built.folder)
    submission.link_log(folder, built, job)
    try:
        _submit(built, first=job)
    except UsageError as error:
        line = (
            f"cd {shlex.quote(str(sites.ROOT))} && bash env/on_site.sh -m scripts.launch resume {built.run}"
        )
        print(
            f"The other jobs were not submitted: {error}\n"
            "This job gets the data. Meanwhile, on a login node:\n"
            f"  {line} --base-dir {shlex.quote(built.base_dir)}",
            flush=True,
        )
    os.chdir(folder.code)
    words = [built.python, "-m", "nanochat.launch.body", str(folder.path), built.stages[0].jobs[0].name]
    os.execv(words[0], words)


def _is_first(built: Plan, id: str) -> bool:
    """Whether this job has submitted the run before, and Slurm has started it again."""
    return any(s.id == id for s in RunFolder(built.folder).submitted())


def _prepared(asked: request.Request, built: Plan, fitted: Sequence[request.Asked], first: str) -> Plan:
    """The plan to submit, written into the run's folder; the run may be new, interrupted or started again."""
    folder = RunFolder(built.folder)
    if first and _is_first(built, first):
        return plans.load(folder.path)
    if (folder.path / "plan.json").is_file():
        checks.refuse_live(plans.load(folder.path))
        if asked.launch.fresh:
            checks.move_aside(asked)
    if not folder.submitted():
        submission.prepare(built, fitted, asked.preflight)
        return built
    return _replanned(asked, built, fitted)


def _replanned(asked: request.Request, built: Plan, fitted: Sequence[request.Asked]) -> Plan:
    """The same run under a new plan: other limits or another partition, the same options of its stages."""
    known, folder = plans.load(built.folder), RunFolder(built.folder)
    checks.refuse_other(known, fitted)
    built = dataclasses.replace(built, run_id=known.run_id, created=known.created)
    submission.write(built, fitted, asked.preflight)
    if asked.launch.new_code:
        submission.freeze(folder)
    folder.release()
    return built


def _submit(built: Plan, first: str = "") -> None:
    if first:
        submission.record_first(built, first)
        if not built.site.can_submit_from_job:
            raise UsageError(f"CAN_SUBMIT_FROM_JOB=0 on site {built.site.name}")
    submission.check(built)
    try:
        new = submission.submit_missing(built)
    except slurm.SlurmError as error:
        there = ", ".join(s.job for s, _ in submission.live_jobs(built)) or "nothing"
        raise UsageError(
            f"{error}\nin the queue by now: {there}; mend it, then resume {built.run}"
        ) from error
    print(f"submitted: {', '.join(f'{s.job} {s.id}' for s in new) or 'nothing; all is done or in the queue'}")
    print(f"watch it: python -m scripts.launch status {built.run}", flush=True)


# ----------------------------------------------------------------------------- a run that is there


def _place(argv: Sequence[str]) -> tuple[Path, list[str]]:
    """The folder of all runs, and the words that name one and say what to do."""
    keys, words = sites.split(argv)
    root, words = request.take(words, "base-dir")
    site, words = request.take(words, "site")
    return base_dir(root or sites.load(site, keys).base_dir or None) / "runs", words


def _load(argv: Sequence[str], more: int = 0) -> tuple[Plan, list[str]]:
    """The plan of the run that the first word names, and the words behind it, at most `more`."""
    place, words = _place(argv)
    if not words:
        there = ", ".join(sorted(p.parent.name for p in place.glob("*/plan.json"))) or "none"
        raise UsageError(f"which run? runs in {place}: {there}")
    if len(words) > 1 + more:
        raise UsageError(f"unexpected word {words[1 + more]!r}; options here are --site and --base-dir")
    return plans.load(place / words[0]), words[1:]


def status(argv: list[str]) -> int:
    place, words = _place(argv)
    if words and (place / words[0] / "sweep.json").is_file():
        print(sweeps.describe(place / words[0]))
        return EXIT_DONE
    found, _ = _load(argv)
    print(states.describe(found))
    return EXIT_DONE


def stop(argv: list[str]) -> int:
    """Nothing new begins; the bodies of running jobs see that the run is held, and stop what trains."""
    found, _ = _load(argv)
    folder = RunFolder(found.folder)
    folder.hold("stop")
    live = submission.live_jobs(found)
    slurm.cancel([s.id for s, q in reversed(live) if q.state == "PENDING"])
    running = [s for s, q in live if q.state != "PENDING"]
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
    """Submit again what is neither done nor queued; with further words, under a plan that they change."""
    keys, words = sites.split(argv)
    site, _ = request.take(words, "site")
    found, words = _load(argv, more=len(argv))
    if keys or words or site:
        more = [*(["--site", site] if site else []), *(f"{name}={value}" for name, value in keys.items())]
        more += words
        known = ["--preset", found.recipe] + (
            ["--site", found.site.name] if found.site.name in sites.names() else []
        )
        asked = checks.fit(request.read([*known, *submission.own_words(found)], more))
        built, fitted = plans.build(asked, found.run_id)
        if built.folder != found.folder:
            raise UsageError(f"resume goes on with {found.folder}, not with {built.folder}")
        found = _replanned(asked, built, fitted)
    RunFolder(found.folder).release()
    _submit(found)
    return EXIT_DONE


def logs(argv: list[str]) -> int:
    """Print the end of the newest log of the run, of a stage, or of a job."""
    found, words = _load(argv, more=1)
    wanted = words[0].split(".")[0] if words else "*"
    files = sorted(RunFolder(found.folder).logs.glob(f"{wanted}.*.out"), key=lambda p: p.stat().st_mtime)
    if not files:
        print(f"no log of {wanted} yet in {found.folder / 'logs'}", file=sys.stderr)
        return EXIT_FAULT
    print(f"==> {files[-1]}")
    print("\n".join(files[-1].read_text(encoding="utf-8", errors="replace").splitlines()[-40:]))
    return EXIT_DONE


def cost(argv: list[str]) -> int:
    found, _ = _load(argv)
    print(account.describe(found))
    return EXIT_DONE


def doctor(argv: list[str]) -> int:
    """Exit code 1 if something is wrong."""
    words = doctors.describe(_load(argv)[0] if argv else None)
    print(words or "nothing wrong that is known here")
    return EXIT_FAULT if words else EXIT_DONE


def attach(argv: list[str]) -> int:
    """A shell on the first node of a running job, beside it."""
    found, words = _load(argv, more=1)
    running = [s for s, q in submission.live_jobs(found) if q.state == "RUNNING"]
    chosen = [s for s in running if not words or words[0] in (s.stage, s.job, s.id)]
    if not chosen:
        raise UsageError(f"nothing runs; running are: {', '.join(s.job for s in running) or 'none'}")
    shell = ["srun", f"--jobid={chosen[0].id}", "--overlap", "--nodes=1", "--ntasks=1", "--pty", "bash", "-l"]
    print(f"{chosen[0].job}, job {chosen[0].id}; leave with exit", flush=True)
    os.execvpe(shell[0], shell, slurm.environment())


def _detect(argv: list[str]) -> int:
    """Print a site file for this cluster, or write it as `env/sites/NAME.env`."""
    text = detection.detect()
    if not argv:
        print(text, end="")
        return EXIT_DONE
    path = sites.FOLDER / f"{argv[0]}.env"
    if not re.fullmatch(r"[\w-]+", argv[0]) or path.exists():
        raise UsageError(f"{path} is there already, or is no name for a file; choose another name")
    with atomic_path(path) as temp:
        temp.write_text(text, encoding="utf-8")
    print(f"wrote {path}; look it over, then: python -m scripts.launch plan --site {argv[0]}")
    return EXIT_DONE


def sweep(argv: list[str]) -> int:
    """One job array: a run for each combination of the --grid values."""
    if "--dry-run" in argv:
        for one in sweeps.plan([word for word in argv if word != "--dry-run"]):
            print(f"{one.run}: {' '.join(one.words)}")
        return EXIT_DONE
    folder = sweeps.submit(argv)
    print(f"{sweeps.describe(folder)}\nwatch it: python -m scripts.launch status {folder.name}")
    return EXIT_DONE


def serve(argv: list[str]) -> int:
    """The chat server: in a job or an allocation here, else as a job of its own."""
    if "SLURM_JOB_ID" in os.environ:
        servers.become(argv)
    job, log = servers.submit(argv)
    print(f"submitted: serve {job}; once it runs, its log has the ssh line and the place of the token: {log}")
    return EXIT_DONE


def site(argv: list[str]) -> int:
    """The values of a site, with what each key means; `detect`: a file for the one that we are on."""
    if argv[:1] == ["detect"]:
        return _detect(argv[1:])
    keys, words = sites.split(argv)
    found = sites.load(words[0] if words else None, keys)
    for name, field in sites.KEYS.items():
        print(f"{name}={getattr(found, field.name)}".ljust(44) + f" # {field.metadata['help']}")
    for name, value in found.exports.items():
        print(f"ENV_{name}={value}")
    return EXIT_DONE
