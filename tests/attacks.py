"""What a hostile program may try, run in the sandbox, and whether all of it was contained.

What it is: a harness with a secret, a listening server and folders to break into, and a table of attacks.
An attack prints ESCAPED and what it achieved, if it achieves anything. The harness prints one JSON object;
exit code 1 if anything escaped. It imports only the standard library and the sandbox, so that any user's
interpreter can run it. What it is not: a proof. Run: `python tests/attacks.py [--level LEVEL] [NAME ...]`,
as root and as a plain user; `off` is for showing that the harness notices (never for what writes or forks).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nanochat.execution import Execution, run_python

SECONDS = 1.0  # for what should run into it, else
PATIENCE_SECONDS = 20.0  # on a loaded machine
RSS_MIB = 50

# Before every attack. What is attempted must fail; `libc` calls give -1 where they fail.
PREAMBLE = """
import ctypes, os, platform, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(what, function, *arguments):
    try:
        result = function(*arguments)
    except (OSError, ImportError):
        return
    if not (isinstance(result, int) and result < 0):
        print("ESCAPED", what, result, flush=True)
def syscall(what, x86_64, aarch64, *arguments):
    number = x86_64 if platform.machine() == "x86_64" else aarch64
    plain = [ctypes.c_long(a) if isinstance(a, int) else a for a in (number, *arguments)]
    attempt(what, libc.syscall, *plain)
"""

# Name -> the statuses that it may end with, and the program.
ATTACKS: dict[str, tuple[str, str]] = {
    "fork bomb": ("ok", "for _ in range(200): attempt('fork', os.fork)"),
    "processes": ("ok", """
import subprocess, multiprocessing
attempt("subprocess", subprocess.run, ["/bin/true"])
attempt("spawn", lambda: os.posix_spawn("/bin/true", ["true"], {}))
attempt("shell", lambda: 1 if os.system("exit 7") == 7 << 8 else -1)
attempt("exec", os.execv, "/bin/true", ["true"])
attempt("multiprocessing", multiprocessing.Process(target=print).start)
attempt("daemon", os.setsid)
attempt("group", os.setpgid, 0, 0)
"""),
    "libc": ("ok", """
attempt("fork", libc.fork)
attempt("vfork as a system call", lambda: platform.machine() == "x86_64" and libc.syscall(58) or -1)
attempt("system", lambda: 1 if libc.system(b"exit 7") == 7 << 8 else -1)
syscall("clone", 56, 220, 17, 0, 0, 0, 0)
syscall("clone into namespaces", 56, 220, 0x10000000 | 17, 0, 0, 0, 0)
syscall("clone3", 435, 435, ctypes.create_string_buffer(88), 88)
syscall("execveat", 322, 281, -100, b"/bin/true", None, None, 0)
"""),
    "kernel": ("ok", """
syscall("io_uring", 425, 425, 8, ctypes.create_string_buffer(120))
syscall("memfd", 319, 279, b"x", 0)
syscall("ptrace", 101, 117, 16, PARENT, 0, 0)
syscall("pidfd_open", 434, 434, PARENT, 0)
syscall("process_vm_readv", 310, 270, PARENT, None, 0, None, 0, 0)
syscall("unshare", 272, 97, 0x10000000)
syscall("mount", 165, 40, b"none", b"/", None, 1 << 18, None)
syscall("bpf", 321, 280, 0, None, 0)
syscall("perf_event_open", 298, 241, ctypes.create_string_buffer(128), 0, -1, -1, 0)
syscall("userfaultfd", 323, 282, 1)
syscall("add_key", 248, 217, b"user", b"x", b"x", 1, -4)
syscall("setuid", 105, 146, 0)
syscall("seccomp", 317, 277, 2, 0, ctypes.create_string_buffer(b"\\x7f\\xff\\0\\0", 4))
attempt("parent's limits", libc.prlimit, PARENT, 7, ctypes.create_string_buffer(b"\\1" + bytes(15)), None)
"""),
    "32-bit calls": ("signal", """
import mmap
if platform.machine() != "x86_64": os.kill(os.getpid(), 9) or ctypes.string_at(0)
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("b802000000cd80c3"))  # mov eax, 2 (fork); int 0x80; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
attempt("fork by int 0x80", ctypes.CFUNCTYPE(ctypes.c_int)(address))
"""),
    "kill": ("ok", """
import fcntl, signal
for target in (PARENT, -PARENT, os.getppid(), 0, -1, 1): attempt(f"kill {target}", os.kill, target, 9)
attempt("tgkill", libc.syscall, 234 if platform.machine() == "x86_64" else 131, PARENT, PARENT, 9)
read, write = os.pipe()
attempt("owner of a descriptor", fcntl.fcntl, read, fcntl.F_SETOWN, PARENT)
attempt("signal of a descriptor", fcntl.fcntl, read, 10, 9)
attempt("death signal", libc.prctl, 1, 0)
"""),
    "network": ("ok", """
