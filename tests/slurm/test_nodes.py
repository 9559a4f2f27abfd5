"""The nodes of a real Slurm job: bad ones are left out, good ones' own disks are used, one may look in."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from drive import HOOKS, ROOT, User

pytestmark = pytest.mark.slurm
TINY = ("submit", "--preset", "tiny", "--run", "r", "--until", "base")


def submit_with_a_bad_node(user: User, *words: str) -> None:
    """gpu2 has no disk of its own; returns when a check has said so."""
    scratch = user.folder / "scratch"
    (scratch / "gpu1").mkdir(parents=True)
    user.launch(*TINY, "NODE_CHECK=1", f"LOCAL_SCRATCH={scratch}/$SLURMD_NODENAME", *words)
    found = user.base / "runs" / "r" / "exclude.json"
    user.wait("the check", found.exists)
    bad = json.loads(found.read_text())
    assert list(bad) == ["gpu2"] and "cannot be written" in bad["gpu2"]


def test_a_bad_node_is_named_and_used_no_more(user: User) -> None:
    submit_with_a_bad_node(user, "--segments", "3")
    user.wait("the second segment", lambda: "base.1" in user.status("r")["base"][1])
    job = user.do("squeue", "-h", "-n", "r-base.2", "-o", "%i").strip()
    assert "ExcNodeList=gpu2" in user.do("scontrol", "show", "job", job)
    assert "type: " not in user.launch("status", "r")
    assert "node gpu2 is not used any more" in user.launch("doctor", "r", fails=True)
    assert re.search(r"node gpu1: ok, [\d.]+ GB/s over", user.log("r", "base"))
    user.launch("cancel", "r")
    user.wait_empty("r")


def test_where_jobs_may_not_say_so_status_says_what_to_type(user: User) -> None:
    path = f"ENV_PATH={refusing_updates(user)}:{user.env['PATH']}"
    submit_with_a_bad_node(user, "--segments", "9", path)
    typed = user.wait(
        "the line", lambda: re.search("type: (scontrol update JobId=(.*) .*)", user.launch("status", "r"))
    )
    last = typed[2].split(",")[-1]
    assert "ExcNodeList=(null)" in user.do("scontrol", "show", "job", last)
    user.do("bash", "-c", typed[1])
    assert "ExcNodeList=gpu2" in user.do("scontrol", "show", "job", last)
    assert "type: " not in user.launch("status", "r") and "type what " in user.log("r", "base")
    user.launch("cancel", "r")
    user.wait_empty("r")


def refusing_updates(user: User) -> Path:
    """A folder with a `scontrol` that changes nothing, as on clusters where only administrators may."""
    place = user.folder / "site"
    place.mkdir()
    shim = place / "scontrol"
    real = shutil.which("scontrol", path=user.env["PATH"])
    shim.write_text(f'#!/bin/sh\n[ "$1" = update ] && echo "Access denied" >&2 && exit 1\nexec {real} "$@"\n')
    shim.chmod(0o755)
    return place


@pytest.mark.slow
def test_good_nodes_read_the_data_from_their_own_disks(user: User) -> None:
    scratch = user.folder / "disk"
    for node in ("gpu1", "gpu2"):
        (scratch / node).mkdir(parents=True)
    disks = f"LOCAL_SCRATCH={scratch}/$SLURMD_NODENAME"
    user.launch(*TINY, "NODE_CHECK=1", "STAGE_LOCAL=1", disks)
    user.wait_empty("r")
    assert user.status("r")["base"][0] == "done", user.log("r", "base")
    log = user.log("r", "base")
    assert log.count("stage-in: ") == 2 and log.count(": ok, ") == 2
    for node in ("gpu1", "gpu2"):
        assert list((scratch / node).glob("nanochat/world/shard_*.parquet"))


def test_a_shell_beside_a_running_job(user: User) -> None:
    """What `attach` gives: a terminal on the job's node, with what the job has."""
    hooks = (f"ENV_PYTHONPATH={HOOKS}", "ENV_SLOW_S=1")
    user.launch(*TINY, *hooks)
    user.wait_steps("r", 1)
    ours, theirs = pty.openpty()
    command = ["bash", str(ROOT / "env" / "on_site.sh"), "-m", "scripts.launch", "attach", "r"]
    with subprocess.Popen(command, cwd=user.folder, env=user.env, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        os.write(ours, b"echo I am on $SLURMD_NODENAME in job $SLURM_JOB_ID; exit\n")
        said = b""
        with contextlib.suppress(OSError):  # the other side has gone
            while chunk := os.read(ours, 4096):
                said += chunk
    os.close(ours)
    job = user.attempts("r", "base")[0]["id"]
    assert f"I am on gpu1 in job {job}" in said.decode(), said
    user.launch("cancel", "r")
