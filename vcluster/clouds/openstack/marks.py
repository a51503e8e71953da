"""How identity, names and notes are written on resources, and read off them again.

The identity of a resource is in its create call, in whatever field its service offers for that: Neutron's
``description``, Nova's and Cinder's metadata, a server group's name. Nova's tags serve for filtering only: they may
hold no slash. Names are for people, but for two: the head port's ends with its claim, and a security group's name is
what the service is asked for, since a description that begins with a word cannot be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vcluster.errors import PermanentError
from vcluster.identity import TAG_PREFIX
from vcluster.model import ClusterRef, PartKind, Role

__all__ = [
    "GROUP",
    "HOST_KEY",
    "KEPT",
    "MARK",
    "OPEN",
    "PORT",
    "SELF_CONTAINED",
    "SLOT",
    "Signature",
    "check_note",
    "claim_of",
    "cluster_of",
    "group_name",
    "note_tag",
    "notes_of",
    "port_name",
    "server_group_name",
    "server_tag",
    "signature",
    "signed",
    "slot_name",
    "tag_in",
    "volume_mark",
]

MARK = "vcluster"
NAME = "vcluster-name"
OWNER = "vcluster-owner"
USER = "vcluster-user"
SLOT = "vcluster-slot"
GROUP = "vcluster-group"
PORT = "vcluster-port"
HOST_KEY = "vcluster-host-key"
SELF_CONTAINED = "vcluster-self-contained"
KEPT = "vcluster-kept"
OPEN = "vcluster-open"
"""A tag of a security group that had all the rules it needs without ours."""


NOTE_LENGTH = 60
"""Characters of a Neutron tag, in clouds older than Zed."""

_TAG = re.compile(rf"^({TAG_PREFIX}/([0-9a-f]{{10}})/([a-z-]+))(?=\s|$)")
_SIGNATURE = re.compile(r" name=(\S+) owner=(.*) user=(\S+)$")
_SERVER_GROUP = re.compile(rf"^{TAG_PREFIX}/([0-9a-f]{{10}})/workers$")


@dataclass(frozen=True, slots=True)
class Signature:
    """Which cluster a resource is of, as far as the resource tells."""

    id: str
    name: str = ""
    owner: str = ""
    user: str = ""


def tag_in(text: str | None) -> str:
    """The tag at the beginning of a description; empty when it is not ours."""
    match = _TAG.match(text or "")
    return match.group(1) if match else ""


def cluster_of(tag: str) -> str:
    """The cluster's id in a tag, or in a server group's name; empty when it is neither."""
    match = _TAG.match(tag) or _SERVER_GROUP.match(tag)
    return (match.group(2) if match.re is _TAG else match.group(1)) if match else ""


def server_tag(ref: ClusterRef) -> str:
    """The word that Nova is asked for."""
    return f"{TAG_PREFIX}-{ref.id}"


def server_group_name(ref: ClusterRef) -> str:
    return f"{TAG_PREFIX}/{ref.id}/workers"


def group_name(ref: ClusterRef, part: str) -> str:
    """A security group's name: Neutron is asked for it."""
    return f"{ref.name}-{part}.{ref.id}"


def signed(ref: ClusterRef, tag: str) -> str:
    """A description with the cluster's name and owner, for ``list`` to read where no server tells."""
    return f"{tag} name={ref.name} owner={ref.owner[:60]} user={ref.creator}"


def volume_mark(ref: ClusterRef, tag: str, slot: str) -> dict[str, str]:
    """Metadata of a volume, and the first words of a server's."""
    return {MARK: tag, NAME: ref.name, OWNER: ref.owner[:60], USER: ref.creator, SLOT: slot}


def signature(text: str | Mapping[str, str] | None) -> Signature | None:
    """What a description or metadata tells of its cluster; None when it is not ours."""
    if text is None:
        return None
    if isinstance(text, str):
        tag = tag_in(text)
        told = _SIGNATURE.search(text[len(tag) :]) if tag else None
        if not tag:
            return None
        name, owner, user = told.groups() if told else ("", "", "")
        return Signature(cluster_of(tag), name, owner, user)
    tag = tag_in(text.get(MARK))
    if not tag:
        return None
    return Signature(cluster_of(tag), text.get(NAME, ""), text.get(OWNER, ""), text.get(USER, ""))


# Names of ports and machines ------------------------------------------------------------------------------------


def port_name(ref: ClusterRef, slot: str, claim: str = "") -> str:
    return f"{ref.name}-{slot}" + (f".{claim}" if claim else "")


def slot_name(ref: ClusterRef, name: str) -> str:
    """The slot's name out of a port's or server's: ``demo-cpu-1`` is ``cpu-1``."""
    return name.removeprefix(f"{ref.name}-").partition(".")[0]


def claim_of(name: str) -> str:
    """The claim at the end of a head port's name; empty when there is none."""
    return name.rpartition("-")[2].partition(".")[2]


# Notes ----------------------------------------------------------------------------------------------------------


def note_tag(key: str, value: str) -> str:
    """A note as a Neutron tag. A slash in the key would end the tag in the URL that sets it.

    Raises:
        PermanentError: Neutron takes no such tag.
    """
    check_note(key, value)
    return f"{key.replace('/', ':')}={value}"


def check_note(key: str, value: str) -> None:
    """Refuse a note that Neutron would refuse, or read back otherwise."""
    text = f"{key}={value}"
    if len(text) > NOTE_LENGTH or not text.isascii() or not text.isprintable() or "," in text or "/" in value:
        raise PermanentError(f"this note cannot be kept on the cloud: {text!r}")


def notes_of(*carriers: Iterable[str]) -> dict[str, str]:
    """The notes among the tags of several resources; the first carrier's word counts.

    Where a killed run left two words for one key, the greater one holds: of times and counts that is the newer.
    """
    notes: dict[str, str] = {}
    for tags in carriers:
        mine: dict[str, str] = {}
        for tag in sorted(tags):
            key, sign, value = tag.partition("=")
            if sign and value:
                mine[key.replace(":", "/")] = value
        notes = mine | notes
    return notes


def role_of(tag: str) -> Role | None:
    """The role in a tag of a network, a port or a server."""
    word = tag.rpartition("/")[2]
    return Role(word) if word in {str(role) for role in Role} else None


def kind_of(tag: str) -> PartKind | None:
    """The kind in a part's tag."""
    word = tag.rpartition("/")[2]
    return PartKind(word) if word in {str(kind) for kind in PartKind} else None
