"""The sandbox: what a program's end is called, what is contained, what a missing guard means."""

from __future__ import annotations

import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nanochat.common import UsageError
from nanochat.execution import OUTPUT_BYTES, Level, SandboxUnavailable, run_python

ROOT = Path(__file__).resolve().parent.parent
NOBODY = 65534
# Attacks that what remains contains if Landlock or seccomp is missing; for the others see the documentation.
WITHOUT_LANDLOCK = (
    "fork bomb,processes,libc,kernel,32-bit calls,kill,network,write,links,a daemon,sleeps,threads"
)
WITHOUT_SECCOMP = (
    "a daemon,sleeps,prints 1 GB,spins and ignores signals,closes everything,memory at once,threads"
)


@pytest.fixture(scope="module")
def level() -> Level:
    """strict where this machine has the guards."""
    try:
        run_python("pass")
    except SandboxUnavailable:
        return "best-effort"
    return "strict"


@pytest.fixture
def strict(level: Level) -> None:
    if level != "strict":
        pytest.skip("this kernel has no Landlock or no seccomp filter for this machine")


# ----------------------------------------------------------------------------- what a program's end is called


@pytest.mark.parametrize(
    ("program", "status", "stdout"),
    [
        ("import sys\nprint(__name__, len(sys.argv), 'é')", "ok", "__main__ 1 é\n"),
        ("print(1)\n1 / 0", "error", "1\n"),
        ("not Python", "error", ""),
        ("\x00\ud800", "error", ""),
        ("print(1)\nraise SystemExit(0)", "exit", "1\n"),
        ("import os\nos._exit(0)", "exit", ""),
        ("x = 'x' * 10**10", "memory", ""),
        ("while True: print('x' * 10**5)", "output", "x" * 10**5 + "\n" + "x" * (OUTPUT_BYTES - 10**5 - 1)),
        ("import ctypes\nctypes.string_at(0)", "signal", ""),
    ],
)
def test_status(level: Level, program: str, status: str, stdout: str) -> None:
    result = run_python(program, level=level)
    assert (result.status, result.stdout, result.ok) == (status, stdout, status == "ok")
    assert result.level == level and "limits" in result.guards and 0 <= result.seconds < 5


def test_timeout_counts_the_programs_time_alone(level: Level) -> None:
    result = run_python("import time\ntime.sleep(60)", seconds=0.2, level=level)
    assert result.status == "timeout" and 0.2 <= result.seconds < 5


def test_a_traceback_shows_the_program_and_nothing_of_ours(level: Level) -> None:
    result = run_python("def f():\n    return 1 / 0\nf()", level=level)
    assert "line 2, in f" in result.stderr and "ZeroDivisionError" in result.stderr
    assert "confine" not in result.stderr and "importlib" not in result.stderr


PROBE = """
import os, socket, threading
def denied(function, *arguments):
    try: function(*arguments)
    except OSError: return True
    return False
print(denied(os.fork), denied(socket.socket), denied(os.listdir, "/"), denied(open, "../x", "w"),
      denied(os.kill, os.getppid(), 9), denied(os.mkdir, "x"), sorted(os.environ), os.listdir())
thread = threading.Thread(target=print, args=("thread",))
thread.start(); thread.join()
open("x", "w").write("1"); print(open("x").read())
"""


def test_strict_denies_processes_network_other_files(strict: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    result = run_python(PROBE)
    expected = "True True True True True True ['HOME', 'LANG', 'MALLOC_ARENA_MAX', 'TMPDIR'] ['program.py']"
    assert result.stdout.splitlines() == [expected, "thread", "1"], result.stderr
    assert result.level == "strict"


ORDINARY = """
import asyncio, dataclasses, datetime, doctest, glob, gzip, hashlib, inspect, io, json, logging, os, pathlib
import random, re, shutil, signal, statistics, sys, tempfile, time, typing, unittest, uuid, warnings, zlib
@dataclasses.dataclass
class Point:
    x: "int"
assert typing.get_type_hints(Point) == {"x": int} and inspect.getsource(Point).startswith("@dataclasses")
assert hashlib.sha256(b"x").hexdigest() == hashlib.new("sha256", b"x").hexdigest()
pathlib.Path("a.txt").write_text("é"); shutil.copyfile("a.txt", "b.txt"); os.replace("b.txt", "c.txt")
assert sorted(glob.glob("*.txt")) == ["a.txt", "c.txt"] and open("c.txt").read() == "é"
with tempfile.NamedTemporaryFile() as file: file.write(b"x")
with gzip.open("d.gz", "wt") as file: file.write("x")
class Case(unittest.TestCase):
    def test(self): self.assertEqual(1, 1)
cases = unittest.defaultTestLoader.loadTestsFromTestCase(Case)
assert unittest.TextTestRunner(stream=io.StringIO()).run(cases).wasSuccessful()
assert doctest.testmod(sys.modules["__main__"]).failed == 0 and sys.stdin.read() == ""
heard = []
signal.signal(signal.SIGALRM, lambda *_: heard.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.01)
time.sleep(0.05)
logging.warning("seen"); warnings.warn("seen")
assert heard and os.cpu_count() and uuid.uuid4() and datetime.datetime.now() and random.Random(1).random()
asyncio.run(asyncio.sleep(0.01))
"""


@pytest.mark.slow
def test_ordinary_programs_work(strict: None) -> None:
    result = run_python(ORDINARY, seconds=30)
    assert result.ok and result.stderr.count("seen") >= 2, result.stderr


def test_off_sets_limits_only() -> None:
    result = run_python("import os\nos.listdir('/')", level="off")
    assert result.ok and result.level == "off" and result.guards == ("limits",)


@pytest.mark.parametrize(
    "options",
    [{"level": "paranoid"}, {"seconds": 0}, {"seconds": float("nan")}, {"seconds": 1e9}, {"memory_mib": 1}],
)
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options)).split("_")[0]):
        run_python("pass", **options)


