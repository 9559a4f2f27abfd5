"""Whether a container image can carry a run: it is there, it is one, and it was built from this clone.

What it is: `fault(container, image, clone)`, one line or "". The stages run the clone's own code inside; what
an image brings are packages and rustbpe, so it may be older than the code as long as these are the same. What
it is not: a look into the image (`scripts.info` does that in it). Run: `python -m scripts.preflight`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from nanochat.room import output

REVISION = "org.opencontainers.image.revision"
BROUGHT = ("pyproject.toml", "env/locks", "rustbpe")  # what an image is made from beside the code
MAGIC = {".sif": (32, b"SIF_MAGIC", "Apptainer"), ".sqsh": (0, b"hsqs", "squashfs")}


def fault(container: str, image: str, clone: Path | None) -> str:
    """Why the stages cannot run in the image; "" if nothing speaks against it.

    `clone` None: in a job, where the engine must be there, and the image has been compared before. A name in
    a registry is not looked up.
    """
    if container == "none":
        return ""
    if not image:
        return "IMAGE is not set"
    path = Path(os.path.expandvars(image)).expanduser()
    if path.suffix not in MAGIC:
        return ""
    if why := _is_none(path):
        return why
    if container != "apptainer":
        return ""
    if not shutil.which("apptainer"):  # a login node may have none
        return "" if clone else "apptainer is not on PATH of this node (MODULES may load it)"
    return _differs(path, clone) if clone else ""


def _is_none(path: Path) -> str:
    offset, magic, name = MAGIC[path.suffix]
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return "" if head[offset:].startswith(magic) else f"{path} is no {name} image"


def _differs(path: Path, clone: Path) -> str:
    """Its revision's packages against the clone's, changes that are not committed included."""
    revision = labels(path).get(REVISION, "").removesuffix("-dirty")
    if not revision:
        return f"{path} does not say from which revision it was built (label {REVISION})"
    if not (clone / ".git").exists():  # an unpacked release has nothing to compare with
        return ""
    if (asked := _git(clone, "rev-parse", "--git-dir")).returncode:  # it may belong to somebody else
        said = asked.stderr.partition("\n")[0]
        return f"git refuses this clone ({said}): git config --global --add safe.directory {clone}"
    if _git(clone, "diff", "--quiet", revision, "--", *BROUGHT).returncode == 0:
        return ""
    names = _git(clone, "diff", "--name-only", revision, "--", *BROUGHT).stdout.split()
    if not names:
        return f"{path} was built from revision {revision[:12]}, which this clone does not know"
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{path} was built from revision {revision[:12]}; since then {names[0]}{more} changed"


def _git(clone: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(clone), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def labels(path: Path) -> dict[str, str]:
    """The labels of a SIF; none where Apptainer cannot tell."""
    try:
        found = json.loads(output(["apptainer", "inspect", "--json", "--labels", str(path)]) or "")
        return {str(k): str(v) for k, v in found["data"]["attributes"]["labels"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
