"""No network, said at once: for compute nodes, where a download would hang until its time limit.

What it is: `variables(root)`, which tells the usual libraries in child processes to stay offline and where
fetched files are; and `guard()`, inside which a connection of this process to another machine raises
`NoNetwork`, with the asset that was missed and how to get it. The rendezvous of a run is let through. What it
is not: a firewall: code that opens sockets without Python (NCCL, gloo, Rust) is not seen. Nothing happens on
import. Run a program under both: `python -m nanochat.offline scripts.tok_eval --run d20`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import runpy
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from nanochat.assets import CORPORA, GROUPS, Asset
from nanochat.common import UsageError, base_dir, run_main

URL = re.compile(r"https?://[^\s'\"<>)]+")
CONNECTS = ("connect", "connect_ex")
FETCH = "python -m scripts.download_data"


class NoNetwork(UsageError):
    """Something here wants the network. No OSError: those are caught and tried again, for minutes."""


def variables(root: Path) -> dict[str, str]:
    """Environment variables for processes without a network, which find below `root` what was fetched."""
    return {
        "NANOCHAT_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(root / "wandb"),
        "TIKTOKEN_CACHE_DIR": str(root / "tiktoken"),
    }


@contextlib.contextmanager
def guard(allow: Iterable[str] = ()) -> Iterator[None]:
    """Inside, no TCP connection to another machine, except to hosts in `allow` and the run's rendezvous."""
    door = _Door({*allow, os.environ.get("MASTER_ADDR", "")} - {""})
    lookup, before = socket.getaddrinfo, {name: vars(socket.socket).get(name) for name in CONNECTS}
    for name in CONNECTS:
        setattr(socket.socket, name, _guarded(getattr(socket.socket, name), door))
    socket.getaddrinfo = door.lookup(lookup)
    try:
        yield
    except NoNetwork:
        raise
    except Exception as error:
        _explain_offline_mode(error)
        raise
    finally:
        socket.getaddrinfo = lookup
        for name, own in before.items():
            delattr(socket.socket, name)  # what is inherited from _socket shows again
            if own is not None:  # a guard around this one
                setattr(socket.socket, name, own)


class _Door:
    """Who may be reached."""

    def __init__(self, names: set[str]) -> None:
        self.names = names | {"localhost", socket.gethostname()}
        self.addresses = set(names)

    def lets(self, host: str) -> bool:
        if host in self.names or host in self.addresses:
            return True
        try:
            return ipaddress.ip_address(host.split("%")[0]).is_loopback
        except ValueError:
            return False

    def lookup(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """getaddrinfo that knows only names which may be reached; without a network others take seconds."""

        def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
            name = host.decode() if isinstance(host, bytes) else host
            if name is None or _is_address(name):
                return original(host, *args, **kwargs)
            if name not in self.names:
                raise _refusal(name, args[0] if args else None)
            found = original(host, *args, **kwargs)
            self.addresses |= {row[4][0] for row in found}
            return found

        return getaddrinfo


def _guarded(original: Callable[..., Any], door: _Door) -> Callable[..., Any]:
    def connect(self: socket.socket, address: Any) -> Any:
        is_inet = self.family in (socket.AF_INET, socket.AF_INET6)
        if is_inet and self.type == socket.SOCK_STREAM and not door.lets(str(address[0])):
            raise _refusal(str(address[0]), address[1])
        return original(self, address)

    return connect


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.split("%")[0])
    except ValueError:
        return False
    return True


# ----------------------------------------------------------------------------- which asset was missed


def _refusal(host: str, port: object) -> NoNetwork:
    url = _asked_for(host, sys._getframe(2))
    return _no_network(url or f"{host}:{port}")


def _no_network(what: str) -> NoNetwork:
    missed = which(what)
    if missed:
        return NoNetwork(
            f"no network in this job, and {what} was asked for: asset {missed!r} is missing; "
            f"`{FETCH}` on a node with network brings it"
        )
    return NoNetwork(
        f"no network in this job, and {what} was asked for, which is none of the run's assets; fetch it "
        "beforehand, and name the file"
    )


def _asked_for(host: str, frame: FrameType | None) -> str | None:
    """The URL that the callers had in hand: the outermost one with that host says what was meant."""
    found = None
    while frame is not None:
        for value in list(frame.f_locals.values()):
            text = value if isinstance(value, str) else str(getattr(value, "url", ""))
            if text.startswith(("http://", "https://")) and urlsplit(text).hostname == host:
                found = text
        frame = frame.f_back
    return found


def which(what: str) -> str | None:
    """The asset, or the group of them, that a URL or a text about one belongs to."""
    for corpus in CORPORA.values():
        if _repo(corpus.source) in what:
            return "shards"
    for name, assets in GROUPS.items():
        for asset in assets:
            if _is_of(asset, what):
                return asset.name if asset.source.startswith("http") else name
    return None


def _is_of(asset: Asset, what: str) -> bool:
    if asset.source.startswith("http"):
        return f"{asset.source}/{asset.path}" in what
    return _repo(asset.source) in what


def _repo(source: str) -> str:
    return source.split("/", 1)[1]


def _explain_offline_mode(error: BaseException) -> None:
    """A library that kept offline by itself: say which asset it missed, if it is one of ours."""
    cause: BaseException | None = error
    while cause is not None:
        name, text = type(cause).__name__.lower(), str(cause)
        if "offline" in name or "offline" in text.lower():
            urls = URL.findall(text)
            if which(text):
                raise _no_network(urls[0] if urls else text.splitlines()[0]) from error
        cause = cause.__cause__ or cause.__context__


# ----------------------------------------------------------------------------- a program without a network


def main(argv: list[str]) -> None:
    if not argv or argv[0].startswith("-"):
        raise UsageError("which program? python -m nanochat.offline scripts.NAME [--OPTION VALUE ...]")
    os.environ.update(variables(base_dir()))
    sys.argv[1:] = argv[1:]
    with guard():
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run_main(main)
