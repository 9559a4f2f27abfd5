"""From a command line to jobs: what is asked of which stage, how a run is cut, who waits for whom."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.assets import needed
from nanochat.common import UsageError
from nanochat.config import GPTConfig, ModelOptions
from nanochat.gpt import GPT
from nanochat.launch import estimate, sbatch, submission, templates
from nanochat.launch import plan as plans
from nanochat.launch.plan import Plan
from nanochat.launch.request import read

ROOT = Path(__file__).resolve().parent.parent


def planned(*words: str) -> Plan:
    name = [] if any(word.startswith("--run") for word in words) else ["--run", "r"]
    return plans.build(read([*name, *words]), "id")[0]


@pytest.fixture(autouse=True)
def own_base(base: Path) -> None:
    """No run of ours is taken for a measurement."""


# ----------------------------------------------------------------------------- words


def test_an_option_goes_to_the_stages_that_have_it() -> None:
    request = read(["--preset", "tiny", "--site", "lab", "--depth", "3", "--mid.steps=7", "--no-compile"])
    configs = {asked.slug: asked.config for asked in request.stages}
    assert configs["base"].depth == configs["sft_exams"].depth == 3
    assert (configs["base"].steps, configs["mid"].steps) == (20, 7)
    assert request.run == "tiny" and configs["base"].device == "cpu"
    assert "# command line" in request.stages[2].toml()


def test_rl_is_planned_behind_sft_if_asked_for() -> None:
    plan = planned("--preset", "tiny", "--site", "lab", "--rl", "--num-samples", "3", "--rl.steps", "4")
    rl = plan.stage("rl")
    assert (rl.script, rl.parent, rl.trains) == ("chat_rl", "sft", "rl")
    assert plan.stage("rl_exams").parent == "rl" and rl.leaves == "rl_r/DONE"
    config = {asked.slug: asked.config for asked in read(list(plan.words)).stages}["rl"]
    assert (config.num_samples, config.steps) == (3, 4)
    assert "rl" not in [stage.name for stage in planned("--preset", "tiny", "--site", "lab").stages]


def test_what_a_stage_trains_on_is_fetched_and_looked_for() -> None:
    """Without a word the recipe's tasks, else what the stage was given, and what the data job was told."""
    request = read([])
    configs = {asked.slug: asked.config for asked in request.stages}
    assert configs["mid"].mixture == configs["data"].mid_mixture == request.preflight.mid_mixture
    files = {asset.name for asset in needed(configs["data"])}
    assert {"smoltalk train", "mmlu all auxiliary_train", "word list", "ARC-Easy train"} <= {
        name.removeprefix("arc ") for name in files
    }
    request = read(
        ["--mid.mixture", "gsm8k:10", "--data.sft_mixture", "arc-easy", "--sft.mixture=mine.jsonl"]
    )
    data = next(asked.config for asked in request.stages if asked.slug == "data")
    assert (data.mid_mixture, data.sft_mixture) == ("gsm8k:10", "arc-easy")
    assert (request.preflight.mid_mixture, request.preflight.sft_mixture) == ("gsm8k:10", "mine.jsonl")
    assert read(["--preset", "tiny", "--site", "lab"]).preflight.mid_mixture == "mid.jsonl"


