"""A whole run: its plan, what it makes of its steps' ends and of signals, and that a rerun goes on.

The fast tests walk small real processes; the slow ones the real recipe `tiny`.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import toy

from nanochat import metrics, pipeline
from nanochat.common import EXIT_DONE, EXIT_STOPPED, read_json
from nanochat.config import Pipeline
from nanochat.pipeline import Step

TINY = Pipeline(recipe="tiny", run="tiny", embedded_world=True, control_items=4)


# ----------------------------------------------------------------------------- the plan


def test_a_recipe_on_the_embedded_world_examines_every_stage() -> None:
    steps = pipeline.plan(TINY)
    names = [
        "world",
        "tokenizer",
        "base",
        "controls",
        "base exams",
        "mid",
        "mid exams",
        "sft",
        "sft exams",
        "report",
    ]
    assert [step.name for step in steps] == names
    command = steps[2].command(TINY)
    assert command[1:] == ["-m", "scripts.base_train", "--preset", "tiny", "--run", "tiny"]
    assert {step.script for step in steps} <= {path.stem for path in (toy.ROOT / "scripts").glob("*.py")}


def test_rl_comes_behind_sft_if_asked_for() -> None:
    for recipe, behind in ((TINY, ["rl", "rl exams", "report"]), (Pipeline(), ["rl", "rl exams", "report"])):
        steps = pipeline.plan(dataclasses.replace(recipe, rl=True, nproc=2))
        assert [step.name for step in steps][-len(behind) :] == behind
        rl = next(step for step in steps if step.name == "rl")
        assert (rl.script, rl.stage, rl.ranks) == ("chat_rl", "rl", 2)


def test_training_on_several_ranks_goes_through_torchrun() -> None:
    config = Pipeline(recipe="speedrun", run="d20", nproc=8, fresh=True, base_dir="/big")
    commands = {step.name: " ".join(step.command(config)[1:]) for step in pipeline.plan(config)}
    launcher = "-m torch.distributed.run --standalone --nproc_per_node=8 -m -- scripts.base_train"
    assert commands["base"] == f"{launcher} --preset speedrun --run d20 --base-dir /big --fresh"
    assert commands["tokenizer"].startswith("-m scripts.tok_train")
    assert commands["sft exams"].endswith(
        "scripts.chat_eval --preset speedrun --run d20 --base-dir /big --source sft"
    )


@pytest.mark.parametrize(
    ("units", "minutes"), [("AMX", "3 minutes"), ("AVX512-BF16", "3 to 7 minutes"), (None, "7 minutes")]
)
def test_the_plan_says_where_how_long_and_what(
    units: str | None, minutes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "bfloat16_units", lambda: units)
    said = pipeline.describe(
        Pipeline(recipe="x", run="r", base_dir="/there", minutes_float32=7, minutes_bfloat16=3)
    )
    assert "/there" in said and f"Estimate on 2 cores: {minutes} (" in said
    assert "python -m scripts.base_train --preset x --run r" in said


# ----------------------------------------------------------------------------- its steps


class Program(Step):
    """A step that runs a line of Python."""

    def command(self, config: Pipeline) -> list[str]:
        return [sys.executable, "-c", self.script]


@pytest.fixture
def walk(base: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """`walk(step, ...)` executes these steps as the run `tiny`."""

    def execute(*steps: Step) -> int:
        monkeypatch.setattr(pipeline, "plan", lambda config: list(steps))
        return pipeline.execute(TINY)

    return execute


def test_ends_with_the_first_step_that_does_not_end_well(base: Path, walk: object) -> None:
    steps = Program("one", "pass"), Program("two", "raise SystemExit(3)"), Program("three", "pass")
    assert walk(*steps) == 3  # type: ignore[operator]
    stages = read_json(base / "runs" / "tiny" / "ledger.json")["stages"]
    assert [(stage["name"], stage["rc"]) for stage in stages] == [("one", 0), ("two", 3)]
    assert all(stage["wall_s"] > 0 and stage["peak_rss_mib"] > 1 for stage in stages)


def test_a_stopped_stage_of_torchrun_is_75_whatever_torchrun_says(base: Path, walk: object) -> None:
    marker = base / "base_tiny" / "STOPPED"
    marker.parent.mkdir()
    for code in (0, 1):
        stop = f"import time; open({str(marker)!r}, 'w').write(str(time.time())); raise SystemExit({code})"
        assert walk(Program("base", stop, ranks=2, stage="base")) == EXIT_STOPPED  # type: ignore[operator]
    failed = Program("base", "raise SystemExit(1)", ranks=2, stage="base")
    assert walk(failed) == 1  # type: ignore[operator]  # the marker is the last attempt's


def test_an_exam_is_sat_again_only_if_model_or_question_changed(base: Path, walk: object) -> None:
    folder = base / "base_tiny"
    result = folder / "evals" / "exams.json"
    result.parent.mkdir(parents=True)
    (folder / "DONE").touch()
    write = f"open({str(result)!r}, 'a').write('x')"

    def exam(*args: str) -> Program:
        return Program("base exams", write, args, stage="base", result="exams")

    few = ("--limit", "9")
    for expected, args in (("x", ()), ("x", ()), ("xx", few), ("xx", few), ("xxx", ()), ("xxx", ())):
        assert walk(exam(*args)) == EXIT_DONE  # type: ignore[operator]
        assert result.read_text() == expected
    os.utime(folder / "DONE", (time.time() + 5, time.time() + 5))
    assert walk(exam()) == EXIT_DONE and result.read_text() == "xxxx"  # type: ignore[operator]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_step_and_stops_behind_it(
    base: Path, walk: object, number: signal.Signals
) -> None:
    """The terminal gives SIGINT to the child, too; SIGTERM is passed on. The step ends in its own way."""
    handle = f"signal.signal({int(number)}, lambda *_: done.append(1))"
    ready = base / "ready"
    say = f"open({str(ready)!r}, 'w').write(str(os.getpid()) + '.')"
    patient = f"import os, signal, time; done = []; {handle}; {say}\nwhile not done: time.sleep(0.01)"

    def send() -> None:
        while not ready.exists() or not ready.read_text().endswith("."):
            time.sleep(0.01)
        os.kill(os.getpid(), number)
        if number == signal.SIGINT:
            os.kill(int(ready.read_text()[:-1]), number)

    before = signal.getsignal(number)
    threading.Thread(target=send).start()
    assert walk(Program("one", patient), Program("two", "raise SystemExit(3)")) == EXIT_STOPPED  # type: ignore[operator]
    assert signal.getsignal(number) is before


@pytest.mark.dist
@pytest.mark.slow
def test_a_real_stage_under_torchrun_that_stops_is_75(base: Path, walk: object) -> None:
    toy.make_world(base)
    words = toy.options("base", base, base)[2:]
    words = [w for i, w in enumerate(words) if "--base-dir" not in words[max(0, i - 1) : i + 1]]
    for stop, code in (("3", EXIT_STOPPED), ("99", EXIT_DONE)):
        stage = Step("base", "base_train", (*words, "--stop-at-step", stop), 2, "base")
        assert walk(stage) == code  # type: ignore[operator]


# ----------------------------------------------------------------------------- the real thing


def begin(base: Path) -> subprocess.Popen[bytes]:
    """`python -m scripts.pipeline --preset tiny` as a terminal starts it: in a process group of its own."""
    command = [sys.executable, "-m", "scripts.pipeline", "--preset", "tiny", "--base-dir", str(base)]
    short = {"NANOCHAT_STEPS": "12", "NANOCHAT_SAVE_EVERY_STEPS": "4", "PYTHONPATH": str(toy.ROOT)}
    with open(base / "log", "ab") as log:
        return subprocess.Popen(
            command, env={**os.environ, **short}, stdout=log, stderr=log, cwd=toy.ROOT, start_new_session=True
        )


def stop_in(stage: str, base: Path, signalling: object, number: signal.Signals) -> None:
    """Begin, send a signal when the stage has done a step: the stage has saved and the run says 75."""
    folder, child = base / f"{stage}_tiny", begin(base)
    while child.poll() is None and not metrics.read(folder / "metrics.jsonl"):
        time.sleep(0.02)
    signalling(child.pid, number)  # type: ignore[operator]
    assert child.wait(60) == EXIT_STOPPED, (base / "log").read_text()
    assert 0 < read_json(folder / "STOPPED")["step"] < 12


@pytest.mark.slow
def test_the_tiny_recipe_survives_its_user(base: Path) -> None:
    """Ctrl-C in pretraining, SIGTERM in mid-training, then to the end; and a last rerun ends at once."""
    stop_in("base", base, os.killpg, signal.SIGINT)
    stop_in("mid", base, os.kill, signal.SIGTERM)
    assert begin(base).wait(900) == EXIT_DONE, (base / "log").read_text()
    for stage in ("base", "mid", "sft"):
        log = metrics.read(base / f"{stage}_tiny" / "metrics.jsonl")
        assert [r["step"] for r in log if "loss" in r] == list(range(1, 13))
        assert (base / f"{stage}_tiny" / "evals" / "exams.json").is_file()
    report = read_json(base / "report" / "report.json")
    assert set(report["exams"]) == {"mid", "sft"} and report["wall_s"] > 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert begin(base).wait(300) == EXIT_DONE
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 10
    assert (base / "log").read_text().count("done before") >= 4