import socket
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        attempt(f"socket {family} {kind}", socket.socket, family, kind)
attempt("connect", socket.create_connection, ("127.0.0.1", PORT), 0.5)
attempt("datagrams", socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM)
"""),
    "read": ("ok", """
processes = ("1", "self", "thread-self", str(PARENT))
for path in (SECRET, "/etc/passwd", "/dev/kmsg", *(f"/proc/{process}/environ" for process in processes)):
    attempt(f"read {path}", lambda: open(path, "rb").read(1))
for path in (HOME, "/", "/etc", "/tmp", "/home", "/root", "/proc", "/sys", "/dev"):
    attempt(f"list {path}", os.listdir, path)
if MARK in str(os.environ): print("ESCAPED environment")
for fd in range(3, 64): attempt(f"read descriptor {fd}", lambda: os.read(fd, 1)[0])
"""),
    "write": ("ok", """
import shutil
for folder in (HOME, "/tmp", "/var/tmp", "/dev/shm", "/usr/lib", "/", "/run", ".."):
    attempt(f"write {folder}", lambda: open(f"{folder}/{MARK}", "w").close())
    attempt(f"mkdir {folder}", os.mkdir, f"{folder}/{MARK}")
    attempt(f"rename to {folder}", os.rename, "program.py", f"{folder}/{MARK}")
    attempt(f"link to {folder}", os.link, "program.py", f"{folder}/{MARK}")
attempt("append", lambda: open(SECRET, "a").close())
attempt("truncate", os.truncate, SECRET, 0)
attempt("truncate by reading", os.open, SECRET, os.O_RDONLY | os.O_TRUNC)
attempt("unlink", os.unlink, SECRET)
attempt("chmod", os.chmod, SECRET, 0o777)
attempt("chown", os.chown, SECRET, os.getuid(), os.getgid())
attempt("times", os.utime, SECRET)
attempt("attributes", os.setxattr, SECRET, "user.x", b"x")
attempt("remove", lambda: shutil.rmtree(HOME))
attempt("shared memory", lambda: libc.shmget(0, 4096, 0o1777))
"""),
    "links": ("ok", """
attempt("symlink", os.symlink, SECRET, "link")
attempt("hard link", os.link, SECRET, "link")
attempt("through it", lambda: open("link").read())
attempt("folder", os.mkdir, "folder")
attempt("fifo", os.mkfifo, "fifo")
attempt("device", os.mknod, "device", 0o20666, os.makedev(1, 1))
attempt("root", os.chroot, ".")
attempt("up", lambda: open(os.path.join("..", MARK), "w").close())
"""),
    "own files": ("ok", """
with open("own", "w") as file: file.write("mine")
os.rename("own", "renamed")
assert open("renamed").read() == "mine" and sorted(os.listdir()) == ["program.py", "renamed"]
os.unlink("renamed")
"""),
    "a daemon": ("ok", """
try:
    if not os.fork():
        os.setsid()
        os.closerange(0, 64)
        if not os.fork(): time.sleep(1000)
        os._exit(0)
except OSError: pass
"""),
    "forged report": ("exit", """
for fd in range(3, 32):
    try: os.write(fd, b"ready limits\\n0 ok\\n ok\\nok\\n")
    except OSError: pass
os._exit(0)
"""),
    "early exit": ("exit", "sys.exit(0)"),
    "prints 1 GB": ("output", "for _ in range(1 << 10): print('x' * (1 << 20))"),
    "1 GB of errors": ("output", "for _ in range(1 << 10): os.write(2, b'x' * (1 << 20))"),
    "fills the disk": ("output memory ok", """
for number in range(1 << 20):
    try: open(str(number), "wb").write(bytes(1 << 20))
    except MemoryError: break
"""),
    "many files": ("output", "for number in range(1 << 20): open(str(number), 'w').close()"),
    "a huge file": ("error", "file = open('huge', 'wb')\nwhile True: file.write(bytes(1 << 20))"),
    "sleeps": ("timeout", "time.sleep(1000)"),
    "spins and ignores signals": ("timeout", """
