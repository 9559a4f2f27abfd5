"""Runs a Python program that a model wrote: `run_python("print(6 * 7)").stdout == "42\\n"`.

What it is: a fresh interpreter a call, in a session and an empty folder of its own, with an empty
environment, limits on time, memory, output and files, and then shut in by Landlock, seccomp and, where they
are permitted, namespaces (`confine.py`); no root, no daemon, no container. What it is not: a virtual
machine. What it guarantees, and what not, is docs/explanation/sandbox.md. It judges nothing, either:
"ok" says that the program came to its end.
Try it: `python -c "from nanochat.execution import run_python; print(run_python('print(6 * 7)'))"`
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import secrets
import selectors
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, get_args

from nanochat import confine, seccomp
from nanochat.common import UsageError

Level = Literal["strict", "best-effort", "off"]
Status = Literal["ok", "error", "exit", "timeout", "memory", "output", "signal"]

LEVELS: Final[tuple[Level, ...]] = get_args(Level)
STRICT: Final = ("landlock", "seccomp")
OUTPUT_BYTES: Final = 128 << 10  # of stdout and of stderr each
FOLDER_BYTES: Final = 64 << 20
FOLDER_FILES: Final = 1000
START_SECONDS: Final = 60.0  # for the interpreter and the guards, on a loaded machine; not the program's time
KILL_SECONDS: Final = 2.0  # before everything is killed at once
MEMORY_MIB: Final = 64  # less, and the interpreter itself does not fit
_TICK: Final = 0.05
_STEP: Final = 0.5  # a longer step between two looks was no running time: a suspended job, a laptop asleep
_CHUNK: Final = 1 << 16


class SandboxError(RuntimeError):
    """The sandbox itself failed, before the program's first line: nothing is known of the program."""


class SandboxUnavailable(UsageError):
    """`strict` was asked for, and this machine lacks a guard."""


@dataclass(frozen=True)
class Execution:
    """What became of a program.

    `ok`: it ran to its end; the same as `status == "ok"`. `error`: an exception; `exit`: it left before its
    end (sys.exit(0), too); `memory`: MemoryError; `output`: it wrote too much; `signal`: it crashed.
    """

    ok: bool
    status: Status
    stdout: str  # at most OUTPUT_BYTES
    stderr: str
    level: Level  # achieved, not asked for
    guards: tuple[str, ...]  # what stands behind it, such as "landlock 7"
    seconds: float  # of the program alone


def run_python(
    program: str, *, seconds: float = 5.0, memory_mib: int = 512, level: Level = "strict"
) -> Execution:
    """Run `program` and wait for it: at most `seconds` of wall clock, `memory_mib` of address space.

    `strict` raises SandboxUnavailable where Landlock or seccomp is missing; `best-effort` takes what there
    is and says so in the result; `off` only sets the limits. Safe to call from several threads.
    """
    if level not in LEVELS:
        raise UsageError(f"sandbox level {level!r}: choose one of {', '.join(LEVELS)}")
    if not 0 < seconds <= 3600 or memory_mib < MEMORY_MIB:
        raise UsageError(
            f"seconds {seconds} must be in (0, 3600], memory_mib {memory_mib} at least {MEMORY_MIB}"
        )
    with tempfile.TemporaryDirectory(prefix="nanochat-sandbox-", ignore_cleanup_errors=True) as folder:
        Path(folder, confine.PROGRAM).write_bytes(program.encode("utf-8", "surrogatepass"))
        with _Run(folder, seconds, memory_mib, level) as run:
            return run.finish()


# ----------------------------------------------------------------------------- the child


@functools.cache
def _filters() -> tuple[str, str]:
    """The two seccomp filters for this machine in hexadecimal; empty where there is no table for it."""
    machine = platform.machine() if sys.maxsize > 2**32 else ""
    usual, read_only = seccomp.program(machine), seccomp.program(machine, writes=False)
    return (usual or b"").hex(), (read_only or b"").hex()


def _readable() -> list[str]:
    """What an interpreter needs after its start: the standard library, shared libraries, time zones."""
    library = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), f"{sys.base_prefix}/lib"]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    return sorted({*library, *system, "/dev/urandom", "/dev/zero"})


