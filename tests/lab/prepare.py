"""What a lab starts from: databases with their tables, Keystone's keys, accounts. Made once, then copied."""

from __future__ import annotations

import getpass
import grp
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab import config, database, install
from tests.lab.layout import DIRECT, SERVICES, Layout
from tests.lab.processes import environment

__all__ = ["databases", "restore", "save", "state_folder"]

# What a prepared state depends on; a change in any makes a new one.
_SOURCES = ("requirements.txt", "config.py", "prepare.py", "identity.py", "furnish.py", "layout.py")
_KEPT = ("mysql", "state")
UNUSED = 14 * 86400.0
"""Seconds after which a prepared state that no lab has copied since is removed."""


def state_folder() -> Path:
    """Where the prepared state for these sources lies or would lie."""
    return install.cache_folder() / f"state-{install.digest(*(install.HERE / name for name in _SOURCES))}"


def databases(lab: Layout, venv: Path) -> None:
    """Create every service's tables, and Keystone's keys and first account.

    Raises:
        RuntimeError: a command failed; its output is in the message.
    """
    database.create_databases(lab)
    env = environment(lab, venv)

    def run(*command: str) -> None:
        result = subprocess.run(
            [venv / "bin" / command[0], *command[1:]],
            env=env,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if result.returncode:
            logs = [log.read_text()[-3000:] for log in lab.path("log").glob(f"{command[0].split('-')[0]}*.log")]
            raise RuntimeError("\n".join([f"{' '.join(command)} failed:", result.stdout[-3000:], *logs]))

    def file(service: str, name: str) -> Sequence[str]:
        return "--config-file", str(lab.path("etc", service, name))

    def keystone() -> None:
        settings = file("keystone", "keystone.conf")
        url = lab.auth_url()
        owner = ("--keystone-user", getpass.getuser(), "--keystone-group", grp.getgrgid(os.getgid()).gr_name)
        env["OS_BOOTSTRAP_PASSWORD"] = lab.password  # not as an argument: everybody may read those
        run("keystone-manage", *settings, "db_sync")
        for keys in ("fernet_setup", "credential_setup"):
            run("keystone-manage", *settings, keys, *owner)
        urls = [word for kind in ("public", "internal", "admin") for word in (f"--bootstrap-{kind}-url", url)]
        run("keystone-manage", *settings, "bootstrap", "--bootstrap-region-id", DIRECT, *urls)

    def nova() -> None:
        settings = file("nova", "nova.conf")
        run("nova-manage", *settings, "api_db", "sync")
        cell0 = config.database_url(lab, "nova_cell0")
        run("nova-manage", *settings, "cell_v2", "map_cell0", "--database_connection", cell0)
        run("nova-manage", *settings, "db", "sync")
        cell1 = ("--name", "cell1", "--database_connection", config.database_url(lab, "nova"))
        run("nova-manage", *settings, "cell_v2", "create_cell", *cell1, "--transport-url", "fake://")

    def neutron() -> None:
        settings = (*file("neutron", "neutron.conf"), *file("neutron", "ml2_conf.ini"))
        run("neutron-db-manage", *settings, "upgrade", "heads")

    def glance() -> None:
        run("glance-manage", *file("glance", "glance-api.conf"), "db_sync")

    def placement() -> None:
        run("placement-manage", *file("placement", "placement.conf"), "db", "sync")

    def cinder() -> None:
        run("cinder-manage", *file("cinder", "cinder.conf"), "db", "sync")

    def octavia() -> None:
        run("octavia-db-manage", *file("octavia", "octavia.conf"), "upgrade", "head")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in [pool.submit(step) for step in (nova, neutron, cinder, keystone, glance, placement, octavia)]:
            done.result()


def _moved(lab: Layout) -> list[tuple[str, str, str, str]]:
    """What differs from lab to lab and yet is in a database: table, column, this lab's text, what stands for it."""
    rows = [
        ("nova_api.cell_mappings", "database_connection", str(lab.root), "{root}"),
        ("glance.image_locations", "value", str(lab.root), "{root}"),
    ]
    for service in SERVICES:
        rows += [
            ("keystone.endpoint", "url", lab.url(service), f"{{direct {service}}}"),
            ("keystone.endpoint", "url", lab.proxy_url(service), f"{{proxied {service}}}"),
        ]
    return rows


def save(lab: Layout) -> None:
    """Keep the state of a lab whose services have ended but for MariaDB, which must be stopped by ``stop``.

    Two labs may prepare at once: the first to get here wins, and what the other has is as good.
    """
    database.sql(lab, *(f"UPDATE {t} SET {c} = REPLACE({c}, '{here}', '{there}')" for t, c, here, there in _moved(lab)))


def keep(lab: Layout) -> None:
    """Copy what ``save`` made fit for keeping, once MariaDB has ended, to where ``restore`` finds it."""
    for old in install.cache_folder().glob("state-*"):
        if time.time() - old.stat().st_mtime > UNUSED:
            shutil.rmtree(old, ignore_errors=True)
    target = state_folder()
    new = target.with_name(f"{target.name}.{os.getpid()}")
    new.mkdir(mode=0o700, parents=True)
    for name in _KEPT:
        shutil.copytree(lab.path(name), new / name)
    (new / "password.json").touch(mode=0o600)
    (new / "password.json").write_text(json.dumps(lab.password))
    try:
        new.rename(target)
    except OSError:  # another lab was first
        shutil.rmtree(new)


def kept_password() -> str:
    """The password in the prepared state, which must be there."""
    value: str = json.loads((state_folder() / "password.json").read_text())
    return value


def copy(lab: Layout) -> None:
    """Copy the prepared state into a lab's folder, before anything of it runs."""
    os.utime(state_folder())  # still in use
    for name in _KEPT:
        subprocess.run(["cp", "--archive", "--reflink=auto", state_folder() / name, lab.root], check=True)


def restore(lab: Layout) -> None:
    """Tell a copied state, whose MariaDB runs, where this lab lies and listens."""
    database.sql(lab, *(f"UPDATE {t} SET {c} = REPLACE({c}, '{there}', '{here}')" for t, c, here, there in _moved(lab)))
