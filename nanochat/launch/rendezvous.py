"""Where the ranks of a job meet: an address of its first node that the others reach, and a port that is free
there.

Node names need not resolve: name (with the site's suffix), Slurm's own address of the node, and what this
host says of itself are tried in turn, and a loopback address is only taken when there is nothing else. Called
in the body of the job, which runs on its first node. What it is not: the ranks (`node.py`). Run: `pytest
tests/test_launch_node.py`.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from nanochat import slurm

FIRST_PORT, PORTS = 20_000, 20_000


def address(node: str, suffix: str = "") -> str:
    """An IP address of `node`, this host."""
    found = list(_candidates(node, suffix))
    return next((a for a in found if not a.startswith("127.")), found[0] if found else "127.0.0.1")


def _candidates(node: str, suffix: str) -> Iterator[str]:
    names = [f"{node.split('.')[0]}{suffix}"] if suffix else []
    names.append(node)
    with contextlib.suppress(slurm.SlurmError):
        names.append(slurm.node_address(node))
    for name in [*names, socket.gethostname()]:
        with contextlib.suppress(OSError):
            yield from dict.fromkeys(
                str(info[4][0]) for info in socket.getaddrinfo(name, None, socket.AF_INET)
            )


def port(job: str) -> int:
    """A free port of this host; jobs with other numbers begin to look elsewhere."""
    number = int("".join(filter(str.isdigit, job)) or 0)
    for offset in range(PORTS):
        candidate = FIRST_PORT + (number * 7 + offset) % PORTS
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("", candidate))
            return candidate
    raise OSError(f"no free port from {FIRST_PORT} to {FIRST_PORT + PORTS}")
