"""Which of several counts: races and lost answers make twins, and everybody must pick the same one of them.

Planner, loop and clouds ask here. What is picked depends on what was seen alone, so that two runs that see the same
pick the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vcluster.model import ClusterRef, Network, Observed, Part, PartKind, Port, Role

__all__ = ["PartKey", "chosen_network", "chosen_part", "chosen_parts", "chosen_ports", "own"]

PartKey = tuple[PartKind, str]
"""What tells two parts of one cluster apart: kind and name."""


def own(observed: Observed, ref: ClusterRef) -> Observed:
    """Only what carries the cluster's tag: checked on this side too, since a cloud may drop a filter silently.

    A network that was there before carries none; it stays in the picture, because ports lie on it.
    """
    tags = {n.tag for n in observed.networks} | {p.tag for p in observed.ports} | {m.tag for m in observed.machines}
    mine = {tag for tag in tags | {p.tag for p in observed.parts} if ref.owns(tag)}
    return replace(
        observed,
        networks=tuple(n for n in observed.networks if n.foreign or n.tag in mine),
        ports=tuple(p for p in observed.ports if p.tag in mine),
        machines=tuple(m for m in observed.machines if m.tag in mine),
        parts=tuple(p for p in observed.parts if p.tag in mine),
    )


def chosen_network(observed: Observed) -> Network | None:
    """The network that counts, where it is listed."""
    uuid = _network_uuid(observed)
    return next((network for network in observed.networks if network.uuid == uuid), None)


def chosen_ports(observed: Observed) -> dict[str, Port]:
    """The port that counts for each name: the one a machine holds, else the oldest. Others are twins.

    None counts that is on another network than the head's port, or on another subnet of it: there nobody would see it.
    """
    ranked = _by_rank(observed)
    network = _network_of(ranked) or _network_uuid(observed)
    subnet = next((port.subnet for port in ranked if port.network), "")
    chosen: dict[str, Port] = {}
    for port in ranked:
        if port.network in ("", network) and (not subnet or port.subnet in ("", subnet)):
            chosen.setdefault(port.name, port)
    return chosen


def chosen_part(observed: Observed, kind: PartKind, name: str) -> Part | None:
    """The part of this kind and name that counts, as :func:`chosen_parts` has it."""
    few = tuple(p for p in observed.parts if p.kind in (kind, PartKind.GATEWAY))
    return chosen_parts(replace(observed, parts=few)).get((kind, name))


def chosen_parts(observed: Observed) -> dict[PartKey, Part]:
    """The standing part that counts for each kind and name; volumes, which come and go with machines, are left out.

    A subnet or gateway on another network never counts. First comes what the head's port uses, then another port of the
    cluster, then what belongs to the network; then what is in use at all, then what is without fault, then what is
    ready, then what is oldest.
    """
    ranked = _by_rank(observed)
    network = _network_of(ranked) or _network_uuid(observed)
    head = next((port.uuid for port in ranked if _is_head(port)), "")
    gateways = [part for part in observed.parts if part.kind is PartKind.GATEWAY]
    legs = {part.used_by for part in gateways if not network or part.network in ("", network)}

    ports = {port.uuid for port in ranked}

    def far(part: Part) -> int:
        if not part.used_by:
            return 2 if part.uuid in legs else 3
        return 0 if part.used_by == head else 1 if part.used_by in ports else 2 if part.used_by == network else 3

    def rank(part: Part) -> tuple[int, bool, bool, bool, float, str]:
        return (far(part), not part.used_by, bool(part.fault), not part.ready, part.created, part.uuid)

    chosen: dict[PartKey, Part] = {}
    for part in sorted((p for p in observed.parts if p.kind is not PartKind.VOLUME), key=rank):
        if not network or part.network in ("", network):
            chosen.setdefault((part.kind, part.name), part)
    return chosen


def _network_uuid(observed: Observed) -> str:
    """The network of the head's port (which is the claim), else of any port, else the first one listed."""
    uuid = _network_of(_by_rank(observed))
    return uuid or min(((n.foreign, n.uuid) for n in observed.networks), default=(False, ""))[1]


def _network_of(ranked: Iterable[Port]) -> str:
    return next((port.network for port in ranked if port.network), "")


def _is_head(port: Port) -> bool:
    return port.tag.endswith(f"/{Role.HEAD}")


def _by_rank(observed: Observed) -> list[Port]:
    """The head's ports first; of them, and of the others, those that a machine holds, then the oldest."""
    live = {machine.uuid for machine in observed.machines}
    held = {machine.port for machine in observed.machines}

    def rank(port: Port) -> tuple[bool, bool, float, str]:
        return (not _is_head(port), port.device not in live and port.uuid not in held, port.created, port.uuid)

    return sorted(observed.ports, key=rank)
