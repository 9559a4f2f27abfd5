"""What puts a stage into the site's container; Slurm's commands and the job's body stay outside.

What it is: `wrap`, from a plan to srun's further flags and to what stands before the program, and
`variables`, what the program may see of the host. Same paths inside and outside: base folder, data and
scratch are mounted where they are. What it is not: images (`containers/`). Look at it: `python -m
scripts.launch plan CONTAINER=apptainer IMAGE=nanochat.sif --texts`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from nanochat.launch.plan import Plan

AMD = ("mi", "gfx")  # GPU types that need --rocm
# The host's compilers, Python, caches and temporary folders mean nothing in an image. PATH and
# LD_LIBRARY_PATH are for srun and the engine; inside, the image's own take their place.
PASSED = re.compile(
    r"(SLURM|SRUN|NCCL|RCCL|GLOO|UCX|FI|OMP|CUDA|HSA|ROCR|HIP|MASTER|WANDB|HF_TOKEN|HF_ENDPOINT|APPTAINER"
    r"|SINGULARITY|ENROOT)(_\w+)?|PATH|LD_LIBRARY_PATH|HOME|USER|LOGNAME|TERM|TZ|https?_proxy|no_proxy"
)
VARIABLE = re.compile(r"\$\{?(\w+)")


def wrap(plan: Plan) -> tuple[list[str], list[str], str]:
    """(flags of srun, words before the program, the Python of the program)."""
    site, code = plan.site, str(plan.folder / "code")
    mounts = list(_mounts(plan))
    if site.container == "apptainer":
        gpus = ["--rocm" if site.gpu_type.lower().startswith(AMD) else "--nv"] * (site.device == "cuda")
        binds = [word for mount in mounts for word in ("--bind", mount)]
        place = ["--no-mount", "home,cwd", "--pwd", code]
        return [], ["apptainer", "exec", *gpus, *binds, *place, site.image], "python"
    if site.container == "pyxis":
        pairs = ",".join(mount if ":" in mount else f"{mount}:{mount}" for mount in mounts)
        place = [f"--container-mounts={pairs}", f"--container-workdir={code}", "--no-container-mount-home"]
        return [f"--container-image={site.image}", *place], [], "python"
    if site.container == "environment":  # its file says what is mounted
        return [f"--environment={site.image}"], [], "python"
    return [], [], plan.python


def _mounts(plan: Plan) -> Iterator[str]:
    """The base folder, data that lie elsewhere, the node's own disk if it is known here, and BINDS."""
    yield plan.base_dir
    yield from dict.fromkeys(s.data for s in plan.stages if Path(s.data).is_absolute())
    scratch = os.path.expandvars(plan.site.local_scratch)
    if scratch and "$" not in scratch:
        yield scratch
    yield from filter(None, plan.site.binds.split(","))


def variables(plan: Plan, environ: Mapping[str, str]) -> dict[str, str]:
    """Of the job's environment what the program may see: in a container, what `PASSED` and the site name."""
    if plan.site.container == "none":
        return dict(environ)
    wanted = plan.site.exports.keys() | set(VARIABLE.findall(plan.site.local_scratch))
    kept = {name: value for name, value in environ.items() if name in wanted or PASSED.fullmatch(name)}
    cache = f"{plan.base_dir}/cache"  # there is no home folder to keep one in
    return {
        "XDG_CACHE_HOME": cache,
        "HF_HOME": f"{cache}/huggingface",
        "MPLCONFIGDIR": f"{cache}/matplotlib",
        **kept,
        "PYTHONPATH": str(plan.folder / "code"),  # whatever folder the program begins in
    }
