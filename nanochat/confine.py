"""The inside of the sandbox: takes away what this process may do, says what was achieved, runs the program.

What it is: a script that `execution.py` starts as `python -I -S` in a process and a folder of its own; pure
ctypes. In this order: namespaces, resource limits, capabilities, Landlock, seccomp; what the kernel refuses
is left out and not named in the report. What it is not: a module to import, or a judge of what is enough:
it only refuses to run the program where a guard that it was told to insist on is missing.
Its imports are few on purpose: each call pays for them (typing, enum and json cost more than the guards).
Sources: landlock(7), seccomp(2), unshare(2), capset(2). Run: through `execution.run_python`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType

PROGRAM = "program.py"
FILE_BYTES = 8 << 20  # the largest file
OPEN_FILES = 32
TASKS = 64  # processes and threads together

_NAMESPACES = 0x10000000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # user, pid, net, ipc, uts
_SET_PDEATHSIG, _SET_SECCOMP, _SET_NO_NEW_PRIVS, _FILTER = 1, 22, 38, 2
_SIGKILL = 9
_CAPABILITY_VERSION = 0x20080522
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every machine
_READ_FILE, _READ_DIR, _WRITE_FILE, _REMOVE_FILE, _MAKE_FILE, _TRUNCATE = 4, 8, 2, 32, 256, 1 << 14
_PATH_BENEATH = 1


FIELDS = (
    "required",  # guards without which the program must not run, comma separated
    "seconds",
    "memory_bytes",
    "token",  # before the outcome: leaving early cannot look like coming to the end
    "confine",  # "1", or "" for limits only
    "filter",  # hexadecimal BPF; "" where there is none for this machine
    "filter_read_only",  # the one to use where Landlock is missing
    "readable",  # paths, one a line
)


def pack(order: dict[str, str]) -> bytes:
    """What the parent sends on standard input: the values of FIELDS, separated by NUL."""
    return "\0".join(order[name] for name in FIELDS).encode("utf-8", "surrogateescape")


def unpack(data: bytes) -> dict[str, str]:
    return dict(zip(FIELDS, data.decode("utf-8", "surrogateescape").split("\0"), strict=True))


class _Refused(Exception):
    """The kernel said no."""


class _Kernel:
    """System calls that Python's library does not have; `_Refused` where one fails."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def call(self, name: str, *arguments: object) -> int:
        function = getattr(self._libc, name, None)
        if not sys.platform.startswith("linux") or function is None:
            raise _Refused(name)
        plain = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
        result: int = function(*plain)
        if result < 0:
            raise _Refused(name)
        return result


# ----------------------------------------------------------------------------- guards


def enter_namespaces(kernel: _Kernel) -> bool:
    """Go on in a child that sees no other process and has no network; False where that is not permitted.

    Two processes stay behind as waiters: the caller's, and the first one of the new namespace. When that one
    is killed, the kernel kills everything that the program started.
    """
    try:
        kernel.call("unshare", _NAMESPACES)
    except _Refused:
        return False
    if init := os.fork():
        _wait_and_leave(init, stoppable=True)
    kernel.call("prctl", _SET_PDEATHSIG, _SIGKILL)
    if child := os.fork():
        _wait_and_leave(child, stoppable=False)
    return True


def _wait_and_leave(child: int, stoppable: bool) -> None:
    """Wait for `child` (and any orphan) and leave with its exit code, or 128 and the signal's number.

    `stoppable`: SIGTERM kills the child, which is then reaped here and leaves no zombie to anybody.
    """
    if stoppable:
        from _signal import SIGTERM, signal  # what `signal` wraps; the wrapper's enums take 6 ms

        signal(SIGTERM, lambda *_: os.kill(child, _SIGKILL))
    pid, status = os.wait()
    while pid != child:
        pid, status = os.wait()
    os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def limit_resources(seconds: float, memory_bytes: int, has_own_count: bool) -> None:
    """Bound CPU time, address space, files and, where they are counted for this sandbox alone, tasks."""
    cpu = int(seconds) + 2
    limits = {
        "CPU": (cpu, cpu + 1), "AS": memory_bytes, "FSIZE": FILE_BYTES, "NOFILE": OPEN_FILES, "CORE": 0,
        "MEMLOCK": 0, "MSGQUEUE": 0,
    }  # fmt: skip
    if has_own_count:  # elsewhere all of the user's processes on the node are counted
        limits["NPROC"] = TASKS
    for name, limit in limits.items():
        pair = limit if isinstance(limit, tuple) else (limit, limit)
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), pair)
        except (AttributeError, OSError, ValueError):  # another system, or the limit is lower already
            continue


