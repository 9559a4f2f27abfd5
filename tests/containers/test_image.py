"""The image that buildah makes of the Dockerfile, run by podman: any user, read-only, offline, no leaks."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_lab import CA, ROOT, Lab

pytestmark = pytest.mark.container

# A uid that no file of the image knows, no right to write outside two places in memory, no network.
CONFINED = (
    "--network=none", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges",
    "--user=54321:54321",
    "--tmpfs=/tmp:rw,exec,mode=1777", "--tmpfs=/workspace:rw,exec,mode=1777",
)  # fmt: skip
COMPILED_STEP = """
import torch, nanochat
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.Linear(8, 1))
step = torch.compile(lambda x: model(x).square().mean())
loss = step(torch.randn(4, 8)); loss.backward()
print("compiled", torch._dynamo.utils.counters["stats"]["unique_graphs"], float(loss) > 0)
"""


@pytest.fixture(scope="module")
def root(lab: Lab, image: str) -> Iterator[Path]:
    """The files of the image, to look at."""
    name = lab.run("buildah", "from", "--pull-never", image).stdout.strip()
    yield Path(lab.run("buildah", "mount", name).stdout.strip())
    lab.run("buildah", "rm", name)


def podman(
    lab: Lab, image: str, *words: str, entry: str | None = None, options: tuple[str, ...] = CONFINED
) -> subprocess.CompletedProcess[str]:
    chosen = () if entry is None else ("--entrypoint", entry)
    return lab.run("podman", "run", "--rm", *options, *chosen, image, *words, check=False)


def test_without_arguments_it_prints_its_apps(lab: Lab, image: str) -> None:
    done = podman(lab, image)
    assert done.returncode == 0, done.stderr
    assert all(app in done.stdout for app in ("prepare", "train", "eval", "chat", "serve", "info"))


def test_labels_are_true(lab: Lab, image: str, root: Path) -> None:
    found = json.loads(lab.run("buildah", "inspect", "--type", "image", image).stdout)["OCIv1"]["config"]
    labels = found["Labels"]
    lock = (ROOT / "env/locks/cpu.txt").read_bytes()
    code = "import torch; print(torch.__version__.split('+')[0], torch.version.cuda or 'none')"
    done = podman(lab, image, "-c", code, entry="/opt/venv/bin/python")
    assert done.stdout.split() == [labels["nanochat.torch"], labels["nanochat.cuda"]], done.stderr
    assert labels["nanochat.lock.sha256"] == hashlib.sha256(lock).hexdigest()
    assert labels["org.opencontainers.image.revision"].removesuffix("-dirty") == lab.revision
    for key in ("title", "version", "created", "licenses", "base.name", "base.digest"):
        assert labels[f"org.opencontainers.image.{key}"], key
    assert found["User"] not in ("", "0", "root")
    assert not [e for e in found["Env"] if re.search("TOKEN|SECRET|PASSW|PROXY|CERT|INDEX", e, re.I)]


def test_any_user_trains_a_compiled_step_on_a_read_only_image(lab: Lab, image: str) -> None:
    done = podman(lab, image, "-c", COMPILED_STEP, entry="/opt/venv/bin/python")
    assert done.returncode == 0 and done.stdout.split() == ["compiled", "1", "True"], done.stderr[-3000:]
    done = podman(lab, image, "-c", "touch /opt/venv/x /x", entry="/bin/sh")
    assert done.returncode != 0 and done.stderr.count("Read-only file system") == 2


def test_home_may_be_unwritable_and_hold_packages_of_the_user(lab: Lab, image: str, tmp_path: Path) -> None:
    planted = tmp_path / ".local/lib/python3.11/site-packages/torch"
    planted.mkdir(parents=True)
    (planted / "__init__.py").write_text("raise SystemExit('the planted torch')\n")
    tmp_path.chmod(0o755)
    for folder in tmp_path.rglob("*"):
        folder.chmod(0o755)
    options = (*CONFINED[:-1], f"--volume={tmp_path}:/home/x:ro", "--env=HOME=/home/x")
    done = podman(lab, image, "info", "--self-test", options=options)
    assert done.returncode == 0 and "self-test: passed" in done.stdout, (done.stdout, done.stderr)
    # The guard is what makes the difference: without it the planted package is taken.
    done = podman(
        lab, image, "-c", "import torch", entry="/usr/bin/python3",
        options=(*options, "--env=PYTHONNOUSERSITE="),
    )  # fmt: skip
    assert "the planted torch" in done.stderr


def test_only_what_runs_is_in_it(root: Path) -> None:
    """No Rust, installer, cache or source; nothing that only root may read or all may write."""
    found = {
        path.name
        for folder in ("opt/venv/bin", "usr/bin", "usr/local/bin")
        for path in (root / folder).iterdir()
    }
    assert not found & {"cargo", "rustc", "rustup", "uv", "pip", "pip3", "maturin", "git"}
    assert {"g++", "python3", "nanochat"} <= found
    assert list(root.glob("usr/include/python3*/Python.h"))
    assert {p.name for p in (root / "root").iterdir()} <= {".bashrc", ".profile"}  # Debian's own
    assert not list((root / "mnt").iterdir())
    assert {p.name for p in (root / "src").rglob("*") if p.is_file()} == {"install.sh"}
    for empty in ("var/lib/apt/lists", "var/cache/apt", "tmp", "var/tmp"):
        assert not list((root / empty).glob("*")), empty
    odd = [p for p in (root / "opt/venv").rglob("*") if not p.is_symlink() and p.stat().st_mode & 0o022]
    closed = [
        p for p in (root / "opt/venv").rglob("*") if not p.is_symlink() and not p.stat().st_mode & 0o004
    ]
    assert (odd, closed) == ([], [])


def test_nothing_of_the_host_leaks(root: Path, lab: Lab) -> None:
    """Not the authorities of the proxy that opened TLS for the build, nor names of its places."""
    authorities = CA.read_text(encoding="utf-8").split("-----END CERTIFICATE-----")
    public = {line for p in root.rglob("cacert.pem") for line in p.read_text(encoding="utf-8").splitlines()}
    private = [
        c.strip().splitlines()[3]
        for c in authorities
        if c.strip() and c.strip().splitlines()[3] not in public
    ]
    words = [*private, str(lab.folder), str(ROOT)]
    (lab.folder / "words").write_text("\n".join(words) + "\n", encoding="utf-8")
    places = [
        str(root / folder) for folder in ("etc", "opt", "src", "usr", "var", "workspace", "root", "mnt")
    ]
    found = lab.run("grep", "-rlaF", "-f", lab.folder / "words", *places, check=False)
    assert (found.returncode, found.stdout) == (1, "")


def test_healthy_and_broken(lab: Lab, image: str) -> None:
    """`podman healthcheck run`, of the image and of one that has lost rustbpe."""
    broken = f"{image}-broken"
    name = lab.run("buildah", "from", "--pull-never", image).stdout.strip()
    at = Path(lab.run("buildah", "mount", name).stdout.strip())
    for path in at.glob("opt/venv/lib/python3*/site-packages/rustbpe*/*.so"):
        path.unlink()
    lab.run("buildah", "commit", "--quiet", "--format", "docker", "--rm", name, broken)
    try:
        for tag, code in ((image, 0), (broken, 1)):
            own = f"check-{code}"
            lab.run(
                "podman", "run", "-d", "--name", own, "--network=none", "--entrypoint", "sleep", tag, "300"
            )
            done = lab.run("podman", "healthcheck", "run", own, check=False)
            state = json.loads(lab.run("podman", "inspect", own).stdout)[0]["State"]
            log = (state.get("Health") or state.get("Healthcheck"))["Log"]
            assert done.returncode == code, (tag, done.stdout, done.stderr)
            assert log[-1]["ExitCode"] == code
    finally:
        lab.run("podman", "rm", "-f", "-t", "0", "check-0", "check-1", check=False)
        lab.run("podman", "rmi", "-f", broken, check=False)


@pytest.mark.slow
def test_two_builds_from_two_places_have_one_digest(lab: Lab, tmp_path: Path) -> None:
    clones, digests = [tmp_path / "a", tmp_path / "another place"], []
    for clone in clones:  # both now: somebody may commit during the first build
        lab.run("git", "clone", "--quiet", "--no-hardlinks", ROOT, clone)
    for clone in clones:
        tag = f"localhost/nanochat-test:{clone.name.replace(' ', '-')}"
        lab.build(tag, "--oci", engine=("--no-cache",), tree=clone)
        place = f"oci:{clone}.oci".replace(" ", "-")
        lab.run("skopeo", "copy", "--quiet", f"containers-storage:{tag}", place)
        digests.append(lab.run("skopeo", "inspect", "--format", "{{.Digest}}", place).stdout.strip())
        lab.run("podman", "rmi", "-f", tag)
    print(digests)
    assert digests[0] == digests[1] and digests[0].startswith("sha256:")


@pytest.mark.slow
def test_the_fast_tests_pass_in_the_test_stage(lab: Lab) -> None:
    tag = "localhost/nanochat-test:test"
    lab.build(tag, "--target", "test")
    own = ("--network=none", "--tmpfs=/tmp:rw,exec,mode=1777")
    files = [f"tests/test_{name}.py" for name in ("golden", "tokenizer", "engine")]
    pytest_ = ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *files)
    done = lab.run("podman", "run", "--rm", *own, tag, *pytest_, check=False)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:]