# ----------------------------------------------------------------------------- guards that are missing


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)


def on_older_kernel(missing: str, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, ROOT / "tests" / "older_kernel.py", missing, sys.executable, *command)


@pytest.mark.parametrize("missing", ["landlock", "seccomp"])
def test_strict_refuses_by_name_where_a_guard_is_missing(strict: None, missing: str) -> None:
    program = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom nanochat.execution import run_python\n"
    refused = on_older_kernel(missing, "-c", program + "run_python('print(1)')")
    assert refused.returncode == 1 and "SandboxUnavailable: no strict sandbox here" in refused.stderr
    assert f"gives no {missing}" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "asked", "attacks"),
    [
        ("namespaces", "strict", ""),
        ("landlock", "best-effort", WITHOUT_LANDLOCK),
        ("landlock,namespaces", "best-effort", WITHOUT_LANDLOCK),
        ("seccomp", "best-effort", WITHOUT_SECCOMP),
    ],
)
def test_what_is_left_contains_what_it_promises(strict: None, missing: str, asked: str, attacks: str) -> None:
    names = attacks.split(",") if attacks else []
    report = on_older_kernel(missing, ROOT / "tests" / "attacks.py", "--level", asked, *names)
    facts = json.loads(report.stdout)
    assert facts["wrong"] == [] and len(facts["statuses"]) == (len(names) or len(facts["statuses"]))
    assert not [guard for guard in facts["guards"] if guard.split()[0] in missing]


# ----------------------------------------------------------------------------- attacks


@pytest.fixture(scope="module")
def copy() -> Iterator[Path]:
    """The sandbox and the attacks where every user can read them."""
    with tempfile.TemporaryDirectory() as folder:
        for package in ("nanochat", "tests"):
            files = shutil.ignore_patterns("__pycache__", "golden", "slurm", "*.html")
            shutil.copytree(ROOT / package, Path(folder, package), ignore=files)
        run("chmod", "-R", "a+rX", folder)
        yield Path(folder)


def interpreter_for(**user: Any) -> str:
    """An interpreter that this user may run: this one, or the system's."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        try:
            if run(candidate, "-c", "import ctypes", **user).returncode == 0:
                return candidate
        except OSError:
            continue
    pytest.skip("a plain user may run no interpreter here")


@pytest.mark.slow
@pytest.mark.parametrize("who", ["root", "plain user"])
def test_attacks_are_contained(strict: None, copy: Path, who: str) -> None:
    user: dict[str, Any] = {}
    if who == "root" and os.geteuid() != 0:
        pytest.skip("not root")
    if who == "plain user" and os.geteuid() == 0:
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    report = run(interpreter_for(**user), "-B", copy / "tests" / "attacks.py", cwd=copy, **user)
    assert report.returncode == 0, report.stdout + report.stderr
    facts = json.loads(report.stdout)
    assert (facts["uid"] == 0) == (who == "root") and facts["rss_growth_mib"] < 50
    assert len(facts["statuses"]) > 25 and "seccomp" in facts["guards"]


@pytest.mark.slow
def test_the_harness_notices_what_escapes() -> None:
    names = ("processes", "network", "read", "links", "own files")
    facts = json.loads(run(sys.executable, ROOT / "tests" / "attacks.py", "--level", "off", *names).stdout)
    caught = {fault.split(":")[0] for fault in facts["wrong"]}
    assert caught == set(names) - {"own files"}, facts["wrong"]


@pytest.mark.slow
def test_time_stands_still_for_a_suspended_job(level: Level) -> None:
    """Slurm may suspend a job to let another one pass; that is not the program's fault."""
    program = "import time\nprint(1, flush=True)\nfor _ in range(100): time.sleep(0.01)"
    call = f"run_python({program!r}, seconds=3, level={level!r})"
    call = f"from nanochat.execution import run_python; print({call})"
    with subprocess.Popen([sys.executable, "-c", call], cwd=ROOT, stdout=subprocess.PIPE, text=True) as host:
        job = psutil.Process(host.pid)
        while not job.children():
            time.sleep(0.01)
        time.sleep(0.5)
        everything = [job, *job.children(recursive=True)]
        for process in everything:
            process.suspend()
        time.sleep(4)
        for process in everything:
            process.resume()
        said = host.communicate()[0]
    assert "status='ok'" in said, said


@pytest.mark.slow
def test_many_at_once(level: Level) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: run_python(f"print({i})", seconds=30, level=level), range(40)))
    assert [result.stdout for result in results] == [f"{i}\n" for i in range(40)]
