"""A report's figures as tables and lines of text, for both pages.

What it is: pure functions from the dict of `report.collect` to `Table`s of text cells, and replies made
readable (special tokens out, calls of a tool marked). What it is not: Markdown or HTML (`report_pages.py`).
No torch. Run: `pytest tests/test_report.py`.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from nanochat.metrics import format_seconds

Report = Mapping[str, Any]
TITLES = {
    "commonest": "COMMONEST",
    "untrained": "UNTRAINED",
    "base": "BASE",
    "mid": "MID",
    "sft": "SFT",
    "rl": "RL",
}
MAX_EXAMPLES = 12
NO_VALUE = "-"

TOOL_CALL = re.compile(r"<\|(python|output)_start\|>(.*?)(?:<\|\1_end\|>|$)", re.DOTALL)
SPECIAL_TOKEN = re.compile(r"<\|[a-z_]+\|>")


class Table(NamedTuple):
    """A titled table of text cells; the first column names the row. `prose`: sentences, not figures."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    prose: bool = False


# ----------------------------------------------------------------------------- figures as text


def percent(value: float | None) -> str:
    return NO_VALUE if value is None else f"{100 * value:.1f} %"


def quantity(value: float | None) -> str:
    """12,345 up to a million, then 12.3 M, 4.56 B."""
    if value is None:
        return NO_VALUE
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}"


def decimals(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:.4f}"


