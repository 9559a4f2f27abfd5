"""The words that put a stage into the site's container; Slurm's commands and the job's body stay outside.

What it is: `wrap`, from a site to srun's further flags and to what stands before the program. Same paths
inside and outside: the base folder is mounted where it is. What it is not: images (`containers/`). Look at
it: `python -m scripts.launch plan CONTAINER=apptainer IMAGE=nanochat.sif --texts`.
"""

from __future__ import annotations

from nanochat.launch.plan import Plan

AMD = ("mi", "gfx")  # GPU types that need --rocm


def wrap(plan: Plan) -> tuple[list[str], list[str], str]:
    """(flags of srun, words before the program, the Python of the program)."""
    site = plan.site
    mounts = [plan.base_dir, *filter(None, site.binds.split(","))]
    code = str(plan.folder / "code")
    if site.container == "apptainer":
        gpus = ["--rocm" if site.gpu_type.lower().startswith(AMD) else "--nv"] * (site.device == "cuda")
        binds = [word for mount in mounts for word in ("--bind", mount)]
        return [], ["apptainer", "exec", *gpus, *binds, "--pwd", code, site.image], "python"
    if site.container == "pyxis":
        pairs = ",".join(mount if ":" in mount else f"{mount}:{mount}" for mount in mounts)
        place = [f"--container-mounts={pairs}", f"--container-workdir={code}"]
        return [f"--container-image={site.image}", *place], [], "python"
    if site.container == "environment":  # its file says what is mounted
        return [f"--environment={site.image}"], [], "python"
    return [], [], plan.python
