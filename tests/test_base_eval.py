"""base_eval as a program: files, two ranks like one, two runs compared, transformers models, report."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toy
from test_core_eval import make_bundle

from nanochat.common import UsageError, read_json
from nanochat.config_eval import BaseEval
from nanochat.configurator import parse
from nanochat.item_records import read_records

ROOT = Path(__file__).resolve().parent.parent
CONTEXT = ["--context", "512", "--device-batch-rows", "2", "--total-batch-tokens", "1024", "--steps", "4"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classic and a modern run of four steps, and a bundle of random words."""
    root = tmp_path_factory.mktemp("world")
    toy.make_world(root)
    make_bundle(root / "eval_bundle", 3)
    for arch in ("classic", "modern"):
        options = toy.options("base", root, root, "--run", arch, "--arch", arch, *CONTEXT)
        assert toy.run("base", options, root / "log") == 0, (root / "log").read_text()
    return root


def evaluate(root: Path, *argv: str, ranks: int = 1) -> str:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", "-m", "--"] * (
        ranks > 1
    )
    options = ["--base-dir", str(root), "--device", "cpu", "--dtype", "float32", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, *(launcher or ["-m"]), "scripts.base_eval", *options, *argv],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def results(folder: Path) -> tuple[bytes, dict[str, Any]]:
    """Item records as they are, and figures without clocks."""
    facts = read_json(folder / "evals" / "core.json")
    for part in (facts, *facts["tasks"]):
        del part["seconds"]
    return (folder / "evals" / "core_items.jsonl").read_bytes(), facts


@pytest.mark.dist
@pytest.mark.slow
def test_two_ranks_give_the_same_numbers_as_one(world: Path) -> None:
    argv = ["--run", "modern", "--evals", "core", "--batch-kib", "2"]
    assert "CORE " in evaluate(world, *argv)
    alone = results(world / "base_modern")
    evaluate(world, *argv, ranks=2)
    assert results(world / "base_modern") == alone
    assert len(alone[0].splitlines()) == 22 * 3


@pytest.mark.slow
def test_files_comparison_and_report(world: Path) -> None:
    data = ["--data-dir", str(world / "data"), "--eval-tokens", "2048", "--device-batch-rows", "2"]
    printed = evaluate(world, "--run", "classic", *data)
    assert "bits per byte" in printed and "> Once upon a time" in printed
    folder = world / "base_classic" / "evals"
    facts = read_json(folder / "core.json")
    assert f"CORE {facts['core']:.4f}" in printed
    with (folder / "core.csv").open(encoding="utf-8", newline="") as file:
        *tasks, mean = csv.DictReader(file)
    assert len(tasks) == 22
    assert (mean["task"], float(mean["centered"])) == ("core", facts["core"])
    evaluate(world, "--run", "modern", "--evals", "core")
    pair = [str(world / f"base_{run}" / "evals" / "core_items.jsonl") for run in ("classic", "modern")]
    *_, last = evaluate(world, "--compare", *pair).splitlines()
    other = read_json(world / "base_modern" / "evals" / "core.json")["core"]
    assert last.split()[:4] == ["mean", f"{facts['core']:.4f}", "->", f"{other:.4f},"]
    report = [sys.executable, "-m", "scripts.report", "--base-dir", str(world), "--run", "classic"]
    text = subprocess.run(report, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"| CORE | {facts['core']:+.4f}" in text
    page = (world / "runs" / "classic" / "report" / "report.html").read_text(encoding="utf-8")
    assert "arc_challenge" in page and f"CORE {facts['core']:.4f}, BASE" in page


@pytest.mark.slow
def test_a_transformers_model_scores_like_ours(world: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers", minversion="5.0")
    where = ["--base-dir", str(world), "--run", "classic", "--device", "cpu"]
    export = [sys.executable, "-m", "scripts.export_hf", *where, "--to", str(tmp_path / "classic")]
    done = subprocess.run(export, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    data = ["--data-dir", str(world / "data"), "--documents", "5"]
    evaluate(world, "--hf", str(tmp_path / "classic"), *data)
    evaluate(world, "--run", "classic", *data)
    theirs, ours = (read_json(world / f"{kind}_classic" / "evals" / "base.json") for kind in ("hf", "base"))
    assert theirs["val_bpb"] == pytest.approx(ours["val_bpb"], abs=1e-5)
    assert theirs["samples"][0]["prompt"] == ours["samples"][0]["prompt"]
    records = [
        read_records(world / f"{kind}_classic" / "evals" / "core_items.jsonl") for kind in ("hf", "base")
    ]
    for a, b in zip(*records, strict=True):
        assert (a.key, a.prompt) == (b.key, b.prompt)
        assert a.scores == pytest.approx(b.scores, abs=1e-5)


def test_options_are_refused_before_anything_is_loaded(base: Path) -> None:
    with pytest.raises(UsageError, match=r"--evals cor: use one or more of core, bpb, samples"):
        parse(BaseEval, ["--evals", "cor"], prog="base_eval", about=None)
    pair = parse(BaseEval, ["--compare", "a.jsonl", "b.jsonl", "--run", "x"], prog="base_eval", about=None)
    assert (pair.compare, pair.run) == (("a.jsonl", "b.jsonl"), "x")
    assert parse(BaseEval, ["--compare=a,b"], prog="base_eval", about=None).compare == ("a", "b")
