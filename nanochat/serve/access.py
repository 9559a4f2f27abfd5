"""Who may talk to the server: its socket, its token, the names it answers to.

What it is: everything about access that is decided before the first request. What it is not: the check of a
request (`guard.py`). A token is read from a file, never from the command line, which all users of a node can
see, and never printed. Run: `pytest tests/serve`.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import secrets
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

from nanochat.common import UsageError

LEAST_TOKEN = 16  # characters
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. UsageError, with the remedy, where that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host}: no such address ({error}); try 127.0.0.1") from error
    # asyncio sets TCP_NODELAY only where the protocol is named; without it an answer's body waits 40 ms.
    server = socket.socket(family, kind, protocol)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(address)
        server.listen(2048)  # here, not later: two servers could bind a port, only one can listen
    except OSError as error:
        server.close()
        raise UsageError(_why_not(host, port, error)) from error
    return server


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port {port} is taken; choose another, or --port 0 for a free one"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"--port {port} is not permitted; use one of 1024 or more, or --port 0 for a free one"
    return f"--host {host}: {os.strerror(error.errno or 0)}; use an address of this machine, or 127.0.0.1"


def is_loopback(server: socket.socket) -> bool:
    return ipaddress.ip_address(server.getsockname()[0].partition("%")[0]).is_loopback


def needs_token(server: socket.socket, environ: Mapping[str, str]) -> bool:
    """On a cluster's node other users reach loopback, too."""
    return "SLURM_JOB_ID" in environ or not is_loopback(server)


# ----------------------------------------------------------------------------- the token


def read_token(path: Path) -> str:
    """The token in a file that only its owner can read; a new one is made where there is none."""
    try:
        if not os.path.lexists(path):
            _make_token(path)
    except OSError as error:
        raise UsageError(
            f"the token file {path} cannot be made: {error.strerror}; set --token-file"
        ) from error
    try:
        with open(path, encoding="ascii") as file:
            mode = os.fstat(file.fileno())
            token = file.read(4096).strip()
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"the token file {path} cannot be read ({error}); remove it or set another"
        ) from error
    if not stat.S_ISREG(mode.st_mode) or mode.st_uid != os.geteuid() or stat.S_IMODE(mode.st_mode) & 0o077:
        raise UsageError(f"the token file {path} must be yours and for you alone: chmod 600 {path}")
    if len(token) < LEAST_TOKEN or not token.isprintable() or " " in token:
        raise UsageError(
            f"the token file {path} must hold one line of {LEAST_TOKEN} or more characters without blanks; "
            "remove it, and a good one is made"
        )
    return token


def _make_token(path: Path) -> None:
    """Servers that start at once agree on a token: it appears whole, and the first one stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(fd, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(fd)
        with contextlib.suppress(FileExistsError):
            os.link(temp, path)
    finally:
        temp.unlink()


# ----------------------------------------------------------------------------- names


def names_of(server: socket.socket, host: str, further: tuple[str, ...]) -> frozenset[str]:
    """What may stand in a Host header, without the port: another name is not ours (DNS rebinding)."""
    names = {*_LOCAL_NAMES, host, *further}
    address = ipaddress.ip_address(server.getsockname()[0].partition("%")[0])
    if not address.is_loopback:
        names |= {str(address), socket.gethostname(), socket.getfqdn()}
        if address.is_unspecified:
            names |= _addresses()
    return frozenset(name.lower().rstrip(".") for name in names)


def _addresses() -> set[str]:
    import psutil

    kinds = (socket.AF_INET, socket.AF_INET6)
    found = (one for many in psutil.net_if_addrs().values() for one in many if one.family in kinds)
    return {one.address.partition("%")[0] for one in found}


def url(server: socket.socket) -> str:
    """Where a browser on this machine finds the server."""
    address, port = server.getsockname()[:2]
    if ipaddress.ip_address(address.partition("%")[0]).is_unspecified:
        address = socket.gethostname()
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def ssh_line(server: socket.socket, environ: Mapping[str, str]) -> str:
    """What to type on one's own machine to reach a server on a compute node."""
    port, node = server.getsockname()[1], socket.gethostname()
    user = environ.get("USER") or environ.get("SLURM_JOB_USER") or "USER"
    login = f"{user}@{environ.get('SLURM_SUBMIT_HOST') or 'LOGIN-NODE'}"
    if is_loopback(server):
        return f"ssh -N -L {port}:127.0.0.1:{port} -J {login} {user}@{node}"
    return f"ssh -N -L {port}:{node}:{port} {login}"
