"""The house rules, as far as a program can check them: layers, budgets, forbidden calls, docs, locks."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from itertools import repeat
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("nanochat", "scripts", "tasks", "env")
SOURCES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
ALL_PYTHON = SOURCES + sorted((ROOT / "tests").rglob("*.py"))
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]

# A module imports from its own line and from the lines above it; there are no cycles.
LAYERS = [
    "common options config* presets schedule room slurm assets",
    "ledger offline image",
    "dataset transfer fetch facts preflight encoding tokenizer calculator metrics packing sources",
    "item_records patterns ranks pickle_record hf_tokenizer interchange compression corpus core_bundle",
    "seccomp confine execution request reply conversation accelerator terminal",
    "run_folder pipeline launch report* track info sample_world world",
    "distributed probe attention cross_entropy kv_cache kv_slots sampling gpt decoder decoder_ops muon adamw",
    "optimizers dataloader",
    "checkpoint_manager batch engine scheduler likelihood loss_eval core_* evaluation rollout",
    "hf_model export_hf serve",
    "trainer",
    "stages",
    "runner bench selftest",
]
MODULES = {path.stem for path in (ROOT / "nanochat").iterdir()}  # and subpackages
TORCH_FREE = 4  # layers; scripts/ and tasks/ import without torch, too


def layer(module: str) -> int:
    """Number of the layer that a module of nanochat/ belongs to; -1 if none lists it."""
    return next((n for n, line in enumerate(LAYERS) if any(map(fnmatch, repeat(module), line.split()))), -1)


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_of(path: Path) -> tuple[str, str]:
    """Package and module (or subpackage) of a source file: ("nanochat", "gpt"), ("nanochat", "bench")."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0], parts[1]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def imports(path: Path) -> list[str]:
    """Dotted names of every module that a file imports at run time, inside functions too."""
    tree = parse(path)
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    names = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


LEGAL_PACKAGES = {
    "nanochat": {"nanochat"},
    "tasks": {"nanochat", "tasks"},
    "scripts": {"nanochat", "tasks"},  # no script imports a script
    "env": set(),
}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_downward(path: Path) -> None:
    ours = {name for name in imports(path) if name.split(".")[0] in PACKAGES}
    package, module = module_of(path)
    assert {name.split(".")[0] for name in ours} <= LEGAL_PACKAGES[package]
    if package == "nanochat" and module != "__init__":
        assert layer(module) >= 0, f"add {module} to LAYERS in {Path(__file__).name}"
        upward = [other for other in nanochat_imports(path) if layer(other) > layer(module)]
        assert not upward, f"{module} imports {upward}"


def nanochat_imports(path: Path) -> set[str]:
    names = {name.split(".")[1] for name in imports(path) if name.startswith("nanochat.")}
    return names & MODULES


def test_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        package, module = module_of(path)
        if package == "nanochat":
            graph[module] = graph.get(module, set()) | nanochat_imports(path) - {module}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_imports_without_torch_do_nothing(tmp_path: Path) -> None:
    """With torch blocked, importing leaves no file, output, thread, signal handler or variable behind."""
    names = []
    for package, module in map(module_of, SOURCES):
        if package in ("scripts", "tasks") or (package == "nanochat" and 0 <= layer(module) < TORCH_FREE):
            names.append(f"{package}.{module}")
    code = f"""
import importlib, os, signal, sys, threading
sys.modules["torch"] = None
def state():
    handler = signal.getsignal(signal.SIGTERM)
    return dict(os.environ), threading.active_count(), handler, os.listdir(), os.getcwd()
for name in {names}:
    before = state()
    importlib.import_module(name)
    assert state() == before, f"importing {{name}} has a side effect"
"""
    env = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code, "--no-such-flag"]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_module_level_only_defines(path: Path) -> None:
    allowed = (
        ast.Import,
        ast.ImportFrom,
        ast.Assign,
        ast.AnnAssign,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.If,
        ast.Try,
    )
    for node in parse(path).body[1:]:
        assert isinstance(node, allowed), f"{name_of(path)}:{node.lineno} runs on import"
        if isinstance(node, ast.If):
            assert re.match(r"__name__ ==|TYPE_CHECKING|sys\.(version_info|platform)", ast.unparse(node.test))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))  # type: ignore[misc]


@pytest.mark.parametrize("path", ALL_PYTHON, ids=name_of)
def test_budgets(path: Path) -> None:
    text, tree = path.read_text(encoding="utf-8"), parse(path)
    lines = text.splitlines()
    assert ast.get_docstring(tree), "no module docstring"
    assert len(lines) <= (120 if path.parent.name == "scripts" else 400)
    for node in functions(tree):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is longer than 60 lines"
        untyped = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        assert node.returns is not None and not untyped, f"{node.name} is not typed"


def test_median_function_is_short() -> None:
    lengths = [(f.end_lineno or 0) - f.lineno + 1 for path in SOURCES for f in functions(parse(path))]
    assert statistics.median(lengths) <= 12


# What is forbidden everywhere outside this file and outside calls like `model.eval()`. One test makes hostile
# pickles: they bite where they are unpickled, and the reader that does not unpickle refuses them.
PICKLES_MADE = ["tests/test_pickle_record.py: import pickle"]
FORBIDDEN = re.compile(
    r"import (cPickle|pickle|dill)\b|(?<![\w.])(eval|exec)\(|shell=True|innerHTML|weights_only=False"
)


def test_nothing_forbidden() -> None:
    web = sorted(p for p in (ROOT / "nanochat").rglob("*") if p.suffix in (".html", ".js"))
    files = [p for p in ALL_PYTHON + web if p != Path(__file__)]
    found = [
        f"{name_of(p)}: {m[0]}" for p in files for m in FORBIDDEN.finditer(p.read_text(encoding="utf-8"))
    ]
    assert found == PICKLES_MADE


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_are_short_and_their_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), (
            f"{page.name} links to {target}"
        )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_name_programs_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"-m scripts\.([a-z]\w*)", text):
        assert (ROOT / "scripts" / f"{name}.py").exists(), f"{page.name} runs scripts.{name}"
    for name in re.findall(r"bash (\S+\.sh)", text):
        assert (ROOT / name).exists(), f"{page.name} runs {name}"


@pytest.mark.parametrize("lock", ["cpu", "cu126", "cu128", "cu130"])
def test_lock_covers_the_dependencies(lock: str) -> None:
    text = (ROOT / "env" / "locks" / f"{lock}.txt").read_text(encoding="utf-8")
    assert "://" not in text and "+cpu" not in text
    assert re.search(r"^torch==[\d.]+\n[^\s]", text, re.MULTILINE), "torch must be pinned without a hash"
    assert bool(re.search(r"^(nvidia-|triton|cuda-)", text, re.MULTILINE)) == (lock != "cpu")
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([\w.!]+)", text, re.MULTILINE):
        pins.setdefault(name, set()).add(version)
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8").replace('extras = ["', "")
    for wanted in map(Requirement, re.findall(r'"([\w-]+>=[^"]+)"', pyproject.split("[project]")[1])):
        locked = pins.get(wanted.name.replace("_", "-").lower(), set())
        if not locked and wanted.name in ("tensorboard", "trackio", "wandb", "lm_eval", "accelerate"):
            continue  # the trackers and the other harness are not locked
        assert locked and all(v in wanted.specifier for v in locked), f"{wanted}: run env/compile_locks.py"
