"""The sandbox's system-call filter, run by a slow and obvious interpreter of BPF, for both machines."""

from __future__ import annotations

import errno
import platform
import re
import struct
from pathlib import Path

import pytest

from nanochat import seccomp
from nanochat.seccomp import ALLOW, ARCHITECTURES, CLONE3, CONDITIONS, KILL, NEWEST, READ, WRITE

DENIED, UNKNOWN = seccomp.fails(errno.EPERM), seccomp.fails(errno.ENOSYS)
MACHINES = list(ARCHITECTURES)
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def answer(code: bytes, data: bytes) -> int:
    """What the kernel would answer: struct sock_filter by struct sock_filter over struct seccomp_data."""
    program, at, accumulator = list(struct.iter_unpack("<HBBI", code)), 0, 0
    while True:
        operation, if_true, if_false, value = program[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x06:
            return value
        else:
            is_true = {0x15: accumulator == value, 0x25: accumulator > value}[operation]
            at += if_true if is_true else if_false


def ask(machine: str, number: int, *arguments: int, writes: bool = True, architecture: int = 0) -> int:
    code = seccomp.program(machine, writes)
    assert code is not None
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, architecture or ARCHITECTURES[machine], 0, *words)
    return answer(code, data)


def numbers(machine: str, table: dict[str, tuple[int, int | None]]) -> dict[int, str]:
    column = MACHINES.index(machine)
    found = {calls[column]: name for name, calls in table.items() if calls[column] is not None}
    assert len(found) == sum(calls[column] is not None for calls in table.values()), "a number stands twice"
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("machine", MACHINES)
def test_listed_calls_pass_and_no_others(machine: str, writes: bool) -> None:
    code = seccomp.program(machine, writes)
    assert code is not None and len(code) % 8 == 0 and len(code) // 8 <= 4096
    listed = numbers(machine, READ | WRITE if writes else READ)
    conditional = {*CONDITIONS, "open", "openat"}
    for number in [*range(NEWEST + 20), 1 << 30, (1 << 30) + 1, 0xFFFFFFFF]:
        data = struct.pack("<IIQ6Q", number, ARCHITECTURES[machine], 0, *[0] * 6)
        if listed.get(number) in conditional:
            continue
        expected = (
            ALLOW if number in listed else UNKNOWN if number in (CLONE3,) or number > NEWEST else DENIED
        )
        assert answer(code, data) == expected, (number, listed.get(number))


@pytest.mark.parametrize("machine", MACHINES)
def test_another_machines_calls_kill(machine: str) -> None:
    i386, other = 0x40000003, ARCHITECTURES[MACHINES[1 - MACHINES.index(machine)]]
    for architecture in (i386, other):
        assert ask(machine, 0, architecture=architecture) == KILL


THREAD = 0x3D0F00  # what glibc's pthread_create asks for
CASES = [
    ("clone", (THREAD,), ALLOW),
    ("clone", (17,), DENIED),  # fork
    ("clone", (0x4111,), DENIED),  # vfork
    ("clone", (THREAD | 0x10000000,), DENIED),  # a thread in a user namespace
    ("clone", (THREAD & ~0x10000,), DENIED),  # shares memory, is a process
    ("fcntl", (3, 1030), ALLOW),
    ("fcntl", (3, 8), DENIED),  # F_SETOWN
    ("fcntl", (3, 15), DENIED),  # F_SETOWN_EX
    ("fcntl", (3, 1 << 32 | 8), DENIED),
    ("fcntl", (3, 1031), DENIED),  # F_SETPIPE_SZ
    ("ioctl", (0, 0x5401), ALLOW),
    ("ioctl", (0, 0x5412), DENIED),  # TIOCSTI
    ("prctl", (15,), ALLOW),
    ("prctl", (1,), DENIED),
    ("prctl", (22, 2), DENIED),
    ("prlimit64", (0, 7), ALLOW),
    ("prlimit64", (1, 7), DENIED),
    ("socketpair", (1, 1), ALLOW),
    ("socketpair", (1, 0o2004001), ALLOW),
    ("socketpair", (1, 2), DENIED),  # datagrams
    ("socketpair", (2, 1), DENIED),
    ("openat", (-100 & (1 << 64) - 1, 0, 0), ALLOW),
    ("openat", (0, 0, 0o1101), ALLOW),  # O_WRONLY | O_CREAT | O_TRUNC
    ("openat", (0, 0, 0o1000), DENIED),  # O_RDONLY | O_TRUNC
    ("openat", (0, 0, 0o3), DENIED),
]


@pytest.mark.parametrize("machine", MACHINES)
def test_conditions_on_arguments(machine: str) -> None:
    by_name = {name: number for number, name in numbers(machine, READ).items()}
    for name, arguments, expected in CASES:
        assert ask(machine, by_name[name], *arguments) == expected, (name, arguments)
    for flags in (0o1, 0o2, 0o100, 0o1000, 0o1101, 0o20200002):
        assert ask(machine, by_name["openat"], 0, 0, flags, writes=False) == DENIED
    assert ask(machine, by_name["openat"], 0, 0, 0o2000000, writes=False) == ALLOW


def test_no_table_for_another_machine() -> None:
    assert seccomp.program("riscv64") is None and seccomp.program("") is None


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"no {header}: install the kernel's headers (linux-libc-dev)")
    if machine == "x86_64" and platform.machine() != "x86_64":
        pytest.skip("the header is that of another machine")
    known: dict[str, int] = {}
    for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\s", header.read_text()):
        known[{"fstatat": "newfstatat"}.get(name, name)] = int(number)
    for number, name in numbers(machine, READ | WRITE).items():
        assert known[name] == number, name
