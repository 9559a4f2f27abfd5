"""A report as Markdown and as one HTML file that needs no network.

What it is: pure functions from the dict of `report.collect` to text; all text of the run is escaped. The look
is in `report.css`, the curves come from `report_plots.py`, the cells from `report_tables.py`. What it is not:
reading of run folders. No torch. Run: `python -m scripts.report --run laptop`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from nanochat import report_chat, report_core
from nanochat import report_tables as tables
from nanochat.metrics import format_seconds
from nanochat.report_plots import Plot
from nanochat.report_tables import TITLES, Report, Table

# ----------------------------------------------------------------------------- Markdown


def markdown(report: Report) -> str:
    """The report for a terminal, a mail or a repository."""
    lines = [f"# Report of the run {_markdown_cell(report['run'])}", ""]
    lines += [
        _markdown_cell(tables.summary(report)) + ".  ",
        _markdown_cell(tables.provenance(report)) + ".",
        "",
    ]
    shown = [tables.stages(report), tables.exams(report)]
    shown += [report_chat.table(report), report_core.table(report)]
    for stage, samples in tables.samples(report).items():
        rows = [[sample["prompt"], tables.plain(sample["text"])] for sample in samples]
        shown.append(Table(f"Samples, {TITLES[stage]}", ["prompt", "reply"], rows, prose=True))
    shown += [tables.data(report), tables.model(report), tables.tokenizer(report), tables.compression(report)]
    shown += [tables.time_spent(report), tables.cluster(report), tables.environment(report)]
    return "\n".join(lines + [line for table in shown if table.rows for line in _markdown_table(table)])


def _markdown_cell(text: str) -> str:
    return re.sub(r"([\\|`*<>\[\]#]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))


def _markdown_table(table: Table) -> list[str]:
    rule = " --- |" if table.prose else " ---: |"
    lines = [f"## {table.title}", "", f"| {' | '.join(table.header)} |"]
    lines.append("| --- |" + rule * (len(table.header) - 1))
    return [*lines, *(f"| {' | '.join(map(_markdown_cell, row))} |" for row in table.rows), ""]


# ----------------------------------------------------------------------------- HTML


def html(report: Report, plots: Sequence[Plot], note: str | None, chat: Plot | None = None) -> str:
    """One self-contained page; `note` stands where the curves would be."""
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    facts = [
        tables.model(report),
        tables.tokenizer(report),
        tables.compression(report),
        tables.environment(report),
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(report["run"])}: nanochat report</title>
<style>
{css}</style>
</head>
<body>
<header><p class="kicker">nanochat report</p><h1>{escape(report["run"])}</h1>
<p>{escape(tables.provenance(report))}</p></header>
<main>
{_tiles(report)}
{_replies(report)}
{_exams(report)}
{_chat(report, chat)}
{_section(report_core.table(report))}
{_curves(plots, note)}
{_section(tables.stages(report))}
{_section(tables.data(report))}
{_section(tables.time_spent(report))}
{_section(tables.cluster(report))}
<div class="facts">{"".join(map(_section, facts))}</div>
{_options(report)}
</main>
<footer><p>Every figure of this page is in report.json beside it.</p></footer>
</body>
</html>
"""


def _tiles(report: Report) -> str:
    model, score = report["model"], tables.final_score(report)
    tiles = [(tables.percent(score[1]), f"of the exams, {TITLES[score[0]]}")] if score else []
    if "base" in report["val_bpb"]:
        tiles.append((f"{report['val_bpb']['base']:.3f}", "bits per byte, BASE"))
    if model:
        tiles.append((tables.quantity(model["parameters"]), f"parameters, {model['depth']} layers"))
    tiles.append((tables.quantity(tables.total_tokens(report)), "training tokens"))
    tiles.append((format_seconds(report["wall_s"]), "wall time"))
    if report["peak_rss_mib"]:
        tiles.append((tables.memory(report["peak_rss_mib"]), "peak memory"))
    cells = (
        f"<div><strong>{escape(value)}</strong><span>{escape(what)}</span></div>" for value, what in tiles
    )
    return f'<section class="tiles">{"".join(cells)}</section>'


def _reply(text: str) -> str:
    """A reply as HTML: special tokens out, calls of a tool and their results as code."""
    parts, end = [], 0
    for call in tables.TOOL_CALL.finditer(text):
        parts.append(escape(tables.SPECIAL_TOKEN.sub("", text[end : call.start()])))
        parts.append(f'<code class="{call[1]}">{escape(call[2])}</code>')
        end = call.end()
    return "".join([*parts, escape(tables.SPECIAL_TOKEN.sub("", text[end:]))]).strip()


