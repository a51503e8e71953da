"""All that a project has since a moment, a line each and without ids: two clusters of one spec look the same in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tests.lab.snapshot import Snapshot, difference

__all__ = ["compare", "kinds_in", "picture"]

Item = Mapping[str, Any]
Names = Callable[[str | None], str]
"""Gives the name of a thing by its id."""

_CLAIM = re.compile(r"\.[0-9a-f]+$")
"""At the end of a head port's name: another with each run that claims."""


def picture(before: Snapshot, after: Snapshot) -> list[str]:
    """What is in ``after`` and was not in ``before``, marked as ours or not; and what else differs.

    Kind, name and mark of each thing are told, and what it belongs to, but nothing that differs from run to run.
    """
    new = [
        (kind, item)
        for kind, items in after.items()
        for uuid, item in items.items()
        if uuid not in before.get(kind, {})
    ]
    names = {str(item["id"]): f"{kind} {_name(kind, item)}" for kind, item in new if item.get("name")}

    def called(uuid: str | None) -> str:
        return names.get(uuid, "of others") if uuid else "nothing"

    lines = [" ".join([kind, _name(kind, item), *_details(kind, item, called)]) for kind, item in new]
    return sorted(lines) + [line for line in difference(before, after) if not line.startswith("new: ")]


def kinds_in(lines: Iterable[str], kinds: Iterable[str]) -> dict[str, int]:
    """How many lines there are of each kind; raises ``ValueError`` for a line of none."""
    longest_first = sorted(kinds, key=len, reverse=True)
    found: Counter[str] = Counter()
    for line in lines:
        kind = next((kind for kind in longest_first if line.startswith(f"{kind} ")), "")
        if not kind:
            raise ValueError(line)
        found[kind] += 1
    return dict(found)


def compare(right: Iterable[str], seen: Iterable[str]) -> list[str]:
    """What one picture lacks of another and has beyond it, how often as well."""
    wanted, there = Counter(right), Counter(seen)
    return [f"missing: {line}" for line in (wanted - there).elements()] + [
        f"too much: {line}" for line in (there - wanted).elements()
    ]


def _name(kind: str, item: Item) -> str:
    name = str(item.get("name") or "-")
    return _CLAIM.sub("", name) if kind == "port" else name


def _details(kind: str, item: Item, called: Names) -> Iterable[str]:
    """The mark, and what tells a thing that is in use from its twin that is not."""
    mark = str(item.get("description") or (item.get("metadata") or {}).get("vcluster", ""))
    yield f"({mark})"
    match kind:
        case "server":
            yield str(item["status"])
        case "port":
            yield f"on {called(item['network_id'])} for {called(item['device_id'])} {item['device_owner']} in"
            yield from sorted(called(group) for group in item["security_groups"])
        case "subnet":
            yield f"on {called(item['network_id'])}"
        case "floating IP":
            yield f"to {called(item['port_id'])}"
        case "server group":
            yield f"of {', '.join(sorted(called(member) for member in item['members']))}"
        case "volume":
            yield f"{item['status']} in {', '.join(sorted(called(one['server_id']) for one in item['attachments']))}"
        case "attachment":
            yield f"of {called(item['volume_id'])}"
        case "security group rule":
            words = ("direction", "ethertype", "protocol", "port_range_min", "port_range_max", "remote_ip_prefix")
            yield f"of {called(item['security_group_id'])} from {called(item['remote_group_id'])}"
            yield " ".join(str(item[word]) for word in words)
        case _:
            pass
