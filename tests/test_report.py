"""Run folders of every state become a report; what a model says cannot break a page."""

from __future__ import annotations

import json
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from nanochat import report, report_chat, report_pages, report_plots, report_tables
from nanochat.common import UsageError, read_json, write_json
from nanochat.metrics import MetricsLog
from scripts.report import main

HOSTILE = "<script>alert(1)</script> | a & b"
ENVIRONMENT = {
    "commit": "0123456789abcdef",
    "dirty": True,
    "versions": {"torch": "2.13.0"},
    "platform": "Linux",
    "hardware": {"cpu": "Test CPU", "cores": 2, "memory_mib": 4096, "gpus": ["GPU X", "GPU X"]},
}


def exam(score: float) -> dict[str, Any]:
    facts = {
        "world_mc": {"score": score, "n": 100, "stderr": 0.01, "target": 0.9},
        "sums": {"score": score, "n": 50},
    }
    replies = [
        {"exam": "sums", "prompt": "2 plus 3?", "reply": "5", "gold": "5", "ok": True},
        {"exam": "sums", "prompt": "2 plus 4?", "reply": "7", "gold": "6", "ok": False},
        {"exam": "world_mc", "prompt": HOSTILE, "reply": HOSTILE, "gold": "x", "ok": True},
    ]
    return {"exams": facts, "examples": replies, "wall_s": 1.5}


