"""The manifest of a run's files, their fetch from a hub on this machine, the ledger and its check.

Every file is a real one and every transfer a real HTTP one (`hub_server.py`) or a copy from a folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import COMMIT, Hub, serve

from nanochat import dataset, fetch, transfer
from nanochat.assets import GROUPS, STAGES, Asset, Wanted, needed, shards_for
from nanochat.common import UsageError, read_json
from nanochat.ledger import Fault, Ledger, check, parquet_footer

ROOT = Path(__file__).resolve().parent.parent
CORPUS = "datasets/karpathy/fineweb-edu-100b-shuffle"


def parquet(path: Path, rows: int = 40) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [f"{path.name} {index} " + "word " * 50 for index in range(rows)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=10, compression="none")
    return path.read_bytes()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with three shards of the default corpus and one data set in two splits."""
    folder = tmp_path / "hub"
    for index in (0, 1, 1822):
        parquet(folder / CORPUS / f"shard_{index:05d}.parquet")
    for split in ("train", "test"):
        for part in range(2):
            parquet(folder / "datasets/openai/gsm8k/main" / f"{split}-{part:05d}-of-00002.parquet")
    (folder / "datasets/openai/gsm8k/README.md").write_text("small, so it is not in LFS")
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    with serve(folder) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def shards(count: int = 2) -> list[Asset]:
    return needed(Wanted(stages="base", shards=count, tok_dir="tok"))[: count + 1]


def quiet(text: str) -> None:
    pass


def get(base: Path, assets: list[Asset], **options: bool) -> fetch.Plan:
    return fetch.fetch(base, assets, say=quiet, **options)


def kinds(base: Path, assets: list[Asset], verify: bool = False) -> list[str]:
    return [fault.kind for fault in check(base, assets, verify)]


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


# ----------------------------------------------------------------------------- the fetch