def _environment(folder: str) -> dict[str, str]:
    """Nothing of ours but where shared libraries are: some interpreters need that to start."""
    scrubbed = {"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}
    if libraries := os.environ.get("LD_LIBRARY_PATH"):
        scrubbed["LD_LIBRARY_PATH"] = libraries
    return scrubbed


class _Run:
    """One child: its pipes, its clock, its end."""

    def __init__(self, folder: str, seconds: float, memory_mib: int, level: Level) -> None:
        self.folder, self.seconds, self.asked = folder, seconds, level
        self.token = secrets.token_hex(16)
        self.report, report_end = os.pipe()
        command = [sys.executable, "-I", "-S", "-B", "-X", "utf8", confine.__file__, str(report_end)]
        try:
            self.process = subprocess.Popen(
                command, cwd=folder, env=_environment(folder), pass_fds=[report_end], start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        except OSError as error:
            os.close(self.report)
            raise SandboxError(f"the sandbox's interpreter does not start: {error}") from error
        finally:
            os.close(report_end)
        self._send(memory_mib)
        assert self.process.stdout is not None and self.process.stderr is not None
        self.pipes = {
            "out": self.process.stdout.fileno(), "err": self.process.stderr.fileno(), "report": self.report
        }  # fmt: skip
        self.read = {name: bytearray() for name in self.pipes}
        self.is_ready = False
        self.spent = 0.0  # seconds since the start, then since the program's first line
        self.code = 0

    def _send(self, memory_mib: int) -> None:
        usual, read_only = _filters()
        order = {
            "required": ",".join(STRICT) if self.asked == "strict" else "",
            "seconds": str(self.seconds),
            "memory_bytes": str(memory_mib << 20),
            "token": self.token,
            "confine": "" if self.asked == "off" else "1",
            "filter": usual,
            "filter_read_only": read_only,
            "readable": "\n".join(_readable()),
        }
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self.process.stdin as pipe:  # it has died: see its report
            pipe.write(confine.pack(order))

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """Kill the whole group, whatever happened; only then may its folder go."""
        if b"namespaces" in self.read["report"].partition(b"\n")[0] and self._exit_code() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(KILL_SECONDS)  # the waiter reaps what it kills
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        os.close(self.report)

    def finish(self) -> Execution:
        """Read until the child is gone, or has had its time or its output; then say what became of it."""
        with selectors.DefaultSelector() as selector:
            for name, fd in self.pipes.items():
                os.set_blocking(fd, False)
                selector.register(fd, selectors.EVENT_READ, name)
            stopped = self._watch(selector)
        report = self.read["report"].decode("utf-8", "replace").splitlines()
        self._require_ready(report)
        guards = tuple(report[0].removeprefix("ready ").split(","))
        status = stopped or self._outcome(report[1:])
        return Execution(
            ok=status == "ok", status=status, stdout=self._text("out"), stderr=self._text("err"),
            level=self._achieved(guards), guards=guards, seconds=self.spent,
        )  # fmt: skip

    def _watch(self, selector: selectors.BaseSelector) -> Status | None:
        last = time.monotonic()
        while True:
            now = time.monotonic()
            self.spent += min(now - last, _STEP)  # while we were suspended, so was the program
            last = now
            code = self._exit_code()  # asked before reading, so that nothing is left in a pipe
            left = (self.seconds if self.is_ready else START_SECONDS) - self.spent
            if code is None and left <= 0:
                return "timeout"
            wait = min(_TICK if selector.get_map() else 0.001, left)
            for key, _ in selector.select(wait if code is None else 0):
                if not self._take(key.data):
                    selector.unregister(key.fd)
            if not self.is_ready and b"\n" in self.read["report"]:
                self.is_ready, self.spent, last = True, 0.0, time.monotonic()
            if any(len(data) > OUTPUT_BYTES for data in self.read.values()) or self._fills_the_disk():
                return "output"
            if code is not None:
                self.code = code
                return None

    def _take(self, name: str) -> bool:
        """Read what a pipe holds, up to just beyond the limit; False at its end."""
        data = self.read[name]
        with contextlib.suppress(BlockingIOError):
            while len(data) <= OUTPUT_BYTES:
                chunk = os.read(self.pipes[name], min(_CHUNK, OUTPUT_BYTES + 1 - len(data)))
                if not chunk:
                    return False
                data += chunk
        return True

    def _exit_code(self) -> int | None:
        """The child's exit code, negative for a signal, or None while it runs.

        It stays a zombie until its group is killed: so long, the group's number belongs to nobody else.
        """
        if not hasattr(os, "waitid"):  # macOS
            return self.process.poll()
        ended = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def _fills_the_disk(self) -> bool:
        used = files = 0
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                files += 1
                with contextlib.suppress(OSError):
                    used += entry.stat(follow_symlinks=False).st_blocks * 512
                if used > FOLDER_BYTES or files > FOLDER_FILES:
                    return True
        return False

    def _require_ready(self, report: list[str]) -> None:
        if report and report[0].startswith("ready "):
            return
        if report and report[0].startswith("missing "):
            raise SandboxUnavailable(
                f"no strict sandbox here: this kernel ({platform.machine()}, {platform.release()}), or the "
                f"container around it, gives no {report[0].removeprefix('missing ')}; use Linux from 5.13 "
                "with Landlock switched on, or choose best-effort and read docs/explanation/sandbox.md"
            )
        raise SandboxError(f"the sandbox did not start: {self._text('err')[-1000:].strip() or 'no report'}")

    def _outcome(self, said: list[str]) -> Status:
        """What the child said last, if its exit code agrees; else what its exit code says."""
        code = self.code
        token, _, outcome = (said[-1] if said else "").partition(" ")
        for status in get_args(Status):
            if token == self.token and outcome == status and (code == 0 or status != "ok"):
                return status
        if code == -signal.SIGXCPU or code == 128 + signal.SIGXCPU:
            return "timeout"
        return "signal" if code < 0 or code > 128 else "exit"

    def _achieved(self, guards: tuple[str, ...]) -> Level:
        if self.asked == "off":
            return "off"
        everything = all(any(guard.startswith(name) for guard in guards) for name in STRICT)
        return "strict" if everything else "best-effort"

    def _text(self, name: str) -> str:
        return self.read[name][:OUTPUT_BYTES].decode("utf-8", "replace")
