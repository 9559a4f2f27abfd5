"""Fetching from a hub on this machine (`hub_server.py`, real HTTP) or from a folder."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from asset_helpers import CORPUS, get, kinds, parquet, shards, small_hub
from hub_server import COMMIT, Hub

from nanochat import dataset, fetch, transfer
from nanochat.assets import GROUPS, Asset
from nanochat.common import UsageError, read_json
from nanochat.ledger import Ledger, parquet_footer
from scripts import download_data

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    with small_hub(tmp_path / "hub") as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


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


@pytest.mark.slow
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


@pytest.mark.slow
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


# ----------------------------------------------------------------------------- the program


def test_the_program_fetches_and_tells(
    hub: Hub, base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--stages", "tok_train", "--shards", "2"]
    assert download_data.main([*options, "--dry-run"]) == 0 and hub.requests == []
    assert "shards                                  3        3  datasets/karpathy" in capsys.readouterr().out
    assert download_data.main(options) == 0
    told = capsys.readouterr().out
    assert "ODC-By" in told and "3 files brought, 0 of 3" in told
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert download_data.main(options) == 0
    assert "0 files brought, 3 of 3" in capsys.readouterr().out
    assert read_json(base / "assets.json")["revisions"] == {CORPUS: COMMIT}
    assert read_json(base / "data/manifest.json")["origin"]["revision"] == COMMIT


def test_what_only_a_stage_can_make_is_said(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert download_data.main(["--preset", "tiny"]) == 2
    assert "make it: python -m scripts.sample_world" in capsys.readouterr().out


@pytest.mark.slow
def test_the_program_without_a_network(base: Path) -> None:
    command = [sys.executable, "-m", "scripts.download_data", "--stages", "tok_train", "--shards", "2"]
    env = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 2 and "where there is a network" in run.stderr and "Traceback" not in run.stderr
