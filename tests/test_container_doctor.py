"""`containers/doctor.sh` on a machine where nothing is wrong, and on the same machine with one thing broken.

The machine is a folder that stands for /proc, /sys, /dev and /etc (DOCTOR_ROOT), and a PATH of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nanochat.accelerator import MIN_DRIVER

SCRIPT = Path(__file__).resolve().parent.parent / "containers" / "doctor.sh"
TOOLS = ("bash", "sed", "awk", "cat", "grep", "dirname", "readlink", "uname")
PRESENT = ("apptainer", "squashfuse", "mksquashfs", "unsquashfs", "newuidmap", "newgidmap", "unshare")
FILES = {
    "proc/sys/user/max_user_namespaces": "96365\n",
    "proc/self/status": "CapBnd:\t000001ffffffffff\n",
    "etc/subuid": "ada:100000:65536\n",
    "etc/subgid": "1234:100000:65536\n",
    "sys/class/infiniband/mlx5_0/ports/1/state": "4: ACTIVE\n",
    "dev/infiniband/uverbs0": "",
}


class Machine:
    """Folder, PATH and variables; a plain user, Apptainer, a driver for CUDA 13, InfiniBand."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin, self.temp = folder / "root", folder / "bin", folder / "temp"
        self.bin.mkdir(), self.temp.mkdir()
        self.words: list[str] = []
        self.variables: dict[str, str] = {}
        self.locked = "unlimited"  # a test may lower the limit of locked memory, not raise it: bash says it
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or "")
        for tool in PRESENT:
            self.program(tool)
        for name, text in FILES.items():
            self.file(name, text)
        (self.root / "dev/fuse").symlink_to("/dev/null")
        self.user(1234)
        self.mounted("ext4", "rw,relatime")
        self.free(100_000)
        self.driver("580.95.05")

    def program(self, name: str, text: str = "") -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def file(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def lose(self, *names: str) -> None:
        for name in names:
            (self.bin / name).unlink()

    def user(self, number: int) -> None:
        self.program("id", f'[ "$1" = -un ] && echo ada || echo {number}')

    def mounted(self, kind: str, options: str) -> None:
        self.file("proc/mounts", f"disk / ext4 rw 0 0\nthere {self.temp} {kind} {options} 0 0\n")

    def free(self, mib: int) -> None:
        self.program("df", f"echo header\necho disk 1 1 {mib * 1024} 1% /")

    def driver(self, version: str) -> None:
        self.program("nvidia-smi", f"echo {version}")

    def examine(self) -> tuple[int, str]:
        env = {"PATH": str(self.bin), "DOCTOR_ROOT": str(self.root), "TMPDIR": str(self.temp), "HOME": "/"}
        env |= self.variables
        command = f'ulimit() {{ echo {self.locked}; }}\n. "$0"'
        done = subprocess.run(
            [str(self.bin / "bash"), "-c", command, str(SCRIPT), *self.words], env=env, cwd=self.temp,
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_where_nothing_is_wrong(machine: Machine) -> None:
    code, said = machine.examine()
    assert code == 0 and "FAULT" not in said and "note" not in said, said
    assert "doctor: nothing in the way" in said and said.count("ok ") >= 10
    assert "driver: series 580, variant cu130" in said  # chosen by the driver
    machine.words = ["--for", "run"]
    code, said = machine.examine()
    assert code == 0 and "subuid" not in said and "temporary" not in said and "fuse" in said


def no_namespaces(m: Machine) -> None:
    m.file("proc/sys/user/max_user_namespaces", "0\n")


def debian_switch(m: Machine) -> None:
    m.file("proc/sys/kernel/unprivileged_userns_clone", "0\n")


def apparmor(m: Machine) -> None:
    m.program("unshare", "exit 1")
    m.file("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n")


def root_in_a_container(m: Machine) -> None:
    m.user(0)
    m.file("proc/self/status", "CapBnd:\t000001fffeffffff\n")


def few_ids(m: Machine) -> None:
    m.file("etc/subuid", "ada:100000:1000\nbob:200000:65536\n")


def no_fuse(m: Machine) -> None:
    (m.root / "dev/fuse").unlink()


def a_port_that_is_down(m: Machine) -> None:
    m.file("sys/class/infiniband/mlx5_0/ports/1/state", "1: DOWN\n")


def no_verbs(m: Machine) -> None:
    (m.root / "dev/infiniband/uverbs0").unlink()


def little_locked_memory(m: Machine) -> None:
    m.locked = "64"


def no_temp(m: Machine) -> None:
    m.variables["APPTAINER_TMPDIR"] = str(m.root / "no/such/folder")


def temp_behind_a_link(m: Machine) -> None:
    m.mounted("nfs4", "rw")
    (m.root / "link").symlink_to(m.temp)
    m.variables["TMPDIR"] = str(m.root / "link")


def no_driver(m: Machine) -> None:
    m.lose("nvidia-smi")
    m.words = ["--for", "run", "--variant", "cu130"]


def old_driver(m: Machine) -> None:
    m.driver("535.183.01")
    m.words = ["--variant", "cu130"]


def old_driver_in_proc(m: Machine) -> None:
    """nvidia-smi is missing, or finds no GPU."""
    m.program("nvidia-smi", "echo No devices were found; exit 6")
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13"
    m.file("proc/driver/nvidia/version", text)
    m.words = ["--variant", "cu126"]


Break = Callable[[Machine], None]
FAULTS: list[tuple[Break, str, str]] = [
    (lambda m: m.lose("apptainer"), "no apptainer, docker", "module"),
    (no_namespaces, "namespaces are switched off", "max_user_namespaces"),
    (debian_switch, "namespaces are switched off", "unprivileged_userns_clone=1"),
    (lambda m: m.program("unshare", "exit 1"), "namespace cannot be made", "seccomp"),
    (apparmor, "AppArmor forbids", "profile"),
    (root_in_a_container, "no CAP_SYS_RESOURCE", "plain user"),
    (few_ids, "/etc/subuid gives this user 1000 ids", "--add-subuids"),
    (lambda m: m.file("etc/subgid", ""), "/etc/subgid gives this user 0 ids", "copy the SIF"),
    (no_fuse, "no /dev/fuse", "modprobe fuse"),
    (lambda m: m.lose("squashfuse"), "squashfuse is neither on PATH", "install squashfuse"),
    (lambda m: m.program("apptainer", "echo apptainer version 1.1.9-1"), "1.1 is too old", "newer module"),
    (lambda m: m.lose("mksquashfs"), "mksquashfs or unsquashfs", "squashfs-tools"),
    (lambda m: m.mounted("nfs4", "rw"), "is on nfs4", "local disk"),
    (lambda m: m.mounted("lustre", "rw"), "is on lustre", "local disk"),
    (temp_behind_a_link, "is on nfs4", "local disk"),
    (lambda m: m.mounted("xfs", "rw,nosuid,noexec"), "mounted rw,nosuid,noexec", "APPTAINER_TMPDIR"),
    (no_temp, "no/such/folder is not there", "mkdir -p"),
    (old_driver, "driver 535 is too old for variant cu130, which needs 580", "--variant cu126"),
    (old_driver_in_proc, "driver 470 is too old for variant cu126, which needs 525", "--variant cpu"),
    (no_driver, "no NVIDIA driver on this node", "variant cpu"),
    (a_port_that_is_down, "no port of it is active", "tell the site"),
    (no_verbs, "/dev/infiniband cannot be opened", "--device /dev/infiniband"),
    (little_locked_memory, "only 64 KiB of memory may be locked", "--ulimit memlock=-1"),
]


@pytest.mark.slow  # together 3 s
@pytest.mark.parametrize(("spoil", "text", "remedy"), FAULTS, ids=[text for _, text, _ in FAULTS])
def test_each_fault_is_found_alone_with_its_remedy(
    spoil: Break, text: str, remedy: str, machine: Machine
) -> None:
    spoil(machine)
    code, said = machine.examine()
    found = re.findall(r"^FAULT  (.*)\n       remedy: (.+)$", said, re.MULTILINE)
    assert code == 1 and len(found) == 1, said
    assert text in found[0][0] and remedy in found[0][1]
    assert "doctor: 1 fault(s)" in said


def test_little_room_is_said_of_each_place(machine: Machine) -> None:
    machine.free(1_500)
    code, said = machine.examine()
    assert code == 1 and said.count("has 1500 MiB free, and this needs about") == 3
    machine.free(7_000)
    assert machine.examine()[0] == 1
    machine.words = ["--variant", "cpu"]
    assert machine.examine()[0] == 0


def test_remarks_are_no_faults(machine: Machine) -> None:
    machine.mounted("tmpfs", "rw")
    machine.words = ["--variant", "cpu"]
    code, said = machine.examine()
    assert (
        code == 0 and "is in memory (tmpfs)" in said and "driver 580 is there, and the variant is cpu" in said
    )
    machine.lose("nvidia-smi")
    machine.words = ["--for", "build", "--variant", "cu130"]
    code, said = machine.examine()
    assert code == 0 and "a build needs none" in said


def test_root_needs_neither_ids_nor_fuse(machine: Machine) -> None:
    machine.user(0)
    (machine.root / "dev/fuse").unlink()
    machine.file("etc/subuid", "")
    assert machine.examine()[0] == 0


def spoil_all(m: Machine) -> None:
    """Everything that an engine may need and another one does not."""
    no_namespaces(m), no_fuse(m), m.free(10)
    m.file("etc/subuid", "")
    m.lose("mksquashfs")
    m.program("apptainer", "echo apptainer version 1.1.0")


IDS, PLACE = "/etc/subuid", "temporary folder: "
ALL = {"namespaces", IDS, "/dev/fuse", "mksquashfs", PLACE, "image cache", "place of the image", "too old"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "found"),
    [(["docker"], set()), (["podman"], {"namespaces", IDS, PLACE}), (["buildah"], {"namespaces", IDS, PLACE}),
     (["apptainer"], ALL), (["apptainer", "--for", "convert"], ALL - {IDS}),
     (["apptainer", "--for", "run"], {"namespaces", "/dev/fuse"})],
    ids=lambda value: " ".join(sorted(value)),  # a set has another order in each process
)  # fmt: skip
def test_an_engine_is_asked_for_what_it_needs_alone(
    words: list[str], found: set[str], machine: Machine
) -> None:
    spoil_all(machine)
    for engine in ("docker", "podman", "buildah"):
        machine.program(engine)
    machine.words = ["--for", "build", "--engine", *words]
    _, said = machine.examine()
    faults = re.findall("^FAULT  (.*)$", said, re.MULTILINE)
    assert len(faults) == len(found) and all(any(text in fault for fault in faults) for text in found), said


def test_a_missing_engine_is_named_and_other_systems_keep_their_kernel(machine: Machine) -> None:
    machine.words = ["--engine", "podman"]
    code, said = machine.examine()
    assert code == 1 and "FAULT  no podman on PATH" in said
    no_namespaces(machine), no_fuse(machine), machine.file("etc/subuid", ""), machine.mounted("nfs", "rw")
    machine.words = ["--engine", "apptainer"]
    assert machine.examine()[1].count("FAULT") == 4
    (machine.bin / "uname").unlink()
    machine.program("uname", "echo Darwin")
    code, said = machine.examine()
    assert code == 0 and "subuid" not in said and "fuse" not in said, said


def test_the_remedy_of_podman_is_its_own_variable(machine: Machine) -> None:
    machine.lose("apptainer"), machine.program("podman"), machine.free(10)
    _, said = machine.examine()
    assert "export TMPDIR=" in said and "APPTAINER_TMPDIR" not in said


@pytest.mark.parametrize(
    "said", ["", "apptainer version 1.2.0", "apptainer version 2.0.1", "singularity 3.8"]
)
def test_new_and_unknown_versions_are_no_fault(said: str, machine: Machine) -> None:
    machine.program("apptainer", f"echo {said}")
    assert machine.examine()[0] == 0


def installed(machine: Machine, place: str) -> Path:
    """An Apptainer of its own folder, which PATH names by links, and the place of its helpers there."""
    top = machine.root / "opt"
    (top / "bin").mkdir(parents=True)
    (machine.bin / "apptainer").rename(top / "bin/apptainer")
    (machine.root / "apptainer").symlink_to("opt/bin/apptainer")
    (machine.bin / "apptainer").symlink_to(machine.root / "apptainer")
    (top / place).mkdir(parents=True, exist_ok=True)
    return top / place


@pytest.mark.parametrize(
    "place",
    ["bin", "libexec/apptainer/bin", "x86_64/libexec/apptainer/bin", "x86_64/utils/bin", "lib/apptainer/bin",
     "lib/x86_64-linux-gnu/apptainer/bin"],
)  # fmt: skip
def test_helpers_beside_apptainer_count(place: str, machine: Machine) -> None:
    folder = installed(machine, place)
    for name in ("squashfuse", "mksquashfs", "unsquashfs"):
        (machine.bin / name).rename(folder / name)
    assert machine.examine()[0] == 0


def test_a_setuid_apptainer_runs_without_fuse_and_namespaces(machine: Machine) -> None:
    starter = installed(machine, "libexec/apptainer/bin") / "starter-suid"
    starter.write_text(""), starter.chmod(0o4755)
    no_namespaces(machine), no_fuse(machine)
    machine.words = ["--for", "run"]
    code, said = machine.examine()
    assert code == 0 and "set-uid Apptainer needs none" in said, said
    machine.words = ["--for", "build"]
    assert machine.examine()[1].count("FAULT  user namespaces") == 1
    machine.program("podman")
    machine.words = ["--for", "run"]
    assert machine.examine()[1].count("FAULT  user namespaces") == 1


@pytest.mark.parametrize(
    "words", [["--for", "fun"], ["--engine", "kaniko"], ["--variant", "cu999"], ["--variant"], ["--build"]]
)
def test_bad_options_are_usage(words: list[str], machine: Machine) -> None:
    machine.words = words
    code, said = machine.examine()
    assert code == 2 and words[0] in said


def test_on_this_machine_it_ends_with_a_verdict() -> None:
    """Whatever is found here, each finding has a remedy, and the verdict is the exit code's."""
    done = subprocess.run(["bash", SCRIPT], capture_output=True, text=True, check=False, env=os.environ)
    faults = done.stdout.count("FAULT")
    assert done.returncode == (1 if faults else 0) and not done.stderr
    assert done.stdout.count("remedy:") == faults + done.stdout.count("note ")
    assert done.stdout.rstrip().endswith(f"{faults} fault(s)" if faults else "nothing in the way")


def test_drivers_are_those_of_python() -> None:
    text = SCRIPT.with_name("doctor_hardware.sh").read_text(encoding="utf-8")
    assert f"cu130) echo {MIN_DRIVER[13]}" in text and f"cu126 | cu128) echo {MIN_DRIVER[12]}" in text
