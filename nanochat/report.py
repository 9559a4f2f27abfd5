"""The figures of a run, collected from its folders, and the report written from them.

What it is: `collect` reads base_RUN, mid_RUN, sft_RUN, rl_RUN and runs/RUN (configs, metrics.jsonl, exams,
ledger) into one dict, which is report.json; `write` renders it as report.md and report.html. What it is not:
layout (`report_tables.py`, `report_pages.py`), curves (`report_plots.py`) or a judge: a run that has failed
or is not finished is reported as such. No torch. Run: `python -m scripts.report --run laptop`.
"""

from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nanochat import metrics, report_chat, report_core, report_pages, report_plots
from nanochat.common import UsageError, atomic_path, json_safe, read_json, resolve, write_json
from nanochat.launch import account

STAGES = ("base", "mid", "sft", "rl")
MARKERS = ("DONE", "FAULT", "STOPPED")
RATE = re.compile(r"(val_)?(pass_\d+|greedy)")
CURVE_POINTS = 300  # a page with every step of a long run would be megabytes

Record = dict[str, Any]


def newest_run(root: Path) -> str:
    """Name of the run whose base folder changed last."""
    folders = [path for path in root.glob("base_*") if path.is_dir() and ".old." not in path.name]
    if not folders:
        raise UsageError(f"there is no run in {root}; train one, or name its place with --base-dir")
    return max(folders, key=lambda path: path.stat().st_mtime).name.removeprefix("base_")


def write(root: Path, run: str) -> Path:
    """Write the three files into `runs/RUN/report`, which is returned, and into `report/`, the newest."""
    report = collect(root, run)
    plots, note = report_plots.draw(report)
    plots += report_core.draw(report)
    pages = {
        "report.md": report_pages.markdown(report),
        "report.html": report_pages.html(report, plots, note, report_chat.draw(report)),
    }
    folder = root / "runs" / run / "report"
    for place in (folder, root / "report"):
        for name, text in pages.items():
            with atomic_path(place / name) as temp:
                temp.write_text(text, encoding="utf-8")
        write_json(place / "report.json", report)
    return folder


def collect(root: Path, run: str) -> Record:
    """Everything that is known of a run, in JSON's types. Stages that have not begun are absent.

    Raises UsageError if there is no trace of the run.
    """
    folders = {stage: root / f"{stage}_{run}" for stage in STAGES}
    folders = {stage: folder for stage, folder in folders.items() if folder.is_dir()}
    ledger = _optional(root / "runs" / run / "ledger.json") or {}
    cluster = account.summary(root / "runs" / run)
    if not (folders or ledger or cluster):
        raise UsageError(f"there is no run {run!r} in {root}; runs are: {', '.join(_runs(root)) or 'none'}")
    steps = ledger.get("stages") or [_step(stage) for stage in cluster.get("stages", [])]
    records = {stage: metrics.read(folder / "metrics.jsonl") for stage, folder in folders.items()}
    stages = {stage: _stage(folder, records[stage], steps) for stage, folder in folders.items()}
    environment = next((found for folder in folders.values() if (found := _environment(folder))), {})
    exams = {stage: _optional(folder / "evals" / "exams.json") or {} for stage, folder in folders.items()}
    untrained = _optional(root / f"base_{run}" / "evals" / "untrained.json") or {}
    scores = {stage: _scores(found) for stage, found in exams.items()}
    memory = [step["peak_rss_mib"] for step in steps if step.get("peak_rss_mib")]
    return json_safe({  # type: ignore[no-any-return]
        "run": run,
        "written": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "commit": environment.get("commit"),
        "dirty": environment.get("dirty"),
        "versions": environment.get("versions", {}),
        "platform": environment.get("platform"),
        "hardware": environment.get("hardware", {}),
        "started": ledger.get("started"),
        "wall_s": cluster.get("wall_s") or sum(step["wall_s"] for step in steps or stages.values()),
        "peak_rss_mib": max(memory, default=None),
        "model": _model(folders.values()),
        "tokenizer": _tokenizer(root, stages),
        "stages": stages,
        "val_bpb": {name: found["val_bpb"] for name, found in stages.items() if found["val_bpb"] is not None},
        "exams": {stage: scores[stage] for stage in STAGES[1:] if scores.get(stage)},
        "controls": {
            "commonest": untrained.get("commonest_answer", {}),  # always the answer that most items have
            "untrained": _scores(untrained),
            "base": scores.get("base", {}),
        },
        "chat": report_chat.collect(root, run),
        "exam_details": {stage: found.get("exams", {}) for stage, found in exams.items()},
        "examples": {stage: found.get("examples", []) for stage, found in exams.items()},
        "core": {
            stage: core for stage, f in folders.items() if (core := _optional(f / "evals" / "core.json"))
        },
        "ledger": steps,
        "cluster": cluster,
        "curves": {stage: _curves(found) for stage, found in records.items()},
    })  # fmt: skip


def _step(stage: Record) -> Record:
    """A stage of a cluster run as an entry of a ledger."""
    return {"name": stage["stage"], "wall_s": stage["wall_s"], "rc": stage["exit"]}


def _runs(root: Path) -> list[str]:
    return sorted({path.name.split("_", 1)[1] for stage in STAGES for path in root.glob(f"{stage}_*")})


