"""The body of every job: decides whether to begin, starts the stage on the nodes, watches it, says how it
ended.

What it is: the process of the batch script, on the first node, outside any container. It tells the stage when
its time is over (a deadline, and the file `STOP` when Slurm sends USR1 or TERM), writes the ledger, and gives
the exit code that the next job waits for: 0 done, 75 stopped (the next segment goes on), else a fault. What
it is not: training; that is the same script as on a laptop. Slurm runs it: `python -m nanochat.launch.body
RUN_FOLDER base.1`.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from nanochat import configurator, metrics, offline, preflight, slurm
from nanochat.assets import Preflight
from nanochat.common import EXIT_DONE, EXIT_FAULT, EXIT_STOPPED, EXIT_USAGE, read_json, run_main
from nanochat.launch import checks, container, ledger, nodecheck, policy, rendezvous, submission
from nanochat.launch.ledger import Attempt, RunFolder
from nanochat.launch.plan import Job, Plan, load

HEARTBEAT_S = 20.0
POLL_S = 0.2
HOLD_S = 2.0
SAVES = 2  # the last saves of a stage tell how long the next one takes


class Body:
    """One start of one job."""

    def __init__(self, plan: Plan, job: Job, environ: Mapping[str, str] = os.environ) -> None:
        self.plan, self.job, self.stage = plan, job, job.stage
        self.run = RunFolder(plan.folder)
        self.root = Path(plan.base_dir)
        self.trained = self.root / f"{self.stage.trains}_{plan.run}" if self.stage.trains else None
        self.id, self.restart = environ["SLURM_JOB_ID"], int(environ.get("SLURM_RESTART_COUNT") or 0)
        self.nodes = slurm.hostnames(environ.get("SLURM_JOB_NODELIST", ""))
        self.deadline = self._deadline()
        self.asked = False  # Slurm has asked us to stop
        self._held, self._looked = False, 0.0

    # ------------------------------------------------------------------ the order of things

    def execute(self) -> int:
        """The job's exit code."""
        checkpoint = ledger.checkpoint_step(self.trained) if self.trained else None
        mine = [s.time for s in self.run.submitted() if s.id == self.id]
        attempts = (a for a in self.run.attempts(self.stage.name) if a.started >= min(mine, default=0.0))
        earlier = [a for a in attempts if a.id != self.id]  # Slurm took away what this job has done before
        refused = policy.refusal(self.plan, self.stage, earlier, checkpoint)
        if refused:
            self.say(refused.reason)
            if refused.exit not in (EXIT_DONE, EXIT_STOPPED):
                submission.drop_later(self.plan, self.stage, self.job, and_behind=True)
            return refused.exit
        attempt = self._begin(checkpoint)
        if not (self._files_are_good(attempt) and self._nodes_are_good(attempt)):
            return int(attempt.exit or 0)
        before = self._ages()
        code = self._watch(attempt, self.command())
        self._judge(attempt, code, before)
        self._end(attempt, earlier)
        return int(attempt.exit or 0)

    def say(self, text: str) -> None:
        """One line of the log, for each start and each end."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        print(f"== {stamp} {self.job.name}, job {self.id}, restart {self.restart}: {text}", flush=True)

    def _begin(self, checkpoint: int | None) -> Attempt:
        reached = ledger.last_step(self.trained) if self.trained else None
        now = time.time()
        attempt = Attempt(
            self.job.name, self.stage.name, self.id, self.restart, self.nodes,
            self.stage.nodes * self.stage.gpus, now, now, checkpoint, reached,
        )  # fmt: skip
        self.run.write(attempt)
        origin = f", from step {checkpoint}" if checkpoint is not None else ""
        again = f" ({attempt.repeated} steps are done again)" if attempt.repeated else ""
        self.say(f"begins on {','.join(self.nodes)}{origin}{again}")
        return attempt

    # ------------------------------------------------------------------ running

    def _files_are_good(self, attempt: Attempt) -> bool:
        """Preflight on this node: what the stage reads, and the node itself, before hours are spent."""
        stored = read_json(self.run.configs / "preflight.json")
        config = configurator.from_dict(Preflight, stored | {"stages": checks.STAGE_NAMES[self.stage.script]})
        site = self.plan.site if self.trained else dataclasses.replace(self.plan.site, local_scratch="")
        found = checks.look(site, self.root, config, in_job=True)
        if not found:
            return True
        attempt.ended = attempt.seen = time.time()
        attempt.reason = "; ".join(f"{f.check}: {f.text} ({f.remedy})" for f in found)
        mine = preflight.exit_code(found) == EXIT_USAGE
        attempt.outcome = ledger.FAULT if mine else ledger.KILLED
        attempt.exit = EXIT_USAGE if mine else EXIT_STOPPED
        if not mine and self.stage.gpus:
            submission.keep_off(self.plan, {self.nodes[0]: attempt.reason})
        self._end(attempt, [])
        return False

    def _nodes_are_good(self, attempt: Attempt) -> bool:
        """Look at the nodes first; what is bad is used no more, and the next segment goes on elsewhere."""
        if not (self.trained and self.plan.site.node_check):
            return True
        folder = self.run.path / "nodes" / f"{self.id}.{self.restart}"
        folder.mkdir(parents=True, exist_ok=True)
        words = [f"--out={folder}", f"--device={self.plan.site.device}", f"--now={time.time():.0f}"]
        words += [f"--scratch={self.plan.site.local_scratch}"] if self.plan.site.local_scratch else []
        code = self._watch(attempt, self.step("nodecheck", words), nodecheck.LIMIT_S)
        if code == 0 or self.asked:
            return True  # whoever is asked to stop now stops in the trainer
        bad = nodecheck.verdict(folder, self.nodes)
        if not bad:
            self.say("the nodes did not meet in the check; training tries for itself")
            return True
        attempt.ended = attempt.seen = time.time()
        attempt.outcome, attempt.exit = ledger.KILLED, EXIT_STOPPED
        attempt.reason = "; ".join(f"{node}: {why}" for node, why in bad.items())
        self.run.write(attempt)
        is_off = submission.keep_off(self.plan, bad)
        more = "" if is_off else f"; type what `python -m scripts.launch status {self.plan.run}` says"
        self.say(f"bad node, not used again: {attempt.reason}{more}")
        return False

    def command(self) -> list[str]:
        """The words of the stage's step."""
        words = [f"--ranks={self.stage.ranks}"]
        if self.plan.site.stage_local and self.stage.data:
            words += [f"--data={self.root / self.stage.data}", f"--scratch={self.plan.site.local_scratch}"]
        return [*self.step("node", words), "--", *self.script()]

    def step(self, module: str, words: list[str]) -> list[str]:
        """srun's words: one process of `nanochat.launch.MODULE` a node, in the site's container."""
        stage, site = self.stage, self.plan.site
        flags, before, python = container.wrap(site, self.run.code, self.plan.folders, self.plan.python)
        srun = [
            "srun", f"--nodes={stage.nodes}", f"--ntasks={stage.nodes}", "--ntasks-per-node=1",
            "--kill-on-bad-exit=1", *site.srun_extra.split(), *flags,
        ]  # fmt: skip
        node = [f"--nodes={stage.nodes}", *words]
        if site.device == "cuda":
            node.append(f"--gpus={stage.gpus}")
        if stage.nodes * stage.ranks > 1:
            where = rendezvous.address(self.nodes[0], site.host_suffix)
            node += [f"--address={where}", f"--port={rendezvous.port(self.id)}"]
        return [*srun, *before, python, "-m", f"nanochat.launch.{module}", *node]

    def script(self) -> list[str]:
        config = str(self.run.configs / f"{self.stage.name}.toml")
        words = [f"scripts.{self.stage.script}", "--config", config]
        words = words if self.online else ["nanochat.offline", *words]
        return words if self.deadline is None else [*words, "--deadline", f"{self.deadline:.0f}"]

    @property
    def online(self) -> bool:
        """Only the data job may use the network, where it has one."""
        return self.stage.kind == "data" and self.plan.site.data_node_has_network

    def _deadline(self) -> float | None:
        """When training has to stop so that its last save is on the disk in time; None: never."""
        margin = float(self.plan.site.stop_margin_s)
        left = slurm.time_left(self.id) if self.trained and margin else None
        if self.trained is None or left is None or not margin:
            return None
        records = metrics.read(self.trained / "metrics.jsonl")
        saves = [record["save_s"] for record in records if "save_s" in record]
        return time.time() + left - max(margin, 2 * max(saves[-SAVES:], default=0.0))

    def variables(self) -> dict[str, str]:
        """The environment of the stage: what the plan froze is not to be changed by a variable."""
        seen = container.variables(self.plan.site, str(self.root), self.run.code, os.environ)
        rest = {k: v for k, v in seen.items() if not k.startswith("NANOCHAT_")}
        memory = [k for k in rest if k.startswith("SLURM_MEM_PER_")]
        # One is the job's, the other was inherited from the job that submitted it, and srun refuses both.
        if len(memory) > 1:
            rest = {k: v for k, v in rest.items() if k not in memory}
        code = read_json(self.run.path / "code.json")
        rest |= {
            "NANOCHAT_COMMIT": f"{code['commit'] or ''}{'-dirty' * bool(code['dirty'])}",
            "SRUN_CPUS_PER_TASK": self._cpus(),
        }
        rest["NANOCHAT_BASE_DIR"] = str(self.root)
        if not self.online:
            rest |= offline.variables(self.root)
        if self.plan.site.net_ifname:
            names = dict.fromkeys(("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"), self.plan.site.net_ifname)
            rest = {**names, **rest}
        return container.outdo(self.plan.site, {"OMP_WAIT_POLICY": "PASSIVE", **rest})

    def _cpus(self) -> str:
        """srun is not told what sbatch was; and the first job may have fewer than planned."""
        return str(min(self.stage.cpus, int(os.environ.get("SLURM_CPUS_PER_TASK") or self.stage.cpus)))

    def _watch(self, attempt: Attempt, command: list[str], limit_s: float = float("inf")) -> int:
        """Run a step to its end; signals ask it to stop, and the ledger sees that we live."""
        end = time.monotonic() + limit_s
        before = {n: signal.signal(n, self._note) for n in (signal.SIGUSR1, signal.SIGTERM)}
        try:
            child = subprocess.Popen(command, env=self.variables(), cwd=self.run.code)
            while (code := child.poll()) is None:
                time.sleep(POLL_S)
                if time.monotonic() > end:
                    child.terminate()  # srun ends its tasks at once
                if self._is_to_stop() and self.trained and self.trained.is_dir():
                    (self.trained / "STOP").touch()
                if time.time() - attempt.seen > HEARTBEAT_S:
                    attempt.seen = time.time()
                    self.run.write(attempt)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return code

    def _is_to_stop(self) -> bool:
        """Slurm asks for it, or the user holds the run; a shared disk is not asked at each look."""
        if time.monotonic() - self._looked > HOLD_S:
            self._looked, self._held = time.monotonic(), self.run.held()
        return self.asked or self._held

    def _note(self, number: int, frame: FrameType | None) -> None:
        """TERM always counts. USR1 comes up to a minute early: it only counts where we have no clock."""
        self.asked = self.asked or number == signal.SIGTERM or self.deadline is None

    # ------------------------------------------------------------------ the end

    def _ages(self) -> dict[str, int]:
        """When each marker was written: an old one says nothing about this attempt."""
        folder = self.trained
        if folder is None:
            return {}
        markers = (folder / name for name in ("DONE", "STOPPED", "FAULT"))
        return {path.name: path.stat().st_mtime_ns for path in markers if path.is_file()}

    def _judge(self, attempt: Attempt, code: int, before: Mapping[str, int]) -> None:
        """What the exit code, the markers and what is there make of the attempt."""
        now = self._ages()
        fresh = {name for name, age in now.items() if before.get(name) != age}
        attempt.ended = attempt.seen = time.time()
        attempt.last = ledger.last_step(self.trained) if self.trained else None
        if code == 0 and (self.root / self.stage.leaves).exists():
            attempt.outcome, attempt.exit = ledger.DONE, EXIT_DONE
        elif code == EXIT_STOPPED or "STOPPED" in fresh:
            attempt.outcome, attempt.exit = ledger.STOPPED, EXIT_STOPPED
        elif self.asked:
            attempt.outcome, attempt.exit = ledger.KILLED, EXIT_STOPPED
            attempt.reason = "ended by Slurm before it could save"
        else:
            nothing = f"it ended with 0 and left no {self.stage.leaves}"
            attempt.outcome, attempt.exit = ledger.FAULT, code or EXIT_FAULT
            attempt.reason = f"exit {code}" if code else nothing
            if self.trained and "FAULT" in fresh:
                facts = read_json(self.trained / "FAULT")
                attempt.reason, attempt.exit = facts["reason"], facts.get("exit", attempt.exit)

    def _end(self, attempt: Attempt, earlier: list[Attempt]) -> None:
        """Write the ledger, say how it ended, and take away the jobs that have become senseless."""
        self.run.write(attempt)
        where = f" at step {attempt.last}" if attempt.last is not None else ""
        why = f": {attempt.reason}" if attempt.reason else ""
        self.say(f"{attempt.outcome}{where}{why}; {attempt.seconds:.0f} s, exit {attempt.exit}")
        checkpoint = ledger.checkpoint_step(self.trained) if self.trained else None
        is_last = self.job.segment == self.stage.segments
        if attempt.outcome == ledger.DONE:
            submission.drop_later(self.plan, self.stage, self.job, and_behind=False)
        if attempt.outcome in (ledger.DONE, ledger.KILLED):  # Slurm itself starts again whom it has preempted
            return
        if is_last or policy.hopeless([*earlier, attempt], checkpoint):
            self.say(f"nothing goes on from here by itself; python -m scripts.launch resume {self.plan.run}")
            submission.drop_later(self.plan, self.stage, self.job, and_behind=True)


def main(argv: list[str]) -> int:
    folder, name = argv
    plan = load(Path(folder))
    return Body(plan, next(job for job in plan.jobs if job.name == name)).execute()


if __name__ == "__main__":
    run_main(main)
