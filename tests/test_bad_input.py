"""What the user can get wrong: refused by value, legal values and remedy, in time, with nothing lost.

Configuration faults are found with torch blocked; data and checkpoint faults before the first step; what
breaks in mid-run stops it at that step, with the last checkpoint kept.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy

from nanochat import checkpoint_manager as ckpt
from nanochat import common
from nanochat.common import EXIT_DONE, EXIT_FAULT, EXIT_STOPPED, EXIT_USAGE, read_json
from nanochat.gpt import GPT
from nanochat.tokenizer import Tokenizer, split_pattern

SMALL = ("--depth", "1", "--device-batch-rows", "4", "--steps", "6", "--save-every-steps", "2")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    toy.make_world(root)
    return root


@pytest.fixture
def world(pristine: Path, tmp_path: Path) -> Path:
    """A world that a test may spoil."""
    return shutil.copytree(pristine, tmp_path / "world")


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults armed by `toy` are gone after the test."""
    monkeypatch.setattr(GPT, "loss_sum", GPT.loss_sum)


def train(stage: str, world: Path, base: Path, *extra: str) -> int:
    small = dict(zip(SMALL[::2], SMALL[1::2], strict=True))
    small.pop("--depth", None) if stage != "base" else None
    small |= dict(zip(extra[::2], extra[1::2], strict=True))
    script = importlib.import_module(f"scripts.{toy.SCRIPTS[stage]}")
    return script.main(toy.options(stage, world, base, *(w for pair in small.items() for w in pair)))  # type: ignore[no-any-return]


def refused(code: int, pattern: str, stage: str, world: Path, base: Path, *extra: str) -> str:
    """Train, expect this exit code with a message for the user, and give the message."""
    with pytest.raises(Exception) as raised:
        train(stage, world, base, *extra)
    found, message = common.explain(raised.value)
    assert found == code and message and re.search(pattern, message), (raised.type, message)
    return message


# ----------------------------------------------------------------------------- configuration

CONFIG_FAULTS = [
    ("base_train", "--no-such-flag 1", "unknown option --no-such-flag"),
    ("base_train", "--depht 4", r"did you mean --depth\?"),
    ("base_train", "--depth four", "'four' .* is not a whole number"),
    ("base_train", "--depth 2.5", "is not a whole number"),
    ("base_train", "--steps 0", r"--steps 0: use at least 1"),
    ("base_train", "--keep-last 0", "--keep-last 0: use at least 1"),
    ("base_train", "--warmdown-ratio 1.5", "--warmdown-ratio 1.5: use at least 0 and at most 1"),
    ("base_train", "--lr nan", "--lr-scale: 'nan' .* is not a number"),
    ("base_train", "--device tpu", "'tpu' .* is not one of auto, cuda, mps, cpu"),
    ("base_train", "--dtype float16", "is not one of auto, float32, bfloat16"),
    ("base_train", "--optimizer sgd", "is not one of muon, adamw"),
    ("base_train", "--threads 0", "--threads 0: use at least 1"),
    ("base_train", "--head-dim 33", "head dimension 33 is odd"),
    ("base_train", "--gqa-ratio 3", r"gqa_ratio 3 does not divide the \d+ heads"),
    ("base_train", "--window-pattern SXL", "window_pattern 'SXL': use the letters S and L"),
    (
        "base_train",
        "--total-batch-tokens 500 --context 64 --device-batch-rows 4",
        "500 .* the nearest that is: 512",
    ),
    ("base_train", "--run ../elsewhere", r"--run \.\./elsewhere: use letters, digits"),
    ("base_train", "--preset huge", "unknown preset 'huge'; presets are: "),
    ("base_train", "--config no.toml", "there is no such file"),
    ("base_train", "--base-dir {file}/x", r"a part of this path is a file"),
    ("base_train", "--run taken --depth 3", r"made with another config \(depth: there 2, now 3\)"),
    ("mid_train", "--epochs 0", "--epochs 0.0: use at least 0.001"),
    ("mid_train", "--mixture nothing.jsonl --run new", r"no such file: \S*nothing\.jsonl"),
    ("chat_sft", "--source sft", "is not one of base, mid"),
    ("chat_sft", "--supervise user", "is not one of assistant, all"),
    ("pipeline", "--nproc 0", "--nproc 0: use at least 1"),
]
DRIVER = """
import importlib, json, sys
sys.modules["torch"] = None
from nanochat.common import explain
for script, argv in json.loads(sys.argv[1]):
    try:
        importlib.import_module(f"scripts.{script}").main(argv)
    except ImportError as error:
        print(json.dumps([0, f"imports torch: {error}"]))
    except Exception as error:
        print(json.dumps(explain(error)))
"""


def python(*argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(toy.ROOT), **variables}
    return subprocess.run([sys.executable, *argv], env=env, capture_output=True, text=True, check=False)