import signal
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(number, signal.SIG_IGN)
while True: pass
"""),
    "closes everything": ("timeout", "os.closerange(0, 64)\nwhile True: time.sleep(1)"),
    "spins in a thread": ("timeout", "threading.Thread(target=lambda: any(iter(int, 1))).start()"),
    "spins at exit": ("timeout", "import atexit\natexit.register(lambda: any(iter(int, 1)))"),
    "memory at once": ("memory", "x = bytearray(1 << 40)"),
    "memory bit by bit": ("memory", "x = []\nwhile True: x.append(bytearray(1 << 20))"),
    "mapped memory": ("error", "import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 1 << 24))"),
    "deep recursion": ("error signal memory", "def f(n): return f(n + 1) + 1\nf(0)"),
    "bottomless recursion": ("signal error memory timeout", """
sys.setrecursionlimit(1 << 30)
class Deep:
    def __repr__(self): return repr(self)
repr(Deep())
"""),
    "a thousand threads": ("error ok memory timeout", """
threading.stack_size(1 << 16)
threads = [threading.Thread(target=time.sleep, args=(0.2,), daemon=True) for _ in range(1000)]
for thread in threads: thread.start()
"""),
    "threads": ("ok", """
import asyncio, concurrent.futures
with concurrent.futures.ThreadPoolExecutor(4) as pool: assert sum(pool.map(int, "1234")) == 10
async def wait(): await asyncio.sleep(0.01)
asyncio.run(wait())
"""),
}  # fmt: skip


def resident_mib(field: str) -> float:
    """This process's VmRSS or VmHWM (the highest so far)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/self/status has no {field}")


def sandboxed_processes() -> list[str]:
    """Every process of a sandbox; a fork keeps its command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"confine.py" in command:
            found.append(f"{folder.name}: {command.decode(errors='replace')[:200]}")
    return found


def judge(result: Execution, seconds: float, asked: str, level: str) -> list[str]:
    """What is wrong with one attack's result."""
    wrong = [line for line in result.stdout.splitlines() if line.startswith("ESCAPED")]
    if result.status not in asked.split():
        wrong.append(f"status {result.status}, not {asked}: {result.stderr[-300:]}")
    if result.seconds > seconds + 1:
        wrong.append(f"took {result.seconds:.1f} of {seconds} s")
    if result.level != level:
        wrong.append(f"level {result.level}, not {level}")
    return wrong


def outside(home: Path, mark: str) -> list[str]:
    """What was written where nothing may be written, or left over."""
    places = ("/tmp", "/var/tmp", "/dev/shm", "/usr/lib", "/run", "/", str(home), tempfile.gettempdir())
    wrong = [f"{place}/{mark} exists" for place in places if Path(place, mark).exists()]
    secret = home / "secret"
    if (list(home.iterdir()), secret.read_text(), secret.stat().st_mode & 0o777) != ([secret], mark, 0o600):
        wrong.append(f"{home} was changed")
    return wrong + [f"{path} was left" for path in Path(tempfile.gettempdir()).glob("nanochat-sandbox-*")]


def harness(names: list[str], level: str, folder: Path) -> dict[str, Any]:
    """Run the attacks; `wrong` lists what was not contained."""
    mark, home = f"mark-{secrets.token_hex(8)}", folder / "home"
    (folder / "tmp").mkdir()
    tempfile.tempdir = str(folder / "tmp")
    home.mkdir()
    (home / "secret").write_text(mark)
    (home / "secret").chmod(0o600)
    os.environ["CANARY"] = mark
    wrong, statuses = [], {}
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        known = {"SECRET": f"{home}/secret", "HOME": str(home), "MARK": mark, "PARENT": os.getpid()}
        known["PORT"] = server.getsockname()[1]
        setting = "".join(f"{name} = {value!r}\n" for name, value in known.items())
        guards = run_python("pass", level=level).guards
        before = resident_mib("VmHWM")
        for name in names or ATTACKS:
            asked, program = ATTACKS[name]
            seconds = SECONDS if "timeout" in asked else PATIENCE_SECONDS
            result = run_python(PREAMBLE + setting + program, seconds=seconds, memory_mib=256, level=level)
            faults = judge(result, seconds, asked, level)
            faults += sandboxed_processes() + outside(home, mark)
            with contextlib.suppress(BlockingIOError):
                server.accept()
                faults.append("somebody connected")
            wrong += [f"{name}: {fault}" for fault in faults]
            statuses[name] = result.status
        growth = resident_mib("VmHWM") - before
    if growth > RSS_MIB:
        wrong.append(f"resident memory grew by {growth:.0f} MiB")
    return {
        "uid": os.getuid(), "python": sys.version.split()[0], "guards": guards,
        "rss_growth_mib": round(growth, 1), "statuses": statuses, "wrong": wrong,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--level", default="strict")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        facts = harness(options.names, options.level, Path(folder))
    print(json.dumps(facts, indent=1))
    return bool(facts["wrong"])


if __name__ == "__main__":
    sys.exit(main())
