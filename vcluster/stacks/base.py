"""What a scheduler brings: files and steps for machines, and a word on how they are.

A :class:`Stack` is pure: spec and site in, text out. A :class:`Control` talks to a running head.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from vcluster.model import ClusterRef, CommandResult, Health, Network, Observed, Port, Slot

if TYPE_CHECKING:
    from vcluster.secrets import Keyring
    from vcluster.spec import ClusterSpec

__all__ = ["ADMIN_UID", "ADMIN_USER", "HEAD_SECRET", "HEAD_SPEC", "Clock", "Control", "Simulated", "Site", "Stack"]

ADMIN_USER = "vcluster"
"""The administrator's account on every machine; its home lies outside ``/home``, which NFS covers."""

ADMIN_UID = 2000

HEAD_SECRET = "/etc/vcluster/secrets/cluster"  # noqa: S105 - a path
"""On the head, for root alone: the cluster's secret as one line of base64."""

HEAD_SPEC = "/var/lib/vcluster/spec.yaml"
"""On the head, for root alone: the spec as last applied."""


@dataclass(frozen=True, slots=True, repr=False)
class Site:
    """Everything that the configuration of a cluster's machines depends on.

    Attributes:
        slots: head first, then every worker up to each group's ``max_count``.
        ports: slot name to port; every slot has one before anything is rendered.
        guarded: addresses that only root may reach from inside a machine.
        secrets: what the user gave, as :func:`vcluster.spec_secrets.resolve`; only machines that need one look.
        founded: the cluster was ready once, so that a machine that is made now joins what is there.
    """

    ref: ClusterRef
    spec: ClusterSpec
    network: Network
    slots: tuple[Slot, ...]
    ports: Mapping[str, Port]
    keyring: Keyring
    guarded: tuple[str, ...]
    secrets: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    founded: bool = False


class Stack(Protocol):
    """Files, install steps and configuration of one scheduler.

    Attributes:
        self_contained: it makes nothing on the cloud by itself, so that nobody looks for that when the cluster goes.
    """

    name: str
    self_contained: bool

    def install_script(self, spec: ClusterSpec) -> str:
        """The slow, cluster-independent steps: a shell script that root runs in an image or at first boot."""
        ...

    def user_data(self, site: Site, slot: Slot) -> str:
        """The complete cloud-init user data of one machine (``#cloud-config``, not compressed)."""
        ...


class Control(Protocol):
    """The scheduler of a running cluster, asked through the head.

    Attributes:
        silence: why the head told nothing when it was last asked, or why its Hub does not start; else empty.
    """

    silence: str

    def health(self, observed: Observed) -> Mapping[str, Health]:
        """Ask how every machine is, probing those that have not proved themselves since their boot.

        Never raises for weather: a head that cannot be reached yet gives an empty mapping.
        """
        ...

    def drain(self, names: Sequence[str], reason: str) -> None:
        """Let no new job onto these workers; running ones go on."""
        ...

    def resume(self, names: Sequence[str]) -> None:
        """Take workers back that were drained by :meth:`drain` or that died and were made anew."""
        ...

    def release(self, names: Sequence[str]) -> None:
        """Forget these machines: they are about to be deleted, or to be made where the scheduler may know a dead one.

        Raises:
            TemporaryError: the head could not be asked. It is called again before the place is taken anew.
            ConflictError: it cannot do without one of them: a server of its database.
        """
        ...

    def close(self) -> None: ...


class Clock(Protocol):
    """Time as a run sees it; simulated clouds bring a virtual one."""

    def now(self) -> float:
        """Seconds, never going back."""
        ...

    def sleep(self, seconds: float, cancel: threading.Event) -> None:
        """Wait, or return early when ``cancel`` is set."""
        ...


@runtime_checkable
class Simulated(Protocol):
    """A cloud without real machines: it brings its own scheduler, clock and commands."""

    clock: Clock

    def control(self, ref: ClusterRef) -> Control:
        """The pretended scheduler."""
        ...

    def execute(self, ref: ClusterRef, command: str, stdin: str = "", machine: str = "head") -> CommandResult:
        """Pretend to run a command on a machine.

        Two of vcluster's own are worth answering as a head would: ``sudo -n cat`` of :data:`HEAD_SECRET` and
        :data:`HEAD_SPEC`, as :func:`vcluster.cloudinit.files_in` finds them in its user data.
        """
        ...