def test_a_run_is_named_after_its_depth() -> None:
    assert read(["--depth", "12"]).run == "d12"
    assert read([]).run == "d20" and read(["--preset", "run1000"]).run == "d32"
    assert read(["--depth", "12", "--run", "exp1"]).run == "exp1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--dept 3", "did you mean --depth"),
        ("--base.dept 3", "did you mean --depth"),
        ("--bas.depth 3", "stages are"),
        ("--depth", "needs a value"),
        ("depth", "unexpected word"),
        ("--depth four", "is not a whole number"),
        ("--until bse", "stages are"),
        ("--batch 4", "--base.device_batch_rows"),
        ("--run a/b", "letters, digits"),
        ("--run $(id)", "letters, digits"),
        ("--base-dir runs", "give a whole path"),
        ("--segments 0", "at least 1"),
        ("--site nowhere", "sites are"),
        ("NODE=2", "did you mean NODES"),
        ("NODES=two", "whole number"),
        ("NCCL_NET=x", "ENV_NCCL_NET"),
        ("ACCOUNT=a'b", "characters that cannot be"),
        ("EXTRA=--wrap=$(id)", "needs|characters"),
    ],
)
def test_what_is_not_understood_is_refused(words: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned("--preset", "tiny", *words.split())


@pytest.mark.parametrize("run", ["a b", "a'b", 'a"b', "$(id)", "a;b", "-a", "ü", "a" * 80, "a\nb"])
def test_a_hostile_run_name_is_refused(run: str) -> None:
    with pytest.raises(UsageError):
        plans.build(read(["--preset", "tiny", "--site", "lab", f"--run={run}"]), "id")


# ----------------------------------------------------------------------------- stages and jobs


def test_a_long_stage_becomes_segments() -> None:
    plan = planned("--preset", "run1000", "GPU_TYPE=a100", "MAX_HOURS=8")
    base = plan.stage("base")
    assert base.minutes == 480 and base.segments == -(-base.hours // (8 - 300 / 3600 - 0.1)) + 1
    assert [job.name for job in base.jobs][:2] == ["base.1", "base.2"]


def test_limits_are_kept() -> None:
    with pytest.raises(UsageError, match="over the limit of the site"):
        planned("--segment-minutes", "800")
    with pytest.raises(UsageError, match="CHAIN=none"):
        planned("--preset", "run1000", "CHAIN=none", "GPU_TYPE=a100")
    with pytest.raises(UsageError, match="leaves no time"):
        planned("MAX_HOURS=0.05")
    with pytest.raises(UsageError, match="more nodes"):
        planned("--depth", "60", "--base.tokens", "1e13", "--device-batch-rows", "1")


def test_every_rank_gets_whole_rows() -> None:
    plan = planned("--preset", "tiny", "--site", "lab")
    assert "base: 1 rows a pass instead of 2, for 2 processes" in plan.notes
    with pytest.raises(UsageError, match="use --device-batch-rows 1"):
        planned("--preset", "tiny", "--site", "lab", "--device-batch-rows", "2")
    with pytest.raises(UsageError, match="fewer nodes"):
        planned("--preset", "tiny", "--site", "lab", "NODES=3")


def test_who_waits_for_whom() -> None:
    plan = planned("--preset", "tiny", "--site", "lab", "--segments", "2")
    ids = {job.name: str(n) for n, job in enumerate(plan.jobs, 1)}

    def after(name: str, known: dict[str, str] = ids) -> str:
        return submission.dependency(plan, next(j for j in plan.jobs if j.name == name), known)

    assert after("world") == ""
    assert after("tokenizer") == f"afterok:{ids['world']}"
    assert after("base.2") == f"afterok:{ids['tokenizer']},afternotok:{ids['base.1']}"
    assert after("mid.1") == f"afterok:{ids['base.1']}?afterok:{ids['base.2']}"
    assert after("mid.2") == f"afternotok:{ids['mid.1']}"
    assert after("report").count(":") == len(ids) - 1
    assert after("mid.1", {}) == ""  # base is done: nothing to wait for


def test_a_plan_is_read_back_as_it_was() -> None:
    plan = planned("--preset", "tiny", "--site", "lab", "ENV_A=b c")
    plan.folder.mkdir(parents=True)
    (plan.folder / "plan.json").write_text(json.dumps(plans.to_dict(plan)))
    assert plans.load(plan.folder) == plan
    with pytest.raises(UsageError, match="runs are: r"):
        plans.load(plan.folder.parent / "x")


def test_the_graph_names_every_job() -> None:
    plan = planned("--preset", "tiny", "--site", "lab")
    graph = plans.mermaid(plan)
    assert graph.startswith("graph LR") and all(f"[{job.name}]" in graph for job in plan.jobs)
    table = plans.describe(plan)
    assert all(re.search(rf"^{stage.name} ", table, re.MULTILINE) for stage in plan.stages)


# ----------------------------------------------------------------------------- lengths


@pytest.mark.parametrize(
    "options",
    [ModelOptions(depth=4), ModelOptions(depth=12, activation="swiglu", gqa_ratio=3, mlp_ratio=2.5),
     ModelOptions(depth=3, arch="classic", head_dim=64)],
)  # fmt: skip
def test_parameters_and_flops_are_the_models(options: ModelOptions) -> None:
    import torch

    config: GPTConfig = options.gpt_config(5000)
    with torch.device("meta"):
        model = GPT(config, torch.float32)
    assert estimate.scaling_parameters(config) == model.count_parameters()["scaling"]
    assert estimate.flops_per_token(config) == model.flops_per_token()


def test_a_measured_rate_is_preferred(base: Path) -> None:
    plan = planned("--preset", "tiny", "--site", "lab")
    assert any("estimated" in note for note in plan.notes)
    plan.folder.mkdir(parents=True)
    (plan.folder / "plan.json").write_text(json.dumps(plans.to_dict(plan)))
    (base / "base_r").mkdir()
    (base / "base_r" / "config.json").write_text('{"depth": 2}')
    (base / "base_r" / "metrics.jsonl").write_text('{"step": 1, "tokens_per_s": 1000.0}\n')
    again = planned("--preset", "tiny", "--site", "lab", "NODES=1", "--run", "r2")
    assert "rate measured in run r: 500 tokens a second" in again.notes  # by one of two processes


# ----------------------------------------------------------------------------- files


def test_the_committed_scripts_are_current() -> None:
    for path, text in templates.texts().items():
        assert path.read_text(encoding="utf-8") == text, "python -m nanochat.launch.templates"
    assert {p.name for p in (ROOT / "slurm").glob("*.slurm")} == {p.name for p in templates.texts()}


def test_a_path_that_no_script_can_hold_is_refused(tmp_path: Path) -> None:
    plan = planned("--preset", "tiny", "--site", "lab", "--base-dir", f"{tmp_path}/with blank and 'quote'")
    text = sbatch.text(plan, plan.jobs[0])
    assert '#SBATCH "--output=' in text
    with pytest.raises(UsageError, match="cannot stand in a batch script"):
        sbatch.text(
            planned("--preset", "tiny", "--site", "lab", "--base-dir", f'{tmp_path}/a"b'), plan.jobs[0]
        )


def test_the_launcher_starts_at_once() -> None:
    """Without torch, in less than half a second of work; the best of three."""
    code = "import sys; sys.modules['torch'] = None; from scripts.launch import main; main(['--help'])"
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < 0.5, took
