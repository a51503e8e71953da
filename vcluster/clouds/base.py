"""The protocol that every cloud speaks. The engine knows this page and nothing of what is behind it.

Every create call carries the resource's tag; every delete takes a UUID and checks the tag again on this side.
All calls may be made from several threads at once. They raise the classes of :mod:`vcluster.errors` only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vcluster.model import (
    Allowance,
    ClusterRef,
    Endpoint,
    Flavor,
    ImageRequest,
    Layout,
    Machine,
    MachineRequest,
    MachineState,
    Network,
    Observed,
    Part,
    PartRequest,
    Port,
    PortRequest,
    VolumeRequest,
    Wishes,
)

__all__ = ["BOOT_MARK", "Cloud", "ClusterSummary", "Notify"]

BOOT_MARK = "---- vcluster: the machine was switched on"
"""The line in a console at which a boot begins, in clouds that keep the console of more than one."""

Notify = Callable[[str], None]
"""Takes one sentence for the person who watches (for example: "building the base image")."""


@dataclass(frozen=True, slots=True)
class ClusterSummary:
    """One line of ``vcluster list``.

    Attributes:
        created: seconds since the epoch, of its oldest resource; 0 when no resource tells.
        flavors: flavor and state of every machine; empty where nobody pays for them.
        notes: as :attr:`vcluster.model.Observed.notes`.
        headless: no head is there, in any state: what is left of a cluster.
        claimed: the newest head port's time in seconds since the epoch, or 0: somebody may be bringing it up.
    """

    ref: ClusterRef
    machines: int
    active: int
    created: float
    flavors: tuple[tuple[str, MachineState], ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    headless: bool = False
    claimed: float = 0.0


class Cloud(Protocol):
    """A place where machines can be made. All times are in seconds."""

    @property
    def name(self) -> str:
        """What the spec calls it."""
        ...

    @property
    def place(self) -> str:
        """Where things would be made, for people: the project's name, the region and who asks."""
        ...

    @property
    def boot_timeout(self) -> float:
        """How long a machine may take from its create call to its first job, before it counts as failed."""
        ...

    @property
    def listing_lag(self) -> float:
        """How many seconds a listing may lag behind an act."""
        ...

    def ref(self, name: str) -> ClusterRef:
        """The identity of a cluster of this name, made by whoever is asking."""
        ...

    def now(self) -> float:
        """The cloud's clock, by which ``created`` and ``started`` are given."""
        ...

    def flavor(self, name: str) -> Flavor:
        """Look a flavor up by name.

        Raises:
            PermanentError: there is none; the remedy lists those there are.
        """
        ...

    @property
    def any_size(self) -> bool:
        """Whether a machine may have a size of its own, in the place of a flavor's."""
        ...

    def zones(self) -> Sequence[str]:
        """Availability zones in which a machine may be made now, in an order that stays; empty where there are none.

        Asked only when the cloud had no host for a machine that named no zone.
        """
        ...

    @property
    def guarded(self) -> tuple[str, ...]:
        """Addresses that, inside a machine, only root may reach: the metadata service, the host's own loopback."""
        ...

    def image(self, request: ImageRequest, notify: Notify, cancel: threading.Event | None = None) -> str:
        """Make sure that an image is there (building or fetching it where needed) and return its id.

        Args:
            request: what is wanted.
            notify: told before anything that takes long.
            cancel: set from another thread to give up.

        Raises:
            CancelledError: ``cancel`` was set.
            PermanentError: it cannot be had (no such file, wrong checksum, a build step failed).
        """
        ...

    def check_room(self, ref: ClusterRef, flavors: Sequence[Flavor]) -> None:
        """Refuse what cannot fit before anything is made; ``flavors`` are those of machines still to be made.

        Raises:
            QuotaError: with what was asked, used and allowed.
        """
        ...

    def check_user_data(self, user_data: str) -> None:
        """Refuse what a machine cannot be given at its creation, before anything is made.

        Raises:
            PermanentError: it is too large.
        """
        ...

    def allowances(self) -> Mapping[str, Allowance]:
        """The project's quota by resource; empty where there is none."""
        ...

    def layout(self, ref: ClusterRef, wishes: Wishes, observed: Observed) -> Layout:
        """What this cluster needs around its machines; the network that it has already stays the one.

        Raises:
            PermanentError: a network, an address or a zone that the spec names is not there, or cannot be used.
        """
        ...

    def observe(self, ref: ClusterRef, since: Observed | None = None) -> Observed:
        """Everything that carries the cluster's tag, without health; a foreign network where its ports lie on one.

        Args:
            since: an earlier picture: only machines are looked at, the rest is taken from it.
        """
        ...

    def offspring(self, ref: ClusterRef) -> Sequence[Part]:
        """What the cluster's own software made for it on the cloud, each with its ``maker``; :meth:`observe` has none.

        Asked for only when the cluster shall go. By the exact mark that the software writes: nothing of any other
        cluster's, in the same project or not. :meth:`delete_part` and :meth:`keep_volumes` take these, too, and look
        at the mark again.
        """
        ...

    def clusters(self) -> Sequence[ClusterSummary]:
        """Every vcluster cluster that the caller may see, of all creators, also those of which only leftovers exist."""
        ...

    def create_network(self, ref: ClusterRef, tag: str, apart: Sequence[str] = ()) -> Network:
        """Make the cluster's own network.

        Args:
            apart: networks that its addresses must not be among, where it has any before its subnet is made.
        """
        ...

    def create_part(self, ref: ClusterRef, request: PartRequest, observed: Observed) -> Part:
        """Make a part, or complete the one of its kind and name that is not ready.

        Args:
            observed: where it finds what it hangs on (the network, the subnet, the head's port).

        Raises:
            ConflictError: what it hangs on is not there, or not any more.
            QuotaError: there is no room.
        """
        ...

    def create_volume(self, ref: ClusterRef, request: VolumeRequest) -> Part:
        """Make a volume from an image; returns before it is ready."""
        ...

    def delete_part(self, ref: ClusterRef, part: Part) -> None:
        """Ask for a part to go (a gateway: detach it from its router). Unknown uuid: no error.

        Raises:
            ConflictError: something still uses it.
        """
        ...

    def keep_volumes(self, ref: ClusterRef, parts: Sequence[Part]) -> None:
        """Let these volumes, and snapshots, outlive their machines and the cluster, and mark them as kept."""
        ...

    def create_ports(self, ref: ClusterRef, requests: Sequence[PortRequest]) -> Sequence[Port]:
        """Make ports in one bulk call, all or none.

        Raises:
            ConflictError: one of them exists, or the network is gone.
        """
        ...

    def create_machine(self, ref: ClusterRef, request: MachineRequest) -> Machine:
        """Make a machine on its port and boot it; returns before it is up.

        Raises:
            ConflictError: the port is in use, or gone.
            QuotaError: there is no room.
        """
        ...

    def delete_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Ask for a machine and its disks to go; done when it is no longer observed. Unknown uuid: no error."""
        ...

    def delete_ports(self, ref: ClusterRef, uuids: Sequence[str]) -> None: ...

    def delete_network(self, ref: ClusterRef, uuid: str) -> None: ...

    def start_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Boot a machine that is off. Already on: no error."""
        ...

    def stop_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Shut a machine down in order, by force after a grace time. Already off: no error."""
        ...

    def reboot_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Hard reset; also mends a machine in ERROR where its disk is still there."""
        ...

    def shelve_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Shut a machine down, keep its disk and give back what it runs on. Already shelved: no error."""
        ...

    def unshelve_machine(self, ref: ClusterRef, uuid: str) -> None:
        """Boot a shelved machine. Already on: no error."""
        ...

    def annotate(self, ref: ClusterRef, notes: dict[str, str]) -> None:
        """Write words of :attr:`Observed.notes`; an empty value removes one. They go with the last resource.

        A key and its value together have at most 58 characters of ASCII, without a comma.
        """
        ...

    def console(self, ref: ClusterRef, uuid: str, lines: int) -> str:
        """The last lines of a machine's serial console."""
        ...

    def forward(self, ref: ClusterRef, uuid: str) -> Endpoint | None:
        """Where a machine's SSH is reached from here; None for a machine with no way in."""
        ...

    def close(self) -> None: ...
