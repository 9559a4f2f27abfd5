"""The run helpers of images: what they would call (`--print`), and what reaches the engine when they call it.

The engines here are programs that write down their arguments and environment; the real ones run in
`tests/containers` and `tests/slurm`, where they can be had. pyxis and CSCS's engine cannot: their texts are
compared, and nothing more.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RUN = Path(__file__).resolve().parent.parent / "containers" / "run"
RECORDER = '#!/bin/sh\nprintf "%s\\n" "$@" > "$RECORD.words"\nenv > "$RECORD.env"\n'
SECRETS = {"WANDB_API_KEY": "sesame-1", "HF_TOKEN": "sesame-2"}
OTHERS = {"LD_PRELOAD_OTHER": "x", "PYTHONPATH": "/mine", "SLURM_JOB_ID": "7", "NCCL_SOCKET_IFNAME": "ib0"}


class Node:
    """A PATH whose engines and nvidia-smi are ours, and a folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        self.out = folder / "output"
        self.image = folder / "nanochat.sif"
        self.image.touch()
        for engine in ("apptainer", "docker", "podman"):
            self.program(engine, RECORDER)
        self.program("nvidia-smi", "#!/bin/sh\nexit 9\n")
        self.env = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(folder),
            "RECORD": str(folder / "record"),
        }

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def give_gpus(self) -> None:
        self.program("nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H100'\n")

    def do(self, script: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(RUN / script), *words], env=self.env | variables, cwd=self.folder, text=True,
            capture_output=True, check=False, timeout=30, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def engine(self, script: str, *words: str, **variables: str) -> tuple[list[str], dict[str, str]]:
        """Words and environment that the engine got."""
        done = self.do(script, "--image", str(self.image), "--out", str(self.out), *words, **variables)
        assert done.returncode == 0, done.stderr
        record = Path(self.env["RECORD"])
        lines = record.with_suffix(".env").read_text().splitlines()
        return record.with_suffix(".words").read_text().splitlines(), dict(
            line.split("=", 1) for line in lines if "=" in line
        )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def values(words: list[str], flag: str) -> list[str]:
    return [words[i + 1] for i, word in enumerate(words) if word == flag]


def test_apptainer_gets_places_and_few_variables(node: Node) -> None:
    data = node.folder / "texts"
    data.mkdir()
    words, env = node.engine(
        "apptainer.sh", "--data", "texts", "train", "--preset", "tiny", **SECRETS, **OTHERS
    )
    out, cache = str(node.out), f"{node.out}/cache"
    assert words[:2] == ["run", "--cleanenv"] and words[-4:] == [str(node.image), "train", "--preset", "tiny"]
    assert values(words, "--bind") == [f"{out}:{out}", f"{cache}:{cache}", f"{data}:{data}:ro"]
    assert values(words, "--no-mount") == ["home,cwd"] and values(words, "--pwd") == [out]
    assert {f"NANOCHAT_BASE_DIR={out}", "NANOCHAT_OFFLINE=1", f"TRITON_CACHE_DIR={cache}/triton"} <= set(
        values(words, "--env")
    )
    assert Path(cache).is_dir()
    passed = {name for name in env if name.startswith("APPTAINERENV_")}
    wanted = {"APPTAINERENV_SLURM_JOB_ID", "APPTAINERENV_NCCL_SOCKET_IFNAME", "APPTAINERENV_WANDB_API_KEY"}
    assert wanted <= passed and not passed & {"APPTAINERENV_HF_TOKEN", "APPTAINERENV_PYTHONPATH"}
    assert env["APPTAINERENV_WANDB_API_KEY"] == "sesame-1" and "sesame" not in " ".join(words)


@pytest.mark.parametrize(
    ("script", "engine", "flag"),
    [("apptainer.sh", "", "--nv"), ("docker.sh", "docker", "--gpus=all"),
     ("docker.sh", "podman", "--device=nvidia.com/gpu=all")],
)  # fmt: skip
def test_gpus_are_asked_for_only_where_they_are(node: Node, script: str, engine: str, flag: str) -> None:
    variables = {"NANOCHAT_ENGINE": engine} if engine else {}
    assert flag not in node.engine(script, "info", **variables)[0]
    node.give_gpus()
    assert flag in node.engine(script, "info", **variables)[0]


def test_docker_gets_a_locked_box(node: Node) -> None:
    words, _ = node.engine("docker.sh", "train", **SECRETS, **OTHERS)
    locked = {"--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=none", "--rm"}
    assert locked <= set(words) and values(words, "--user") == [f"{os.getuid()}:{os.getgid()}"]
    assert values(words, "--volume")[0] == f"{node.out}:{node.out}"
    names = values(words, "--env")
    assert "WANDB_API_KEY" in names and "SLURM_JOB_ID" in names and "HF_TOKEN" not in names
    assert "sesame" not in " ".join(words) and words[-2:] == [str(node.image), "train"]
    assert "--security-opt=label=disable" in words  # SELinux would deny the mounts


