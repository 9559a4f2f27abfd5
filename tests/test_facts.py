"""What is so on a node: Slurm's and quota's formats, silent commands, torch's build, site files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from preflight_world import QUOTA, World, make_world

from nanochat import facts, room
from nanochat.facts import Site
from nanochat.launch import sites
from nanochat.preflight import judge
from nanochat.room import parse_quota


@pytest.fixture
def world(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(base, tmp_path / "bin", monkeypatch)


def test_without_any_command_everything_of_slurm_is_unknown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(world.base))
    found = world.look()
    assert found.cluster is None and found.room.quota_bytes is None and judge(found) == []


def test_commands_that_hang_or_fail_are_unknown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "COMMAND_TIMEOUT_S", 0.3)
    monkeypatch.setattr(facts, "ANSWER_TIMEOUT_S", 0.3)
    for name in ("sacctmgr", "quota"):
        (world.programs / name).write_text("#!/bin/sh\nexec sleep 60\n")
    started = time.monotonic()
    found = world.look()
    assert found.cluster is not None and found.cluster.associations is None and judge(found) == []
    assert time.monotonic() - started < 5


LFS = "  /lustre/work/some/long/mount/point\n        1200*     0   1000       6d   5 0 10 -\n"


@pytest.mark.parametrize(
    ("text", "left"),
    [(QUOTA.format(blocks=2932010, files=50), (10240, 30)), (QUOTA.format(blocks=0, files=0), (None, None)),
     ("  nfs:/home 100 200 300 50 60 70\n", (100 * 1024, 10)), (LFS, (0, 5)), ("no quota\n", (None, None)),
     ("  /scratch 100 200 300 6days 70* 60 80 5days\n", (100 * 1024, 0))],
)  # fmt: skip
def test_quota_formats(text: str, left: tuple[int | None, int | None]) -> None:
    assert parse_quota(text) == left


def test_the_build_of_torch_is_known_without_importing_it() -> None:
    import torch

    build = facts.torch_build()
    assert build == ("cpu" if torch.version.cuda is None else "cu" + torch.version.cuda.replace(".", ""))


def test_a_site_is_taken_from_any_object_with_its_attributes() -> None:
    site = Site.of(sites.load("lab", {"ACCOUNT": "proj", "STAGE_LOCAL": "1"}, {}))
    assert (site.account, site.gpus_per_node, site.stage_local) == ("proj", 2, True)
    assert Site.of(site) == site
