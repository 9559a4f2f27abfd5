"""What puts a stage into the site's container; Slurm's commands and the job's body stay outside.

What it is: `wrap`, srun's further flags and what stands before the program, and `variables`, what the program
may see of the host. Same paths inside and outside: the folders that it works in are mounted where they are.
What it is not: images (`containers/`). Look at it: `python -m scripts.launch plan CONTAINER=apptainer
IMAGE=nanochat.sif --texts`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from nanochat.launch.sites import Site

AMD = ("mi", "gfx")  # GPU types that need --rocm
# The host's compilers, Python, caches and temporary folders mean nothing in an image. PATH and
# LD_LIBRARY_PATH are for srun and the engine; inside, the image's own take their place.
PASSED = re.compile(
    r"(SLURM|SRUN|NCCL|RCCL|GLOO|UCX|FI|OMP|CUDA|HSA|ROCR|HIP|MASTER|WANDB|HF_TOKEN|HF_ENDPOINT|APPTAINER"
    r"|SINGULARITY|ENROOT)(_\w+)?|PATH|LD_LIBRARY_PATH|HOME|USER|LOGNAME|TERM|TZ"
    r"|(https?|all|no)_proxy|(HTTPS?|ALL|NO)_PROXY"
)
VARIABLE = re.compile(r"\$\{?(\w+)")
OURS = ("NANOCHAT_COMMIT", "OMP_WAIT_POLICY")  # the image has them, too


def wrap(site: Site, code: Path, folders: Iterable[str], python: str) -> tuple[list[str], list[str], str]:
    """(flags of srun, words before the program, the Python of the program), which begins in `code`.

    `folders` are mounted, beside the node's own disk if it is known here, and BINDS; `python` is the one of
    a site without containers.
    """
    mounts = list(_mounts(site, folders))
    if site.container == "apptainer":
        gpus = ["--rocm" if site.gpu_type.lower().startswith(AMD) else "--nv"] * (site.device == "cuda")
        binds = [word for mount in mounts for word in ("--bind", mount)]
        place = ["--no-mount", "home,cwd", "--pwd", str(code)]
        return [], ["apptainer", "exec", *gpus, *binds, *place, site.image], "python"
    if site.container == "pyxis":
        pairs = ",".join(mount if ":" in mount else f"{mount}:{mount}" for mount in mounts)
        place = [f"--container-mounts={pairs}", f"--container-workdir={code}", "--no-container-mount-home"]
        return [f"--container-image={site.image}", *place], [], "python"
    if site.container == "environment":  # its file says what is mounted
        return [f"--environment={site.image}"], [], "python"
    return [], [], python


def _mounts(site: Site, folders: Iterable[str]) -> Iterator[str]:
    yield from dict.fromkeys(folders)
    scratch = os.path.expandvars(site.local_scratch)
    if scratch and "$" not in scratch:
        yield scratch
    yield from filter(None, site.binds.split(","))


def variables(site: Site, root: str, code: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Of the job's environment what the program may see: in a container, what `PASSED` and the site name.

    `root` is the base folder, `code` holds the packages.
    """
    if site.container == "none":
        return dict(environ)
    wanted = site.exports.keys() | set(VARIABLE.findall(site.local_scratch))
    kept = {name: value for name, value in environ.items() if name in wanted or PASSED.fullmatch(name)}
    cache = f"{root}/cache"  # there is no home folder to keep one in
    return {
        "XDG_CACHE_HOME": cache,
        "HF_HOME": f"{cache}/huggingface",
        "MPLCONFIGDIR": f"{cache}/matplotlib",
        **kept,
        "PYTHONPATH": str(code),  # whatever folder the program begins in
    }


def outdo(site: Site, variables: Mapping[str, str]) -> dict[str, str]:
    """The environment whose values count in the image: Apptainer prefers the image's own unless told so."""
    names = set(OURS) & variables.keys() if site.container == "apptainer" else ()
    return {**variables, **{f"APPTAINERENV_{name}": variables[name] for name in names}}
