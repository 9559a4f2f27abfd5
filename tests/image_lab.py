"""Images of this tree, made by the real tools: what the tests of containers, and of Slurm with one, share.

What it is: `Lab`, a folder in which a base image, the kit's image and its SIF are each made once, with the
commands that a user types. NANOCHAT_IMAGE_DIR names a folder that keeps them from run to run, for as long
as no file of theirs changes. What it is not: tests (`tests/containers/`).
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "tests" / "containers"
PREFIX = Path(os.environ.get("PREFIX", "/opt/apptainer"))
USER = os.environ.get("CONTAINER_USER", "ctest")
CA = Path("/etc/ssl/certs/ca-certificates.crt")
TOOLS = ("buildah", "podman", "skopeo", "mmdebstrap", "squashfuse", "runc")
CONTENT = (
    "containers",
    "env/locks",
    "nanochat",
    "scripts",
    "tasks",
    "rustbpe",
    "pyproject.toml",
    ".dockerignore",
)
# Plain `podman run` where cgroups are hybrid and limits cannot be raised.
CONTAINERS_CONF = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def missing() -> str:
    """What is not here, with the remedy; empty if the images can be made and run."""
    if os.geteuid() != 0 or not hasattr(os, "sched_getaffinity"):
        return "the images are built and run as root of a Linux machine (Apptainer as a user that root makes)"
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    lacking += [] if (PREFIX / "usr/bin/apptainer").exists() else ["apptainer"]
    return f"no {', '.join(lacking)}: as root, bash tests/containers/install.sh" if lacking else ""


def install() -> None:
    """Install what is missing; a CalledProcessError if a mirror does not answer."""
    if os.geteuid() == 0 and missing():
        subprocess.run(["bash", SCRIPTS / "install.sh"], check=True)


def no_torch() -> str:
    """Why no image can be built here although the tools are; empty if one can."""
    folders = os.environ.get("UV_FIND_LINKS", "").split()
    if any(list(Path(folder).glob("torch-*cp311-*.whl")) for folder in folders):
        return ""
    return "UV_FIND_LINKS names no folder with a CPU wheel of torch for Python 3.11"


def _is_plain(name: str) -> bool:
    return (ROOT / name).is_file() and not (ROOT / name).is_symlink()


@functools.cache
def content_hash() -> str:
    """Of the commit, which the labels name, and of the files that the image is made from."""
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], check=True, capture_output=True)
    digest = hashlib.sha256(head.stdout)
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", *CONTENT],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in sorted(listed.stdout.splitlines()):
        if _is_plain(name):
            digest.update(name.encode() + b"\0" + (ROOT / name).read_bytes())
    return digest.hexdigest()[:12]


class Lab:
    """A folder of images; each method makes its thing if it is not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        (folder / "containers.conf").write_text(CONTAINERS_CONF, encoding="utf-8")
        self.env = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf"), "TMPDIR": str(folder)}
        self.revision = self.run("git", "rev-parse", "HEAD").stdout.strip()
        # Of this folder alone: other tests may make theirs in the meantime.
        own = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
        self.base_image = f"localhost/nanochat-base:{own}"
        self.image = f"localhost/nanochat-test:{content_hash()}"

    def run(
        self, *command: str | Path, check: bool = True, cwd: Path = ROOT
    ) -> subprocess.CompletedProcess[str]:
        """A command of root's; its seconds and its first words are printed."""
        started = time.monotonic()
        done = subprocess.run(
            list(map(str, command)), cwd=cwd, env=self.env, capture_output=True, text=True, check=False
        )
        print(f"{time.monotonic() - started:6.1f} s  {' '.join(map(str, command[:4]))}", file=sys.stderr)
        assert not check or done.returncode == 0, (
            f"{command}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
        )
        return done

    def as_user(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of a plain user's, who has Apptainer, a folder of his own and root's nothing."""
        return self.run("bash", SCRIPTS / "as_user.sh", self.user_folder(), *command, check=check)

    def user_folder(self) -> Path:
        place = self.folder / "user"
        if not place.exists():
            place.mkdir()
            shutil.chown(place, USER)
        return place

    def close(self) -> None:
        """Remove the folder, and the images that the engines keep in a place of their own."""
        self.run("podman", "rmi", "--force", self.image, self.base_image, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def base(self) -> Path:
        """The base image as an archive; buildah has it under the name `base_image`."""
        archive = self.folder / "base.tar"
        known = self.run("podman", "image", "exists", self.base_image, check=False).returncode == 0
        if not (archive.exists() and known):
            self.run("bash", SCRIPTS / "base.sh", self.base_image, archive)
        return archive

    def inputs(self) -> Path:
        """What a build here cannot download: torch's wheel, the crates, Rust, and who signs for the proxy."""
        place = self.folder / "inputs"
        if not (place / "ca.crt").exists():
            shutil.rmtree(place, ignore_errors=True)
            (place / "wheels").mkdir(parents=True)
            for folder in os.environ.get("UV_FIND_LINKS", "").split():
                for wheel in Path(folder).glob("torch-*.whl"):
                    shutil.copy(wheel, place / "wheels")
            self.run("cargo", "vendor", "--quiet", "--locked", place / "vendor", cwd=ROOT / "rustbpe")
            toolchain = Path(self.run("rustc", "--print", "sysroot").stdout.strip())
            for part in ("bin", "lib"):
                shutil.copytree(toolchain / part, place / "rust" / part, symlinks=True)
            shutil.copy(CA, place / "ca.crt")
        return place

    def build(self, tag: str, *options: str, engine: tuple[str, ...] = (), tree: Path = ROOT) -> None:
        """The image `tag` of a tree, by build.sh with buildah."""
        self.base()
        here = ("--base", self.base_image, "--builder", self.base_image, "--inputs", self.inputs())
        own = ("--isolation", "chroot", "--network", "host", *engine)
        script = tree / "containers" / "build.sh"
        self.run("bash", script, "buildah", *here, "--tag", tag, *options, "--", *own, cwd=tree)

    def built(self) -> str:
        """The image of this tree, in docker's format: with its health check."""
        if self.run("podman", "image", "exists", self.image, check=False).returncode != 0:
            self.build(self.image)
        return self.image

    def archive(self) -> Path:
        path = self.folder / f"nanochat-{content_hash()}.tar"
        if not path.exists():
            self.run("buildah", "push", "--quiet", self.built(), f"docker-archive:{path}:{self.image}")
            path.chmod(0o644)
        return path

    def tree(self) -> Path:
        """A copy of this tree that belongs to the user: Apptainer builds from it."""
        place = self.user_folder() / "clone"
        if not place.exists():
            self.run("git", "clone", "--quiet", "--no-hardlinks", ROOT, place)
            listed = self.run("git", "ls-files", "-co", "--exclude-standard").stdout.splitlines()
            for name in filter(_is_plain, listed):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, place / name)
            self.run("chown", "-R", USER, place)
        return place

    def sif_build(self, name: str, *options: str | Path) -> Path:
        """A SIF by build.sh as the user; squashed fast rather than small."""
        file = self.user_folder() / name
        fast = ("--mksquashfs-args", "-Xcompression-level 1")
        script = self.tree() / "containers" / "build.sh"
        space = f"APPTAINER_TMPDIR={self.user_folder()}"
        self.as_user("env", space, "bash", script, "apptainer", "--tag", file, *options, "--", *fast)
        return file

    def sif(self) -> Path:
        """The SIF of the image."""
        path = self.user_folder() / f"nanochat-{content_hash()}.sif"
        return path if path.exists() else self.sif_build(path.name, "--from", self.archive())