def test_configuration_faults_are_found_without_torch(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    taken = tmp_path / "base_taken"
    (taken / "checkpoints" / "step_0000001").mkdir(parents=True)
    shown = python("-m", "scripts.base_train", "--preset", "tiny", "--print-config")
    assert shown.returncode == 0
    from nanochat.config import BaseTrain
    from nanochat.configurator import parse

    common.write_json(taken / "config.json", parse(BaseTrain, ["--preset", "tiny"], prog="", about=""))
    cases = []
    for script, words, _ in CONFIG_FAULTS:
        preset = [] if "--preset" in words else ["--preset", "tiny"]
        place = [] if "--base-dir" in words else ["--base-dir", str(tmp_path)]
        cases.append((script, [*preset, *place, *words.format(file=tmp_path / "file").split()]))
    ran = python("-c", DRIVER, json.dumps(cases))
    assert ran.returncode == 0, ran.stderr
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    for (script, words, pattern), (code, message) in zip(CONFIG_FAULTS, answers, strict=True):
        expected = EXIT_FAULT if "{file}" in words else EXIT_USAGE
        assert code == expected and re.search(pattern, message), f"{script} {words}: {code} {message}"


def test_a_configuration_fault_takes_less_than_a_second() -> None:
    """One message, exit 2, less than a second of CPU time (on a busy machine the clock says nothing)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = python(
        "-m",
        "scripts.base_train",
        "--preset",
        "tiny",
        "--total-batch-tokens",
        "1000",
        WORLD_SIZE="2",
        RANK="0",
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ran.returncode == EXIT_USAGE and "2 rank(s)" in ran.stderr and "Traceback" not in ran.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


# ----------------------------------------------------------------------------- data and checkpoints


def test_without_a_tokenizer(world: Path, base: Path) -> None:
    shutil.rmtree(world / "tok")
    refused(EXIT_USAGE, r"no tokenizer at .*tok_train.*--tok-dir", "base", world, base)
    assert "no tokenizer" in read_json(base / "base_tiny" / "FAULT")["reason"]


def test_without_data(world: Path, base: Path) -> None:
    shutil.rmtree(world / "data")
    refused(EXIT_USAGE, r"no shard_00000\.parquet.*prepare_data", "base", world, base)


def test_a_missing_shard(world: Path, base: Path) -> None:
    (world / "data" / "shard_00001.parquet").unlink()
    refused(EXIT_USAGE, r"shard_00001\.parquet is missing.*fetch it again", "base", world, base)


def test_a_corrupt_shard(world: Path, base: Path) -> None:
    path = world / "data" / "shard_00000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused(EXIT_USAGE, r"shard_00000\.parquet is damaged.*fetch or write it again", "base", world, base)
    assert not ckpt.list_steps(base / "base_tiny")


@pytest.mark.slow
def test_empty_documents_only(world: Path, base: Path) -> None:
    from nanochat import dataset

    dataset.write_shards(world / "data", [""] * 9, ["some text to validate on"])
    refused(EXIT_USAGE, "there is nothing to train on", "base", world, base)


@pytest.fixture(scope="module")
def source(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    assert train("base", pristine, folder, "--stop-at-step", "1") == EXIT_STOPPED
    return folder / "base_tiny"


@pytest.fixture
def trained(source: Path, base: Path) -> Path:
    """A base folder with a checkpoint to start from."""
    shutil.copytree(source, base / "base_tiny")
    return base


def test_a_tokenizer_of_another_vocabulary(world: Path, trained: Path) -> None:
    more = [*(bytes([i]) for i in range(256)), b"th", b"the"]
    Tokenizer(more, split_pattern(1)).save(world / "tok")
    refused(EXIT_USAGE, "holds another tokenizer than", "mid", world, trained)
    refused(EXIT_USAGE, "was trained with another tokenizer", "base", world, trained)


def test_no_or_no_healthy_source_checkpoint(world: Path, trained: Path) -> None:
    refused(EXIT_USAGE, "starts from mid, which has no checkpoint; train it first", "sft", world, trained)
    (step,) = (trained / "base_tiny" / "checkpoints").iterdir()
    os.truncate(step / "model.safetensors", 1000)
    refused(EXIT_USAGE, "no checkpoint in .* verifies; restore one", "mid", world, trained)


def test_a_batch_that_the_source_s_context_does_not_divide(world: Path, trained: Path) -> None:
    refused(EXIT_USAGE, "nearest that is: 256", "mid", world, trained, "--total-batch-tokens", "300")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("{", "record 1: not JSON"),
        ('{"text": "only one"}\n', "it needs 2 or more"),
        ('{"messages": [{"role": "user", "content": "hi"}]}\n' * 20, "there is nothing to train on"),
    ],
)
def test_a_mixture_without_anything_to_learn(world: Path, trained: Path, content: str, message: str) -> None:
    (world / "data" / "sft.jsonl").write_text(content, encoding="utf-8")
    refused(EXIT_USAGE, message, "sft", world, trained, "--source", "base")


def test_conversations_that_cannot_be_trained_on_are_refused_by_name(
    world: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too long, unanswered, out of order, empty answers: counted, one of them named, and never a NaN."""
    question, answer = {"role": "user", "content": "who"}, {"role": "assistant", "content": "me"}
    good = [json.loads(line) for line in (world / "data" / "sft.jsonl").read_text().splitlines()]
    long = {"messages": [question, answer, {"role": "user", "content": "x" * 99}, answer]}
    odd = [
        [question],
        [answer, question],
        [question, question, answer],
        [],
        [question, {"role": "assistant"}],
    ]
    odd += [[{"role": "user", "content": "y" * 99}, answer]]
    empty = {"messages": [question, {"role": "assistant", "content": ""}]}
    items = [*good, *[long] * 10, *[{"messages": m} for m in odd * 10], *[empty] * 10]
    (world / "data" / "sft.jsonl").write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    assert train("sft", world, trained, "--source", "base", "--steps", "6") == EXIT_DONE
    counters = read_json(trained / "sft_tiny" / "DONE")["data"]["counters"]
    assert counters["refused"] > 30 and counters["truncated"] > 5 and counters["cropped"] > 5 * 99
    assert re.search(r"item \d+ is refused: .*(further ones are only counted)", capsys.readouterr().out)
    losses = toy.losses(trained / "sft_tiny")
    assert len(losses) == 6 and all(0 < loss < 10 for loss in losses)


def test_validation_data_that_does_not_count_is_refused_before_the_first_step(
    world: Path, trained: Path
) -> None:
    """Empty answers have special tokens only, which have no bytes: no bits per byte at the end of the run."""
    text = json.dumps(
        {"messages": [{"role": "user", "content": "u" * 20}, {"role": "assistant", "content": ""}]}
    )
    (world / "data" / "sft.jsonl").write_text("\n".join([text] * 40), encoding="utf-8")
    refused(
        EXIT_USAGE, "the validation data has no text that counts", "sft", world, trained, "--source", "base"
    )
    assert not toy.losses(trained / "sft_tiny")


# ----------------------------------------------------------------------------- in mid-run


@pytest.mark.usefixtures("faults")
def test_a_shard_that_goes_away_in_mid_run(world: Path, base: Path) -> None:
    """The run stops at the step that needs it; put back, the rerun goes on from the last checkpoint."""
    shard = world / "data" / "shard_00000.parquet"
    content = shard.read_bytes()
    toy.strike(1, lambda model, loss: shard.unlink())  # the loader is one window ahead at most
    refused(EXIT_USAGE, r"shard_00000\.parquet is missing", "base", world, base, "--steps", "16")
    steps = ckpt.list_steps(base / "base_tiny")
    assert steps and ckpt.newest(base / "base_tiny") == ckpt.step_folder(base / "base_tiny", steps[-1])
    shard.write_bytes(content)
    assert train("base", world, base, "--steps", "16") == EXIT_DONE


@pytest.mark.usefixtures("faults")
def test_a_file_size_limit_in_mid_run(world: Path, base: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    toy.strike(7, lambda model, loss: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard)))
    try:
        with pytest.raises(OSError, match="File too large"):
            train("base", world, base)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check_kept(base)
    assert "File too large" in read_json(base / "base_tiny" / "FAULT")["reason"]
    assert train("base", world, base) == EXIT_DONE


