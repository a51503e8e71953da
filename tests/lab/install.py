"""The lab's own virtual environment, with the services from PyPI at the versions of requirements.txt."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
PINS = HERE / "requirements.txt"


def cache_folder() -> Path:
    """Where environments and prepared databases stay between runs: ``VCLUSTER_LAB_CACHE``, or the user's cache."""
    given = os.environ.get("VCLUSTER_LAB_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(home) / "vcluster-lab"


def digest(*files: Path) -> str:
    """A short name for what these files hold and for the Python that runs."""
    total = hashlib.sha256(sys.version.encode())
    for file in files:
        total.update(file.name.encode() + b"\0" + file.read_bytes())
    return total.hexdigest()[:12]


def venv_folder() -> Path:
    """The lab's environment: ``VCLUSTER_LAB_VENV``, or one in the cache that is named after the pins."""
    given = os.environ.get("VCLUSTER_LAB_VENV")
    return Path(given) if given else cache_folder() / f"venv-{digest(PINS)}"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Let one process at a time prepare what ``name`` stands for; the others wait, and find it done."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ensure_venv() -> Path:
    """Make the environment unless it is there and complete; return its folder.

    Raises:
        RuntimeError: pip could not install the pins; its last lines are in the message.
    """
    folder = venv_folder()
    done = folder / ".complete"
    if done.exists():
        return folder
    with locked("venv"):
        if done.exists():
            return folder
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip: list[str | Path] = [
            folder / "bin/pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
            PINS,
        ]
        result = subprocess.run(pip, check=False, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError("pip could not install the lab's services:\n" + result.stderr[-2000:])
        done.touch()
    return folder


if __name__ == "__main__":
    ensure_venv()
