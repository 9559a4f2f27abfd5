"""Preflight names every mistake, each by its own finding and no other, and all of them in one pass."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from preflight_world import PARTITIONS, STAGES, World, make_world

from nanochat import facts
from nanochat.common import EXIT_DONE, EXIT_FAULT, EXIT_USAGE, write_json
from nanochat.facts import Site
from nanochat.preflight import CHECKS, exit_code, judge

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def world(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(base, tmp_path / "bin", monkeypatch)


def test_where_nothing_is_wrong_nothing_is_found(world: World) -> None:
    found = world.look()
    assert judge(found) == [] and exit_code([]) == EXIT_DONE
    assert found.cluster is not None and found.cluster.skew_s is not None and found.cluster.skew_s <= 2
    assert found.room.quota_bytes == (10**9 - 2932000) * 1024 and found.room.quota_files == 10**6 - 20
    world.in_job = True
    assert world.findings() == []


# ----------------------------------------------------------------------------- the table


def spoil(world: World, name: str, offset: int) -> None:
    path = world.base / name
    content = bytearray(path.read_bytes())
    content[offset] ^= 255
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=times)


def rot(world: World) -> None:
    """A bit of a page: size, time and footer are as before, and only `--verify` sees it."""
    spoil(world, "data/shard_00000.parquet", 30)
    world.verify = True


def log_folder(world: World) -> None:
    (world.base / "runs").write_text("a file where the folder should be")


def other_tokenizer(world: World) -> None:
    state = world.base / "base_exp1/checkpoints/step_0000500/state.json"
    write_json(state, {"identity": {"tokenizer": "h2"}})


def empty_cache(world: World) -> None:
    (world.base / "tasks/humaneval/openai_humaneval/test-00000-of-00001.parquet").unlink()


def no_network_on_the_data_node(world: World) -> None:
    world.forget("word list")
    world.wanted = dataclasses.replace(world.wanted, stages=f"data,{STAGES}")
    world.set(data_node_has_network=False)


def no_network_in_the_data_job(world: World) -> None:
    no_network_on_the_data_node(world)
    world.wanted = dataclasses.replace(world.wanted, stages="data,chat_eval")
    world.set(data_node_has_network=True)
    world.in_job = True
    os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"


def taken_port(world: World) -> None:
    listener = socket.socket()
    listener.bind(("", 0))
    os.environ["MASTER_PORT"] = str(listener.getsockname()[1])
    world.keep = listener  # type: ignore[attr-defined]
    world.in_job = True


def scratch(world: World, path: str) -> None:
    world.set(local_scratch=path)
    world.in_job = True


def gpus(world: World) -> None:
    os.environ.update(SLURM_GPUS_ON_NODE="8", CUDA_VISIBLE_DEVICES="0,1,2,3,4,5,6")
    world.in_job = True


def image(world: World, content: bytes | None) -> None:
    path = world.base / "run.sif"
    if content is not None:
        path.write_bytes(content)
    world.set(container="apptainer", image=str(path))


def old_python(world: World) -> None:
    look = world.look
    world.look = lambda: dataclasses.replace(look(), python=(3, 9))  # type: ignore[method-assign]


def cpu_torch(world: World) -> None:
    world.torch = "cpu" if facts.torch_build() != "cpu" else None


def truncated(world: World) -> None:
    path = world.base / "data/shard_00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def two_shards_of_an_unfinished_fetch(world: World) -> None:
    world.wanted = dataclasses.replace(world.wanted, shards=4)


def down(world: World) -> None:
    world.set(account="root", gpu_partition="gpu-preempt")


def untyped(world: World) -> None:
    world.program("sinfo", **{"-h": "gpu|gpu:8\n"})


Mistake = Callable[[World], None]
CLUSTER = [  # the reference cluster's five explained failures: files that compute nodes could not fetch
    ("GPT-2's ranks for tok_eval", lambda w: w.forget("tiktoken vocab.bpe"), "missing files", "vocab.bpe"),
    ("SmolTalk", lambda w: w.forget("smoltalk train"), "missing files", "smoltalk train was never fetched"),
    ("MMLU auxiliary_train", lambda w: w.forget("mmlu all auxiliary_train"), "missing files", "_train was"),
    ("MMLU all, its folder there", lambda w: w.forget("mmlu all test"), "missing files", "though its folder"),
    ("the word list", lambda w: w.forget("word list"), "missing files", "word list: .* is missing"),
]  # fmt: skip
TWENTY = [
    ("account", lambda w: w.set(account="nobody"), "account", "'nobody'"),
    ("partition", lambda w: w.set(gpu_partition="gpus"), "partition", "GPU_PARTITION=gpus"),
    ("qos", lambda w: w.set(qos="urgent"), "qos", "QOS=urgent"),
    ("max time", lambda w: w.set(max_hours=48.0), "max time", "48: partition 'gpu' allows 12 hours"),
    ("gpu type", lambda w: w.set(gpu_type="v100"), "gpu type", "GPU_TYPE=v100"),
    ("gpu style", lambda w: w.set(gpu_extra="--gpus=8 --exclusive"), "gpu style", "twice: .* and --gpus=8"),
    ("log folder", log_folder, "log folder", "runs is a file"),
    ("quota", lambda w: w.quota(2932001, 0), "quota", "0.0 GB left"),
    ("inodes", lambda w: w.quota(0, 300), "inodes", "280 more files"),
    ("missing split", lambda w: w.forget("gsm8k main test"), "missing files", "gsm8k main test"),
    ("corrupt shard", lambda w: spoil(w, "data/shard_00001.parquet", -40), "corrupt files", "damaged Par"),
    ("other tokenizer", other_tokenizer, "tokenizer", "another tokenizer than .*step_0000500"),
    ("empty cache folder", empty_cache, "empty cache", "humaneval.* its folder is empty"),
    ("no network", no_network_on_the_data_node, "network", "1 files are to be fetched"),
    ("python", old_python, "python", r"Python 3\.9"),
    ("cpu-only torch", cpu_torch, "torch", "built for the CPU alone"),
    ("image", lambda w: image(w, None), "image", "run.sif: No such file"),
    ("port", taken_port, "port", "MASTER_PORT=.* is taken"),
    ("scratch", lambda w: scratch(w, "/no/such/scratch"), "scratch", "/no/such/scratch is no folder"),
    ("clock", lambda w: w.slurm(time.time() - 400), "clock", "Slurm's controller differ by"),
]  # fmt: skip
MORE = [
    ("a partition without GPUs", lambda w: w.set(gpu_partition="cpu"), "partition", "has no GPUs"),
    ("a partition that is down", down, "partition", "not up"),
    ("a QOS's own limit", lambda w: w.set(qos="low", max_hours=8.0), "max time", "QOS 'low' allows 6 hours"),
    ("more GPUs than a node has", lambda w: w.set(gpus_per_node=16), "gpu type", "a node of 'gpu' has 8"),
    ("a type where there are none", untyped, "gpu type", "GPU_TYPE=h100"),
    ("a request that is none", lambda w: w.set(gpu_request="--gres=gpus:8"), "gpu style", "no way to ask"),
    ("a half-downloaded shard", truncated, "corrupt files", "bytes instead of"),
    ("a rotten shard", rot, "corrupt files", "another sha256"),
    ("a touched file", lambda w: (w.base / "words_alpha.txt").touch(), "changed files", "written to after"),
    ("shards still to come", two_shards_of_an_unfinished_fetch, "missing files", r"02.* \(and 1 more"),
    ("no network in the job", no_network_in_the_data_job, "network", "no network"),
    ("a file that is no image", lambda w: image(w, b"x" * 64), "image", "is no Apptainer image"),
    ("an unset scratch", lambda w: scratch(w, "$NO_SUCH_VARIABLE/x"), "scratch", "not set on this node"),
    ("GPUs that the job does not see", gpus, "gpus", "gave 8 GPUs, and CUDA_VISIBLE_DEVICES names 7"),
]  # fmt: skip
NODE_FAULTS = {"port", "scratch", "clock", "gpus"}


ROWS: list[tuple[str, Mistake, str, str]] = CLUSTER + TWENTY + MORE


@pytest.mark.parametrize(("name", "mistake", "check", "text"), ROWS, ids=[row[0] for row in ROWS])
def test_each_mistake_has_its_own_finding(
    name: str, mistake: Mistake, check: str, text: str, world: World
) -> None:
    mistake(world)
    found = world.findings()
    if name == "no network in the job":  # there the files are missing at once, too
        found = [finding for finding in found if finding.check != "missing files"]
    (finding,) = found
    assert finding.check == check and re.search(text, finding.text), finding
    assert finding.remedy and "\n" not in finding.text + finding.remedy
    assert exit_code(found) == finding.code == (EXIT_FAULT if check in NODE_FAULTS else EXIT_USAGE)


def test_the_table_holds_every_check() -> None:
    assert len(CLUSTER) == 5 and len(TWENTY) == 20
    seen = {check for _, _, check, _ in ROWS}
    assert seen == {check.name for check in CHECKS} - {"disk"}


def test_all_mistakes_in_one_pass(world: World) -> None:
    for name in ("account", "max time", "gpu type", "log folder", "missing split", "corrupt shard",
                 "other tokenizer", "empty cache folder", "image"):  # fmt: skip
        next(mistake for title, mistake, _, _ in TWENTY if title == name)(world)
    assert {finding.check for finding in world.findings()} == {
        "account", "max time", "gpu type", "log folder", "missing files", "corrupt files", "tokenizer",
        "empty cache", "image"}  # fmt: skip


def test_a_full_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_checkpoint_bytes", lambda wanted: 10**18)
    world.program("quota")
    assert [finding.check for finding in world.findings()] == ["disk"]


def test_what_the_data_job_brings_is_not_missing(world: World) -> None:
    """Before submission files may be absent, since the first job fetches them; within a job they may not."""
    world.forget("smoltalk train")
    assert [finding.check for finding in world.findings()] == ["missing files"]
    world.wanted = dataclasses.replace(world.wanted, stages=f"data,{STAGES}")
    assert world.findings() == []
    truncated(world)
    assert [finding.check for finding in world.findings()] == ["corrupt files"]


def test_an_untyped_request_and_an_empty_site(world: World) -> None:
    world.site = dataclasses.replace(Site(), gpu_partition="gpu")
    assert world.findings() == []
    world.set(gpu_request="--gpus-per-node={gpus}")
    world.program("scontrol", partition=PARTITIONS, config="SelectType = select/linear")
    assert [finding.check for finding in world.findings()] == ["gpu style"]


# ----------------------------------------------------------------------------- the program


def run_script(base: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.preflight", *arguments]
    env = {**os.environ, "NANOCHAT_BASE_DIR": str(base)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.slow
def test_the_program_prints_all_and_exits_with_the_code(world: World, tmp_path: Path) -> None:
    (tmp_path / "lab.env").write_text(
        "ACCOUNT=nobody\nGPU_PARTITION=gpu\nGPUS_PER_NODE=2\nDEVICE=cpu\nMAX_HOURS=99\n"
    )
    options = ("--site", str(tmp_path / "lab.env"), "--stages", "tok_train", "--shards", "2")
    run = run_script(world.base, *options)
    assert run.returncode == EXIT_USAGE, run.stderr
    assert (
        "account: account 'nobody' is not one of yours\n    remedy: set ACCOUNT to one of: proj, root"
        in run.stdout
    )
    assert "max time:" in run.stdout and "preflight: 2 mistake(s)" in run.stdout
    found = json.loads(run_script(world.base, *options, "--json").stdout)
    assert found["exit_code"] == 2 and [f["check"] for f in found["findings"]] == ["account", "max time"]
    fine = run_script(world.base, "--site", "no/such.env")
    assert fine.returncode == 2 and "there is no no/such.env" in fine.stderr
