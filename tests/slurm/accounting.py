"""Slurm's accounting for the lab: slurmdbd on a MariaDB of its own, with the accounts and QOS of the lab's
`Spec`.

What it is: `start(lab)`, called before slurmctld; the daemons end with the lab. What it is not: needed for
anything but `sacct`, QOS and enforced accounts.
"""

from __future__ import annotations

import contextlib
import getpass
import subprocess
from typing import Any


def start(lab: Any) -> None:
    folder, user = lab.folder / "db", getpass.getuser()
    _configure(lab)
    if not (folder / "mysql").exists():
        make = ("--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db")
        lab.run("mariadb-install-db", *make, f"--user={user}", f"--datadir={folder}", timeout_s=90)
    sock = folder / "sock"
    lab.spawn(
        "mariadbd", "mariadbd", "--no-defaults", f"--user={user}", f"--datadir={folder}",
        f"--socket={sock}", f"--pid-file={folder / 'pid'}", "--bind-address=127.0.0.1",
        f"--port={lab.port + 2}", "--innodb-lock-wait-timeout=900", "--innodb-buffer-pool-size=128M",
    )  # fmt: skip
    client = ("--no-defaults", "-u", "root", f"--socket={sock}")
    lab.wait_for("mariadbd", lambda: bool(lab.run("mariadb-admin", *client, "ping")))
    for place in ("127.0.0.1", "localhost"):
        grant = f"grant all on slurm.* to 'slurm'@'{place}' identified by 'lab'"
        lab.run("mariadb", *client, "-e", f"create database if not exists slurm; {grant}")
    lab.spawn("slurmdbd", "slurmdbd", "-D")
    lab.wait_for("slurmdbd", lambda: bool(lab.run("sacctmgr", "-nP", "show", "qos", timeout_s=3)))
    _fill(lab, user)


def _fill(lab: Any, user: str) -> None:
    legal = ",".join(("normal", *lab.spec.qos))
    words = [("add", "cluster", "lab"), *(("add", "qos", qos) for qos in lab.spec.qos)]
    for account in lab.spec.accounts:
        words.append(("add", "account", account, "Cluster=lab"))
        words.append(("add", "user", user, f"Account={account}", f"qos={legal}"))
    for command in words:
        with contextlib.suppress(subprocess.CalledProcessError):  # it is there already
            lab.run("sacctmgr", "-iQ", *command)


def _configure(lab: Any) -> None:
    folder = lab.folder
    settings = {
        "AuthType": "auth/munge", "AuthInfo": f"socket={folder}/munge/sock", "DbdHost": lab.host,
        "DbdAddr": "127.0.0.1", "DbdPort": lab.port + 1, "SlurmUser": getpass.getuser(),
        "StorageType": "accounting_storage/mysql", "StorageHost": "127.0.0.1",
        "StoragePort": lab.port + 2, "StorageUser": "slurm", "StoragePass": "lab", "StorageLoc": "slurm",
        "LogFile": f"{folder}/log/slurmdbd.log", "PidFile": f"{folder}/run/dbd.own",
    }  # fmt: skip
    path = folder / "etc" / "slurmdbd.conf"
    path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    path.chmod(0o600)
