"""What happens on a node: where ranks meet, data on its own disk, the look at it, torchrun's words."""

from __future__ import annotations

import argparse
import json
import socket
import threading
import time
from pathlib import Path

import pytest

from nanochat import slurm
from nanochat.launch import doctor, node, nodecheck, rendezvous, stagein
from nanochat.launch.ledger import Attempt, RunFolder, Submitted, gpu_hours

# ----------------------------------------------------------------------------- where ranks meet


def answers(monkeypatch: pytest.MonkeyPatch, names: dict[str, str], address: str = "") -> None:
    """A name service that knows these names, and a Slurm that knows this address."""

    def lookup(host: str, *_: object) -> list[tuple[object, ...]]:
        if host not in names:
            raise socket.gaierror(f"{host}: unknown")
        return [(socket.AF_INET, 0, 0, "", (names[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(slurm, "node_address", lambda node: address)


def test_the_name_of_the_fast_interface_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, {"n1": "10.0.0.1", "n1i": "10.9.0.1"})
    assert rendezvous.address("n1", "i") == "10.9.0.1" and rendezvous.address("n1.cluster", "i") == "10.9.0.1"
    assert rendezvous.address("n1") == "10.0.0.1"


def test_names_need_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, {"10.0.0.7": "10.0.0.7"}, address="10.0.0.7")
    assert rendezvous.address("gpu1") == "10.0.0.7"
    answers(monkeypatch, {socket.gethostname(): "10.0.0.8"})
    assert rendezvous.address("gpu1") == "10.0.0.8"


def test_a_loopback_address_only_if_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, {"n1": "127.0.1.1", "10.0.0.7": "10.0.0.7"}, address="10.0.0.7")
    assert rendezvous.address("n1") == "10.0.0.7"
    answers(monkeypatch, {"n1": "127.0.1.1"})
    assert rendezvous.address("n1") == "127.0.1.1"
    answers(monkeypatch, {})
    assert rendezvous.address("n1") == "127.0.0.1"


def test_a_port_that_is_taken_is_passed_over() -> None:
    first = rendezvous.port("4711")
    with socket.create_server(("", first)):
        assert rendezvous.port("4711") != first
    assert rendezvous.port("4712") != first and rendezvous.port("4711_3") >= rendezvous.FIRST_PORT


# ----------------------------------------------------------------------------- data on the node


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "shared" / "world"
    folder.mkdir(parents=True)
    for name in ("a.parquet", "manifest.json"):
        (folder / name).write_text(name * 100)
    return folder


def test_data_is_copied_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: object
) -> None:
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    (tmp_path / "disk").mkdir()
    there = stagein.stage_in(data, "$NODE_DISK")
    assert there == tmp_path / "disk" / "nanochat" / "world"
    assert {p.name: p.read_text() for p in there.iterdir()} == {p.name: p.read_text() for p in data.iterdir()}
    before = {p: p.stat().st_ino for p in there.iterdir()}
    time.sleep(1.1)
    (data / "a.parquet").write_text("changed")
    assert stagein.stage_in(data, "$NODE_DISK") == there and (there / "a.parquet").read_text() == "changed"
    assert (there / "manifest.json").stat().st_ino == before[there / "manifest.json"]


@pytest.mark.parametrize("scratch", ["$NOT_SET/x", "/nowhere/at/all", "/proc"])
def test_where_there_is_no_room_the_shared_folder_is_read(
    data: Path, scratch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stagein.stage_in(data, scratch) == data
    assert f"reading {data}" in capsys.readouterr().out


# ----------------------------------------------------------------------------- the look at a node


def test_who_is_bad(tmp_path: Path) -> None:
    for name, facts in (
        ("n1", {"problems": []}),
        ("n2", {"problems": ["no GPU"]}),
        ("n3", {"problems": [], "network": "x"}),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(facts))
    found = nodecheck.verdict(tmp_path, ["n1", "n2", "n3", "n4"])
    assert found == {"n2": "no GPU", "n4": "it gave no answer"}
    assert nodecheck.verdict(tmp_path / "empty", ["n1", "n2"]) == {}  # the check itself could not run


def test_what_is_looked_at(tmp_path: Path) -> None:
    def look(environ: dict[str, str], **changes: object) -> list[str]:
        usual = {"gpus": 2, "device": "cpu", "out": str(tmp_path), "scratch": "", "now": time.time()}
        return list(nodecheck.look(argparse.Namespace(**usual | changes), environ))

    assert look({"CUDA_VISIBLE_DEVICES": "0,1"}) == []
    assert look({"CUDA_VISIBLE_DEVICES": "0"}) == ["2 GPUs asked for, '0' visible"]
    assert "cannot be written" in look({}, scratch="/nowhere")[0]
    assert "clock" in look({}, now=time.time() - 900)[0]


def test_fewer_gpus_than_asked_for_are_said_at_once() -> None:
    for enough in ({"CUDA_VISIBLE_DEVICES": "0,1"}, {}):
        assert node.lack_of_gpus(2, enough) == ""
    assert node.lack_of_gpus(2, {"ROCR_VISIBLE_DEVICES": "0"}) == "2 GPUs asked for, '0' visible"
    assert node.lack_of_gpus(1, {"CUDA_VISIBLE_DEVICES": ""}) == "1 GPUs asked for, '' visible"
    assert node.lack_of_gpus(0, {"CUDA_VISIBLE_DEVICES": ""}) == ""


def test_torchrun_is_told_its_place() -> None:
    options = node.parse(
        ["--nodes=2", "--ranks=4", "--address=10.0.0.1", "--port=4711", "--", "scripts.x", "--run", "r"]
    )
    words = node.launcher(options, {"SLURM_NODEID": "1"})
    assert words[-4:] == ["--", "scripts.x", "--run", "r"]
    assert {
        "--nnodes=2",
        "--nproc_per_node=4",
        "--node_rank=1",
        "--master_addr=10.0.0.1",
        "--master_port=4711",
    } <= set(words)


# ----------------------------------------------------------------------------- the ledger


def test_the_ledger_is_written_by_many_at_once(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    attempts = [
        Attempt("base.1", "base", str(i), 0, ["n"], 8, float(i), i + 450.0, step=10, reached=25)
        for i in range(8)
    ]
    threads = [threading.Thread(target=run.write, args=(attempt,)) for attempt in attempts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.attempts("base") == attempts and run.attempts("mid") == []
    assert gpu_hours(attempts) == 8 * 8 * 450 / 3600 and attempts[0].repeated == 15
    run.add_job(Submitted("base.1", "base", "1", 2.0))
    run.add_job(Submitted("base.2", "base", "2", 3.0, "afternotok:1"))
    assert [job.id for job in run.submitted()] == ["1", "2"]
    assert run.log("base").endswith("/logs/base.%j.out")


@pytest.mark.parametrize(
    ("log", "remedy"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory", "--device-batch-rows"),
        ("OSError: [Errno 122] Disk quota exceeded", "the disk or quota is full"),
        ("nanochat.offline.NoNetwork: no network in this job, and x", "scripts.download_data"),
        ("ModuleNotFoundError: No module named 'cyclopts'", "setup_environment.sh"),
        ("something else", "nothing known in its log"),
    ],
)
def test_what_a_log_says(log: str, remedy: str) -> None:
    assert remedy in doctor.remedy(f"...\n{log}\n...")
