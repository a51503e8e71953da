"""One Slurm cluster on real VMs behind a real Nova, made by the command line as a person would."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.neighbours import settle
from tests.lab.snapshot import snapshot
from tests.lab.sweep.bed import colleagues_cluster

if TYPE_CHECKING:
    from tests.lab.lab import LabClient

VCLUSTER = str(Path(sys.executable).with_name("vcluster"))
MINUTE = 60.0
CLOUD = "demo"


@dataclass
class Person:
    """Somebody with a home directory of their own: credentials, an SSH key, and what vcluster keeps there.

    Attributes:
        home: what ``HOME`` is; ``VCLUSTER_HOME`` lies in it.
    """

    home: Path
    env: dict[str, str]
    printed: list[str] = field(default_factory=list)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Begin a command line."""
        return subprocess.Popen(
            [VCLUSTER, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=self.env,
        )

    def end(self, process: subprocess.Popen[str], code: int = 0) -> str:
        """Wait for it; what it printed on standard output."""
        out, err = process.communicate(timeout=30 * MINUTE)
        self.printed += [out, err]
        assert process.returncode == code, f"{process.args}: {process.returncode}\n{out}\n{err}"
        return out

    def __call__(self, *words: str, code: int = 0) -> str:
        return self.end(self.start(*words), code)

    def json(self, *words: str, code: int = 0) -> dict[str, Any]:
        """The final object of a command with --json."""
        last = self(*words, "--json", code=code).strip().splitlines()[-1]
        result: dict[str, Any] = json.loads(last)
        return result

    def on_head(self, command: str) -> str:
        return self("ssh", "demo", "--cloud", CLOUD, "--", command)


@dataclass
class Site:
    """The lab with real machines, its neighbours, and two people of one account.

    Attributes:
        before: the whole project as it was, neighbours included.
    """

    lab: LabClient
    spec: Path
    one: Person
    other: Person
    before: dict[str, Any]

    def now(self) -> dict[str, Any]:
        return snapshot(self.lab.connection("admin"), self.lab.project_id())


def new_key(folder: Path) -> Path:
    """A pair of SSH keys; the path of the private one."""
    key = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "person", "-f", str(key)], check=True)
    return key


def person_of(lab: LabClient, home: Path, key: Path) -> Person:
    """A home with credentials and the account's SSH key, and nothing else."""
    ssh = home / ".ssh"
    ssh.mkdir(parents=True, mode=0o700)
    for suffix in ("", ".pub"):
        target = ssh / f"id_ed25519{suffix}"
        target.write_bytes(key.with_name(key.name + suffix).read_bytes())
        target.chmod(0o600)
    config = home / ".config/openstack"
    config.mkdir(parents=True)
    (config / "clouds.yaml").write_text(lab.clouds_yaml.read_text())
    kept = {name: value for name, value in lab.cloud_env(CLOUD).items() if not name.startswith(("OS_", "VCLUSTER_"))}
    kept.pop("SSH_AUTH_SOCK", None)
    return Person(home, kept | {"HOME": str(home), "VCLUSTER_HOME": str(home / ".local/share/vcluster")})


@pytest.fixture(scope="session")
def site(qemu_lab: LabClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The lab with its 200 neighbours and a colleague's cluster ``demo``; ours is made by the first test."""
    folder = tmp_path_factory.mktemp("site")
    key = new_key(folder)
    spec = folder / "demo.yaml"
    spec.write_text(
        json.dumps(
            {
                "name": "demo",
                "cloud": CLOUD,
                "image": "debian-12",
                "head": {"flavor": "lab.head"},
                "workers": [{"name": "cpu", "count": 2, "flavor": "lab.worker"}],
                "access": {"ssh_keys": [key.with_name("id_ed25519.pub").read_text().strip()]},
                "expires": "8h",
            }
        )
    )
    settle(qemu_lab)
    with colleagues_cluster(qemu_lab, folder / "colleague", "demo"):
        before = snapshot(qemu_lab.connection("admin"), qemu_lab.project_id())
        one, other = (person_of(qemu_lab, folder / name, key) for name in ("one", "other"))
        yield Site(qemu_lab, spec, one, other, before)