def _optional(path: Path) -> Record | None:
    return read_json(path) if path.is_file() else None


def _environment(folder: Path) -> Record:
    """The facts of the last attempt."""
    found = _optional(folder / "env.json") or {}
    return (found.get("attempts") or [found])[-1]


# ----------------------------------------------------------------------------- stages


def _stage(folder: Path, records: Sequence[Record], steps: Sequence[Record]) -> Record:
    """One stage in figures. `wall_s` is the ledger's, or the sum of the steps where no ledger was kept."""
    train = [record for record in records if record.get("loss") is not None]
    loss = metrics.Ema()
    for record in train:
        loss.update(record["loss"])
    name = folder.name.split("_", 1)[0]
    walls = [step["wall_s"] for step in steps if step["name"] == name]
    paces = [record["tokens_per_s"] for record in train if record.get("tokens_per_s")]
    marker = next((marker for marker in MARKERS if (folder / marker).is_file()), None)
    facts = (_optional(folder / marker) if marker else None) or {}
    last = train[-1] if train else {}
    return {
        "status": (marker or "unfinished").lower(),
        "reason": facts.get("reason"),
        "steps": last.get("step", 0),
        "tokens": last.get("tokens", 0),
        "loss": loss.value,
        "val_loss": _last(records, "val_loss"),
        "val_bpb": _last(records, "val_bpb"),
        "tokens_per_s": statistics.median(paces) if paces else None,
        "wall_s": sum(walls) if walls else sum(record.get("step_s", 0) for record in train),
        "eval_s": sum(record.get("eval_s", 0) + record.get("sample_s", 0) for record in records),
        "attempts": len((_optional(folder / "env.json") or {}).get("attempts", [])) or 1,
        "data": ((facts.get("data") or {}).get("counters")) or {},
        "samples": _last(records, "samples") or [],
        "evals": {path.stem: _numbers(read_json(path)) for path in sorted((folder / "evals").glob("*.json"))},
        "config": _optional(folder / "config.json") or {},
    }


def _last(records: Iterable[Record], key: str) -> Any:
    found = [record[key] for record in records if record.get(key) is not None]
    return found[-1] if found else None


def _numbers(record: Record) -> dict[str, float]:
    return {k: v for k, v in record.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}


def _scores(record: Record) -> dict[str, float]:
    """Exam name -> share of right answers, 0 to 1."""
    return {name: found["score"] for name, found in record.get("exams", {}).items()}


def _curves(records: Sequence[Record]) -> Record:
    """What the plots show, thinned: training means over equal stretches, validations at their tokens."""
    train = [record for record in records if record.get("loss") is not None]
    size = max(1, math.ceil(len(train) / CURVE_POINTS))
    stretches = [train[i : i + size] for i in range(0, len(train), size)]
    average = metrics.Ema()
    smooth = [average.update(record["loss"]) for record in train][size - 1 :: size]
    tokens_at = {record["step"]: record.get("tokens", record["step"]) for record in train}
    validations = [record for record in records if record.get("val_bpb") is not None]
    curves: Record = {
        "smooth_loss": smooth + [average.value] * (len(stretches) - len(smooth)) if train else []
    }
    for key in ("step", "tokens", "loss", "lr_scale", "tokens_per_s"):
        curves[key] = [statistics.fmean(record.get(key) or 0 for record in stretch) for stretch in stretches]
    for key in ("val_bpb", "val_loss"):
        points = [(tokens_at.get(found["step"], 0), found[key]) for found in validations if found.get(key)]
        curves[key] = points
    return {**curves, "learning": _learning(records)}


def _learning(records: Sequence[Record]) -> dict[str, list[tuple[float, float]]]:
    """Rates from 0 to 1 that a stage was rewarded for, by step: while it trained, and at its validations."""
    names = dict.fromkeys(name for record in records for name in record if RATE.fullmatch(name))
    return {
        name: [(record["step"], record[name]) for record in records if record.get(name) is not None]
        for name in names
    }


# ----------------------------------------------------------------------------- model and tokenizer


def _model(folders: Iterable[Path]) -> Record:
    """Architecture and number of parameters, from the newest checkpoint of the first stage that has one."""
    for folder in folders:
        for checkpoint in sorted((folder / "checkpoints").glob("step_*"), reverse=True):
            state, weights = _optional(checkpoint / "state.json"), checkpoint / "model.safetensors"
            if state and weights.is_file():
                return {**state.get("gpt_config", {}), "parameters": _count(weights)}
    return {}


def _count(weights: Path) -> int:
    from safetensors import safe_open

    with safe_open(weights, framework="np") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118  no mapping


def _tokenizer(root: Path, stages: dict[str, Record]) -> Record:
    """Size, hash and training facts of the tokenizer that the run used, and what its evaluation measured."""
    configs = [stage["config"] for stage in stages.values()]
    folder = next((resolve(root, config["tok_dir"]) for config in configs if config.get("tok_dir")), None)
    stored = _optional(folder / "tokenizer.json") if folder else None
    if not folder or not stored:
        return {}
    size = len(stored.get("tokens", [])) + len(stored.get("specials", []))
    evaluation = _optional(folder / "eval.json") or {}
    return {
        "vocab_size": size,
        "hash": stored.get("hash"),
        "training": stored.get("training") or {},
        "bytes_per_token": evaluation.get("bytes_per_token", {}),
    }