def memory(mib: float | None) -> str:
    if mib is None:
        return NO_VALUE
    return f"{mib / 1024:.2f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def cell(value: Any) -> str:
    """Any value of a config or a tokenizer."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.5g}" if abs(value) < 1e5 else f"{value:,.0f}"
    return NO_VALUE if value is None else str(value)


def hardware(report: Report) -> str:
    found = report["hardware"]
    gpus = found.get("gpus", [])
    parts = [f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)]
    if found:
        parts.append(f"{found['cpu']} ({found['cores']} cores, {memory(found['memory_mib'])})")
    return ", ".join(parts) or "unknown hardware"


def commit(report: Report) -> str:
    if not report["commit"]:
        return "unknown commit"
    return f"commit {report['commit'][:10]}" + (" with local changes" if report["dirty"] else "")


def provenance(report: Report) -> str:
    """What it ran on, which code, and when this was written."""
    return f"{hardware(report)}; {commit(report)}; written {report['written']}"


def total_tokens(report: Report) -> int:
    return sum(stage["tokens"] for stage in report["stages"].values())


def final_score(report: Report) -> tuple[str, float] | None:
    """The last stage that sat the exams and its mean score, 0 to 1."""
    means = [(stage, statistics.fmean(scores.values())) for stage, scores in report["exams"].items()]
    return means[-1] if means else None


def summary(report: Report) -> str:
    """One line: what was made, and how good it is."""
    model, score = report["model"], final_score(report)
    parts = [f"{quantity(model['parameters'])} parameters in {model['depth']} layers"] if model else []
    parts += [f"{quantity(total_tokens(report))} training tokens"]
    parts += [f"{format_seconds(report['wall_s'])} of wall time"]
    return ", ".join(parts + ([f"{percent(score[1])} of the exams ({TITLES[score[0]]})"] if score else []))


# ----------------------------------------------------------------------------- tables


def stages(report: Report) -> Table:
    rows: dict[str, Callable[[Report], str]] = {
        "status": lambda stage: stage["status"] + (f" ({stage['reason']})" if stage["reason"] else ""),
        "steps": lambda stage: f"{stage['steps']:,}",
        "tokens": lambda stage: quantity(stage["tokens"]),
        "training loss, nats per token": lambda stage: decimals(stage["loss"]),
        "validation loss, nats per token": lambda stage: decimals(stage["val_loss"]),
        "validation, bits per byte": lambda stage: decimals(stage["val_bpb"]),
        "tokens per second, median": lambda stage: quantity(stage["tokens_per_s"]),
        "wall time": lambda stage: format_seconds(stage["wall_s"]),
        "of it validation and samples": lambda stage: format_seconds(stage["eval_s"]),
        "attempts": lambda stage: str(stage["attempts"]),
    }
    found = report["stages"]
    cells = [[name, *map(text, found.values())] for name, text in rows.items()] if found else []
    return Table("Stages", ["", *(TITLES[stage] for stage in found)], cells)


def exam_columns(report: Report) -> dict[str, Mapping[str, float]]:
    """Who sat the exams -> exam -> score; the controls first."""
    return {who: scores for who, scores in {**report["controls"], **report["exams"]}.items() if scores}


def exam_names(report: Report) -> list[str]:
    return list(dict.fromkeys(name for scores in exam_columns(report).values() for name in scores))


def exam_facts(report: Report, exam: str, key: str) -> list[Any]:
    """One fact (`n`, `target`, ...) of an exam, as the stages recorded it."""
    return [found[exam][key] for found in report["exam_details"].values() if key in found.get(exam, {})]


def exams(report: Report) -> Table:
    columns = exam_columns(report)
    rows = []
    for name in exam_names(report):
        cells = []
        for who, scores in columns.items():
            error = report["exam_details"].get(who, {}).get(name, {}).get("stderr")
            cells.append(percent(scores.get(name)) + (f" ± {100 * error:.1f}" if error else ""))
        rows.append([name, *cells, quantity(max(exam_facts(report, name, "n"), default=None))])
    means = ["mean", *(percent(statistics.fmean(scores.values())) for scores in columns.values()), ""]
    header = ["", *(TITLES[who] for who in columns), "items"]
    return Table("Exams", header, [*rows, means] if rows else [])


def data(report: Report) -> Table:
    counted = {stage: found["data"] for stage, found in report["stages"].items() if found["data"]}
    names = list(dict.fromkeys(name for counters in counted.values() for name in counters))
    rows = [[name.replace("_", " "), *(quantity(c.get(name)) for c in counted.values())] for name in names]
    return Table("Data that was seen", ["", *(TITLES[stage] for stage in counted)], rows)


def model(report: Report) -> Table:
    return Table(
        "Model", ["", ""], [[name.replace("_", " "), cell(v)] for name, v in report["model"].items()]
    )


def tokenizer(report: Report) -> Table:
    found = report["tokenizer"]
    if not found:
        return Table("Tokenizer", ["", ""], [])
    facts = {"vocabulary": found["vocab_size"], **_flat(found["training"])}
    rows = [[name, cell(value)] for name, value in facts.items()]
    return Table("Tokenizer", ["", ""], [*rows, ["hash", str(found["hash"])[:16]]])


def compression(report: Report) -> Table:
    """Bytes per token by kind of text, beside other tokenizers."""
    ratios = report["tokenizer"].get("bytes_per_token", {})
    names = list(dict.fromkeys(name for row in ratios.values() for name in row))
    rows = [
        [name, *(f"{row[name]:.2f}" if name in row else NO_VALUE for row in ratios.values())]
        for name in names
    ]
    return Table("Tokenizer, bytes per token", ["", *ratios], rows)


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as `outer inner` -> value; lists are left to report.json."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name} ")
        elif not isinstance(value, list):
            flat[name] = value
    return flat


def time_spent(report: Report) -> Table:
    rows = [
        [step["name"], format_seconds(step["wall_s"]), memory(step.get("peak_rss_mib")), str(step["rc"])]
        for step in report["ledger"]
    ]
    total = ["all", format_seconds(report["wall_s"]), memory(report["peak_rss_mib"]), ""]
    header = ["", "wall time", "peak memory so far", "exit code"]
    return Table("Where the time went", header, [*rows, total] if rows else [])


def cluster(report: Report) -> Table:
    """What a cluster run took: every start counts, those that were lost, too."""
    found = report["cluster"]
    if not found:
        return Table("Cluster", [], [])
    rows = [
        [
            s["stage"],
            str(s["starts"]),
            format_seconds(s["wall_s"]),
            f"{s['gpu_hours']:.3f}",
            str(s["repeated_steps"]),
        ]
        for s in found["stages"]
    ]
    price, hours = found["price_per_gpu_hour"], found["gpu_hours"]
    rows.append(["all", "", "", f"{hours:.3f}" + (f" ({hours * price:,.2f})" if price else ""), ""])
    title = f"Cluster: {found['nodes']} node(s) of {found['gpus_per_node']} GPU(s), site {found['site']}"
    return Table(title, ["stage", "starts", "wall time", "GPU-hours", "steps done twice"], rows)


def environment(report: Report) -> Table:
    facts = {"code": commit(report), "hardware": hardware(report), "platform": report["platform"]}
    rows = [[name, str(value)] for name, value in {**facts, **report["versions"]}.items() if value]
    return Table("Environment", ["", ""], rows)


def options(report: Report, stage: str) -> Table:
    config = report["stages"][stage]["config"]
    return Table(
        f"Options of {TITLES[stage]}", ["", ""], [[name, cell(value)] for name, value in config.items()]
    )


# ----------------------------------------------------------------------------- replies


def samples(report: Report) -> dict[str, list[Mapping[str, str]]]:
    """Stage -> its last samples `{"prompt", "text"}`, the latest stage first."""
    return {
        stage: found["samples"] for stage, found in reversed(report["stages"].items()) if found["samples"]
    }


def examples(report: Report) -> list[Mapping[str, Any]]:
    """A few exam items of the last stage that sat them, the exams in turn."""
    found: list[Mapping[str, Any]] = next(
        (items for items in reversed(report["examples"].values()) if items), []
    )
    by_exam: dict[str, list[Mapping[str, Any]]] = {}
    for item in found:
        by_exam.setdefault(item["exam"], []).append(item)
    turns = itertools.zip_longest(*by_exam.values())
    return [item for turn in turns for item in turn if item is not None][:MAX_EXAMPLES]


def plain(text: str) -> str:
    """A reply without special tokens; calls of a tool and their results in parentheses."""
    text = TOOL_CALL.sub(lambda call: f"({'= ' * (call[1] == 'output')}{call[2]}) ", text)
    return SPECIAL_TOKEN.sub("", text).strip()
