"""What a job does on each of its nodes: look whether the GPUs are there, then become the ranks' launcher.

`srun` starts one of these on a node (in the container, if there is one); it becomes torchrun, or the script
itself where one process is enough. What it is not: the job's body, which runs once (`body.py`). Run: `python
-m nanochat.launch.node --nodes 1 --ranks 1 -- scripts.tok_eval --help`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from nanochat.common import UsageError, run_main
from nanochat.launch import rendezvous, stagein

FAREWELL_S = 10.0


def launcher(options: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> list[str]:
    """torchrun's words on this node."""
    words = [
        f"--nnodes={options.nodes}", f"--nproc_per_node={options.ranks}",
        f"--node_rank={environ.get('SLURM_NODEID', 0)}", f"--master_addr={options.address}",
        f"--master_port={options.port}", "--max_restarts=0", "--signals_to_handle=SIGINT,SIGHUP,SIGQUIT",
    ]  # fmt: skip
    # Without the -- torchrun would take our --run for a short form of its own --run-path.
    return [*words, "-m", "--", *options.program]


def run_together(options: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> None:
    """torchrun in this process, one of several on as many nodes, all of which end well together.

    The first node's holds the store on which they agree to leave. Were it gone before the others have its
    answer, they would end with a traceback; so it stays until each of them has said good-bye.
    """
    from datetime import timedelta

    from torch.distributed import TCPStore
    from torch.distributed.run import main as torchrun

    is_host = environ["SLURM_NODEID"] == "0"
    where = {"host_name": options.address, "port": options.port, "wait_for_workers": False}
    # In one process, servers of one port are one server: this one outlives torchrun's.
    store = TCPStore(is_master=True, multi_tenant=True, **where) if is_host else None
    torchrun(launcher(options, environ))
    with contextlib.suppress(RuntimeError):  # all is done by now
        if store is None:
            TCPStore(is_master=False, timeout=timedelta(seconds=FAREWELL_S), **where).add("left", 1)
            return
        until = time.monotonic() + FAREWELL_S
        while store.add("left", 0) < options.nodes - 1 and time.monotonic() < until:
            time.sleep(0.1)


def lack_of_gpus(wanted: int, environ: Mapping[str, str] = os.environ) -> str:
    """What was allocated must be what can be seen, and Slurm does not always say when it is not; "" if so."""
    seen = environ.get("CUDA_VISIBLE_DEVICES", environ.get("ROCR_VISIBLE_DEVICES"))
    if seen is None or len(list(filter(None, seen.split(",")))) >= wanted:
        return ""
    return f"{wanted} GPUs asked for, {seen!r} visible"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="node")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one; several nodes need to agree")
    parser.add_argument("--data", default="", help="folder to copy to the node's own disk")
    parser.add_argument("--scratch", default="")
    parser.add_argument("program", nargs="+")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    options = parse(argv)
    if lack := lack_of_gpus(options.gpus):
        raise UsageError(f"{os.environ.get('SLURMD_NODENAME', 'this node')}: {lack}")
    if options.data:
        options.program += ["--data-dir", str(stagein.stage_in(Path(options.data), options.scratch))]
    sys.stdout.flush()
    options.port = options.port or rendezvous.port(os.environ.get("SLURM_JOB_ID", ""))
    if options.nodes * options.ranks == 1:
        _become("-m", *options.program)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # Slurm tells the ranks, too: they save and end, and so do we
    if options.nodes == 1:
        _become("-m", "torch.distributed.run", *launcher(options))
    run_together(options)


def _become(*words: str) -> NoReturn:
    os.execv(sys.executable, [sys.executable, *words])


if __name__ == "__main__":
    run_main(main)
