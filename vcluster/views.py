"""What the facade hands out: plans, states and results as plain frozen data, ready for JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from vcluster.actions import Action, Plan
from vcluster.capacity import Capacity
from vcluster.clouds.base import ClusterSummary
from vcluster.expiry import expiry_of
from vcluster.hub import HubDoor, HubStatus
from vcluster.identity import natural
from vcluster.model import ClusterRef, Endpoint, Health, MachineState, Observed, PartKind, Role, Slot
from vcluster.plan_peers import is_peer
from vcluster.prices import Cost
from vcluster.quota import Need

__all__ = ["ClusterInfo", "MachineStatus", "PlanView", "PlannedAction", "Result", "Status"]


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """One line of a plan.

    Attributes:
        verb: ``create``, ``delete``, ``start``, ``stop``, ``reboot``, ``drain``, ``resume``, ``shelve``, ``unshelve``,
            ``keep`` or ``write``.
        kind: ``network``, ``port``, ``machine``, ``worker``, ``note``, ``volume``, or another part's, as ``router``.
        uuid: empty for what does not exist yet.
        destroys_data: a person is asked first.
    """

    verb: str
    kind: str
    name: str
    uuid: str
    detail: str
    destroys_data: bool


@dataclass(frozen=True, slots=True)
class PlanView:
    """What would be done, in order, and what is being waited for.

    Attributes:
        problem: why the cluster cannot become what is wanted; empty when it can.
        place: where it would be done: the project's name, the region, and who asks.
        quota: what it needs of the project's quota.
        cost: what it costs; None when that is not known.
        notebooks: how many fit, with a Hub.
    """

    actions: tuple[PlannedAction, ...]
    waiting: tuple[str, ...]
    problem: str = ""
    place: str = ""
    quota: tuple[Need, ...] = ()
    cost: Cost | None = None
    notebooks: Capacity | None = None

    @property
    def empty(self) -> bool:
        """Nothing to do."""
        return not self.actions and not self.waiting and not self.problem

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "quota": [{**asdict(need), "fits": need.fits} for need in self.quota]}

    @classmethod
    def of(cls, plan: Plan) -> PlanView:
        """A plan as people read it: bulk actions taken apart."""
        actions = (line for action in plan.actions for line in _lines(action))
        return cls(tuple(actions), plan.waiting, plan.hopeless)


def _lines(action: Action) -> Iterator[PlannedAction]:
    verb, _, kind = str(action.verb).partition(" ")
    if action.part is not None or action.old is not None:
        kind = str(action.part.kind if action.part else action.old.kind if action.old else kind).replace("-", " ")
    for index, name in enumerate(action.names):
        uuid = action.uuids[index] if action.uuids else ""
        detail = action.why
        if not detail and action.slot is not None:
            detail = _size(action.slot, kind)
        yield PlannedAction(verb, kind.rstrip("s"), name, uuid, detail, action.destroys_data)


def _size(slot: Slot, kind: str) -> str:
    flavor, disk = slot.flavor, slot.root_disk or slot.flavor.disk
    if kind == PartKind.VOLUME:
        return f"{disk} GiB"
    return f"{flavor.name} ({flavor.cpus} cpu, {flavor.memory} MiB, {disk} GiB)"


@dataclass(frozen=True, slots=True)
class MachineStatus:
    """One machine as seen now.

    Attributes:
        endpoint: where its SSH is reached from here, or None.
        web: where its port 443 is reached from here, or None.
    """

    name: str
    role: str
    group: str
    state: str
    health: str
    address: str
    uuid: str
    flavor: str
    endpoint: Endpoint | None
    fault: str
    web: Endpoint | None = None

    @property
    def is_server(self) -> bool:
        """Whether it is one of several Kubernetes servers, beside the head."""
        return is_peer(self)


@dataclass(frozen=True, slots=True)
class Status:
    """A cluster as seen now.

    Attributes:
        state: ready, degraded, pending, stopped, shelved or absent.
        owner: who made it, where somebody else did.
        expires: when its time is up, seconds since the epoch; None when it never is.
        cost: units an hour, as it is now; None when that is not known.
        unit: what ``cost`` counts.
        hub: its JupyterHub; None where there is none, or nobody can tell.
    """

    name: str
    id: str
    cloud: str
    state: str
    machines: tuple[MachineStatus, ...]
    owner: str = ""
    expires: float | None = None
    cost: float | None = None
    unit: str = ""
    hub: HubStatus | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def of(cls, name: str, identity: str, cloud: str, observed: Observed, wanted: frozenset[str]) -> Status:
        """Read a status off what was observed; ``wanted`` may be empty when the spec is not known here."""
        order = sorted(
            observed.machines, key=lambda m: (m.role is not Role.HEAD, not is_peer(m), m.group, natural(m.name))
        )
        machines = tuple(
            MachineStatus(
                name=m.name,
                role=str(m.role),
                group=m.group,
                state=str(m.state),
                health=str(observed.health.get(m.name, Health.UNKNOWN)),
                address=m.address,
                uuid=m.uuid,
                flavor=m.flavor,
                endpoint=m.endpoint,
                fault=m.fault,
                web=m.web,
            )
            for m in order
        )
        expiry = expiry_of(observed.notes)
        return cls(name, identity, cloud, _state(observed, wanted), machines, expires=expiry.at if expiry else None)


def _state(observed: Observed, wanted: frozenset[str]) -> str:
    if observed.empty:
        return "absent"
    if observed.machines and all(m.state is MachineState.SHUTOFF for m in observed.machines):
        return "stopped"
    head = observed.head
    if head is not None and head.state is MachineState.SHELVED:
        return "shelved"
    ready = {name for name, health in observed.health.items() if health is Health.READY}
    if head is None or head.name not in ready:
        return "pending"
    expected = wanted or {machine.name for machine in observed.machines}
    return "ready" if expected <= ready else "degraded"


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended.

    Attributes:
        seconds: wall-clock time.
        hub: the front door of its JupyterHub, after :meth:`vcluster.cluster.Cluster.up` and the like; None without.
        scheduler: what runs its jobs, after such a call; else empty.
    """

    changed: bool
    degraded: tuple[str, ...]
    seconds: float
    status: Status
    hub: HubDoor | None = None
    scheduler: str = ""


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """One cluster of a project, as ``vcluster list`` shows it.

    Attributes:
        ref: gives this very cluster to :class:`vcluster.cluster.Cluster`, whoever made it.
        owner: who made it, by name or else by id.
        mine: the caller made it.
        created: when, seconds since the epoch; 0 when nothing of it tells.
        expires: when its time is up, seconds since the epoch; None when it never is.
        cost: units an hour, as it is now; None when that is not known.
        unit: what ``cost`` counts.
        headless: its head is gone: what is there are leftovers.
    """

    ref: ClusterRef
    owner: str
    mine: bool
    machines: int
    active: int
    created: float
    expires: float | None = None
    cost: float | None = None
    unit: str = ""
    headless: bool = False

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.ref.name

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        data = {key: value for key, value in asdict(self).items() if key != "ref"}
        return {"name": self.ref.name, "id": self.ref.id, **data}

    @classmethod
    def of(cls, summary: ClusterSummary, *, mine: bool, cost: float | None, unit: str) -> ClusterInfo:
        """Read it off what a cloud tells."""
        expiry = expiry_of(summary.notes)
        return cls(
            ref=summary.ref,
            owner=summary.ref.owner or summary.ref.creator,
            mine=mine,
            machines=summary.machines,
            active=summary.active,
            created=summary.created,
            expires=expiry.at if expiry else None,
            cost=cost,
            unit=unit,
            headless=summary.headless,
        )
