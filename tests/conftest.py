"""What all tests share: skips that cannot hide, real test data, an empty base folder, one thread.

A marker names what a test needs (`dist`, `slurm`, ...). Where that is missing the test is skipped, unless
NANOCHAT_REQUIRE (comma separated) names it: then any skip of such a test is a failure, so that CI cannot
pass by testing nothing. `require("rust")` says the same inside a test.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from nanochat.tokenizer import Tokenizer

REQUIRED = {name.strip() for name in os.environ.get("NANOCHAT_REQUIRE", "").split(",") if name.strip()}


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _has_gloo() -> bool:
    import torch.distributed as dist

    return dist.is_available() and dist.is_gloo_available()


@functools.cache
def _has_slurm() -> bool:
    """Where the tests of Slurm must run, root installs what is missing."""
    if "slurm" in REQUIRED and os.geteuid() == 0:
        subprocess.run([sys.executable, Path(__file__).parent / "slurm" / "lab.py", "install"], check=True)
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return all(shutil.which(tool, path=path) for tool in ("slurmctld", "slurmd", "munged", "sbatch"))


@functools.cache
def _has_browser() -> bool:
    """Chromium is fetched where it is missing, without root below ~/.cache."""
    if importlib.util.find_spec("playwright") is None:
        return False
    script = Path(__file__).parent / "browser" / "install.sh"
    return (
        bool(os.environ.get("NANOCHAT_CHROMIUM"))
        or not subprocess.run(["bash", script], check=False).returncode
    )


@functools.cache
def _has_containers() -> bool:
    """Where the tests of images must run, root installs what is missing."""
    import image_lab

    if "container" in REQUIRED:
        image_lab.install()
    return not image_lab.missing()


# Marker -> (is it here?, what is missing if not). A `net` test is only ever run by asking for it.
TOOLS: dict[str, tuple[Callable[[], bool], str]] = {
    "gpu": (_has_gpu, "no CUDA device"),
    "dist": (_has_gloo, "this torch has no gloo"),
    "rust": (
        lambda: importlib.util.find_spec("rustbpe") is not None,
        "rustbpe is not built: run env/setup.sh",
    ),
    "slurm": (_has_slurm, "no slurmctld, slurmd, munge: as root, python tests/slurm/lab.py install"),
    "container": (
        _has_containers,
        "no buildah, podman, skopeo and Apptainer: as root, bash tests/containers/install.sh",
    ),
    "browser": (
        _has_browser,
        "no playwright (extra dev), or no Chromium: bash tests/browser/install.sh",
    ),
}


def pytest_configure(config: pytest.Config) -> None:
    """Tests run on one thread, their subprocesses too; torch reads this when it is first imported."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A job in the background of a script starts with Ctrl-C ignored, and so would every test's subprocess.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unknown = REQUIRED - TOOLS.keys() - {"net"}
    if unknown:
        raise pytest.UsageError(
            f"NANOCHAT_REQUIRE names {sorted(unknown)}; legal are {sorted(TOOLS)} and net"
        )


def _require(tool: str) -> None:
    is_here, missing = TOOLS[tool]
    if not is_here():
        if tool in REQUIRED:
            pytest.fail(f"{missing}, and NANOCHAT_REQUIRE asks for {tool}", pytrace=False)
        pytest.skip(missing)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check what the test's markers ask for."""
    for tool in TOOLS:
        if item.get_closest_marker(tool):
            _require(tool)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Turn a skip of a required lane into a failure, whoever skipped it and why."""
    report = (yield).get_result()
    lanes = REQUIRED & {mark.name for mark in item.iter_markers()}
    # The one skip that a required lane may have: no image can be built without a wheel of torch.
    is_fair = item.get_closest_marker("container") and not os.environ.get("UV_FIND_LINKS")
    is_fair = is_fair and "UV_FIND_LINKS" in str(report.longrepr)
    if report.skipped and lanes and not hasattr(report, "wasxfail") and not is_fair:
        report.outcome = "failed"
        report.longrepr = f"skipped, but NANOCHAT_REQUIRE asks for {sorted(lanes)}: {report.longrepr}"


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-evaluation-harness, asking no hub. Not by variables, which libraries read once, for all tests."""
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: the extra `harness`")
    import datasets.config
    import huggingface_hub.constants

    for module in (datasets.config, huggingface_hub.constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture
def require() -> Callable[[str], None]:
    """`require(tool)`: skip without the tool, or fail where NANOCHAT_REQUIRE names it."""
    return _require


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is NANOCHAT_BASE_DIR for this test and its subprocesses."""
    folder = tmp_path / "base"
    folder.mkdir()
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """One id a byte, and the special tokens."""
    from nanochat.tokenizer import Tokenizer, split_pattern

    return Tokenizer([bytes([i]) for i in range(256)], split_pattern())


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread, whatever a test before has set."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data sets that NANOCHAT_TEST_DATA names; they are not part of the repository."""
    folder = os.environ.get("NANOCHAT_TEST_DATA")
    if not folder:
        pytest.skip("NANOCHAT_TEST_DATA is not set")
    if not Path(folder).is_dir():
        pytest.fail(f"NANOCHAT_TEST_DATA={folder} is no folder", pytrace=False)
    return Path(folder)
