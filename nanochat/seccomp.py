"""Which system calls a sandboxed Python program may make: a list, and the kernel's filter made from it.

What it is: a pure function from a machine's name to the bytes of a classic BPF program (seccomp(2)). Every
call that is not listed fails in the program with EPERM: starting a process, sockets, signals to others,
changing a file's owner, mode or times, io_uring, and whatever comes with later kernels. Threads are
allowed. What it is not: the place that installs it (`confine.py`), or a protection of files (Landlock).
Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux.
Look: `python -c "from nanochat.seccomp import program; print(len(program('x86_64')) // 8, 'instructions')"`.
"""

from __future__ import annotations

import errno
import struct
from typing import Final

# Name -> number on x86-64 and on aarch64, None where the machine has no such call.
READ: Final[dict[str, tuple[int, int | None]]] = {
    # files, by descriptor and by path
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "close_range": (436, 436), "fstat": (5, 80),
    "lseek": (8, 62), "pread64": (17, 67), "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66),
    "preadv": (295, 69), "pwritev": (296, 70), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24),
    "fcntl": (72, 25), "ioctl": (16, 29), "fadvise64": (221, 223), "pipe": (22, None), "pipe2": (293, 59),
    "open": (2, None), "openat": (257, 56), "stat": (4, None), "lstat": (6, None), "newfstatat": (262, 79),
    "statx": (332, 291), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "getdents64": (217, 61), "readlink": (89, None), "readlinkat": (267, 78), "getcwd": (79, 17),
    "chdir": (80, 49), "fchdir": (81, 50), "umask": (95, 166),
    # memory
    "brk": (12, 214), "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226),
    "madvise": (28, 233), "membarrier": (324, 283),
    # time and waiting
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101), "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153),
    "getitimer": (36, 102), "setitimer": (38, 103), "alarm": (37, None), "poll": (7, None),
    "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "epoll_create": (213, None),
    "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    # the program's own signals and threads
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133),
    "sigaltstack": (131, 132), "pause": (34, None), "restart_syscall": (219, 128), "clone": (56, 220),
    "futex": (202, 98), "set_robust_list": (273, 99), "get_robust_list": (274, 100), "rseq": (334, 293),
    "set_tid_address": (218, 96), "gettid": (186, 178), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "exit": (60, 93), "exit_group": (231, 94), "arch_prctl": (158, None),
    "prctl": (157, 167),
    # what it may know
    "getpid": (39, 172), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getresuid": (118, 148), "getresgid": (120, 150),
    "getgroups": (115, 158), "getpgid": (121, 155), "getpgrp": (111, None), "getsid": (124, 156),
    "uname": (63, 160), "sysinfo": (99, 179), "getrandom": (318, 278), "getrusage": (98, 165),
    "getrlimit": (97, 163), "prlimit64": (302, 261), "getcpu": (309, 168), "getpriority": (140, 141),
    # a pair of connected sockets, which asyncio wakes itself with
    "socketpair": (53, 199), "sendto": (44, 206), "recvfrom": (45, 207), "getsockname": (51, 204),
    "getsockopt": (55, 209), "getpeername": (52, 205), "shutdown": (48, 210),
}  # fmt: skip
WRITE: Final[dict[str, tuple[int, int | None]]] = {
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "unlink": (87, None),
    "unlinkat": (263, 35), "ftruncate": (77, 46), "fsync": (74, 82), "fdatasync": (75, 83),
}  # fmt: skip
CLONE3: Final = 435  # its flags are behind a pointer, out of a filter's sight: ENOSYS, so that clone is used
NEWEST: Final = 450  # above it a call fails as on an older kernel (ENOSYS), and libraries have a fallback

# Conditions on arguments, all of which must hold: index, mask, allowed values of the low word under the mask.
# The values are those of both machines.
_NEW_THREAD = 0x10900  # CLONE_THREAD | CLONE_SIGHAND | CLONE_VM
_NEW_NAMESPACE = 0x7E020000
_O_CREAT, _O_TRUNC = 0o100, 0o1000
CONDITIONS: Final[dict[str, tuple[tuple[int, int, tuple[int, ...]], ...]]] = {
    "clone": ((0, _NEW_THREAD | _NEW_NAMESPACE, (_NEW_THREAD,)),),
    "fcntl": ((1, 0xFFFFFFFF, (0, 1, 2, 3, 4, 5, 6, 7, 1030)),),  # no F_SETOWN: it sends signals to others
    "ioctl": ((1, 0xFFFFFFFF, (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)),),  # TCGETS, FIO...
    "prctl": ((0, 0xFFFFFFFF, (15, 16)),),  # the thread's name
    "prlimit64": ((0, 0xFFFFFFFF, (0,)),),  # its own limits, not its parent's
    "socketpair": (
        (0, 0xFFFFFFFF, (1,)),
        (1, 0xFF, (1,)),
    ),  # AF_UNIX, SOCK_STREAM: a datagram could be addressed
}
# Reading that truncates is refused: Landlock knows of truncation only since its third version.
_OPEN_WRITE = (_O_TRUNC | 3, (0, 1, 2, _O_TRUNC | 1, _O_TRUNC | 2))
_OPEN_READ = (_O_CREAT | _O_TRUNC | 3, (0,))

ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
_LOAD, _AND, _RETURN, _EQUAL, _GREATER = 0x20, 0x54, 0x06, 0x15, 0x25
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # in seccomp_data, little-endian


def fails(error: int) -> int:
    """The filter's answer that makes a call fail with `error`."""
    return 0x00050000 | error


def program(machine: str, writes: bool = True) -> bytes | None:
    """The filter for `platform.machine()` as an array of struct sock_filter; None: no table for the machine.

    Without `writes` no file can be opened for writing, created, renamed or removed, wherever it is.
    """
    if machine not in ARCHITECTURES:
        return None
    column = list(ARCHITECTURES).index(machine)
    code = [_op(_LOAD, _ARCHITECTURE), _op(_EQUAL, ARCHITECTURES[machine], 1, 0), _op(_RETURN, KILL)]
    code += [_op(_LOAD, _NUMBER), _op(_GREATER, NEWEST, 0, 1), _op(_RETURN, fails(errno.ENOSYS))]
    code += _answer(CLONE3, [_op(_RETURN, fails(errno.ENOSYS))])
    for name, numbers in (READ | WRITE if writes else READ).items():
        if (number := numbers[column]) is not None:
            code += _answer(number, _conditions(name, writes))
    return b"".join([*code, _op(_RETURN, fails(errno.EPERM))])


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _answer(number: int, block: list[bytes]) -> list[bytes]:
    """`block`, which ends with an answer, for the call `number`; other calls go on behind it."""
    return [_op(_EQUAL, number, 0, len(block)), *block]


def _conditions(name: str, writes: bool) -> list[bytes]:
    conditions = CONDITIONS.get(name, ())
    if name in ("open", "openat"):
        conditions = ((1 if name == "open" else 2, *(_OPEN_WRITE if writes else _OPEN_READ)),)
    block: list[bytes] = []
    for index, mask, values in conditions:
        block += [_op(_LOAD, _ARGUMENTS + 8 * index), _op(_AND, mask)]
        # One of the values jumps over the refusal behind the last of them.
        block += [_op(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values)]
        block.append(_op(_RETURN, fails(errno.EPERM)))
    return [*block, _op(_RETURN, ALLOW)]
