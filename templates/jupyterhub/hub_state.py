"""What the parts of vcluster-hub share: where things lie, how they are read and written, and who may write."""

import contextlib
import fcntl
import grp
import json
import os
import subprocess
import tempfile
from pathlib import Path

FOLDER = Path(os.environ.get("VCLUSTER_HUB_FOLDER", "/etc/vcluster/hub"))
ROOT = Path(os.environ.get("VCLUSTER_HUB_ROOT", "/"))
"""Before every other path; a bench on a computer that is no head has its own."""

SECRETS = ROOT / "etc/vcluster/secrets/jupyterhub.env"
LOCK = ROOT / "run/vcluster-hub.lock"


class Sorry(Exception):  # noqa: N818 - said to a person
    """An error to tell in one sentence."""


def read(name, default=None):
    """A JSON file of the folder; ``default`` when it is not there."""
    try:
        text = (FOLDER / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        return default
    try:
        return json.loads(text)
    except ValueError as error:
        raise Sorry(f"{FOLDER / name} cannot be read: {error}") from error


def facts():
    """What does not change while the cluster lives: hub.json."""
    found = read("hub.json")
    if found is None:
        raise Sorry("this cluster has no JupyterHub")
    return found


def keep(name, data):
    """Replace a JSON file of the folder, all or nothing; the Hub may read it and nobody else."""
    write(FOLDER / name, json.dumps(data, indent=1, ensure_ascii=False) + "\n", 0o640, "jupyterhub")


def write(path, text, mode, group="root"):
    """Replace a file, all or nothing: who reads it sees the old one or the new."""
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if os.geteuid() == 0:
                os.fchown(descriptor, 0, gid(group))
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def gid(group):
    """A group's number; root's where there is no such group, so that nobody can read what was meant for it."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return 0


@contextlib.contextmanager
def alone(lock=LOCK):
    """Be the only one who changes something, or who holds another lock."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        lock.chmod(0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(*command, timeout=60, check=True, stdin=""):
    """The output of a program; secrets go to its standard input and never among its words."""
    try:
        done = subprocess.run(
            command, cwd="/", timeout=timeout, capture_output=True, text=True, input=stdin, check=False
        )
    except subprocess.TimeoutExpired:
        raise Sorry(f"{command[0]} did not end within {timeout} seconds") from None
    except FileNotFoundError:
        raise Sorry(f"{command[0]} is not installed") from None
    if check and done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines() or [str(done.returncode)]
        raise Sorry(f"{command[0]}: {last[-1]}")
    return done.stdout
