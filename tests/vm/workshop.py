"""The workshop's example on real VMs, with what its tests ask of it: a door, machines, jobs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from conftest import Cli, on

from vcluster import Cluster
from vcluster.secrets import Keyring

NAME = "workshop"
EXAMPLE = Path(__file__).parents[2] / "examples/workshop-slurm.yaml"
PATIENCE = 600.0
"""Seconds for a server or a page on machines in software emulation, beside other tests."""


@dataclass
class Machine:
    """One machine, asked as root."""

    cluster: Cluster
    name: str

    def run(self, *words: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program there."""
        command = " ".join(["sudo", "-n", *(_quoted(word) for word in words)])
        argv = [*self.cluster.ssh_command(self.name), command]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False, input=stdin)
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


@dataclass
class Workshop:
    """A running class.

    Attributes:
        printed: what `vcluster up` said.
        door: `hub` of `up --json`: the address, the authority and its fingerprint.
    """

    cli: Cli
    cluster: Cluster
    printed: str
    door: Mapping[str, str]
    machines: dict[str, Machine] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.machines = {name: Machine(self.cluster, name) for name in ("head", "cpu-1", "cpu-2")}

    @classmethod
    def up(cls, cli: Cli) -> Workshop:
        """As a person does; a second `up` tells the door for programs, which has no passwords in it."""
        printed = cli("up", str(EXAMPLE), "--yes").stdout
        door = cli.json("up", str(EXAMPLE), "--yes")["hub"]
        return cls(cli, Cluster(NAME), printed, door)  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        return self.door["url"]

    @property
    def ca(self) -> str:
        return self.door["ca"]

    @property
    def head(self) -> Machine:
        return self.machines["head"]

    def passwords(self) -> Mapping[str, str]:
        """The class's and the administrators' password."""
        return self._passwords

    @cached_property
    def _passwords(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.head.run("cat", "/etc/vcluster/hub/passwords.json").stdout)
        return found

    def jobs(self) -> list[tuple[str, str, str, str]]:
        """Slurm's jobs: number, user, state and machine."""
        lines = on(self.cluster, "squeue -h -o '%i|%u|%T|%B'").splitlines()
        return [(n, user, state, host) for n, user, state, host in (line.split("|") for line in lines)]

    def secrets(self) -> list[bytes]:
        """All that nobody but root and the Hub may read."""
        keyring: Keyring = self.cluster.folder.keyring()
        words = ("proxy", "service", "admin")
        return [
            *(keyring.password(f"jupyterhub-{word}").encode() for word in words),
            *(keyring.key(f"jupyterhub-{word}").hex().encode() for word in ("cookie", "crypt")),
            *(self.passwords()[who].encode() for who in ("class", "admin")),
        ]

    def close(self) -> None:
        self.cluster.close()
        self.cli("down", NAME, "--yes")


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"
