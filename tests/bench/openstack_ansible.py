"""Ansible's openstack.cloud collection, in a virtual environment of its own: it needs an older openstacksdk."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import venv
from pathlib import Path

from tests.lab.install import cache_folder, locked

__all__ = ["ensure", "environment", "playbook"]

# The collection is in none but the whole package; it reads openstack.version, which later SDKs have no more.
REQUIREMENTS = ("ansible==11.13.0", "openstacksdk==4.0.1")
PLAYBOOK = Path(__file__).with_name("openstack_ansible.yaml")


def ensure() -> Path:
    """The virtual environment, made if need be (600 MB, about a minute)."""
    digest = hashlib.sha256("\n".join(REQUIREMENTS).encode()).hexdigest()[:12]
    folder = cache_folder() / f"ansible-{digest}"
    done = folder / "complete"
    with locked("ansible"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, with_pip=True)
            pip = [str(folder / "bin/pip"), "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *REQUIREMENTS], check=True)
            done.touch()
    return folder


def environment(folder: Path, home: Path) -> dict[str, str]:
    """What a run needs in its environment on top of the way to log in; ``home`` is for its temporary files."""
    return {
        "ANSIBLE_HOME": str(home),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_PYTHON_INTERPRETER": str(folder / "bin/python"),
        "LC_ALL": "C.UTF-8",
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
    }


def playbook(folder: Path, state: str, cloud: str, count: int) -> list[str]:
    """The command that makes (``present``) or deletes (``absent``) the cluster's resources."""
    words = f"cloud={cloud} count={count} state={state}"
    return [str(folder / "bin/ansible-playbook"), "-i", "localhost,", "-e", words, str(PLAYBOOK)]
