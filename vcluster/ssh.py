"""Plain OpenSSH for people: argument lists and a configuration that reach every machine with pinned keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vcluster.errors import UsageError
from vcluster.folder import Folder
from vcluster.model import Endpoint, Machine, Role

__all__ = ["Ssh"]


class Ssh:
    """Makes command lines for ssh and scp. All of them use the configuration file in the cluster's folder.

    Args:
        folder: the cluster's folder.
        reachable: looks up the head's address and the machines.
    """

    def __init__(self, folder: Folder, reachable: Callable[[], tuple[Endpoint, list[Machine]]]) -> None:
        self._folder, self._reachable = folder, reachable

    def command(self, machine: str) -> list[str]:
        """The argv of ssh to a machine.

        Raises:
            UsageError: there is no such machine, or the head cannot be reached.
        """
        config, machines = self._write()
        return ["ssh", "-F", config, self._host(machine, machines)]

    def copy(self, sources: Sequence[str], target: str) -> list[str]:
        """The argv of scp; ``:PATH`` is on the head, ``MACHINE:PATH`` on that machine, all else local."""
        config, machines = self._write()
        words = [self._place(word, machines) for word in (*sources, target)]
        return ["scp", "-F", config, "-r", "--", *words]

    def forward(self, port: int, local_port: int) -> list[str]:
        """The argv of ssh that makes the head's ``port`` reachable at this computer's loopback."""
        config, machines = self._write()
        way = f"127.0.0.1:{local_port}:127.0.0.1:{port}"
        options = ["-o", "ExitOnForwardFailure=yes", "-N", "-L", way]
        return ["ssh", "-F", config, *options, self._host(Role.HEAD, machines)]

    def config(self) -> str:
        """The text of the configuration file."""
        endpoint, machines = self._reachable()
        return self._folder.ssh_config(endpoint, machines).read_text()

    def _write(self) -> tuple[str, list[Machine]]:
        endpoint, machines = self._reachable()
        return str(self._folder.ssh_config(endpoint, machines)), machines

    def _host(self, name: str, machines: Sequence[Machine]) -> str:
        if name not in {machine.name for machine in machines}:
            names = ", ".join(sorted(machine.name for machine in machines))
            raise UsageError(f"there is no machine {name!r}", remedy=f"there are: {names}")
        return f"{self._folder.cluster}-{name}"

    def _place(self, word: str, machines: Sequence[Machine]) -> str:
        machine, colon, path = word.partition(":")
        if not colon or "/" in machine:
            # A bare name with a leading dash or a colon in a later part is a local file for scp, too.
            return word if word.startswith(("/", "./", "../")) else f"./{word}"
        return f"{self._host(machine or str(Role.HEAD), machines)}:{path}"