def _replies(report: Report) -> str:
    """What the model says, as bubbles: the last stage in sight, the others folded."""
    parts: list[str] = []
    for stage, samples in tables.samples(report).items():
        bubbles = "".join(
            f'<p class="ask">{escape(sample["prompt"])}</p><p class="reply">{_reply(sample["text"])}</p>'
            for sample in samples
        )
        title = f"{TITLES[stage]}, {'continuations' if stage == 'base' else 'replies'}"
        fold = "" if parts else " open"
        parts.append(f'<details{fold}><summary>{title}</summary><div class="chat">{bubbles}</div></details>')
    return f"<section><h2>What it says</h2>{''.join(parts)}</section>" if parts else ""


def _exams(report: Report) -> str:
    names = tables.exam_names(report)
    if not names:
        return ""
    targets = ["target"] if any(tables.exam_facts(report, name, "target") for name in names) else []
    keys = "".join(
        f'<span class="{who}">{TITLES.get(who, who)}</span>'
        for who in [*tables.exam_columns(report), *targets]
    )
    bars = "".join(_exam(report, name) for name in names)
    return (
        f'<section><h2>Exams</h2><div class="legend">{keys}</div><div class="exams">{bars}</div>'
        f"<details><summary>The same in figures</summary>{_table(tables.exams(report))}</details>"
        f"{_examples(report)}</section>"
    )


def _exam(report: Report, name: str) -> str:
    """Bars for the stages; ticks for the controls and, where an exam names one, the target."""
    ticks = {who: scores.get(name) for who, scores in report["controls"].items()}
    ticks["target"] = next(iter(tables.exam_facts(report, name, "target")), None)
    marks = "".join(
        f'<i class="{who}" style="left:{100 * value:.1f}%" title="{who} {tables.percent(value)}"></i>'
        for who, value in ticks.items()
        if value is not None
    )
    scores = {who: found[name] for who, found in report["exams"].items() if name in found}
    bars = "".join(
        f'<div class="bar {who}"><b style="width:{100 * score:.1f}%"></b>'
        f"<span>{tables.percent(score)}</span></div>"
        for who, score in scores.items()
    )
    items = tables.quantity(max(tables.exam_facts(report, name, "n"), default=None))
    label = f"{escape(name.replace('_', ' '))} <small>{items} items</small>"
    return f'<div class="exam"><div>{label}</div><div class="bars">{bars}{marks}</div></div>'


def _examples(report: Report) -> str:
    rows = ""
    for item in tables.examples(report):
        verdict = "right" if item["ok"] else "wrong"
        cells = [escape(str(item["prompt"])), _reply(str(item["reply"])), escape(str(item["gold"]))]
        cells.append(f'<span class="{verdict}">{verdict}</span>')
        rows += f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    head = "<thead><tr><th>question</th><th>reply</th><th>expected</th><th></th></tr></thead>"
    table = f'<div class="wide"><table class="prose">{head}<tbody>{rows}</tbody></table></div>'
    return f"<h3>From the exams</h3>{table}" if rows else ""


def _chat(report: Report, plot: Plot | None) -> str:
    shown = report_chat.table(report)
    return _section(shown, _figure(plot) if plot else "")


def _figure(plot: Plot) -> str:
    title = f"<h3>{escape(plot.title)}</h3>"
    return f"<figure>{title}{plot.svg}<figcaption>{escape(plot.caption)}</figcaption></figure>"


def _curves(plots: Sequence[Plot], note: str | None) -> str:
    figures = "".join(map(_figure, plots))
    shown = f'<div class="curves">{figures}</div>' if plots else f'<p class="note">{escape(note or "")}</p>'
    return f"<section><h2>Curves</h2>{shown}</section>"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    head = f"<thead><tr>{head}</tr></thead>" if any(table.header) else ""
    rows = "".join(
        f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in table.rows
    )
    return f'<div class="wide"><table>{head}<tbody>{rows}</tbody></table></div>'


def _section(table: Table, figure: str = "") -> str:
    shown = f"{figure}{_table(table)}"
    return f"<section><h2>{escape(table.title)}</h2>{shown}</section>" if table.rows else ""


def _options(report: Report) -> str:
    shown = [table for stage in report["stages"] if (table := tables.options(report, stage)).rows]
    folds = "".join(f"<details><summary>{escape(t.title)}</summary>{_table(t)}</details>" for t in shown)
    return f"<section><h2>Options</h2>{folds}</section>" if folds else ""
