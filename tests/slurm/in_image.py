"""A run whose stages are in a SIF, on a lab of this plain user: started by `test_in_image.py`, prints JSON.

What it is: a program of its own, since Apptainer and all of Slurm must be the same plain user's here, in a
mount namespace where that user may open /dev/fuse. Its Python has no torch: what computes is in the image.
Run: `python tests/slurm/in_image.py IMAGE FOLDER`.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from drive import User
from lab import Lab, Spec

from nanochat.common import read_json

WORDS = ("--run", "boxed", "--until", "base", "CONTAINER=apptainer")
MISSING = ("submit", "--preset", "tiny", "--run", "none", "CONTAINER=apptainer")


def drive(user: User, image: Path) -> dict[str, Any]:
    """What came of it: each stage's state, the refusals, log and environment of pretraining."""
    absent = user.launch(*MISSING, "IMAGE=no.sif", fails=True)
    user.sbatch(*WORDS, f"IMAGE={image}")
    logs = user.folder.glob  # the first job's says so when all others are in the queue
    user.wait("the other jobs", lambda: any("submitted: " in log.read_text() for log in logs("*.out")))
    user.wait_empty("boxed")
    log = serve(user, image)
    record = user.base / "base_boxed" / "env.json"
    return {
        "absent": absent,
        "status": {stage: state for stage, (state, _) in user.status("boxed").items()},
        "log": user.log("boxed", "*"),
        "environment": read_json(record)["attempts"][-1] if record.is_file() else None,
        "code": read_json(user.base / "runs/boxed/code.json"),
        "served": log,
        "host_has_torch": importlib.util.find_spec("torch") is not None,
    }


def serve(user: User, image: Path) -> str:
    """The log of a chat server in the image, ended by scancel once it was ready."""
    words = ("--run", "boxed", "--source", "base", "CONTAINER=apptainer", f"IMAGE={image}")
    said = user.do("bash", str(user.script("serve")), *words)
    log = Path(said.rpartition("token: ")[2].strip())
    user.wait("the server", lambda: log.is_file() and "ready: http" in log.read_text())
    user.cancel_all()
    user.wait("its end", lambda: "\nended\n" in log.read_text(), 30)
    return log.read_text()


def main(image: str, folder: str) -> None:
    place = Path(folder) / "a user's folder"
    place.mkdir()
    # "linuxproc" would signal what holds the image mounted, too, and the server end in a bus error.
    lab = Lab(Path(folder) / "lab", Spec(tracking="pgid")).start()
    try:
        print(json.dumps(drive(User(lab, place), Path(image))))
    finally:
        lab.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
