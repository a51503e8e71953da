"""The machines of a running Kubernetes cluster, each asked through its own ``vcluster-k3s``: JSON in, JSON out.

The head is reached as everywhere, the others through it; all host keys are pinned.
"""

from __future__ import annotations

import io
import json
import shlex
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

from vcluster.errors import PermanentError, TemporaryError
from vcluster.model import CommandResult, Role
from vcluster.remote import Remote

__all__ = ["HELPER", "Link", "Members", "Node", "Program", "RemoteLink"]

HELPER = "/usr/local/sbin/vcluster-k3s"


class Link(Protocol):
    """A way to run a command on one machine."""

    def __call__(
        self, command: str, source: BinaryIO | None, sink: BinaryIO | None, timeout: float
    ) -> CommandResult: ...


@dataclass(frozen=True, slots=True)
class RemoteLink:
    """Over SSH."""

    remote: Remote
    cancel: threading.Event

    def __call__(self, command: str, source: BinaryIO | None, sink: BinaryIO | None, timeout: float) -> CommandResult:
        """As :meth:`vcluster.remote.Remote.stream`."""
        return self.remote.stream(command, source=source, sink=sink, timeout=timeout, cancel=self.cancel)


@dataclass(frozen=True, slots=True)
class Node:
    """What Kubernetes says of a node. ``version`` is that of its kubelet, which runs."""

    ready: bool
    version: str
    schedulable: bool


@dataclass(frozen=True, slots=True)
class Program:
    """What lies on a machine.

    Attributes:
        sha256: of its k3s.
        images: the archives of images, by name, with the SHA-256 of each.
        pending: it was changed, and has not started since.
        restoring: a restore was begun and not ended.
    """

    version: str
    sha256: str
    images: Mapping[str, str] = field(default_factory=dict)
    pending: bool = False
    restoring: bool = False


class Members:
    """Talks to machines.

    Args:
        link: gives the way to a machine of this name.
    """

    def __init__(self, link: Callable[[str], Link]) -> None:
        self._link = link

    def kubeconfig(self) -> str:
        """The administrator's kubeconfig as k3s wrote it on the head. It holds a key."""
        return self._said(str(Role.HEAD), "kubeconfig", timeout=60).stdout

    def nodes(self) -> dict[str, Node]:
        """Every node that Kubernetes knows.

        Raises:
            PermanentError: it does not answer on the head.
        """
        told = self.tell(str(Role.HEAD), "nodes", timeout=60)
        return {name: Node(each["ready"], each["version"], each["schedulable"]) for name, each in told.items()}

    def program(self, machine: str) -> Program:
        """What lies on a machine."""
        told = self.tell(machine, "status", timeout=150)
        keys = ("version", "sha256", "images", "pending", "restoring")
        return Program(**{key: told[key] for key in keys})

    def tell(self, machine: str, *words: str, timeout: float, given: Any = None, source: BinaryIO | None = None) -> Any:
        """Have a machine do one thing; gives what it answers.

        Args:
            given: JSON for its standard input.
            source: or that itself.

        Raises:
            PermanentError: it says no, and why.
            TemporaryError: it cannot be reached, or the connection broke.
            DeadlineError: it took too long.
            CancelledError: the caller asked to stop.
        """
        if given is not None:
            source = io.BytesIO(json.dumps(given).encode())
        result = self._said(machine, *words, timeout=timeout, source=source)
        try:
            return json.loads(result.stdout)
        except ValueError:
            raise TemporaryError(f"{machine} gave no answer to {words[0]}") from None

    def copy(self, path: str, sink: BinaryIO, timeout: float) -> None:
        """Read a file on the head that only root may read; raises as :meth:`tell`."""
        result = self._link(str(Role.HEAD))(f"sudo -n cat {shlex.quote(path)}", None, sink, timeout)
        if result.exit_code:
            raise PermanentError(f"the head does not give {path}: {_last(result.stderr)}")

    def _said(self, machine: str, *words: str, timeout: float, source: BinaryIO | None = None) -> CommandResult:
        result = self._link(machine)(f"sudo -n {HELPER} {shlex.join(words)}", source, None, timeout)
        if result.exit_code:
            # Only of standard error: the rest may be a secret.
            raise PermanentError(f"{machine}: {_last(result.stderr).removeprefix('vcluster-k3s: ')}")
        return result


def _last(text: str) -> str:
    return ([line for line in text.strip().splitlines() if line.strip()] or ["no reason given"])[-1][-500:]