def drop_capabilities(kernel: _Kernel) -> bool:
    """Root keeps its name and loses its power."""
    try:
        kernel.call("capset", struct.pack("<Ii", _CAPABILITY_VERSION, 0), bytes(24))
    except _Refused:
        return False
    return True


def landlock(kernel: _Kernel, folder: str, readable: list[str]) -> int:
    """Allow reading below `readable`, and files (nothing else, not even folders) in `folder`.

    Gives the version of the kernel's Landlock; `_Refused` where it is absent or switched off.
    """
    version = kernel.call("syscall", _CREATE_RULESET, None, 0, 1)
    rights = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack("<QQQ", rights, 3, 3)[:size]  # no TCP; no signals and sockets to the outside
    ruleset = kernel.call("syscall", _CREATE_RULESET, attributes, size, 0)
    own = _READ_FILE | _READ_DIR | _WRITE_FILE | _REMOVE_FILE | _MAKE_FILE | _TRUNCATE
    for path, allowed in [(folder, own), ("/dev/null", _READ_FILE | _WRITE_FILE)] + [
        (path, _READ_FILE | _READ_DIR) for path in readable
    ]:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # not every system has every folder
            continue
        if not os.path.isdir(path):
            allowed &= ~_READ_DIR
        kernel.call("syscall", _ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("<Qi", allowed & rights, fd), 0)
        os.close(fd)
    kernel.call("syscall", _RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return version


def filter_calls(kernel: _Kernel, code: bytes) -> None:
    """Install a seccomp filter for this process and every thread that it will start."""
    if not code:
        raise _Refused("no filter for this machine")
    instructions = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, six bytes of padding, their address
    filter_ = struct.pack("<H6xQ", len(code) // 8, ctypes.addressof(instructions))
    kernel.call("prctl", _SET_SECCOMP, _FILTER, filter_)


def confine(order: dict[str, str], kernel: _Kernel, folder: str) -> list[str]:
    """Put every guard up that this kernel has; their names. From here on there is no way back."""
    guards = ["limits"]
    confined = bool(order["confine"]) and sys.platform.startswith("linux")
    if confined:
        kernel.call("prctl", _SET_PDEATHSIG, _SIGKILL)  # the parent's end is ours
        if enter_namespaces(kernel):
            guards.append("namespaces")
    counted_apart = "namespaces" in guards and _kernel_release() >= (5, 14)
    limit_resources(float(order["seconds"]), int(order["memory_bytes"]), counted_apart)
    if confined:
        kernel.call("prctl", _SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        drop_capabilities(kernel)
        try:
            version = landlock(kernel, folder, order["readable"].splitlines())
            guards.append(f"landlock {version}")
            code = order["filter"]
        except _Refused:
            code = order["filter_read_only"]
        try:
            filter_calls(kernel, bytes.fromhex(code))
            guards.append("seccomp")
        except _Refused:
            pass
    return guards


def _kernel_release() -> tuple[int, ...]:
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in os.uname().release.split(".")[:2])


# ----------------------------------------------------------------------------- the program


def run(path: str) -> tuple[str, BaseException | None]:
    """Run the program as `__main__`; its outcome (ok, exit, memory, error) and what it raised."""
    main = ModuleType("__main__")
    main.__file__ = path
    sys.modules["__main__"], sys.argv = main, [path]
    try:
        SourceFileLoader("__main__", path).exec_module(main)
    except SystemExit as error:
        return "exit", error
    except MemoryError as error:
        return "memory", error
    except BaseException as error:
        return "error", error
    return "ok", None


def leave(error: BaseException | None, path: str) -> None:
    """End as an interpreter does: an exception is shown, from the program's own first line on."""
    if isinstance(error, SystemExit):
        sys.exit(error.code)
    if error is not None:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != path:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        sys.exit(1)


def main() -> None:
    report, write, path = int(sys.argv[1]), os.write, os.path.abspath(PROGRAM)
    order = unpack(sys.stdin.buffer.read())
    guards = confine(order, _Kernel(), os.getcwd())
    missing = [name for name in order["required"].split(",") if not any(g.startswith(name) for g in guards)]
    if missing:
        write(report, f"missing {', '.join(missing)}\n".encode())
        return
    write(report, f"ready {','.join(guards)}\n".encode())
    outcome, error = run(path)
    write(report, f"{order['token']} {outcome}\n".encode())
    leave(error, path)


if __name__ == "__main__":
    main()
