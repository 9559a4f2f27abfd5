"""The SIF of the image, under a real Apptainer as a plain user: it trains, resumes and chats offline."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from image_lab import ROOT, USER, Lab

pytestmark = pytest.mark.container

MOST_MIB = 525  # 550 MB
OFFLINE = ("--containall", "--no-home", "--net", "--network", "none")
TINY = ("--preset", "tiny", "--base-dir", "/work")
SERVE = (
    'cd "$1"; apptainer run --no-home --bind "$PWD:/work" "$0" serve --preset tiny --base-dir /work --port 0 '
    ">serve.log 2>&1 & until grep -q ^ready serve.log; do kill -0 $! || exit 9; sleep 0.3; done; "
    "kill -TERM $!; wait $!"
)


@pytest.fixture(scope="module")
def work(lab: Lab) -> Path:
    place = lab.user_folder() / "work"
    place.mkdir(exist_ok=True)
    shutil.chown(place, USER)
    return place


def offline(
    lab: Lab, sif: Path, work: Path, *words: str, exit_code: int = 0, verb: str = "run"
) -> subprocess.CompletedProcess[str]:
    one_thread = ("--env", "OMP_NUM_THREADS=1")
    done = lab.as_user(
        "apptainer", verb, *OFFLINE, *one_thread, "--bind", f"{work}:/work", sif, *words, check=False
    )
    assert done.returncode == exit_code, (words, done.returncode, done.stdout[-2000:], done.stderr[-3000:])
    return done


def labels_of(lab: Lab, sif: Path) -> dict[str, str]:
    said = json.loads(lab.as_user("apptainer", "inspect", "--json", sif).stdout)
    return said["data"]["attributes"]["labels"]


def test_it_says_what_it_is(lab: Lab, sif: Path) -> None:
    """The apps without arguments, its own test, its size and its labels."""
    printed = lab.as_user("apptainer", "run", sif).stdout
    assert all(app in printed for app in ("prepare", "train", "eval", "chat", "serve", "info"))
    assert "self-test: passed" in lab.as_user("apptainer", "test", sif).stdout
    assert "--self-test" in lab.as_user("apptainer", "run", "--app", "info", sif, "--help").stdout
    labels = labels_of(lab, sif)
    assert labels["org.opencontainers.image.revision"].removesuffix("-dirty") == lab.revision
    lock = (ROOT / "env/locks/cpu.txt").read_bytes()
    assert labels["nanochat.lock.sha256"] == hashlib.sha256(lock).hexdigest()
    assert (labels["nanochat.variant"], labels["nanochat.cuda"]) == ("cpu", "none")
    size = sif.stat().st_size / 2**20
    print(f"{sif.name}: {size:.0f} MiB")
    assert size <= MOST_MIB


def test_nothing_outside_is_reached(lab: Lab, sif: Path, work: Path) -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 443), 3)"
    done = offline(lab, sif, work, "python", "-c", code, verb="exec", exit_code=1)
    assert "Network is unreachable" in done.stderr


def test_it_trains_offline_resumes_and_chats(lab: Lab, sif: Path, work: Path) -> None:
    shutil.rmtree(work / "base_tiny", ignore_errors=True)
    offline(lab, sif, work, "sample_world", *TINY)
    offline(lab, sif, work, "tok_train", *TINY)
    offline(lab, sif, work, "base_train", *TINY, "--stop-at-step", "8", exit_code=75)
    assert (work / "base_tiny" / "STOPPED").exists()
    done = offline(lab, sif, work, "train", *TINY)
    assert (work / "base_tiny" / "DONE").exists() and (work / "sft_tiny" / "DONE").exists()
    steps = [json.loads(line) for line in (work / "base_tiny/metrics.jsonl").read_text().splitlines()]
    assert max(step.get("step", 0) for step in steps) >= 19 and "resum" in done.stdout
    attempts = json.loads((work / "base_tiny/env.json").read_text())["attempts"]
    assert len(attempts) == 2 and attempts[0]["commit"] == lab.revision
    said = offline(lab, sif, work, "chat", *TINY, "-p", "Where does Hesko live?")
    assert said.stdout.strip()


def test_a_server_ends_well_when_apptainer_alone_is_told_to(lab: Lab, sif: Path, work: Path) -> None:
    """So Slurm does it where cgroups track processes; Apptainer passes it on, and the image stays mounted."""
    (work / "serve.log").unlink(missing_ok=True)
    lab.as_user("bash", "-c", SERVE, sif, work)
    assert (work / "serve.log").read_text().endswith("\nended\n")


def test_torchrun_works_without_names(lab: Lab, sif: Path, work: Path) -> None:
    """In an empty network namespace no host name resolves, so the master's address is given."""
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node=2")
    master = ("--master-addr=127.0.0.1", "--master-port=29517")
    one_row = ("--device-batch-rows", "1")  # of 128 tokens: two ranks share 256
    program = ("-m", "--", "scripts.base_train", *TINY, "--run", "two", "--steps", "4", *one_row)
    words = ("python", *torchrun, *master, *program)
    offline(lab, sif, work, *words, verb="exec")
    assert (work / "base_two" / "DONE").exists()