def make_stage(root: Path, stage: str, steps: int = 20) -> Path:
    folder = root / f"{stage}_r"
    log = MetricsLog(folder / "metrics.jsonl")
    for step in range(1, steps + 1):
        log.log(
            step,
            loss=4 / step,
            lr_scale=1 - step / 40,
            tokens=step * 64,
            tokens_per_s=100.0 + step,
            step_s=0.5,
        )
    log.log(steps, val_loss=0.5, val_bpb=0.25)
    call = "<|python_start|>2+3<|python_end|><|output_start|>5<|output_end|>It is 5.<|assistant_end|>"
    log.log(steps, samples=[{"prompt": "2 plus 3?", "text": call}, {"prompt": HOSTILE, "text": HOSTILE}])
    write_json(folder / "config.json", {"run": "r", "tok_dir": "tok", "lr_scale": 1.0})
    write_json(folder / "env.json", {"attempts": [{}, ENVIRONMENT]})
    write_json(folder / "DONE", {"step": steps, "data": {"counters": {"rows": 7, "padding": 3}}})
    checkpoint = folder / "checkpoints" / f"step_{steps:07d}"
    write_json(checkpoint / "state.json", {"gpt_config": {"depth": 2, "tie_embeddings": True}})
    save_file(
        {"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float32)}, checkpoint / "model.safetensors"
    )
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run named r; returns the base folder."""
    base = tmp_path_factory.mktemp("base")
    for stage, score in (("base", 0.25), ("mid", 0.8), ("sft", 0.95)):
        write_json(make_stage(base, stage) / "evals" / "exams.json", exam(score))
    untrained = {**exam(0.2), "commonest_answer": {"world_mc": 0.3}}
    write_json(base / "base_r" / "evals" / "untrained.json", untrained)
    steps = [
        {"name": name, "wall_s": wall, "rc": 0, "peak_rss_mib": 900.0 + wall}
        for name, wall in (("base", 60), ("base exams", 5), ("mid", 20), ("sft", 10))
    ]
    write_json(base / "runs" / "r" / "ledger.json", {"started": "2026-01-01T00:00:00+0000", "stages": steps})
    tokenizer = {
        "tokens": ["eA=="] * 300,
        "specials": ["<|bos|>"] * 9,
        "hash": "f" * 64,
        "training": {"bytes": 1000},
    }
    write_json(base / "tok" / "tokenizer.json", tokenizer)
    ratios = {"this one": {"news": 3.5, "code": 2.25}, "GPT-2": {"news": 4.5}}
    write_json(base / "tok" / "eval.json", {"bytes_per_token": ratios})
    return base


@pytest.fixture(scope="module")
def plots(run: Path) -> list[report_plots.Plot]:
    pytest.importorskip("matplotlib", reason="the extra `report` is not installed")
    drawn, note = report_plots.draw(report.collect(run, "r"))
    assert note is None
    return drawn


def test_the_figures_of_a_run(run: Path) -> None:
    found = report.collect(run, "r")
    assert found["exams"]["mid"] == {"world_mc": 0.8, "sums": 0.8} and found["exams"]["sft"]["sums"] == 0.95
    assert found["controls"]["untrained"]["world_mc"] == 0.2 and found["controls"]["base"]["sums"] == 0.25
    assert found["controls"]["commonest"] == {"world_mc": 0.3}
    assert found["wall_s"] == 95 and found["peak_rss_mib"] == 960.0
    assert found["val_bpb"] == {"base": 0.25, "mid": 0.25, "sft": 0.25}
    assert found["commit"] == "0123456789abcdef" and found["hardware"]["cores"] == 2
    assert found["model"] == {"depth": 2, "tie_embeddings": True, "parameters": 17}
    assert found["tokenizer"]["vocab_size"] == 309
    stage = found["stages"]["base"]
    assert (stage["status"], stage["steps"], stage["tokens"], stage["attempts"]) == ("done", 20, 1280, 2)
    assert stage["wall_s"] == 60 and stage["tokens_per_s"] == 110.5 and stage["data"]["padding"] == 3
    assert stage["evals"]["exams"] == {"wall_s": 1.5}
    assert 0.2 < stage["loss"] < 1.0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def chat(score: float, **more: Any) -> dict[str, Any]:
    facts = {"score": score, "low": score - 0.02, "high": score + 0.02, "n": 300}
    core = {"ChatCORE-5": {**facts, "n": 999}, "ChatCORE-6": {"missing": ["spellingbee"]}}
    return {"exams": {"mmlu": {**facts, "chance": 0.25, "overlong": 7}, **more}, "chatcore": core}


@pytest.mark.slow
def test_the_chat_evaluation_stands_in_both_pages(run: Path) -> None:
    """Stage beside stage, with intervals; a ChatCORE that lacks tasks is not shown."""
    sampled = {"score": 0.1, "low": 0.05, "high": 0.2, "n": 50, "pass_at": {"1": 0.1, "8": 0.4}, "empty": 3}
    write_json(run / "mid_r" / "evals" / "chat.json", chat(0.3))
    write_json(run / "sft_r" / "evals" / "chat.json", chat(0.35, gsm8k=sampled))
    try:
        found = report.collect(run, "r")
        text, page = report_pages.markdown(found), report_pages.html(found, [], None, report_chat.draw(found))
    finally:
        for stage in ("mid", "sft"):
            (run / f"{stage}_r" / "evals" / "chat.json").unlink()
    assert "| mmlu | 30.0 % (28.0 to 32.0), 7 too long | 35.0 % (33.0 to 37.0), 7 too long | 25.0 % |" in text
    assert "| gsm8k | - | 10.0 % (5.0 to 20.0), pass@8 40.0 %, 3 empty | - | 50 |" in text
    assert text.index("| gsm8k") < text.index("| ChatCORE-5 | 30.0 %") and "ChatCORE-6" not in text
    assert "<h2>Chat evaluation</h2><figure>" in page and "pass@8 40.0 %" in page
    figure = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + len("</svg>")])
    words = "".join(figure.itertext())
    assert all(word in words for word in ("mmlu", "gsm8k", "ChatCORE-5", "MID", "SFT", "guessing"))
    assert report_chat.draw(report.collect(run, "r")) is None


def test_curves_are_thinned_and_keep_the_end(base: Path) -> None:
    make_stage(base, "base", steps=1001)
    curve = report.collect(base, "r")["curves"]["base"]
    lengths = {len(curve[key]) for key in ("tokens", "loss", "smooth_loss", "lr_scale", "tokens_per_s")}
    assert len(lengths) == 1 and 200 < lengths.pop() <= report.CURVE_POINTS
    assert curve["tokens"][-1] == 1001 * 64 and curve["val_bpb"] == [[1001 * 64, 0.25]]


def test_an_unfinished_run_is_reported_as_it_is(base: Path) -> None:
    folder = make_stage(base, "base", steps=3)
    (folder / "DONE").unlink()
    (folder / "env.json").unlink()
    write_json(folder / "FAULT", {"reason": "NotFinite: the loss is not finite"})
    (folder / "checkpoints" / "step_0000003" / "model.safetensors").unlink()
    found = report.collect(base, "r")
    assert found["wall_s"] == 1.5 and found["peak_rss_mib"] is None and found["model"] == {}
    assert report_tables.stages(found).rows[0][1] == "fault (NotFinite: the loss is not finite)"
    assert "unknown commit" in report_pages.markdown(found)
    assert "r</h1>" in report_pages.html(found, [], None)


def test_a_run_before_its_first_step(base: Path) -> None:
    write_json(base / "base_r" / "config.json", {"tok_dir": "tok"})
    found = report.collect(base, "r")
    plots, note = report_plots.draw(found)
    assert plots == [] and note is not None and note in report_pages.html(found, plots, note)
    assert "unfinished" in report_pages.markdown(found)


def test_a_run_that_is_not_there(base: Path) -> None:
    with pytest.raises(UsageError, match="there is no run in"):
        report.newest_run(base)
    make_stage(base, "base", steps=1)
    with pytest.raises(UsageError, match=r"no run .q.*runs are: r"):
        report.collect(base, "q")
    assert report.newest_run(base) == "r"


class Page(HTMLParser):
    """Collects tags and what would need a network; fails on tags that are not closed in order."""

    VOID = ("meta", "path", "use", "br")

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.stack.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.outside.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.stack.pop() == tag


def test_the_page_is_self_contained_and_escapes_what_models_say(
    run: Path, plots: list[report_plots.Plot]
) -> None:
    assert [plot.title for plot in plots] == [
        "Loss, pretraining",
        "Loss, mid-training",
        "Loss, SFT",
        "Validation, bits per byte",
        "Learning rate",
        "Throughput",
    ]
    text = report_pages.html(report.collect(run, "r"), plots, None)
    page = Page()
    page.feed(text)
    assert page.stack == [] and page.outside == [] and "script" not in page.tags
    assert len(page.ids) == len(set(page.ids)) and page.tags.count("svg") == 6
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert "&lt;script&gt;" in text and "prefers-color-scheme: dark" in text
    assert '<code class="python">2+3</code><code class="output">5</code>It is 5.</p>' in text
    assert "assistant_end" not in text


def test_figures_leave_their_colours_to_the_page(plots: list[report_plots.Plot]) -> None:
    for plot in plots:
        ElementTree.fromstring(plot.svg)
        assert "var(--line)" in plot.svg and not set(report_plots.COLOURS.values()) & set(
            re.findall("#[0-9a-f]{6}", plot.svg)
        )


def test_without_matplotlib_the_rest_is_written(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    folder = report.write(run, "r")
    assert "need matplotlib" in (folder / "report.html").read_text()
    assert "95.0 %" in (folder / "report.md").read_text()


def test_markdown_tables_hold(run: Path) -> None:
    text = report_pages.markdown(report.collect(run, "r"))
    assert "| world_mc | 30.0 % | 20.0 % | 25.0 % ± 1.0 | 80.0 % ± 1.0 | 95.0 % ± 1.0 | 100 |" in text
    assert "| news | 3.50 | 4.50 |\n| code | 2.25 | - |" in text
    assert "| 2 plus 3? | (2+3) (= 5) It is 5. |" in text and "<script>" not in text
    assert "2 x GPU X, Test CPU (2 cores, 4.00 GiB); commit 0123456789 with local changes" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


def test_examples_take_the_exams_in_turn(run: Path) -> None:
    prompts = [item["prompt"] for item in report_tables.examples(report.collect(run, "r"))]
    assert prompts == ["2 plus 3?", HOSTILE, "2 plus 4?"]


@pytest.mark.slow
def test_the_program_writes_three_files_here_and_in_the_newest(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--base-dir", str(run)])
    folder = run / "runs" / "r" / "report"
    for place in (folder, run / "report"):
        assert sorted(path.name for path in place.iterdir()) == ["report.html", "report.json", "report.md"]
    assert read_json(folder / "report.json")["exams"]["sft"]["sums"] == 0.95
    shown = capsys.readouterr().out
    assert shown.startswith("# Report of the run r") and str(folder / "report.html") in shown


def test_rl_has_a_learning_curve_instead_of_a_loss(run: Path, tmp_path: Path) -> None:
    """Rates by step, of training and of validations; other stages keep their loss."""
    base = shutil.copytree(run, tmp_path / "base")
    folder = make_stage(base, "rl")
    steps = [
        {"step": n, "time": n, "loss": -0.01, "tokens": 9 * n, "tokens_per_s": 5.0, "lr_scale": 1.0,
         "reward": 0.5, "pass_1": n / 4, "pass_8": 0.9}
        for n in (1, 2, 3)
    ]  # fmt: skip
    steps.append(
        {"step": 3, "time": 4, "val_error": 0.2, "val_greedy": 0.8, "val_pass_1": 0.7, "val_pass_8": 1.0}
    )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    found = report.collect(base, "r")
    rates = found["curves"]["rl"]["learning"]
    assert rates["pass_1"] == [[1, 0.25], [2, 0.5], [3, 0.75]] and rates["val_greedy"] == [[3, 0.8]]
    assert "val_error" not in rates and not found["curves"]["sft"]["learning"]
    pytest.importorskip("matplotlib", reason="the extra `report` is not installed")
    titles = [plot.title for plot in report_plots.draw(found)[0]]
    assert "Learning curve, RL" in titles and "Loss, SFT" in titles and "Loss, RL" not in titles
    svg = next(plot.svg for plot in report_plots.draw(found)[0] if plot.title == "Learning curve, RL")
    assert "pass@8" in svg and "held out, greedy" in svg and "var(--rl)" in svg
