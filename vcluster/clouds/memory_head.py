"""What stands in for SSH to a head in a cloud without guests: its files, and the few commands that it answers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from vcluster.cloudinit import files_in
from vcluster.clouds.memory_hub import HELPER, PretendedHub
from vcluster.clouds.memory_k3s import HELPER as K3S
from vcluster.clouds.memory_k3s import PretendedK3s
from vcluster.model import CommandResult

__all__ = ["PretendedHead"]

KUBECTL = "sudo -n /usr/local/bin/k3s kubectl "
_WRITE = re.compile(r"sudo -n sh -c '.*\bcat > (?P<draft>\S+) && mv (?P=draft) (?P<path>\S+)'")


class PretendedHead:
    """A head's disk, as its user data filled it.

    Args:
        user_data: what it booted with; read when a file is first asked for.
    """

    def __init__(self, user_data: str) -> None:
        self._user_data = user_data
        self._known: dict[str, bytes] | None = None
        self.hub = PretendedHub()
        self.k3s = PretendedK3s(lambda: self.files)

    @property
    def files(self) -> dict[str, bytes]:
        """Every file by path."""
        if self._known is None:
            self._known = files_in(self._user_data)
        return self._known

    def execute(self, command: str, stdin: str, workers: Sequence[str], machine: str = "head") -> CommandResult:
        """``sudo -n cat FILE…``, replacing a file, ``hostname``, ``srun … hostname`` and vcluster-hub; others echo.

        Other machines than the head are asked for vcluster-k3s alone. Charts are installed at once: that is what helm's
        records say, the only Secrets that kubectl is asked for.
        """
        if command.startswith(K3S):
            return self.k3s.execute(machine, command, stdin, ["head", *workers])
        if command.startswith("sudo -n cat "):
            paths = shlex.split(command)[3:]
            missing = [path for path in paths if path not in self.files]
            text = "".join(self.files[path].decode() for path in paths if path in self.files)
            errors = "".join(f"cat: {path}: No such file or directory\n" for path in missing)
            return CommandResult(text, errors, 1 if missing else 0)
        if found := _WRITE.fullmatch(command):
            self.files[found["path"]] = stdin.encode()
            return CommandResult("", "", 0)
        if command.startswith(HELPER):
            return self.hub.execute(command, stdin)
        if "hostname" in command:
            return CommandResult("".join(f"{name}\n" for name in workers) if "srun" in command else "head\n", "", 0)
        records = command.startswith(KUBECTL) and " get secret " in command
        return CommandResult("1 deployed\n" if records else f"{command}\n", "", 0)