def test_piped_words_reach_the_app_and_a_terminal_is_asked_for_where_one_is(node: Node) -> None:
    """A prompt may be piped in; docker refuses --tty then."""
    node.program("docker", RECORDER + '[ "$1" != run ] || cat\n')
    command = ["bash", str(RUN / "docker.sh"), "--image", "x", "--out", str(node.out), "chat"]
    record = Path(node.env["RECORD"]).with_suffix(".words")
    done = subprocess.run(command, env=node.env, input="hello", capture_output=True, text=True, check=False)
    assert done.stdout == "hello" and "--interactive" in record.read_text().split()
    node.program("docker", RECORDER)
    inside, outside = pty.openpty()
    for where, tty in ((outside, True), (subprocess.PIPE, False)):
        subprocess.run(command, env=node.env, stdin=outside, stdout=where, stderr=subprocess.PIPE, check=True)
        assert ("--tty" in record.read_text().split()) == tty
    os.close(inside), os.close(outside)


def test_docker_is_taken_only_if_it_answers(node: Node) -> None:
    node.program("podman", RECORDER + "echo podman\n")
    words = ("docker.sh", "--image", "x", "--out", "o", "info")
    assert not node.do(*words).stdout
    node.program("docker", "#!/bin/sh\nexit 1\n")  # a client without its server
    assert node.do(*words).stdout == "podman\n"
    assert shlex.split(node.do(words[0], "--print", *words[1:]).stdout)[0] == str(node.bin / "docker")
    (node.bin / "podman").unlink()
    tools(node)
    done = node.do(*words, PATH=str(node.bin))
    assert done.returncode == 2 and "a docker that answers" in done.stderr and "apptainer.sh" in done.stderr


def test_podman_is_known_behind_the_name_of_docker(node: Node) -> None:
    node.give_gpus()
    node.program("docker", f'{RECORDER}[ "$1" != --version ] || echo podman version 4.3.1\n')
    words, _ = node.engine("docker.sh", "info")
    assert "--device=nvidia.com/gpu=all" in words and "--gpus=all" not in words


def test_in_a_rootless_docker_root_is_the_caller(node: Node) -> None:
    node.program("docker", f'{RECORDER}[ "$1" != info ] || echo "[name=seccomp name=rootless]"\n')
    assert values(node.engine("docker.sh", "info")[0], "--user") == ["0:0"]


def test_with_print_no_engine_is_called(node: Node) -> None:
    done = node.do("docker.sh", "--print", "--image", "x", "info")
    assert done.returncode == 0 and not list(node.folder.glob("record*"))


def test_a_served_port_is_published_on_the_loopback(node: Node) -> None:
    words, _ = node.engine("docker.sh", "--port", "8000", "serve", "--host", "0.0.0.0")
    assert values(words, "--publish") == ["127.0.0.1:8000:8000"] and "--network=none" not in words
    assert node.do("docker.sh", "--image", "x", "--port", "80a").returncode == 2
    done = node.do("apptainer.sh", "--image", str(node.image), "--port", "8000")
    assert done.returncode == 2 and "shares this machine's network" in done.stderr


def test_preparing_may_use_the_network(node: Node) -> None:
    proxies = {f"{kind}_proxy" for kind in ("http", "https", "all", "no")}
    proxies |= {name.upper() for name in proxies}
    proxy = dict.fromkeys(proxies, "http://x")
    assert not proxies & set(values(node.engine("docker.sh", "train", **proxy)[0], "--env"))
    for words in (["prepare"], ["--online", "train"]):
        got, env = node.engine("apptainer.sh", *words, **SECRETS, **proxy)
        assert "NANOCHAT_OFFLINE=1" not in values(got, "--env") and env["APPTAINERENV_HF_TOKEN"] == "sesame-2"
        assert {f"APPTAINERENV_{name}" for name in proxies} <= env.keys()
        got, _ = node.engine("docker.sh", *words, **SECRETS)
        assert "--network=none" not in got and "HF_TOKEN" in values(got, "--env")


def test_print_does_nothing_and_shows_no_secret(node: Node) -> None:
    (node.bin / "apptainer").unlink()
    place = node.folder / "new"
    done = node.do("apptainer.sh", "--print", "--image", "x.sif", "--out", "new", "train", "a b", **SECRETS)
    shown, remark = done.stdout.splitlines()
    assert done.returncode == 0 and not place.exists() and "sesame" not in done.stdout
    words = shlex.split(shown)
    assert words[0] == "apptainer" and words[-3:] == ["x.sif", "train", "a b"]
    assert values(words, "--bind")[0] == f"{place}:{place}" and "WANDB_API_KEY" in remark


