"""A user of the lab: submits, looks, waits, and compares what came of it.

What it is: the commands that a person types, run as processes with the lab's environment. What it is not: a
look into the launcher's modules. Used by the tests beside it.
"""

from __future__ import annotations

import getpass
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import Lab

from nanochat.common import read_json

ROOT = Path(__file__).resolve().parent.parent.parent
HOOKS = Path(__file__).resolve().parent / "hooks"
LIMIT_S = 600


class User:
    """Works in `folder`; `folder/base` holds the artifacts."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder, self.base = lab, folder, folder / "base"
        self.env = {
            **{k: v for k, v in lab.environment.items() if not k.startswith("NANOCHAT_")},
            "NANOCHAT_BASE_DIR": str(self.base), "NANOCHAT_SITE": "lab", "NANOCHAT_PYTHON": sys.executable,
        }  # fmt: skip

    def do(self, *command: str, fails: bool = False, **variables: str) -> str:
        """What a command prints; an assertion that it does not fail (or does)."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.env | variables, capture_output=True, text=True, check=False,
            timeout=LIMIT_S,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def sbatch(self, *words: str, **variables: str) -> str:
        """Submit `slurm/speedrun.slurm` with the tiny recipe; returns the job's id."""
        return self.do(
            "sbatch", "--parsable", str(self.script("speedrun")), "--preset", "tiny", *words, **variables
        ).strip()

    def script(self, name: str) -> Path:
        return ROOT / "slurm" / f"{name}.slurm"

    def launch(self, *words: str, fails: bool = False, **variables: str) -> str:
        command = ("bash", str(ROOT / "env" / "on_site.sh"), "-m", "scripts.launch", *words)
        return self.do(*command, fails=fails, **variables)

    def cancel_all(self) -> None:
        self.do("scancel", "-u", getpass.getuser())
        self.wait("an empty queue", lambda: not self.queue())

    # ------------------------------------------------------------------ looking

    def status(self, run: str) -> dict[str, tuple[str, str]]:
        """Stage -> (state, words) as `status` prints them."""
        lines = [line for line in self.launch("status", run).splitlines() if "  " in line]
        parts = (line.split(None, 1) for line in lines)
        found = {}
        for stage, rest in parts:
            state = next(s for s in STATES if rest.startswith(s))
            found[stage] = (state, rest[len(state) :].split(None, 1)[-1])
        return found

    def attempts(self, run: str, stage: str) -> list[dict[str, Any]]:
        found = [read_json(p) for p in (self.base / "runs" / run / "attempts").glob(f"{stage}[.-]*.json")]
        return sorted(found, key=lambda a: a["started"])

    def queue(self) -> list[str]:
        return self.do("squeue", "-h", "-o", "%j %T").splitlines()

    def log(self, run: str, stage: str) -> str:
        logs = sorted((self.base / "runs" / run / "logs").glob(f"{stage}.*.out"))
        return "".join(path.read_text(errors="replace") for path in logs)

    def steps(self, run: str) -> int:
        """Steps that pretraining has logged."""
        path = self.base / f"base_{run}" / "metrics.jsonl"
        return path.read_text().count('"loss"') if path.exists() else 0

    # ------------------------------------------------------------------ waiting

    def wait(self, what: str, until: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            if found := until():
                return found
            time.sleep(0.3)
        logs = "".join(path.read_text()[-1500:] for path in self.folder.glob("*.out"))
        raise AssertionError(f"{what}: not within {limit_s} s; the queue: {self.queue()}; {logs}")

    def wait_empty(self, run: str) -> None:
        self.wait(f"end of {run}", lambda: not any(line.startswith(f"{run}-") for line in self.queue()))

    def wait_steps(self, run: str, steps: int) -> None:
        self.wait(f"step {steps} of {run}", lambda: self.steps(run) >= steps)

    # ------------------------------------------------------------------ comparing

    def weights(self, run: str, stage: str = "base") -> dict[str, Any]:
        """Hashes of the last checkpoint's weights and optimizer shards."""
        newest = max((self.base / f"{stage}_{run}" / "checkpoints").glob("step_*"))
        files = read_json(newest / "manifest.json")["files"]
        return {"folder": newest.name, **{k: v for k, v in files.items() if k.endswith(".safetensors")}}

    def ranks(self, job: str) -> dict[int, int]:
        """Rank -> process id of a job's training processes."""
        found = {}
        for process in Path("/proc").iterdir():
            try:
                variables = dict(
                    v.split("=", 1) for v in (process / "environ").read_text().split("\0") if "=" in v
                )
            except (OSError, UnicodeDecodeError):
                continue
            if variables.get("SLURM_JOB_ID") == job and "LOCAL_RANK" in variables:
                found[int(variables["RANK"])] = int(process.name)
        return found


STATES = ("not submitted", "done", "running", "waiting", "stopped", "failed", "cancelled", "lost")