def check_kept(base: Path) -> None:
    """The checkpoint of step 2 verifies, and nothing else is left."""
    folder = base / "base_tiny"
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step_0000002"]
    assert ckpt.newest(folder) == ckpt.step_folder(folder, 2)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    with open(disk / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


@pytest.mark.usefixtures("faults")
def test_a_disk_that_fills_up_in_mid_run(world: Path, disk: Path, base: Path) -> None:
    """The save fails with the remedy, the last checkpoint stays; with space again the rerun ends the same."""
    toy.strike(5, lambda model, loss: fill(disk))
    refused(EXIT_FAULT, "the disk is full: free some space .* a rerun resumes", "base", world, disk)
    check_kept(disk)
    (disk / "filler").unlink()
    assert train("base", world, disk) == EXIT_DONE
    assert train("base", world, base) == EXIT_DONE
    assert toy.outcome(disk / "base_tiny") == toy.outcome(base / "base_tiny")


def test_a_disk_too_small_for_one_checkpoint_is_refused_before_the_first_step(
    world: Path, disk: Path
) -> None:
    refused(EXIT_USAGE, r"has \d MiB free; a checkpoint needs \d+ MiB", "base", world, disk, "--depth", "3")
    assert not (disk / "base_tiny" / "metrics.jsonl").exists()


def test_a_full_disk_before_anything(world: Path, disk: Path) -> None:
    fill(disk)
    refused(EXIT_FAULT, "the disk is full", "base", world, disk)


def test_no_permission_to_write(world: Path, disk: Path, base: Path) -> None:
    """A filesystem that was made read-only under a stopped run: refused at once, and nothing is lost."""
    assert train("base", world, disk, "--stop-at-step", "2") == EXIT_STOPPED
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    refused(EXIT_FAULT, "the filesystem is read-only: set NANOCHAT_BASE_DIR", "base", world, disk)
    check_kept(disk)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert train("base", world, disk) == EXIT_DONE
