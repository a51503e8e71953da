"""How the loop looks: at everything, at the machines alone, or not at all, where it knows what it did itself.

A listing of everything is a handful of requests, one of the machines is one. So a wave that succeeded is followed by
the next without looking where all goes in one direction, up or down, and while machines boot only they are looked at,
and everything now and then. No machine is deleted, no twin, and no run ends, but after a look at everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum

from vcluster.actions import Action, Plan, Verb, Wave
from vcluster.clouds.base import Cloud
from vcluster.errors import CloudError, TemporaryError
from vcluster.ledger import Ledger, Thing
from vcluster.model import ClusterRef, Health, Machine, MachineState, Observed, PartKind, Role
from vcluster.offspring import Offspring
from vcluster.plan import own
from vcluster.stacks.base import Control

__all__ = ["Look", "View", "doubts", "look_after", "suffices"]

WHOLE_EVERY = 15.0
"""Seconds after which a look at the machines alone is no longer enough."""

_LAGS_WITHOUT_NEWS = 5
"""After so many `down` believes its first look at nothing: who was making something when it began has ended that, which
was seen, or obeyed (vcluster.turn). A call that takes longer and ends in the last lag is missed, as later ones are."""

TAKEN_FOR = 10.0
"""Seconds for which a caller's look is as good as one's own."""

_CREATIONS = frozenset(
    {
        Verb.CREATE_NETWORK,
        Verb.CREATE_PART,
        Verb.CREATE_VOLUME,
        Verb.CREATE_PORTS,
        Verb.CREATE_MACHINE,
        Verb.NOTE,
    }
)
_FREES = frozenset({Verb.DELETE_PORTS, Verb.DELETE_PART, Verb.DELETE_NETWORK})
_OF_MACHINES = frozenset(
    {
        Verb.CREATE_MACHINE,
        Verb.START,
        Verb.STOP,
        Verb.REBOOT,
        Verb.SHELVE,
        Verb.UNSHELVE,
        Verb.DRAIN,
        Verb.RESUME,
        Verb.DELETE_MACHINE,
    }
)


_PROVED = (Health.READY, Health.BUSY, Health.DRAINED)


class Look(IntEnum):
    """How much is asked of the cloud; the greater includes the less. TAKEN: the caller has just looked wholly."""

    NONE = 0
    MACHINES = 1
    WHOLE = 2
    TAKEN = 3


def look_after(actions: Iterable[Action]) -> Look:
    """How to look after these actions, all of which succeeded."""
    return max((_look_after(action) for action in actions), default=Look.WHOLE)


def _look_after(action: Action) -> Look:
    if action.verb in _OF_MACHINES:
        return Look.MACHINES
    known = action.verb in _CREATIONS | _FREES and action.wave not in (Wave.CLAIM, Wave.FREE_BALANCERS)
    return Look.NONE if known and not action.destroys_data else Look.WHOLE


def suffices(look: Look, plan: Plan, *, leaving: bool) -> bool:
    """Whether a plan may be followed that was made after such a look.

    Args:
        leaving: all of the cluster shall go, so that what was seen of it need not be judged again.
    """
    if look >= Look.WHOLE:
        return True
    if plan.hopeless or plan.claimed:
        return False
    if look is Look.MACHINES:
        return bool(plan.waiting) and not plan.actions and not plan.unseen
    first = plan.first_wave()
    known = _FREES if leaving else _CREATIONS
    return bool(first) and all(action.verb in known and not action.destroys_data for action in first)


def doubts(observed: Observed, ref: ClusterRef) -> set[tuple[str, str]]:
    """What does not prove itself, by uuid: machines, volumes in the making, and the ports of a head that is not there.

    With each goes whether it is in ERROR or on its way out, which begins a time of its own.
    """
    own_time = (MachineState.ERROR, MachineState.DELETING)
    found = {
        (m.uuid, str(m.state) if m.state in own_time else "")
        for m in observed.machines
        if m.state in own_time or observed.health.get(m.name) not in _PROVED
    }
    found |= {(p.uuid, "") for p in observed.parts if p.kind is PartKind.VOLUME and not (p.ready or p.fault)}
    if observed.head is None:
        found |= {(port.uuid, "") for port in observed.ports if port.tag == ref.tag(Role.HEAD)}
    return found


class View:
    """What one run sees of its cluster.

    Args:
        read: runs a call that changes nothing, and again while it fails for a passing reason.
        whole: called with every look at everything, before what this run remembers is added.
        control: asked for the machines' health, while the head is on; None: nobody is asked.
        clock: the loop's, in seconds.
        host_key: the head's public SSH host key as this run knows it. A head that was made with another one is not
            asked: somebody else made it meanwhile, and the plan says so. Empty: whoever is there is asked.
        leaving: the cluster shall go: what its own software made is looked at as well.

    Attributes:
        heard: the head itself told something at least once. That a machine failed, its console tells as well.
    """

    def __init__(
        self,
        cloud: Cloud,
        ref: ClusterRef,
        ledger: Ledger,
        *,
        read: Callable[[Callable[[], Observed]], Observed],
        whole: Callable[[Observed], None],
        control: Control | None,
        clock: Callable[[], float],
        host_key: str = "",
        leaving: bool = False,
    ) -> None:
        self._cloud, self._ref, self._ledger = cloud, ref, ledger
        self._read, self._whole, self._clock = read, whole, clock
        self.control, self._host_key = control, host_key.split()[:2]
        self._offspring = Offspring(cloud, ref) if leaving else None
        self._listed = Observed()
        self._health: Mapping[str, Health] = {}
        self._whole_at = float("-inf")
        self._zones: tuple[str, ...] | None = None
        self._shown: frozenset[str] = frozenset()
        self._news, self._asked = float("inf"), float("-inf")
        self.began = 0.0
        self.heard = False

    @property
    def silence(self) -> str:
        """Why the head tells nothing or its Hub does not start, in brackets; empty where all is well or nobody asks."""
        why = self.control.silence if self.control is not None else ""
        return f" ({why})" if why else ""

    @property
    def unseen(self) -> str:
        """Why nobody knows what the cluster's own software left; empty where that was seen, or nobody asks."""
        return self._offspring.unseen if self._offspring is not None else ""

    def certain(self, lag: float, since: float) -> bool:
        """Whether "nothing is there" may be believed: what was made just before, by a killed run say, is listed late.

        Args:
            lag: the cloud's, in seconds.
            since: when this run first saw nothing, by the loop's clock.
        """
        if self._offspring is not None and self._offspring.looks_again():
            return False
        return self.without_news >= _LAGS_WITHOUT_NEWS * lag or self._clock() - since >= lag

    @property
    def without_news(self) -> float:
        """Seconds to the latest look from the end of the first, or of the last that showed more than the one before.

        By the loop's clock: the cloud's may be set anew when its first answer comes.
        """
        return max(0.0, self._asked - self._news)

    @property
    def stale(self) -> bool:
        """Whether everything was not looked at for long."""
        return self._clock() - self._whole_at >= WHOLE_EVERY

    def zones(self) -> tuple[str, ...]:
        """The cloud's availability zones, asked for once; without an answer a plan does without."""
        if self._zones is None:
            try:
                self._zones = tuple(self._cloud.zones())
            except TemporaryError:
                return ()
            except CloudError:
                self._zones = ()
        return self._zones

    def take(self, observed: Observed, began: float) -> bool:
        """Take somebody else's look at everything as one's own first; whether it is young enough for that."""
        self._see(own(observed, self._ref), began)
        if self._offspring is not None:
            self._offspring.learn(self._listed)
        return self._cloud.now() - began <= TAKEN_FOR

    def look(self, how: Look, *, ask: bool = True) -> Observed:
        """One picture of the cluster, with what this run did and the listing does not show yet.

        ``began`` says when the look began that it comes from, by the cloud's clock.

        Args:
            ask: ask for the machines' health too, and not believe what was said last.
        """
        if how in (Look.MACHINES, Look.WHOLE):
            self._asked, began = self._clock(), self._cloud.now()
            since = None if how is Look.WHOLE else self._listed
            listed = self._read(lambda: own(self._cloud.observe(self._ref, since), self._ref))
            self._see(self._offspring.beside(listed) if self._offspring and since is None else listed, began)
        if how >= Look.WHOLE:
            self._whole_at = self._clock()
            self._whole(self._listed)
        observed = self._ledger.merge(self._listed)
        if how <= Look.MACHINES:
            observed = self._ledger.without_deleted(observed)
        if how is not Look.NONE and ask:
            head = observed.head
            on = head is not None and head.state is MachineState.ACTIVE and self._is_ours(head)
            self._health = self.control.health(observed) if self.control is not None and on else {}
            self.heard = self.heard or any(word is not Health.FAILED for word in self._health.values())
        return observed.with_health(self._health)

    def _see(self, listed: Observed, began: float) -> None:
        self._listed, self.began = listed, began
        things: tuple[Thing, ...] = (*listed.networks, *listed.ports, *listed.machines, *listed.parts)
        shown = frozenset(thing.uuid for thing in things)
        if shown - self._shown or self._news == float("inf"):
            self._news = self._clock()
        self._shown = shown

    def _is_ours(self, head: Machine) -> bool:
        return not (self._host_key and head.host_key) or head.host_key.split()[:2] == self._host_key
