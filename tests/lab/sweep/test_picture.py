"""Whether the picture that the sweeps compare shows a twin, a lack and a loose end, of whatever kind."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.lab.sweep.picture import compare, kinds_in, picture

BEFORE: dict[str, dict[str, dict[str, Any]]] = {
    "server": {"n1": {"id": "n1", "name": "demo-head", "metadata": {}, "status": "ACTIVE"}},
    "port": {},
    "security group": {},
    "security group rule": {},
    "volume": {},
}


def cluster(run: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The project with a head, as a run made it: ids and the claim are of that run."""
    found = copy.deepcopy(BEFORE)
    server, port, group, rule, volume = (f"{run}-{kind}" for kind in ("server", "port", "group", "rule", "volume"))
    tag = "vcluster/0123456789"
    found["server"][server] = {
        "id": server,
        "name": "demo-head",
        "metadata": {"vcluster": f"{tag}/head"},
        "status": "ACTIVE",
    }
    found["port"][port] = {
        "id": port,
        "name": f"demo-head.{run.encode().hex()}",
        "description": f"{tag}/head",
        "network_id": "theirs",
        "device_id": server,
        "device_owner": "compute:nova",
        "security_groups": [group],
    }
    found["security group"][group] = {"id": group, "name": "demo-head.0123456789", "description": f"{tag}/x"}
    rule_words = {"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "remote_ip_prefix": None}
    rule_words |= {"port_range_min": "22", "port_range_max": "22", "remote_group_id": None, "description": ""}
    found["security group rule"][rule] = {"id": rule, "security_group_id": group} | rule_words
    found["volume"][volume] = {
        "id": volume,
        "name": "demo-head",
        "metadata": {"vcluster": f"{tag}/volume"},
        "status": "in-use",
        "attachments": [{"server_id": server}],
    }
    return found


RIGHT = picture(BEFORE, cluster("one"))


def test_two_runs_of_a_spec_look_the_same() -> None:
    assert compare(RIGHT, picture(BEFORE, cluster("two"))) == []
    assert kinds_in(RIGHT, BEFORE) == dict.fromkeys(BEFORE, 1)
    assert picture(BEFORE, BEFORE) == []


@pytest.mark.parametrize("kind", BEFORE)
def test_a_twin_and_a_lack_of_each_kind_show(kind: str) -> None:
    seen = cluster("two")
    (mine,) = seen[kind].keys() - BEFORE[kind].keys()
    seen[kind]["twin"] = copy.deepcopy(seen[kind][mine]) | {"id": "twin"}
    (line,) = compare(RIGHT, picture(BEFORE, seen))
    assert line.startswith(f"too much: {kind} ")
    lacking = cluster("two")
    del lacking[kind][mine]
    assert any(line.startswith(f"missing: {kind} ") for line in compare(RIGHT, picture(BEFORE, lacking)))


def test_what_is_not_used_differs_from_what_is() -> None:
    seen = cluster("two")
    seen["port"]["two-port"]["device_id"] = ""
    seen["volume"]["two-volume"]["attachments"] = []
    assert sorted(line.split(" ", 2)[:2] for line in compare(RIGHT, picture(BEFORE, seen))) == [
        ["missing:", "port"],
        ["missing:", "volume"],
        ["too", "much:"],
        ["too", "much:"],
    ]


def test_a_mark_that_is_missing_and_a_neighbour_that_changed_show() -> None:
    seen = cluster("two")
    seen["server"]["two-server"]["metadata"] = {}
    seen["server"]["n1"]["status"] = "SHUTOFF"
    told = compare(RIGHT, picture(BEFORE, seen))
    assert "too much: server demo-head () ACTIVE" in told
    assert any("n1: status: 'ACTIVE' -> 'SHUTOFF'" in line for line in told)
