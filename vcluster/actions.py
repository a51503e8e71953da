"""The planner's vocabulary: a goal, actions in waves, and the plan that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType

from vcluster.model import Network, Part, PartRequest, Slot

__all__ = [
    "NOTE_ATTEMPTS",
    "NOTE_EXPIRES",
    "NOTE_LEAVING",
    "NOTE_READY",
    "NOTE_SPEC",
    "Action",
    "Goal",
    "Plan",
    "Power",
    "Verb",
    "Wave",
]

NOTE_SPEC = "spec"
NOTE_READY = "ready-at"
NOTE_ATTEMPTS = "attempts/"
NOTE_LEAVING = "leaving"
NOTE_EXPIRES = "expires"
"""Seconds since the epoch after which ``vcluster reap`` shelves the cluster."""


class Power(StrEnum):
    """What is wanted of a cluster as a whole."""

    RUNNING = "running"
    STOPPED = "stopped"
    SHELVED = "shelved"
    ABSENT = "absent"


class Verb(StrEnum):
    """What an action does."""

    CREATE_NETWORK = "create network"
    CREATE_PORTS = "create ports"
    CREATE_MACHINE = "create machine"
    START = "start machine"
    STOP = "stop machine"
    REBOOT = "reboot machine"
    DRAIN = "drain worker"
    RESUME = "resume worker"
    SHELVE = "shelve machine"
    UNSHELVE = "unshelve machine"
    CREATE_PART = "create part"
    CREATE_VOLUME = "create volume"
    KEEP_VOLUMES = "keep volumes"
    DELETE_PART = "delete part"
    DELETE_MACHINE = "delete machine"
    DELETE_PORTS = "delete ports"
    DELETE_NETWORK = "delete network"
    NOTE = "write note"


class Wave(IntEnum):
    """The order of a plan.

    KEEP comes before anything is deleted: what shall stay must not go with its machine. Then load balancers: traffic
    ends before the machines do that it is for, and they hold addresses. Security groups go last: their tags carry the
    notes, on a network that is not ours there is nothing else to.
    """

    KEEP = -2
    FREE_BALANCERS = -1
    REPAIR = 0
    NETWORK = 1
    SUBNET = 2
    CLAIM = 3
    PORTS = 4
    ADDRESSES = 5
    MACHINES = 6
    FREE_PORTS = 7
    FREE_GATEWAY = 8
    FREE_ROUTER = 9
    FREE_NETWORK = 10
    FREE_GROUPS = 11
    FINISH = 12


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do.

    Attributes:
        names: the resources' names; more than one only for ports, which go in one bulk call.
        uuids: what is changed or deleted; empty for a creation.
        why: a few words for the person who watches.
        slot: the place that a new machine or volume is for.
        part: the part that is made.
        old: the part that goes, or is completed.
        kept: the volumes that shall stay.
        volume: uuid of the volume that a new machine boots from, once that is ready.
        failed: the machine failed, and its console is kept before it goes; or the volume that a place waits for did.
        destroys_data: a person should agree first.
        notes: what is written before the action itself is done (write-ahead), so that a crash cannot lose it.
    """

    verb: Verb
    wave: Wave
    names: tuple[str, ...]
    uuids: tuple[str, ...] = ()
    why: str = ""
    slot: Slot | None = None
    part: PartRequest | None = None
    old: Part | None = None
    kept: tuple[Part, ...] = ()
    volume: str = ""
    failed: bool = False
    destroys_data: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What it is done to: ``machine``, ``ports``, and of parts their own kind: ``floating ip``."""
        of_part = self.part or self.old
        return str(of_part.kind).replace("-", " ") if of_part is not None else str(self.verb).split(" ", 1)[1]

    @property
    def title(self) -> str:
        """What is done to what kind of resource: ``create floating ip``."""
        return f"{str(self.verb).split(' ', 1)[0]} {self.kind}"

    @property
    def subject(self) -> str:
        """The resource's name, or how many there are."""
        return self.names[0] if len(self.names) == 1 else f"{self.names[0]} … {self.names[-1]} ({len(self.names)})"

    def __str__(self) -> str:
        return f"{self.title} {self.subject}" + (f": {self.why}" if self.why else "")


