"""Sources and their order, spellings, and what a mistake is told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from nanochat import assets, config, config_data, config_eval, config_rl
from nanochat.common import UsageError
from nanochat.config import BaseTrain, ChatSFT, MidTrain, Rooted
from nanochat.config_rl import ChatRL
from nanochat.configurator import from_dict, parse, parse_traced, to_dict
from nanochat.options import opt
from nanochat.presets import PRESETS


@dataclass(frozen=True)
class Shared:
    """What all have."""

    seed: int = opt(1, "the seed")


@dataclass(frozen=True)
class Demo(Shared):
    """A small config."""

    depth: int = opt(4, "layers", alias=("n_layer",))
    rate: float = opt(0.5, "a rate")
    name: str | None = opt(None, "a name")
    kind: Literal["red", "blue"] = opt("red", "a colour")
    compile: bool = opt(True, "compile it")
    tasks: tuple[str, ...] = opt(("a",), "some tasks")
    pair: tuple[int, int] | None = opt(None, "two numbers")


DEMO_PRESETS = {
    "small": {"Shared": {"seed": 7}, "Demo": {"depth": 2, "name": "s"}},
    "other": {"Else": {"x": 1}},
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("NANOCHAT_")]:
        monkeypatch.delenv(name)


def demo(*argv: str) -> Demo:
    return parse(Demo, argv, prog="demo", about="A demonstration.", presets=DEMO_PRESETS)


def refusal(*argv: str) -> str:
    with pytest.raises(UsageError) as caught:
        demo(*argv)
    return str(caught.value)


@pytest.mark.parametrize(
    "words", ["--depth 8", "--depth=8", "depth=8", "--n-layer 8", "--n_layer=8", "n_layer=8"]
)
def test_spellings_of_one_option(words: str) -> None:
    assert demo(*words.split()).depth == 8


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--compile", True),
        ("--no-compile", False),
        ("--no_compile", False),
        ("--compile false", False),
        ("--compile=0", False),
        ("compile=off", False),
        ("--compile yes --depth 3", True),
    ],
)
def test_switches(words: str, expected: bool) -> None:
    assert demo(*words.split()).compile is expected


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--depth", "1e3"], "depth", 1000),
        (["--depth", "10_000"], "depth", 10_000),
        (["--depth", "-1"], "depth", -1),
        (["--rate", "3"], "rate", 3.0),
        (["--rate=-2.5e-3"], "rate", -2.5e-3),
        (["--name", "a=b c"], "name", "a=b c"),
        (["--name", "none"], "name", None),
        (["--name", "12"], "name", "12"),
        (["--kind", "blue"], "kind", "blue"),
        (["--tasks", "a, b"], "tasks", ("a", "b")),
        (["--pair", "1", "2", "depth=3"], "pair", (1, 2)),
        (["--pair=1,2"], "pair", (1, 2)),
    ],
)
def test_text_becomes_the_annotated_type(words: list[str], field: str, value: Any) -> None:
    result = getattr(demo(*words), field)
    assert result == value and type(result) is type(value)


def test_each_source_beats_the_one_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('rate = 0.25\n[model]\nn_layer = 3\nname = "toml"\n')
    assert demo("--preset", "small") == Demo(seed=7, depth=2, name="s")
    argv = ["--preset", "small", "--config", str(file)]
    assert demo(*argv) == Demo(seed=7, depth=3, rate=0.25, name="toml")
    monkeypatch.setenv("NANOCHAT_DEPTH", "5")
    monkeypatch.setenv("NANOCHAT_NAME", "env")
    monkeypatch.setenv("NANOCHAT_RATE", "")  # set but empty is not set
    monkeypatch.setenv("NANOCHAT_REQUIRE", "net")  # no option of ours
    found, origins = parse_traced(Demo, [*argv, "depth=6"], prog="demo", about="", presets=DEMO_PRESETS)
    assert found == Demo(seed=7, depth=6, rate=0.25, name="env")
    assert origins == {
        "depth": "command line",
        "rate": f"file {file}",
        "name": "environment variable NANOCHAT_NAME",
        "seed": "preset small",
        "kind": "default",
        "compile": "default",
        "tasks": "default",
        "pair": "default",
    }


def test_an_unknown_option_lists_the_right_ones() -> None:
    text = refusal("--detph", "3")
    assert "unknown option --detph; did you mean --depth?" in text
    assert "--rate --name --kind --compile --tasks --pair --seed" in text
    assert "did you mean" not in refusal("--zzz")
    assert "unknown option --no-depth" in refusal("--no-depth")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--depth", "four"], ["--depth", "'four'", "whole number", "--depth 4", "command line"]),
        (["--depth", "4.5"], ["whole number"]),
        (["--depth", "none"], ["whole number"]),
        (["--rate", "nan"], ["--rate", "a number"]),
        (["--kind", "green"], ["'green'", "one of red, blue", "--kind red"]),
        (["--compile=maybe"], ["true or false", "--compile or --no-compile"]),
        (["--depth"], ["--depth needs a value", "--depth 4"]),
        (["--depth", "--rate", "1"], ["--depth needs a value"]),
        (["--depth", "1", "n_layer=2"], ["--depth is given twice"]),
        (["--pair", "1"], ["--pair", "'1'", "2 values", "--pair A B"]),
        (["--pair", "1", "2", "3"], ["unexpected word '3'"]),
        (["stray"], ["unexpected word 'stray'"]),
        (["--compile", "maybe"], ["unexpected word 'maybe'"]),
        (["--preset", "huge"], ["unknown preset 'huge'", "other, small"]),
        (["--config", "absent.toml"], ["absent.toml", "no such file"]),
    ],
)
def test_a_mistake_is_named_with_its_remedy(words: list[str], parts: list[str]) -> None:
    text = refusal(*words)
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("toml", "part"),
    [
        ("dpeth = 3", "unknown option dpeth; did you mean --depth?"),
        ("[a]\ndepth = 3\n[b]\ndepth = 4", "'depth' stands there twice"),
        ("depth = ", "is not valid TOML"),
        ("depth = true", "whole number"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(tmp_path: Path, toml: str, part: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(toml)
    text = refusal("--config", str(file))
    assert str(file) in text and part in text


def test_a_mistake_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_SEED", "x")
    assert "NANOCHAT_SEED" in refusal()


def test_print_config_shows_origins_and_is_a_config_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--preset", "small", "--name", 'a "b" \\ ü\n', "--no-compile", "--tasks", "x,y"]
    expected = demo(*argv)
    with pytest.raises(SystemExit) as left:
        demo(*argv, "--print-config")
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "depth = 2" in text and "# preset small" in text and "# command line" in text
    (tmp_path / "run.toml").write_text(text)
    assert demo("--config", str(tmp_path / "run.toml")) == expected


def test_help_is_grouped_by_dataclass(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as left:
        demo("-h")
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert text.index("A demonstration.") < text.index("Demo") < text.index("--depth") < text.index("Shared")
    for part in ("layers [default: 4]", "red, blue", "--no-compile", "--print-config", "small, other"):
        assert part in text


def test_saved_configs_come_back() -> None:
    saved = to_dict(Demo(depth=9, tasks=("x", "y")))
    assert saved["tasks"] == ["x", "y"]
    assert from_dict(Demo, saved) == Demo(depth=9, tasks=("x", "y"))
    assert from_dict(Demo, {}) == Demo()
    with pytest.raises(UsageError, match=r"old\.json: unknown option widht"):
        from_dict(Demo, {"widht": 1}, "old.json")
    with pytest.raises(UsageError, match="whole number"):
        from_dict(Demo, {"depth": None})
    with pytest.raises(UsageError, match="lacks vocab_size, heads, kv_heads"):
        from_dict(config.GPTConfig, {"depth": 2, "width": 64})


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("stage", [BaseTrain, MidTrain, ChatSFT, ChatRL, Rooted])
def test_presets_hold_for_every_stage(preset: str, stage: type) -> None:
    found = parse(stage, ["--preset", preset], prog="stage", about="")
    if isinstance(found, BaseTrain):
        model = found.gpt_config(65_536)
        assert model.depth == found.depth
        if preset == "conversation":
            assert (model.heads, model.kv_heads, model.mlp_width) == (10, 2, 3840)


def test_presets_name_only_what_exists() -> None:
    classes = vars(config) | vars(config_data) | vars(config_eval) | vars(config_rl) | vars(assets)
    for parts in PRESETS.values():
        for class_name, values in parts.items():
            from_dict(classes[class_name], values)


def test_legacy_names_of_the_training_options() -> None:
    argv = ["--max_seq_len", "128", "--num_iterations=5", "--device_batch_size=2"]
    argv += ["--learning_rate", "0.1", "data_file=d"]
    found = parse(BaseTrain, argv, prog="base_train", about="")
    assert (found.context, found.steps, found.device_batch_rows) == (128, 5, 2)
    assert (found.lr_scale, found.data_dir) == (0.1, "d")


def test_parsing_is_quick_and_needs_no_torch() -> None:
    program = (
        "import sys; from nanochat.configurator import parse; from nanochat.config import BaseTrain\n"
        "parse(BaseTrain, ['depth=4'], prog='p', about=''); assert 'torch' not in sys.modules"
    )
    before = time.process_time(), os.times().children_user
    subprocess.run([sys.executable, "-c", program], check=True)
    assert os.times().children_user - before[1] < 1.5
