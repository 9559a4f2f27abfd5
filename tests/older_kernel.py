"""Runs a command as if the kernel lacked Landlock, seccomp or namespaces, or did not permit them.

What it is: a seccomp filter that makes the calls in question fail, and then `exec`; what runs below it really
gets these errors from the kernel. Run: `python tests/older_kernel.py landlock,namespaces python ...`.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nanochat import confine, seccomp

UNSHARE = {"x86_64": 272, "aarch64": 97}
PRCTL = {"x86_64": 157, "aarch64": 167}


def op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def program(missing: list[str]) -> bytes:
    """A filter with which the calls behind `missing` fail as on a kernel that lacks them."""
    machine = platform.machine()
    code = [op(0x20, 0)]  # the call's number
    if "landlock" in missing:
        code += [op(0x15, 444, 0, 1), op(0x06, seccomp.fails(errno.ENOSYS))]
    if "namespaces" in missing:
        code += [op(0x15, UNSHARE[machine], 0, 1), op(0x06, seccomp.fails(errno.EPERM))]
    if "seccomp" in missing:
        code += [op(0x15, PRCTL[machine], 0, 3), op(0x20, 16), op(0x15, 22, 0, 1)]  # prctl(PR_SET_SECCOMP)
        code += [op(0x06, seccomp.fails(errno.EINVAL))]
    return b"".join([*code, op(0x06, seccomp.ALLOW)])


def main() -> None:
    kernel = confine._Kernel()
    kernel.call("prctl", 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    confine.filter_calls(kernel, program(sys.argv[1].split(",")))
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
