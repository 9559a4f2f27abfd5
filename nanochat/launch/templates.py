"""The committed `slurm/*.slurm`: made from one text here, so that they cannot differ by accident.

What it is: the first job of a run, which finds the clone, submits every other job behind itself, then gets
the data; and the job of a chat server. What it is not: the other jobs' texts, which a plan makes
(`sbatch.py`). Make them again: `python -m nanochat.launch.templates`; a test compares.
"""

from __future__ import annotations

from pathlib import Path

from nanochat.common import atomic_path, run_main
from nanochat.launch.sites import ROOT

FOLDER = ROOT / "slurm"

FIRST_JOB = """\
# This is the first job. It needs no GPU: it submits every other job, all of which wait for it, and then gets
# the data. Its account and partition are those of SBATCH_ACCOUNT and SBATCH_PARTITION or of sbatch's flags;
# those of the other jobs come from the site file (env/sites/NAME.env) or from Slurm. Started again, it
# submits nothing twice. `bash {file}` on a login node submits all jobs, this one too. Then:
"""
SWEEP_JOB = """\
# This job needs no GPU: it submits the array and ends. `bash {file}` on a login node does the same.
# Data and tokenizer must be there, for instance from a run with --until tokenizer. Then:
"""

# File -> what it makes, an example, what is said of it, its command in a job and on a login node, its preset.
ENTRIES = {
    "speedrun": ("A d20 model, a few hours on 8 GPUs of 80 GB, from the data to the report",
                 "--run exp1 --depth 12", FIRST_JOB, "entry", "submit", "speedrun"),
    "run1000": ("A d32 model, about two days on 8 GPUs of 80 GB, from the data to the report",
                "--run big NODES=2", FIRST_JOB, "entry", "submit", "run1000"),
    "sweep": ("Many short runs as one job array, one for each combination of the --grid values",
              "--run lr --depth 6 --grid base.lr-scale=0.5,1,2", SWEEP_JOB, "sweep", "sweep", "speedrun"),
}  # fmt: skip

HEAD = """\
#!/usr/bin/env bash
#SBATCH --job-name={name}
#SBATCH --output=%x.%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
"""

CLONE = """\
# Made by nanochat/launch/templates.py.
set -euo pipefail

# Slurm runs a copy of this file; where the original lies, Slurm says.
find_clone() {{
  local command place
  if [ -n "${{SLURM_JOB_ID:-}}" ] && [ -n "$(command -v scontrol)" ]; then
    command=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=//p')
    command=${{command%" $*"}}
  fi
  for place in "${{NANOCHAT_HOME:-}}" "$(dirname "${{command:-$0}}")/.." "${{SLURM_SUBMIT_DIR:-.}}" \\
    "${{SLURM_SUBMIT_DIR:-.}}/.."; do
    [ -n "$place" ] && [ -f "$place/nanochat/launch/templates.py" ] && cd "$place" && pwd && return
  done
  echo "where is the clone? sbatch from inside it, or export NANOCHAT_HOME=/path/to/it" >&2
  return 2
}}

clone=$(find_clone "$@")
"""

ENTRY = f"""\
{HEAD}\
#
# {{about}}:
#
#   sbatch {{file}} [{{example}}] [--site NAME] [KEY=value ...]
#
{{what}}#
#   python -m scripts.launch status RUN
#
{CLONE}\
act={{login}}
[ -z "${{{{SLURM_JOB_ID:-}}}}" ] || act={{job}}
exec bash "$clone/env/on_site.sh" -m scripts.launch "$act" --preset {{preset}} "$@"
"""

SERVE = f"""\
{HEAD}\
#SBATCH --signal=TERM@30
#
# A trained model on a node of its own, behind the chat page and the OpenAI-compatible API:
#
#   bash {{file}} [--run exp1] [--hours 8] [--workers 2] [--site NAME] [KEY=value ...]
#
# and chat_web's options. On a login node this submits a job: account, partition, a GPU for each of --workers
# and the container are those of the site file (env/sites/NAME.env) or of Slurm; the log is put beside the
# token. `sbatch FLAGS {{file}} ...` takes your flags instead; without a GPU it serves from the
# CPU. The log says where the token is (a file that only you can read) and has the ssh line for your own
# machine. The port is a free one unless --port says otherwise. Half a minute before the time is over, and
# after scancel, it ends cleanly.
#
{CLONE}\
exec bash "$clone/env/on_site.sh" -m scripts.launch serve "$@"
"""


def texts() -> dict[Path, str]:
    """Every generated file and what is in it."""
    found = {}
    for name, (about, example, what, job, login, preset) in ENTRIES.items():
        file = f"slurm/{name}.slurm"
        found[FOLDER / f"{name}.slurm"] = ENTRY.format(
            name=name, file=file, about=about, example=example, what=what.format(file=file), job=job,
            login=login, preset=preset,
        )  # fmt: skip
    found[FOLDER / "serve.slurm"] = SERVE.format(name="serve", file="slurm/serve.slurm")
    return found


def main(argv: list[str]) -> None:
    for path, text in texts().items():
        with atomic_path(path) as temp:
            temp.write_text(text, encoding="utf-8")
            temp.chmod(0o755)
        print(path)


if __name__ == "__main__":
    run_main(main)
