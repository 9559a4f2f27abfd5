"""What a job does on each of its nodes: look whether the GPUs are there, then become the ranks' launcher.

`srun` starts one of these on a node (in the container, if there is one); it becomes torchrun, or the script
itself where one process is enough. What it is not: the job's body, which runs once (`body.py`). Run: `python
-m nanochat.launch.node --nodes 1 --ranks 1 -- scripts.tok_eval --help`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from nanochat.common import UsageError, run_main


def command(options: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> list[str]:
    """The words of the process to become."""
    if options.nodes * options.ranks == 1:
        return [sys.executable, "-m", *options.program]
    launcher = [
        "torch.distributed.run", f"--nnodes={options.nodes}", f"--nproc_per_node={options.ranks}",
        f"--node_rank={environ['SLURM_NODEID']}", f"--master_addr={options.address}",
        f"--master_port={options.port}", "--max_restarts=0",
    ]  # fmt: skip
    # Without the -- torchrun would take our --run for a short form of its own --run-path.
    return [sys.executable, "-m", *launcher, "-m", "--", *options.program]


def check_gpus(wanted: int, environ: Mapping[str, str] = os.environ) -> None:
    """What was allocated must be what can be seen: Slurm does not always say when it is not."""
    seen = environ.get("CUDA_VISIBLE_DEVICES", environ.get("ROCR_VISIBLE_DEVICES"))
    if wanted and seen is not None and len(seen.split(",")) < wanted:
        raise UsageError(
            f"{environ.get('SLURMD_NODENAME', 'this node')}: {wanted} GPUs asked for, it shows {seen!r}"
        )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="node")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=29_500)
    parser.add_argument("program", nargs="+")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    options = parse(argv)
    check_gpus(options.gpus)
    words = command(options)
    os.execv(words[0], words)


if __name__ == "__main__":
    run_main(main)
