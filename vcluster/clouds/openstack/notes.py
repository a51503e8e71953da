"""The few words that a later run must know, as Neutron tags on the resource of the cluster that goes last.

One tag at a time is added or removed, never the whole list written: two runs that write different words at the same
moment both get their way. A new word is written before the old one goes, so that a killed run loses none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from vcluster.clouds.openstack import marks
from vcluster.clouds.openstack.connect import Services
from vcluster.clouds.openstack.known import Known
from vcluster.clouds.openstack.observe import group_listing
from vcluster.clouds.openstack.rest import Json
from vcluster.model import ClusterRef, PartKind, Role

__all__ = ["Notes"]


@dataclass(frozen=True, slots=True)
class _Carrier:
    path: str
    tags: frozenset[str]


class Notes:
    """Writes notes.

    Args:
        services: the cloud.
        known: which of two groups of one name counts.
    """

    def __init__(self, services: Services, known: Known) -> None:
        self._services = services
        self._known = known

    def write(self, ref: ClusterRef, notes: Mapping[str, str]) -> None:
        """Write words, and remove those that are empty. A cluster of which nothing is there has no place for any.

        Raises:
            PermanentError: a word is too long, or has letters that Neutron's tags may not have.
        """
        tags = {key: marks.note_tag(key, value) for key, value in notes.items()}
        carrier = self._carrier(ref)
        if carrier is None:
            return
        for key, tag in tags.items():
            beginning = marks.note_tag(key, "")
            if notes[key] and tag not in carrier.tags:
                path = f"{carrier.path}/tags/{quote(tag, safe='')}"
                self._services.network.put(path, doing=f"write note {key}", safe=True)
            for old in sorted(carrier.tags):
                if old.startswith(beginning) and (old != tag or not notes[key]):
                    self._services.network.delete(
                        f"{carrier.path}/tags/{quote(old, safe='')}", doing=f"drop note {key}"
                    )

    def _carrier(self, ref: ClusterRef) -> _Carrier | None:
        """The security group of the members; without one the head's port, then the cluster's own network."""
        name = marks.group_name(ref, "members")
        groups = [told for told in group_listing(self._services, ref) if told.get("name") == name]
        counts = self._known.group(ref, PartKind.SECURITY_GROUP, "members")
        chosen = [told for told in groups if told["id"] == counts] or groups
        if (found := _first(ref, "/security-groups", chosen)) is not None:
            return found
        network = self._services.network
        for path, key, tag in (
            ("/ports", "ports", ref.tag(Role.HEAD)),
            ("/networks", "networks", ref.tag(Role.NETWORK)),
        ):
            told = network.listing(path, key, doing=f"list {key}", params={"description": tag})
            if (found := _first(ref, path, told)) is not None:
                return found
        return None


def _first(ref: ClusterRef, path: str, told: list[Json]) -> _Carrier | None:
    """The oldest of ours: the one whose word counts when they are read."""
    ours = [t for t in told if ref.owns(marks.tag_in(t.get("description")))]
    if not ours:
        return None
    first = min(ours, key=lambda t: (str(t.get("created_at", "")), str(t["id"])))
    return _Carrier(f"{path}/{first['id']}", frozenset(first.get("tags", [])))
