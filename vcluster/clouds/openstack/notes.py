"""The few words that a later run must know, as Neutron tags on the resource of the cluster that goes last.

One tag at a time is added or removed, never the whole list written: two runs that write different words at the same
moment both get their way. A new word is written before the old one goes, so that a killed run loses none.

Neutron takes 50 tags. How often each of many workers failed may take some of them and never all: what finds no place
is remembered by this process alone, so a later run may repair such a worker once more often.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from vcluster.clouds.openstack import marks
from vcluster.clouds.openstack.connect import Services
from vcluster.clouds.openstack.known import Known
from vcluster.clouds.openstack.observe import group_listing
from vcluster.clouds.openstack.rest import Json
from vcluster.errors import PermanentError
from vcluster.model import ClusterRef, PartKind, Role

__all__ = ["ATTEMPTS_ROOM", "Notes"]

ATTEMPTS = "attempts/"
"""How the keys begin that count failures: the only ones of which there are many."""

ATTEMPTS_ROOM = 35
"""How many of those go on the cloud; the rest of Neutron's 50 is for the words that commands say to each other."""

_FULL = re.compile(r"number of tags|tags? .*\b(?:limit|maximum|too many)", re.I)


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
            room = not notes[key] or not key.startswith(ATTEMPTS) or self._has_room(ref, carrier, key)
            done = room and self._write(ref, carrier, key, tag if notes[key] else "")
            self._known.remember(ref, key, "" if done else notes[key])
            if not notes[key]:
                self._known.leave_place(ref, key)

    def _has_room(self, ref: ClusterRef, carrier: _Carrier, key: str) -> bool:
        listed = {k for k in marks.notes_of(carrier.tags) if k.startswith(ATTEMPTS)}
        return self._known.take_place(ref, key, listed, ATTEMPTS_ROOM)

    def _write(self, ref: ClusterRef, carrier: _Carrier, key: str, tag: str) -> bool:
        """Put a tag, then take the old ones of its key away; without one only that. False: there is no place."""
        beginning = marks.note_tag(key, "")
        old = sorted(t for t in carrier.tags if t.startswith(beginning) and t != tag)
        if tag and tag not in carrier.tags:
            try:
                self._put(carrier, key, tag)
            except PermanentError as error:
                if not _FULL.search(error.message):
                    raise
                if key.startswith(ATTEMPTS):
                    return False
                self._make_room(ref, carrier, old, error)
                self._put(carrier, key, tag)
        for one in old:
            self._drop(carrier, one)
        return True

    def _make_room(self, ref: ClusterRef, carrier: _Carrier, old: list[str], full: PermanentError) -> None:
        """Take away what matters less than the word to be written: that word's old value, or a count of failures."""
        counts = sorted(t for t in carrier.tags if t.startswith(ATTEMPTS.replace("/", ":")))
        if not old and not counts:
            raise full
        if not old:
            for key, value in marks.notes_of(counts[:1]).items():
                self._known.remember(ref, key, value)
        self._drop(carrier, (old or counts)[0])

    def _put(self, carrier: _Carrier, key: str, tag: str) -> None:
        self._services.network.put(f"{carrier.path}/tags/{quote(tag, safe='')}", doing=f"write note {key}", safe=True)

    def _drop(self, carrier: _Carrier, tag: str) -> None:
        doing = f"drop note {tag.partition('=')[0]}"
        self._services.network.delete(f"{carrier.path}/tags/{quote(tag, safe='')}", doing=doing)

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
