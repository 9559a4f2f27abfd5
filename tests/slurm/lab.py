"""A real Slurm on one machine for the tests: slurmctld, virtual nodes with fake GPUs, munge; no root service.

What it is: a cluster below one folder of its own, on ports of its own, up in seconds: `cpu1` and `gpu1`,
`gpu2`, ... (all of them this machine; Debian's slurmd takes `-N`). GPUs are links to /dev/null, which Slurm
schedules and numbers like real ones. With `accounting`, also slurmdbd on a MariaDB of its own. What it is
not: a cluster to compute on, or anything that touches /etc/slurm, systemd or cgroups.

    python tests/slurm/lab.py install                 as root: apt-get what is missing
    python tests/slurm/lab.py start FOLDER            then: eval "$(python tests/slurm/lab.py env FOLDER)"
    python tests/slurm/lab.py kill-node FOLDER gpu1   the node dies, and all on it; start-node revives it
    python tests/slurm/lab.py stop FOLDER
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import accounting

TOOLS = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge"}
ACCOUNTING_TOOLS = {
    "slurmdbd": "slurmdbd slurm-wlm-mysql-plugin", "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}  # fmt: skip
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
NO_SERVICES = Path("/usr/sbin/policy-rc.d")  # what it answers with 101, apt-get does not start


@dataclasses.dataclass(frozen=True)
class Spec:
    """What the cluster looks like. The defaults are those of `env/sites/lab.env`."""

    cpu_nodes: int = 1
    gpu_nodes: int = 2
    gpus: int = 4
    gpu_type: str = "h100"
    cpu_partition: str = "cpu"
    gpu_partition: str = "gpu"
    cpu_features: str = ""
    gpu_features: str = ""
    preemptible: bool = True  # a partition of that name with the same nodes, whose jobs give way
    accounts: tuple[str, ...] = ("proj",)
    qos: tuple[str, ...] = ()
    max_time: str = "12:00:00"
    accounting: bool = False
    # Whom Slurm signals: the whole tree of a task, or ("pgid") its process group. A site's usual one, cgroup,
    # wants root, and signals the task alone.
    tracking: str = "linuxproc"

    @property
    def nodes(self) -> list[str]:
        return [f"cpu{i + 1}" for i in range(self.cpu_nodes)] + self.gpu_names

    @property
    def gpu_names(self) -> list[str]:
        return [f"gpu{i + 1}" for i in range(self.gpu_nodes)]


ACCOUNTED = Spec(accounting=True, qos=("long", "short"))


def missing(accounting: bool = False) -> dict[str, str]:
    """Programs that are not installed -> the Debian packages that have them."""
    wanted = TOOLS | (ACCOUNTING_TOOLS if accounting else {})
    return {tool: packages for tool, packages in wanted.items() if not shutil.which(tool, path=SYSTEM_PATH)}


def install() -> None:
    """apt-get what is missing, with no service started by it; it speaks only if it fails. Needs root."""
    packages = sorted({name for names in missing(accounting=True).values() for name in names.split()})
    if not packages:
        return
    ours = not NO_SERVICES.exists()
    if ours:
        NO_SERVICES.write_text("#!/bin/sh\nexit 101\n")
        NO_SERVICES.chmod(0o755)
    try:
        for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(
                ["apt-get", "-qq", *words], env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                sys.exit(f"apt-get {' '.join(words)}: exit {done.returncode}\n{done.stdout}")
    finally:
        if ours:
            NO_SERVICES.unlink()


class Lab:
    """One cluster, below `folder`. Another process that names the same folder can stop it."""

    def __init__(self, folder: Path, spec: Spec | None = None) -> None:
        self.folder = folder.absolute()
        self.conf = self.folder / "etc" / "slurm.conf"
        self.host = socket.gethostname().split(".")[0]
        stored = self.folder / "spec.json"
        if stored.exists():
            facts = json.loads(stored.read_text())
            self.port, known = facts.pop("port"), {k: v for k, v in facts.items() if k != "port"}
            known |= {"accounts": tuple(known["accounts"]), "qos": tuple(known["qos"])}
            self.spec = Spec(**known)
        else:
            self.spec, self.port = spec or Spec(), _free_ports(40)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a client: the configuration, and nothing of a Slurm job that we may be in."""
        rest = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        return {**rest, "SLURM_CONF": str(self.conf), "PATH": SYSTEM_PATH}

    def run(self, *command: str, timeout_s: float = 30) -> str:
        """What a client prints; CalledProcessError if it fails."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=True
        )
        return done.stdout

    # ------------------------------------------------------------------ up and down

    def start(self) -> Lab:
        """Bring everything up and wait until each node is idle. What fails half-way is taken down again."""
        for name in ("etc", "log", "run", "dev", "munge", "spool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        try:
            self._start_munge()
            if self.spec.accounting:
                accounting.start(self)
            self._start_slurm()
        except BaseException:
            self.stop()
            raise
        return self

    def _start_slurm(self) -> None:
        (self.folder / "state").mkdir(exist_ok=True)
        self.spawn("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        self.wait_for("slurmctld", lambda: "UP" in self.run("scontrol", "ping", timeout_s=3))
        for node in self.spec.nodes:
            self.start_node(node)
        self.wait_for("idle nodes", self._all_idle)

    def reshape(self, spec: Spec) -> Lab:
        """Make it another cluster with the same accounting, which takes much longer to start than Slurm."""
        if spec != self.spec:
            assert spec.accounting == self.spec.accounting
            self._end_slurm()
            shutil.rmtree(self.folder / "state")
            self.spec = spec
            self._write_configuration()
            self._start_slurm()
        return self

    def stop(self) -> None:
        """Cancel what runs, end every daemon and every job process of this lab, by process id."""
        with contextlib.suppress(Exception):
            self.run("scancel", "-u", getpass.getuser(), timeout_s=5)
            self.wait_for("empty queue", lambda: not self.run("squeue", "-h", timeout_s=3).strip(), 5)
        self._end_slurm()
        self._end(["slurmdbd", "mariadbd", "munged"])

    def _end_slurm(self) -> None:
        self._end([f"slurmd-{node}" for node in self.spec.nodes] + ["slurmctld"])
        for pid in [*self._job_processes(), *self._step_daemons("")]:
            _kill(pid)

    def start_node(self, node: str) -> None:
        self.spawn(f"slurmd-{node}", "slurmd", "-D", "-N", node, "-f", str(self.conf))

    def kill_node(self, node: str) -> None:
        """The node loses power: its daemon, its steps and their processes are gone at once."""
        _kill(self._pid(f"slurmd-{node}"))
        self._pid_file(f"slurmd-{node}").unlink()
        for pid in [*self._step_daemons(node), *self._job_processes(node)]:
            _kill(pid)

    def _all_idle(self) -> bool:
        return len(set(self.run("sinfo", "-hN", "-t", "idle", "-o", "%N").split())) == len(self.spec.nodes)

    # ------------------------------------------------------------------ processes

    def _pid_file(self, name: str) -> Path:
        return self.folder / "run" / f"{name}.pid"

    def _pid(self, name: str) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            return int(self._pid_file(name).read_text())
        return None

    def spawn(self, name: str, *command: str) -> None:
        with open(self.folder / "log" / f"{name}.out", "ab") as log:
            child = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._pid_file(name).write_text(str(child.pid))
        self._children = [*getattr(self, "_children", []), child]  # so that they can be reaped

    def wait_for(self, what: str, is_there: Callable[[], bool], limit_s: float = 180) -> None:
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            with contextlib.suppress(subprocess.SubprocessError):
                if is_there():
                    return
            time.sleep(0.1)
        raise TimeoutError(f"{what} did not come up within {limit_s:g} s; see {self.folder / 'log'}")

    def _end(self, names: list[str]) -> None:
        """TERM to all of them at once (each takes seconds), KILL to who is left after 10 s."""
        pids = {name: pid for name in names if (pid := self._pid(name))}
        for pid in pids.values():
            _kill(pid, signal.SIGTERM)
        until = time.monotonic() + 10
        for name, pid in pids.items():
            while _alive(pid) and time.monotonic() < until:
                for child in getattr(self, "_children", []):
                    child.poll()
                time.sleep(0.05)
            _kill(pid)
            self._pid_file(name).unlink(missing_ok=True)

    def _step_daemons(self, node: str) -> Iterator[int]:
        """Each holds the log of its node open, which no process of another cluster does."""
        wanted = str(self.folder / "log" / f"slurmd-{node}")
        for process in _processes("slurmstepd"):
            with contextlib.suppress(OSError):
                if any(os.readlink(fd).startswith(wanted) for fd in (process / "fd").iterdir()):
                    yield int(process.name)

    def _job_processes(self, node: str = "") -> Iterator[int]:
        """Processes that a job of this cluster started (on `node`)."""
        marks = {f"SLURM_CONF={self.conf}".encode()} | (
            {f"SLURMD_NODENAME={node}".encode()} if node else set()
        )
        for process in _processes():
            with contextlib.suppress(OSError):
                variables = set((process / "environ").read_bytes().split(b"\0"))
                if marks <= variables and any(v.startswith(b"SLURM_JOB_ID=") for v in variables):
                    yield int(process.name)

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        key = folder / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        self.spawn(
            "munged", "munged", "--foreground", f"--key-file={key}", f"--socket={folder / 'sock'}",
            f"--pid-file={folder / 'pid'}", f"--log-file={folder / 'log'}", f"--seed-file={folder / 'seed'}",
        )  # fmt: skip
        self.wait_for("munge", lambda: bool(self.run("munge", "-n", f"--socket={folder / 'sock'}")))

    # ------------------------------------------------------------------ configuration

    def _write_configuration(self) -> None:
        devices, spec = self.folder / "dev", self.spec
        stored = {**dataclasses.asdict(spec), "port": self.port}
        (self.folder / "spec.json").write_text(json.dumps(stored))
        for index in range(spec.gpus):
            link = devices / f"nvidia{index}"
            link.unlink(missing_ok=True)
            link.symlink_to("/dev/null")  # a character device, else Slurm would not set CUDA_VISIBLE_DEVICES
        gres = [
            f"NodeName={node} Name=gpu Type={spec.gpu_type} File={devices}/nvidia[0-{spec.gpus - 1}]"
            for node in spec.gpu_names
        ]
        (self.folder / "etc" / "gres.conf").write_text("\n".join(["AutoDetect=off", *gres, ""]))
        self.conf.write_text("\n".join([*self._settings(), *self._nodes(), *self._partitions(), ""]))

    def _settings(self) -> list[str]:
        folder, user = self.folder, getpass.getuser()
        settings = {
            "ClusterName": "lab", "SlurmctldHost": f"{self.host}(127.0.0.1)", "SlurmctldPort": self.port,
            "SlurmUser": user, "SlurmdUser": user,
            # Once the credential's life is over a requeued job may start again: 120 s by default.
            "AuthInfo": f"socket={folder}/munge/sock,cred_expire=5",
            "StateSaveLocation": f"{folder}/state", "SlurmdSpoolDir": f"{folder}/spool/%n",
            "SlurmctldPidFile": f"{folder}/run/ctld.own", "SlurmdPidFile": f"{folder}/run/%n.own",
            "SlurmctldLogFile": f"{folder}/log/slurmctld.log", "SlurmdLogFile": f"{folder}/log/slurmd-%n.log",
            # The nodes claim more than this machine has, and nothing is bound or confined.
            "SlurmdParameters": "config_overrides", "ProctrackType": f"proctrack/{self.spec.tracking}",
            "TaskPlugin": "task/none", "JobAcctGatherType": "jobacct_gather/none", "MpiDefault": "none",
            "SelectType": "select/cons_tres", "SelectTypeParameters": "CR_Core_Memory", "GresTypes": "gpu",
            "ReturnToService": 2, "DefMemPerCPU": 100, "MailProg": "/bin/true",
            # Seconds instead of minutes, so that a test of a limit or of a dead node ends.
            "SchedulerParameters": "batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2",
            "SlurmdTimeout": 5, "KillWait": 5, "BatchStartTimeout": 10, "MessageTimeout": 10,
            "InactiveLimit": 0, "MinJobAge": 3600, "CompleteWait": 0, "OverTimeLimit": 0, "JobRequeue": 1,
            "PreemptType": "preempt/partition_prio", "PreemptMode": "REQUEUE",
            "SlurmctldParameters": "preempt_send_user_signal",
        }  # fmt: skip
        if self.spec.accounting:
            settings |= {
                "AccountingStorageType": "accounting_storage/slurmdbd",
                "AccountingStorageHost": "127.0.0.1", "AccountingStoragePort": self.port + 1,
                "AccountingStoragePass": f"{folder}/munge/sock", "AccountingStorageTRES": "gres/gpu",
                "AccountingStorageEnforce": "associations,limits,qos",
            }  # fmt: skip
        return [f"{key}={value}" for key, value in settings.items()]

    def _nodes(self) -> list[str]:
        spec, lines = self.spec, []
        for port, node in enumerate(spec.nodes, self.port + 10):
            (self.folder / "spool" / node).mkdir(exist_ok=True)
            gres = f"Gres=gpu:{spec.gpu_type}:{spec.gpus}" if node.startswith("gpu") else ""
            features = spec.gpu_features if node.startswith("gpu") else spec.cpu_features
            feature = f"Feature={features}" if features else ""
            where = f"NodeName={node} NodeHostname={self.host} NodeAddr=127.0.0.1 Port={port}"
            lines.append(f"{where} CPUs=256 RealMemory=1000000 {gres} {feature} State=UNKNOWN")
        return lines

    def _partitions(self) -> list[str]:
        spec = self.spec
        cpu, gpu = (",".join(name for name in spec.nodes if name.startswith(kind)) for kind in ("cpu", "gpu"))
        usual = f"MaxTime={spec.max_time} State=UP"
        partitions = {
            spec.cpu_partition: f"Nodes={cpu or gpu} Default=YES PriorityTier=10 PreemptMode=OFF",
            spec.gpu_partition: f"Nodes={gpu} PriorityTier=10 PreemptMode=OFF",
        }
        if spec.preemptible:
            partitions["preemptible"] = f"Nodes={gpu} PriorityTier=1 PreemptMode=REQUEUE GraceTime=0"
        return [f"PartitionName={name} {facts} {usual}" for name, facts in partitions.items()]


# ----------------------------------------------------------------------------- the machine


def _free_ports(count: int) -> int:
    """First of `count` ports in a row that nobody listens on."""
    while True:
        first = 30_000 + secrets.randbelow(10_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


def _processes(name: str = "") -> Iterator[Path]:
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and (process / "comm").read_text().strip().startswith(name):
                yield process


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def _kill(pid: int | None, number: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        if pid is not None and _alive(pid):
            os.kill(pid, number)


def main(words: list[str]) -> int:
    usage = f"usage: {__doc__}"
    if words[:1] == ["install"]:
        install()
        return 0
    commands = {"start", "stop", "env", "kill-node", "start-node"}
    if len(words) < 2 or words[0] not in commands:
        print(usage, file=sys.stderr)
        return 2
    lab = Lab(Path(words[1]), Spec(accounting="--accounting" in words))
    if words[0] == "env":
        print(f"export SLURM_CONF={lab.conf}\nexport PATH=$PATH:/usr/sbin")
    elif words[0] in ("start", "stop"):
        getattr(lab, words[0])()
    else:
        getattr(lab, words[0].replace("-", "_"))(words[2])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
