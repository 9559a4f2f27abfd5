"""The manifest of a run's files, the ledger of those that are here, and its check, on real files."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from asset_helpers import get, kinds, parquet, small_hub
from hub_server import COMMIT, Hub

from nanochat import dataset
from nanochat.assets import GROUPS, STAGES, Wanted, needed, shards_for
from nanochat.common import UsageError
from nanochat.ledger import Fault, Ledger, check


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with small_hub(tmp_path / "hub") as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


# ----------------------------------------------------------------------------- the manifest


def test_what_a_run_needs_follows_from_its_plan() -> None:
    everything = {asset.name for asset in needed(Wanted(stages=",".join(STAGES), image="run.sif"))}
    assert {"shards", "eval bundle", "word list", "container image", "mmlu all validation", "gsm8k main test",
            "humaneval openai_humaneval test", "smoltalk train"} <= everything  # fmt: skip
    assert "tokenizer" not in everything, "this plan trains it"
    assert {asset.name for asset in needed(Wanted(stages="tok_train"))} == {"shards"}
    assert {asset.name for asset in needed(Wanted(stages="rl"))} == {
        "tokenizer",
        "gsm8k main train",
        "gsm8k main test",
    }
    world = needed(Wanted(corpus="world", stages="tok_train,base,mid,sft,chat_eval"))
    assert {asset.path for asset in world} == {"manifest.json", "mid.jsonl", "sft.jsonl", "exams.json"}
    assert not any(asset.source for asset in world)
    own = needed(Wanted(stages="sft", sft_mixture="mine.jsonl,gsm8k"))
    assert [asset.name for asset in own] == [
        "tokenizer",
        "fineweb-edu mine.jsonl",
        "gsm8k main train",
        "gsm8k main test",
    ]
    exams = {asset.name for asset in needed(Wanted(corpus="own", stages="base_eval,chat_eval"))}
    assert {"eval bundle", "humaneval openai_humaneval test"} <= exams, "exams do not depend on the corpus"
    kernels = needed(Wanted(stages="base", kernels="torch29-cxx11-cu128-x86_64-linux"))[-1]
    assert kernels.matches("build/torch29-cxx11-cu128-x86_64-linux/flash_attn3/__init__.py")


def test_each_group_names_its_files_once() -> None:
    assets = [asset for group in GROUPS.values() for asset in group]
    assert len({asset.name for asset in assets}) == len({(a.source, a.path) for a in assets}) == len(assets)


def test_the_number_of_shards_follows_the_depth() -> None:
    assert [shards_for(depth, 12) for depth in (4, 20, 32)] == [9, 116, 423]
    assert abs(shards_for(20, 20) - 240 * 5.7 / 6.7) < 15  # the 2025 recipe counted the embedding, too
    plan = [a.path for a in needed(Wanted(stages="base", depth=32, ratio=1000)) if a.name == "shards"]
    assert len(plan) == 1823 and plan[-1] == "shard_01822.parquet", "never more than there are"


@pytest.mark.parametrize(
    ("options", "names"),
    [({"stages": "base,mit"}, "base_eval"), ({"shards": 1823}, "1822"), ({"shards": 0}, "1")],
)
def test_a_wrong_plan_is_refused(options: dict[str, object], names: str) -> None:
    with pytest.raises(UsageError, match=names):
        Wanted(**options)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------- ledger and check


def spoil_size(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def spoil_footer(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 255
    path.write_bytes(content)


def spoil_page(path: Path) -> None:
    """One byte of a page: only the hash sees it once the time is put back."""
    content = bytearray(path.read_bytes())
    content[60] ^= 255
    path.write_bytes(content)


def spoil_folder(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()


SPOILERS: list[tuple[Callable[[Path], None], str, str]] = [
    (spoil_size, "size", "size"), (spoil_footer, "footer", "footer"), (spoil_page, "time", "hash"),
    (Path.unlink, "missing", "missing"), (spoil_folder, "empty folder", "empty folder"),
    (Path.touch, "time", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("spoil", "quick", "thorough"), SPOILERS, ids=lambda value: getattr(value, "__name__", None)
)
def test_check_names_what_is_wrong(
    spoil: Callable[[Path], None], quick: str, thorough: str, hub: Hub, base: Path
) -> None:
    wanted = list(GROUPS["gsm8k"])[:1]
    get(base, wanted)
    spoil(base / "tasks/gsm8k/main/train-00001-of-00002.parquet")
    faults = check(base, wanted)
    assert {fault.kind for fault in faults} == {quick} and "gsm8k main train" in faults[0].text
    assert faults[0].remedy.startswith("python -m scripts.")
    assert {*kinds(base, wanted, verify=True)} == ({thorough} if thorough else set())
    get(base, wanted)
    assert kinds(base, wanted, verify=True) == kinds(base, wanted) == []


def test_an_asset_without_files_is_told_from_a_folder_that_deceives(hub: Hub, base: Path) -> None:
    assert kinds(base, list(GROUPS["gsm8k"])) == ["missing"] * 2
    get(base, list(GROUPS["gsm8k"])[:1])
    (fault,) = check(base, list(GROUPS["gsm8k"]))
    assert fault.kind == "missing" and "gsm8k main test was never fetched, though its folder" in fault.text
    for file in (base / "tasks/gsm8k/main").iterdir():
        file.unlink()
    assert {(fault.kind, fault.asset.name) for fault in check(base, list(GROUPS["gsm8k"]))} == {
        ("empty folder", "gsm8k main train"), ("empty folder", "gsm8k main test")}  # fmt: skip


def test_a_damaged_ledger_is_named(base: Path) -> None:
    for text in ("{", "{}", '{"files": {"a": {}}, "revisions": {}, "assets": {}}'):
        (base / "assets.json").write_text(text)
        with pytest.raises(ValueError, match=r"assets\.json"):
            check(base, [])


def test_what_is_made_here_can_be_recorded(base: Path) -> None:
    (base / "tok").mkdir()
    (base / "tok/tokenizer.json").write_text("{}")
    tokenizer = needed(Wanted(stages="base", corpus="world"))[-1]
    assert check(base, [tokenizer]) == []
    Ledger.load(base).record(["tok/tokenizer.json"], "tokenizer")
    (base / "tok/tokenizer.json").write_text("[]")
    assert kinds(base, [tokenizer]) in (["time"], [])  # same size; the time may be too coarse to differ
    assert kinds(base, [tokenizer], verify=True) == ["hash"]
    (base / "tok/tokenizer.json").unlink()
    (fault,) = check(base, [tokenizer])
    assert fault.remedy == "make it: python -m scripts.tok_train"


def test_shards_that_were_made_here_are_checked_by_their_own_manifest(base: Path) -> None:
    texts = [f"text {index}" for index in range(50)]
    manifest = dataset.write_shards(base / "data", texts, texts[:5])
    assets = needed(Wanted(stages="tok_train", corpus="own"))
    assert check(base, assets, verify=True) == []
    spoil_size(manifest.shards[0].path)
    (fault,) = check(base, assets)
    assert fault.kind == "size" and "shard_00000" in fault.text


def test_two_writers_of_the_ledger_lose_nothing(base: Path) -> None:
    one, two = Ledger(base), Ledger(base)
    for ledger, name in ((one, "a"), (two, "b")):
        (base / name).write_text(name)
        ledger.record([name], "made")
    assert set(Ledger.load(base).files) == {"a", "b"}


def test_800_shards_are_checked_in_seconds(base: Path) -> None:
    """800 small Parquet files: what counts is the number of files, since a check reads 64 KB of each."""
    content, ledger = parquet(base / "one.parquet", rows=20), Ledger(base)
    digest = hashlib.sha256(content).hexdigest()
    assets = [a for a in needed(Wanted(stages="base", shards=800)) if a.name == "shards"]
    (base / "data").mkdir()
    for asset in assets:
        (base / asset.place).write_bytes(content)
        ledger.add(asset.place, asset.name, asset.source, COMMIT, asset.path, digest)
    ledger.save()
    started = time.monotonic()
    assert len(assets) == 801 and check(base, assets) == []
    assert time.monotonic() - started < 10
    spoil_footer(base / "data/shard_00700.parquet")
    faults: list[Fault] = check(base, assets)
    assert [fault.place for fault in faults] == ["data/shard_00700.parquet"]
