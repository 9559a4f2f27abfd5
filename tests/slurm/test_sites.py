"""Slurm itself looks at each site's jobs, on a lab with that site's GPUs, features, account and QOS."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from lab import ACCOUNTED, Lab, Spec

from nanochat.common import UsageError
from nanochat.launch import checks, sites, submission
from nanochat.launch import plan as plans
from nanochat.launch.plan import Plan
from nanochat.launch.request import read

pytestmark = pytest.mark.slurm
# What a user of these sites must say: as the lab knows it.
ANSWERS = {
    "ACCOUNT": "proj", "QOS": "long", "CPU_QOS": "short", "CPU_PARTITION": "cpu", "GPU_PARTITION": "gpu",
    "GPUS_PER_NODE": "4", "IMAGE": "nanochat", "BINDS": "/tmp",
}  # fmt: skip


def like(stored: dict[str, str]) -> Spec:
    """A cluster with two nodes of a site's kind."""
    known = {key: ANSWERS[key] if value == "?" else value for key, value in stored.items() if key in ANSWERS}
    features = {
        kind: ",".join(re.findall(r"--constraint=(\w+)", stored.get(f"{kind.upper()}_EXTRA", "")))
        for kind in ("cpu", "gpu")
    }
    return dataclasses.replace(
        ACCOUNTED, preemptible=False, gpus=int(known.get("GPUS_PER_NODE", 8)),
        gpu_type=stored.get("GPU_TYPE") or "a100", cpu_partition=known.get("CPU_PARTITION", "serial"),
        gpu_partition=known.get("GPU_PARTITION", "accelerated"), cpu_features=features["cpu"],
        gpu_features=features["gpu"],
    )  # fmt: skip


@pytest.fixture
def environ(lab_with_accounts: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("SLURM_CONF", str(lab_with_accounts.conf))
    monkeypatch.delenv("NANOCHAT_BASE_DIR", raising=False)
    for name in ("SCRATCH", "WORK"):
        monkeypatch.setenv(name, str(tmp_path))
    return monkeypatch


def planned(site: str, folder: Path, **answers: str) -> Plan:
    """A run of two nodes as its user would ask for it, ready to be submitted."""
    stored = sites.read(sites.FOLDER / f"{site}.env")
    known = {"BASE_DIR": str(folder), **ANSWERS, **answers}
    asked = {key: known[key] for key, value in stored.items() if value == "?"}
    words = ["--site", site, *(f"{key}={value}" for key, value in asked.items()), "NODES=2", "--run", "r"]
    words += ["--base-dir", str(folder), *(["--preset", "tiny"] if site == "lab" else ["--depth", "12"])]
    found = checks.fit(read(words))
    plan, fitted = plans.build(found, "id")
    submission.prepare(plan, fitted, found.preflight)
    return plan


@pytest.mark.parametrize("site", sites.names())
def test_slurm_takes_the_plan(
    site: str, lab_with_accounts: Lab, environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab_with_accounts.reshape(like(sites.read(sites.FOLDER / f"{site}.env")))
    plan = planned(site, tmp_path)
    submission.check(plan)
    assert len(plan.jobs) >= 10


@pytest.mark.parametrize(
    ("site", "cluster", "answers"),
    [("marenostrum5", {}, {"ACCOUNT": "other"}), ("marenostrum5", {}, {"CPU_QOS": "urgent"}),
     ("perlmutter", {"gpu_features": "a100"}, {}), ("leonardo", {"gpu_nodes": 1}, {})],
)  # fmt: skip
def test_on_another_cluster_slurm_refuses_it(
    site: str,
    cluster: dict[str, object],
    answers: dict[str, str],
    lab_with_accounts: Lab,
    environ: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """So what the test above asks for counts."""
    spec = dataclasses.replace(like(sites.read(sites.FOLDER / f"{site}.env")), **cluster)  # type: ignore[arg-type]
    lab_with_accounts.reshape(spec)
    with pytest.raises(UsageError, match="Slurm refuses jobs of this plan"):
        submission.check(planned(site, tmp_path, **answers))