def test_fetch_brings_pins_and_records(hub: Hub, base: Path) -> None:
    wanted = [*shards(), *GROUPS["gsm8k"]]
    done = get(base, wanted)
    assert len(done.remotes) == 7 and kinds(base, wanted) == kinds(base, wanted, verify=True) == []
    ledger = Ledger.load(base)
    assert ledger.revisions == {CORPUS: COMMIT, "datasets/openai/gsm8k": COMMIT}
    assert ledger.assets["gsm8k main test"] == [
        f"tasks/gsm8k/main/test-0000{part}-of-00002.parquet" for part in (0, 1)
    ]
    entry = ledger.files["data/shard_00001.parquet"]
    content = (hub.folder / CORPUS / "shard_00001.parquet").read_bytes()
    assert (entry.size, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert entry.revision == COMMIT and entry.footer == parquet_footer(base / "data/shard_00001.parquet")
    assert not list(base.rglob("*.part")) and not list(base.rglob("*.tmp"))


def test_fetch_writes_the_data_folders_manifest(hub: Hub, base: Path) -> None:
    get(base, shards())
    manifest = dataset.load_manifest(base / "data")  # hashes every shard
    assert [(s.name, s.split, s.rows) for s in manifest.shards] == [
        ("shard_00000.parquet", "train", 40), ("shard_00001.parquet", "train", 40),
        ("shard_01822.parquet", "val", 40)]  # fmt: skip
    assert manifest.origin == {"source": CORPUS, "revision": COMMIT}


def test_once_all_is_there_nobody_is_asked(hub: Hub, base: Path) -> None:
    get(base, shards())
    hub.requests.clear()
    assert get(base, shards()).remotes == () and hub.requests == []


def test_a_larger_run_does_not_change_the_data_of_a_smaller(hub: Hub, base: Path) -> None:
    get(base, shards(1))
    before = (base / "data/manifest.json").read_bytes()
    with pytest.raises(UsageError, match="--extend"):
        get(base, shards(2))
    assert (base / "data/manifest.json").read_bytes() == before and not (
        base / "data/shard_00001.parquet"
    ).exists()
    hub.requests.clear()
    elsewhere = [dataclasses.replace(asset, target="data/large/") for asset in shards(2)]
    get(base, elsewhere)
    assert sum(".parquet" in request and "GET" in request for request in hub.requests) == 1, "two are linked"
    assert (base / "data/large/shard_00000.parquet").samefile(base / "data/shard_00000.parquet")
    get(base, shards(2), extend=True)
    assert len(dataset.load_manifest(base / "data").shards) == 3


@pytest.mark.parametrize("fault", ["cut", "503", "html", "other bytes", "no range"])
def test_a_fault_of_the_network_is_outlived(fault: str, hub: Hub, base: Path) -> None:
    hub.faults[f"{CORPUS}/shard_00001.parquet"] = [fault] * 2
    get(base, shards())
    assert kinds(base, shards(), verify=True) == []


def test_a_server_that_lies_to_the_end_leaves_no_file(hub: Hub, base: Path) -> None:
    hub.faults[f"{CORPUS}/shard_00001.parquet"] = ["other bytes"] * 99
    with pytest.raises(UsageError, match=r"shard_00001.*hash differs.*run the same command"):
        get(base, shards())
    assert not (base / "data/shard_00001.parquet").exists()
    assert "data/shard_00000.parquet" in Ledger.load(base).files, "what came is recorded"
    hub.faults.clear()
    get(base, shards())
    assert kinds(base, shards(), verify=True) == []


def test_a_killed_fetch_goes_on_where_it_was(hub: Hub, base: Path) -> None:
    """kill -9 in the middle of a file; the next process takes over the half and asks for the rest."""
    big = hub.put(f"{CORPUS}/shard_00000.parquet", b"")
    parquet(big, rows=60_000)
    code = f"""
import os, pathlib
from nanochat import fetch, transfer
from nanochat.assets import Wanted, needed
take = transfer._Counted.write
def write(self, chunk):
    take(self, chunk[: len(chunk) // 2])
    self._file.flush()
    os.kill(os.getpid(), 9)
transfer._Counted.write = write
fetch.fetch(pathlib.Path({str(base)!r}), needed(Wanted(stages="tok_train", shards=1))[:1])
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert run.returncode == -9, run.stderr
    (half,) = base.rglob("*.part")
    size = half.stat().st_size
    assert 0 < size < big.stat().st_size
    hub.ranges.clear()
    get(base, shards()[:1])
    assert hub.ranges == [f"bytes={size}-"] and kinds(base, shards()[:1], verify=True) == []
    assert not list(base.rglob("*.part"))


def test_a_half_done_file_of_a_living_process_is_left_alone(hub: Hub, base: Path) -> None:
    (remote,) = fetch.plan(base, shards()[:1], Ledger(base)).remotes
    target = base / remote.place
    target.parent.mkdir(parents=True)
    host = transfer.socket.gethostname()
    others = {
        pid: target.with_name(f".{target.name}.{remote.tag}.{host}~{pid}~aa.part") for pid in (1, 2**22 + 1)
    }
    foreign = target.with_name(f".{target.name}.{remote.tag}.elsewhere~7~aa.part")
    for path in (*others.values(), foreign):
        path.write_bytes(b"x" * 10)
    assert [transfer._is_abandoned(path) for path in (*others.values(), foreign)] == [False, True, False]
    os.utime(foreign, (0, 0))
    assert transfer._is_abandoned(foreign)


def test_two_processes_fetch_the_same_files(hub: Hub, base: Path) -> None:
    code = f"""
import pathlib
from nanochat import fetch
from nanochat.assets import Wanted, needed
fetch.fetch(pathlib.Path({str(base)!r}), needed(Wanted(stages="tok_train", shards=2)))
"""
    runs = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(2)
    ]
    assert [run.wait() for run in runs] == [0, 0]
    assert kinds(base, shards(), verify=True) == []
    assert len(dataset.load_manifest(base / "data").shards) == 3


def test_files_that_lie_there_already_are_hashed_not_fetched(hub: Hub, base: Path) -> None:
    (base / "data").mkdir()
    for index in (0, 1):
        name = f"shard_{index:05d}.parquet"
        (base / "data" / name).write_bytes((hub.folder / CORPUS / name).read_bytes())
    damaged = (base / "data/shard_00001.parquet").read_bytes().replace(b"word", b"WORD", 1)
    (base / "data/shard_00001.parquet").write_bytes(damaged)
    get(base, shards())
    fetched = {request.rsplit("/", 1)[1] for request in hub.requests if request.startswith("GET /datasets")}
    assert fetched == {"shard_00001.parquet", "shard_01822.parquet"}
    assert kinds(base, shards(), verify=True) == []


def test_it_does_not_start_if_the_disk_does_not_hold_the_sum(
    hub: Hub, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "room", lambda path: fetch_room(100))
    with pytest.raises(UsageError, match=r"the disk at .* has 0.00 GB left"):
        get(base, shards())
    monkeypatch.setattr(fetch, "room", lambda path: fetch_room(10**9, files=2))
    with pytest.raises(UsageError, match=r"3 files are to come, and .* has 2 inodes left"):
        get(base, shards())
    assert not any("resolve" in request for request in hub.requests) and not (base / "data").exists()


def fetch_room(free: int, files: int | None = None) -> object:
    from nanochat.room import Room

    return Room(free, files, None, None)


def test_from_a_folder(hub: Hub, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"file://{hub.folder}")
    wanted = [*shards(), *GROUPS["gsm8k"]]
    get(base, wanted)
    assert kinds(base, wanted, verify=True) == [] and hub.requests == []
    assert Ledger.load(base).revisions == {}, "a folder knows no commit"


def test_addresses_and_archives(hub: Hub, base: Path, tmp_path: Path) -> None:
    hub.put("words.txt", b"one\ntwo\n" * 200)
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as bundle:
        bundle.writestr("bundle/core.yaml", "icl_tasks: []\n")
        bundle.writestr("bundle/data/a.jsonl", "{}\n" * 2000)
    hub.put("bundle.zip", (tmp_path / "bundle.zip").read_bytes())
    wanted = [
        Asset("word list", hub.url, "words.txt", "words.txt"),
        Asset("bundle", hub.url, "bundle.zip", "eval_bundle/", unpack=True),
    ]
    get(base, wanted)
    assert sorted(p.relative_to(base).as_posix() for p in base.rglob("*") if p.is_file()) == [
        "assets.json", "eval_bundle/core.yaml", "eval_bundle/data/a.jsonl", "words.txt"]  # fmt: skip
    assert kinds(base, wanted, verify=True) == []
    (base / "eval_bundle/core.yaml").unlink()
    assert kinds(base, wanted) == ["missing"]
    get(base, wanted)
    assert kinds(base, wanted, verify=True) == []


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside"])
def test_a_hostile_archive_is_refused(name: str, hub: Hub, base: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as bundle:
        bundle.writestr("fine", "x")
        bundle.writestr(name, "x")
    hub.put("bundle.zip", (tmp_path / "bundle.zip").read_bytes())
    with pytest.raises(UsageError, match="refused"):
        get(base, [Asset("bundle", hub.url, "bundle.zip", "eval_bundle/", unpack=True)])
    assert not list(tmp_path.rglob("outside"))


def test_a_known_hash_overrules_the_source(hub: Hub, base: Path) -> None:
    hub.put("ranks", b"other ranks than those we know")
    with pytest.raises(UsageError, match="hash differs"):
        get(base, [Asset("ranks", hub.url, "ranks", "ranks", sha256="0" * 64)])
    assert not (base / "ranks").exists()


@pytest.mark.parametrize(
    ("asset", "names"),
    [(Asset("gone", "datasets/openai/gone", "a", "a"), "HTTP 404"),
     (Asset("no such split", "datasets/openai/gsm8k", "main/dev-*.parquet", "x/"), "has no main/dev-"),
     (Asset("nobody", "http://127.0.0.1:9", "a", "a"), "where there is a network")],
)  # fmt: skip
def test_a_source_that_lacks_it_is_named(asset: Asset, names: str, hub: Hub, base: Path) -> None:
    with pytest.raises(UsageError, match=names):
        get(base, [asset])


def test_progress_tells_bytes_speed_and_eta() -> None:
    said: list[str] = []
    progress = transfer.Progress(4_000_000, 2, said.append)
    progress.add(1_000_000)
    progress._started -= 10
    progress._next = 0
    progress.tell()
    progress.tell()  # too early
    assert said == ["0/2 files, 0.00 of 0.00 GB, 0.1 MB/s, ETA 0 min"] or len(said) == 1
    assert "MB/s, ETA" in said[0]


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
    assert fault.kind == "empty folder" and "gsm8k main test" in fault.text


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


# ----------------------------------------------------------------------------- the program


def run_script(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.download_data", *arguments]
    env = {**os.environ, **variables}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)


def test_the_program_fetches_and_tells(hub: Hub, base: Path) -> None:
    options = ("--stages", "tok_train", "--shards", "2")
    plan = run_script(*options, "--dry-run")
    assert plan.returncode == 0 and "shards" in plan.stdout and hub.requests == []
    run = run_script(*options)
    assert run.returncode == 0, run.stderr
    assert "ODC-By" in run.stdout and "3 files brought" in run.stdout and "ETA" not in run.stdout
    assert "0 files brought, 3 of 3" in run_script(*options, HF_ENDPOINT="http://127.0.0.1:9").stdout
    assert json.loads((base / "assets.json").read_text())["revisions"] == {CORPUS: COMMIT}
    assert read_json(base / "data/manifest.json")["origin"]["revision"] == COMMIT


def test_the_program_says_what_it_cannot_do(base: Path) -> None:
    run = run_script("--stages", "tok_train", "--shards", "2", HF_ENDPOINT="http://127.0.0.1:9")
    assert run.returncode == 2 and "where there is a network" in run.stderr and "Traceback" not in run.stderr
    run = run_script("--preset", "tiny")
    assert run.returncode == 2 and "python -m scripts.sample_world" in run.stdout
