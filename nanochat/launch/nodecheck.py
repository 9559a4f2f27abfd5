"""A look at the nodes of a job before it trains on them; a bad one is named, and used no more.

What it is: a step of a minute at most, one process a node: are the GPUs there and empty, can shared and local
disk be written, does the clock agree, and does an all-reduce over all nodes come back, over which interface
and how fast. Each node leaves a JSON file; the body of the job reads them (`verdict`). What it is not: a
benchmark. Slurm runs it: `python -m nanochat.launch.nodecheck --out FOLDER`; the site key NODE_CHECK=0 leaves
it out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nanochat.common import EXIT_DONE, EXIT_FAULT, read_json, run_main, write_json
from nanochat.launch import node

LIMIT_S = 120.0  # a node that has said nothing by then is bad
MEETING_S = 60
MAX_SKEW_S = 30.0
MIN_FREE = 0.9  # of a GPU's memory: somebody else's process must not be on it
ELEMENTS, ROUNDS = 2**24, 5  # float32: 64 MiB


# ----------------------------------------------------------------------------- in the body


def verdict(folder: Path, nodes: Sequence[str]) -> dict[str, str]:
    """Bad nodes -> what is wrong with them. One that could not reach the others is not blamed for that alone.

    One that gave no answer is, unless none did: then it is the check that could not run.
    """
    found = {node: _result(folder / f"{node}.json") for node in nodes}
    bad = {node: "; ".join(facts["problems"]) for node, facts in found.items() if facts and facts["problems"]}
    silent = {node: "it gave no answer" for node, facts in found.items() if facts is None}
    return bad | silent if len(silent) < len(nodes) else bad


def _result(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        return dict(read_json(path))
    return None


# ----------------------------------------------------------------------------- on a node


def look(options: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """What is wrong with this node, apart from its network."""
    if lack := node.lack_of_gpus(options.gpus, environ):
        yield lack
    if options.device == "cuda":
        yield from _gpus(options.gpus)
    for place in (options.out, os.path.expandvars(options.scratch)):
        if place:
            yield from _writable(place)
    if abs(time.time() - options.now) > MAX_SKEW_S + LIMIT_S:
        yield f"its clock is {time.time() - options.now:+.0f} s off"


def _gpus(wanted: int) -> Iterator[str]:
    import torch

    count = torch.cuda.device_count()
    if count < wanted:
        yield f"torch sees {count} of {wanted} GPUs"
    for index in range(count):
        free, total = torch.cuda.mem_get_info(index)
        if free < MIN_FREE * total:
            yield f"GPU {index} has {free >> 20} of {total >> 20} MiB free: another process is on it"


def _writable(place: str) -> Iterator[str]:
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield f"{place} cannot be written: {error.strerror}"


def all_reduce(options: argparse.Namespace) -> dict[str, Any]:
    """Sum 64 MiB over the nodes; seconds, GB a second, interface."""
    import datetime

    import torch
    import torch.distributed as dist

    cuda = options.device == "cuda"
    dist.init_process_group(
        "nccl" if cuda else "gloo", init_method=f"tcp://{options.address}:{options.port}",
        rank=int(os.environ["SLURM_NODEID"]), world_size=options.nodes,
        timeout=datetime.timedelta(seconds=MEETING_S),
    )  # fmt: skip
    data = torch.ones(ELEMENTS, device="cuda" if cuda else "cpu")
    dist.all_reduce(data)
    started = time.perf_counter()
    for _ in range(ROUNDS):
        dist.all_reduce(data)
    total = data[0].item()  # waits for the GPU
    seconds = (time.perf_counter() - started) / ROUNDS
    dist.destroy_process_group()
    assert total == float(options.nodes ** (ROUNDS + 1)), total
    name = os.environ.get("NCCL_SOCKET_IFNAME" if cuda else "GLOO_SOCKET_IFNAME", "the default interface")
    return {"all_reduce_s": seconds, "gb_per_s": data.nbytes / seconds / 1e9, "interface": name}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="nodecheck")
    parser.add_argument("--out", required=True)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scratch", default="")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=29_500)
    parser.add_argument("--now", type=float, default=time.time())
    options = parser.parse_args(argv)
    name = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    facts: dict[str, Any] = {"node": name, "host": socket.gethostname(), "problems": list(look(options))}
    answer = Path(options.out) / f"{name}.json"
    if options.nodes > 1:
        write_json(answer, facts)  # before what may hang
        try:
            facts |= all_reduce(options)
        except Exception as error:
            facts["network"] = f"{type(error).__name__}: {error}"
    write_json(answer, facts)
    words = "; ".join(facts["problems"]) or facts.get("network") or "ok"
    speed = f", {facts['gb_per_s']:.2f} GB/s over {facts['interface']}" if "gb_per_s" in facts else ""
    print(f"node {name}: {words}{speed}", flush=True)
    return EXIT_FAULT if facts["problems"] or "network" in facts else EXIT_DONE


if __name__ == "__main__":
    run_main(main)
