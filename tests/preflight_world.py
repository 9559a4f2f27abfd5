"""A base folder in which nothing is wrong and a PATH with a cluster's commands, to make mistakes in.

Slurm's commands print what a real Slurm 22.05.8 with accounting printed (two nodes with 8 h100, one with 8
a100; long lines are cut), `quota` what its manual shows.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pwd
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat import facts
from nanochat.assets import Asset, Wanted, needed
from nanochat.common import sha256_file
from nanochat.facts import Facts, Site, gather
from nanochat.ledger import Ledger
from nanochat.preflight import Finding, judge

ROOT = Path(__file__).resolve().parent.parent
STAGES = "tok_eval,base,base_eval,mid,sft,chat_eval"

PARTITIONS = """\
PartitionName=cpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=YES MaxTime=1-00:00:00 State=UP
PartitionName=gpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=NO QoS=N/A MaxTime=12:00:00 State=UP
PartitionName=gpu-preempt AllowGroups=ALL AllowAccounts=root AllowQos=ALL MaxTime=12:00:00 State=DOWN
"""
GRES = "cpu|(null)\ngpu|gpu:h100:8\ngpu|gpu:a100:8\ngpu-preempt|gpu:h100:8(S:0-1)\n"
CONFIG = """\
Configuration data as of NOW
AccountingStorageEnforce = associations,limits,qos
EnforcePartLimits       = NO
SelectType              = select/cons_tres
"""
ASSOCIATIONS = "proj|high,low,normal\nroot|high,low,normal\n"
QOS = "normal|\nlow|06:00:00\nhigh|\n"
QUOTA = """\
Disk quotas for user nobody (uid 65534):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
      /dev/sda1 2932000 {blocks} 0             20  {files}     0
"""
LAB = Site(
    account="proj", qos="normal", cpu_partition="cpu", gpu_partition="gpu", gpu_type="h100",
    gpu_request="--gres=gpu:{type}:{gpus}",
)  # fmt: skip


@dataclasses.dataclass
class World:
    """A base folder in which nothing is wrong, a PATH with a cluster's commands, and the plan."""

    base: Path
    programs: Path
    site: Site = LAB
    wanted: Wanted = dataclasses.field(default_factory=lambda: Wanted(stages=STAGES, shards=2, run="exp1"))
    in_job: bool = False
    torch: str | None = "cu130"  # of the machine that runs the tests it is another
    verify: bool = False

    def set(self, **values: object) -> None:
        self.site = dataclasses.replace(self.site, **values)  # type: ignore[arg-type]

    def program(self, name: str, **answers: str) -> None:
        """A command that prints the answer to its arguments' first known word."""
        cases = "".join(f'  *" {word} "*) cat "$0.{word}" ;;\n' for word in answers)
        script = self.programs / name
        script.write_text(f'#!/bin/sh\ncase " $* " in\n{cases}  *) exit 1 ;;\nesac\n')
        script.chmod(0o755)
        for word, text in answers.items():
            Path(f"{script}.{word}").write_text(text)

    def slurm(self, now: float) -> None:
        shown = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now))
        self.program("scontrol", partition=PARTITIONS, config=CONFIG.replace("NOW", shown))
        self.program("sinfo", **{"-h": GRES})
        me = f"user={pwd.getpwuid(os.getuid()).pw_name}"  # whatever USER says
        self.program("sacctmgr", **{me: ASSOCIATIONS, "qos": QOS})

    def quota(self, blocks: int, files: int) -> None:
        self.program("quota", **{"-w": QUOTA.format(blocks=blocks, files=files)})

    def forget(self, name: str) -> None:
        """An asset that was never fetched: neither its files nor a word of it in the ledger."""
        ledger = json.loads((self.base / "assets.json").read_text())
        gone = [place for place, entry in ledger["files"].items() if entry["asset"] == name]
        for place in gone:
            (self.base / place).unlink()
            del ledger["files"][place]
        ledger["assets"].pop(name, None)
        assert gone, f"there is no {name}"
        (self.base / "assets.json").write_text(json.dumps(ledger))

    def look(self) -> Facts:
        found = gather(self.base, self.site, self.wanted, in_job=self.in_job, verify=self.verify)
        return found if self.torch is None else dataclasses.replace(found, torch=self.torch)

    def findings(self) -> list[Finding]:
        return judge(self.look())


def place(base: Path, asset: Asset, ledger: Ledger) -> None:
    """A small file of the right kind for one asset, and its entry in the ledger."""
    path = asset.path.replace("*", "00000-of-00001")
    where = asset.place if asset.is_one_file else f"{asset.target}{'core.yaml' if asset.unpack else path}"
    file = base / where
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pq.write_table(pa.table({"text": ["some words"] * 20}), file)
    else:
        file.write_text(json.dumps({"hash": "h1"}))
    if asset.source:
        ledger.add(where, asset.name, asset.source, None, asset.path, sha256_file(file))
        if not asset.is_one_file:
            ledger.assets[asset.name] = [where]


def make_world(base: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with every asset of its plan, on a machine with Slurm, outside a job."""
    programs.mkdir()
    made, ledger = World(base, programs), Ledger(base)
    for asset in needed(made.wanted):
        place(base, asset, ledger)
    ledger.save()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
    for name in ("SLURM_JOB_ID", "SLURM_GPUS_ON_NODE", "CUDA_VISIBLE_DEVICES", "MASTER_PORT", "HF_ENDPOINT"):
        monkeypatch.setenv(name, "")  # so that what a mistake sets is undone afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr(facts, "_checkpoint_bytes", lambda wanted: 10**6)  # the disk here may be small
    monkeypatch.delenv("USER", raising=False)
    made.slurm(time.time())
    made.quota(10**9, 10**6)
    return made