@dataclass(frozen=True, slots=True)
class Goal:
    """What is wanted, in the planner's terms.

    Attributes:
        slots: every place up to each group's maximum; all get a port.
        wanted: names of the slots that shall have a machine.
        minimum: group name to the number of workers that is enough to go on.
        digest: the spec's digest, written on the cluster.
        replace: uuids of machines that shall be made anew.
        given_up: machine name to the reason why this run makes no further attempt.
        doubted: uuid of a machine that does not prove itself, of a volume that is not ready, or of a head's port
            without a machine, to the time since when this run sees it so.
        asleep: uuids of machines that this run asked the cloud in vain, again and again, to switch on.
        heard: the head answered this run at least once; if not, it may be this computer that cannot reach it.
        boot_timeout: seconds from start to the first job before a machine counts as failed.
        max_attempts: how often a failed machine is replaced or rebooted, over all runs.
        keep_failed: leave a machine that failed for good, for a person to look at.
        network: a network that exists and is used; None: the cluster has its own.
        apart: networks that its own must not overlap.
        parts: every standing part that it shall have.
        claim: fingerprint of the secret that this run would make machines with; a head's port with another one is
            somebody else's claim. Empty: claims are not looked at.
        claim_patience: seconds after which a claim without a head counts as abandoned.
        claim_settle: seconds until an own claim stands, after which nobody can show an older one: clouds tell times of
            creation in whole seconds, and show what was created a little later. The loop adds the cloud's lag to it;
            where listings do not lag, a claim stands at once.
        spent: uuids of volumes that this run saw in use; one that is left when its machine goes is never booted again.
        began: when the run began, by the cloud's clock.
        notes: words to write as soon as the claim stands, where they are missing.
        job_patience: seconds that jobs may go on running while a cluster is stopped or shelved.
        keep_volumes: with ABSENT, let the volumes stay that people have files on.
        doors: the head's ports that are for people, beside SSH.
        self_contained: what runs on the cluster makes nothing on the cloud.
        peers: machines that are with the head several of one kind: while most of all these are on, a head that is lost
            takes nothing with it, and is made anew to join them. Empty: everything hangs on the head.
        zones: the cloud's availability zones, where this run had to ask; a machine for which there was no host is made
            anew in another one.
    """

    power: Power
    slots: tuple[Slot, ...] = ()
    wanted: frozenset[str] = frozenset()
    minimum: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    digest: str = ""
    replace: frozenset[str] = frozenset()
    given_up: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    doubted: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    asleep: frozenset[str] = frozenset()
    heard: bool = True
    boot_timeout: float = 600.0
    max_attempts: int = 2
    keep_failed: bool = False
    network: Network | None = None
    apart: tuple[str, ...] = ()
    parts: tuple[PartRequest, ...] = ()
    claim: str = ""
    claim_patience: float = 120.0
    claim_settle: float = 2.0
    spent: frozenset[str] = frozenset()
    began: float = 0.0
    notes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    job_patience: float = 0.0
    keep_volumes: bool = False
    doors: tuple[int, ...] = ()
    self_contained: bool = False
    peers: frozenset[str] = frozenset()
    zones: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in the order of their waves.

    Attributes:
        actions: what is still to be done.
        waiting: what others (the cloud, a booting machine) still have to do, one phrase each.
        lost: machines that failed for good, with the reason.
        degraded: names of wanted workers that the cluster goes on without.
        hopeless: why the goal cannot be reached; empty while it can.
        claimed: the fingerprint of somebody else's claim that holds; empty when there is none. Then nothing is made:
            the caller gets that secret from the head, and plans again with it.
        unseen: what is waited for (volumes, addresses, claims) shows only in a look at everything.
    """

    actions: tuple[Action, ...] = ()
    waiting: tuple[str, ...] = ()
    lost: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    degraded: tuple[str, ...] = ()
    hopeless: str = ""
    claimed: str = ""
    unseen: bool = False

    @property
    def empty(self) -> bool:
        """Nothing to do and nothing to wait for."""
        return not self.actions and not self.waiting

    def first_wave(self) -> tuple[Action, ...]:
        """The actions that may run now, all at the same time."""
        if not self.actions:
            return ()
        first = self.actions[0].wave
        return tuple(action for action in self.actions if action.wave == first)