def test_pyxis(node: Node) -> None:
    out = str(node.out)
    words = ("pyxis", "--image", "im age.sqsh", "--out", out, "train", "--preset", "speedrun", "--run", "a'b")
    done = node.do("template.sh", *words)
    assert done.returncode == 0 and "@" not in done.stdout.replace("%x.%j", ""), done.stderr
    assert subprocess.run(["bash", "-n", "-c", done.stdout], check=False).returncode == 0
    # pyxis mounts only what is there
    assert done.stdout.index(f"mkdir -p {out} {out}/cache \n") < done.stdout.index("srun ")
    command = done.stdout[done.stdout.index("srun ") :].replace("\\\n", " ")
    got = shlex.split(command)
    # a name that did not begin like a path would be looked up in a registry
    assert f"--container-image={node.folder}/im age.sqsh" in got and "--no-container-mount-home" in got
    assert f"--container-mounts={out}:{out},{out}/cache:{out}/cache" in got
    assert f"NANOCHAT_BASE_DIR={out}" in got and got[-5:] == ["train", "--preset", "speedrun", "--run", "a'b"]
    assert (
        "--container-image=nvcr.io#x/y:1"
        in node.do("template.sh", "pyxis", "--image", "nvcr.io#x/y:1", "info").stdout
    )


def test_an_environment_of_cscs(node: Node) -> None:
    data = node.folder / "texts"
    data.mkdir()
    done = node.do("template.sh", "edf", "--image", "a.sqsh", "--out", "o & p", "--data", "texts")
    found = tomllib.loads(done.stdout)
    out = f"{node.folder}/o & p"
    assert found["image"] == f"{node.folder}/a.sqsh" and found["workdir"] == out
    assert found["mounts"] == [f"{out}:{out}", f"{out}/cache:{out}/cache", f"{data}:{data}:ro"]
    assert found["env"]["NANOCHAT_BASE_DIR"] == out and found["env"]["NANOCHAT_OFFLINE"] == "1"
    assert found["annotations"]["com"]["hooks"]["aws_ofi_nccl"]["enabled"] == "true"
    made = re.findall("^# .* mkdir -p (.*)$", done.stdout, re.MULTILINE)
    assert shlex.split(made[0]) == [out, f"{out}/cache"]
    assert found["entrypoint"] is False and not (node.folder / "o & p").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [(["apptainer.sh", "train"], "which image?"),
     (["apptainer.sh", "--image", "no.sif"], "no.sif: there is no such file"),
     (["docker.sh", "--image"], "--image needs a value"),
     (["docker.sh", "--image", "x", "--outt", "y"], "unknown option --outt"),
     (["docker.sh", "--image", "x", "--data", "nowhere", "train"], "--data nowhere: there is no such folder"),
     (["docker.sh", "--image", "x", "--out", "a:b", "train"], "a:b: a mount has no :"),
     (["docker.sh", "--image", 'x"y'], "no quotes"),
     (["template.sh", "slurm", "--image", "x"], "pyxis or edf"),
     (["template.sh", "pyxis", "--image", "x"], "which app?"),
     (["template.sh", "pyxis", "--image", "x", "--out", "a b", "info"], "a b: pyxis cannot mount"),
     (["template.sh", "pyxis", "--image", "x", "--cache", "a b", "info"], "a b: pyxis cannot mount")],
)  # fmt: skip
def test_mistakes_are_refused(node: Node, words: list[str], text: str) -> None:
    done = node.do(*words)
    assert done.returncode == 2 and text in done.stderr, done
    assert not [file for file in node.folder.glob("*.words") if "run" in file.read_text().split()]


def tools(node: Node) -> None:
    """What the scripts need where PATH is the node's own folder."""
    for tool in ("bash", "dirname", "basename", "sed", "grep", "mkdir", "id"):
        (node.bin / tool).symlink_to(f"/usr/bin/{tool}")


def test_without_an_engine_the_remedy_is_said(node: Node) -> None:
    for engine in ("apptainer", "docker", "podman"):
        (node.bin / engine).unlink()
    tools(node)
    for script, remedy in (("apptainer.sh", "doctor.sh"), ("docker.sh", "apptainer.sh")):
        done = node.do(script, "--image", str(node.image), PATH=str(node.bin))
        assert done.returncode == 2 and "on PATH" in done.stderr and remedy in done.stderr