@pytest.mark.slow
def test_a_compiled_training_step_runs_inside(lab: Lab, sif: Path) -> None:
    """Forward, backward and optimizer by Inductor's C++, which is what the image's compiler is for.

    By the run helper, whose cache is a folder: /tmp of --containall has 64 MiB, too few for gcc's headers.
    """
    helper = ("env", "OMP_NUM_THREADS=1", "bash", ROOT / "containers/run/apptainer.sh", "--image", sif)
    place = lab.user_folder() / "compiled"
    two = ("base_train", "--preset", "tiny", "--compile", "--steps", "2")
    for words in (("sample_world", "--preset", "tiny"), ("tok_train", "--preset", "tiny"), two):
        done = lab.as_user(*helper, "--out", place, *words)
    built = [*(place / "cache/torchinductor").rglob("*.so")]
    assert "compiling the first step" in done.stdout and (place / "base_tiny/DONE").exists() and built
    print(f"{len(built)} libraries compiled")
    shutil.rmtree(place)


def test_packages_of_the_user_and_code_beside_are_ignored(lab: Lab, sif: Path) -> None:
    """With the home mounted, as Apptainer does by itself, and started in a folder with another `nanochat`."""
    planted = Path(f"~{USER}").expanduser() / ".local/lib/python3.11/site-packages/rustbpe"
    beside = lab.user_folder() / "nanochat"
    for folder in (planted, beside):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text("raise SystemExit('the planted one')\n")
    try:
        for verb in ("test", "run"):
            words = () if verb == "test" else ("info", "--self-test")
            assert "self-test: passed" in lab.as_user("apptainer", verb, sif, *words).stdout
    finally:
        shutil.rmtree(planted)
        shutil.rmtree(beside)


def test_signed_verified_and_tampered(lab: Lab, sif: Path) -> None:
    place = lab.user_folder()
    copy, keys = place / "signed.sif", f"APPTAINER_KEYSDIR={place / 'keys'}"
    shutil.copy(sif, copy)
    shutil.chown(copy, USER)
    unsigned = lab.as_user("env", keys, "apptainer", "verify", "--local", copy, check=False)
    assert unsigned.returncode != 0 and "signature not found" in unsigned.stderr
    who = ("--name", "Test", "--email", "test@example.org", "--comment", "", "--password", "", "--push=false")
    lab.as_user("env", keys, "apptainer", "key", "newpair", *who)
    lab.as_user("env", keys, "apptainer", "sign", copy)
    lab.as_user("env", keys, "apptainer", "verify", "--local", copy)
    with open(copy, "r+b") as file:  # a byte in the middle of the file system
        file.seek(os.path.getsize(copy) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    tampered = lab.as_user("env", keys, "apptainer", "verify", "--local", copy, check=False)
    copy.unlink()
    assert tampered.returncode != 0


@pytest.mark.slow
def test_the_standalone_definition_builds_and_runs(lab: Lab) -> None:
    """From an archive of the bare base, with no other engine; the host's /tmp, which it sees, stays."""
    base = f"docker-archive:{lab.base()}"
    handle, name = tempfile.mkstemp(prefix="nanochat-canary-", dir="/tmp")
    os.close(handle)
    canary = Path(name)
    shutil.chown(canary, USER)
    sif = lab.sif_build("standalone.sif", "--base", base, "--builder", base, "--inputs", lab.inputs())
    canary.unlink()  # raises if it is gone
    assert "self-test: passed" in lab.as_user("apptainer", "test", sif).stdout
    printed = lab.as_user("apptainer", "run", sif).stdout
    assert all(app in printed for app in ("prepare", "train", "eval", "chat", "serve", "info"))
    labels = labels_of(lab, sif)
    assert labels["nanochat.torch"] and labels["org.opencontainers.image.licenses"] == "MIT"
    size = sif.stat().st_size / 2**20
    print(f"standalone: {size:.0f} MiB")
    assert size <= MOST_MIB


def weights(base: Path) -> dict[str, str]:
    """SHA-256 of each tensor file of each stage."""
    found = sorted(base.glob("*_tiny/checkpoints/*/model*.safetensors"))
    return {str(p.relative_to(base)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


@pytest.mark.slow
def test_a_run_in_the_image_and_one_in_a_venv_end_in_the_same_weights(
    lab: Lab, sif: Path, tmp_path: Path
) -> None:
    """The same lock, Debian's Python in both, this machine, one thread: d2 through all stages."""
    inside = lab.user_folder() / "inside"
    shutil.rmtree(inside, ignore_errors=True)
    inside.mkdir()
    shutil.chown(inside, USER)
    offline(lab, sif, inside, "train", *TINY)
    venv, outside = tmp_path / "venv", tmp_path / "outside"
    lab.env.update(PYTHON="/usr/bin/python3")
    lab.run("bash", ROOT / "env/setup.sh", "--torch", "cpu", "--venv", venv)
    program = (venv / "bin/python", "-m", "scripts.pipeline", "--preset", "tiny", "--base-dir", outside)
    lab.run("env", "OMP_NUM_THREADS=1", "OMP_WAIT_POLICY=PASSIVE", *program)
    # Debian mends its Python without a new version, and here the image has the newer one.
    ask = ("-c", "import sys, torch; print(sys.version_info, torch.__version__)")
    versions = [
        lab.run(venv / "bin/python", *ask).stdout,
        offline(lab, sif, inside, "python", *ask, verb="exec").stdout,
    ]
    assert versions[0] == versions[1]
    print(json.dumps(weights(outside), indent=1))
    assert weights(inside) == weights(outside) and len(weights(inside)) >= 3
