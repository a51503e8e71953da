"""MariaDB for one lab: started on a unix socket alone, with its data in the lab's folder."""

from __future__ import annotations

import getpass
import subprocess
import time

from tests.lab.layout import Layout
from tests.lab.processes import Processes

__all__ = ["DATABASES", "create_databases", "install", "sql", "start"]

DATABASES = ("keystone", "glance", "placement", "neutron", "nova", "nova_api", "nova_cell0", "cinder", "octavia")

# Whether the data survives a power cut is no question for a lab: nothing is flushed, nothing is written twice.
SERVER = (
    "mariadbd",
    "--no-defaults",
    "--skip-networking",
    "--skip-name-resolve",
    "--max-connections=600",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--innodb-buffer-pool-size=128M",
    "--innodb-log-file-size=32M",
    "--performance-schema=OFF",
    "--skip-log-bin",
    "--transaction-isolation=READ-COMMITTED",
)


def _client(lab: Layout) -> list[str]:
    """The database's own root, who needs no password: the socket lies in a folder that is the owner's alone."""
    return ["mariadb", "--no-defaults", "--user=root", f"--socket={lab.path('mysql.sock')}"]


def install(lab: Layout) -> None:
    """Make an empty data folder."""
    lab.path("mysql").mkdir(mode=0o700)
    subprocess.run(
        [
            "mariadb-install-db",
            "--no-defaults",
            f"--user={getpass.getuser()}",
            f"--datadir={lab.path('mysql')}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ],
        check=True,
        capture_output=True,
    )


def start(lab: Layout, processes: Processes, timeout: float = 300.0) -> None:
    """Start the server and wait until it answers.

    Raises:
        RuntimeError: it ended, or did not answer within ``timeout`` seconds.
    """
    processes.start(
        "mariadb",
        [
            *SERVER,
            f"--user={getpass.getuser()}",
            f"--datadir={lab.path('mysql')}",
            f"--socket={lab.path('mysql.sock')}",
            f"--pid-file={lab.path('mysql.pid')}",
        ],
    )
    deadline = time.monotonic() + timeout
    while subprocess.run([*_client(lab), "--execute=SELECT 1"], check=False, capture_output=True).returncode:
        processes.check("mariadb")
        if time.monotonic() > deadline:
            raise RuntimeError(f"MariaDB did not answer in {timeout:.0f} s:\n{processes.tail('mariadb')}")
        time.sleep(0.05)


def sql(lab: Layout, *statements: str) -> None:
    """Run statements as root."""
    subprocess.run(_client(lab), input="\n".join(f"{text};" for text in statements), text=True, check=True)


def create_databases(lab: Layout) -> None:
    sql(lab, *(f"CREATE DATABASE {name} CHARACTER SET utf8mb4" for name in DATABASES))
