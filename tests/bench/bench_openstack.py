"""vcluster on OpenStack against a bare openstacksdk script, in one run against the lab's real control plane.

Requests and CPU time are asserted; the clock's ratios are told, since they also measure what else the machine does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.bench import openstack_ansible
from tests.bench.openstack_track import CLOUD, Track
from tests.lab.lab import LabClient
from tests.lab.proxy import FaultProxy
from tests.lab.snapshot import difference, snapshot

pytestmark = pytest.mark.lab

SOAK = bool(os.environ.get("VCLUSTER_SOAK"))
COUNT = 40
FEW, MANY = 2, 200 if SOAK else 20
ANSIBLE_COUNT = 20
RATIO = 1.25

EACH = 2
"""Requests for each machine of a creation, at most."""
CONSTANT = 30
"""Further ones of a creation whatever its size: a log in, the network and what belongs to it, the address, notes."""

Tell = Callable[[str], None]


@pytest.fixture(scope="module")
def track(lab: LabClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Track]:
    """The track; the project is afterwards as it was before."""
    admin, project = lab.connection("admin"), lab.project_id()
    before = snapshot(admin, project)
    with FaultProxy(lab.upstreams, lab.proxy_ports) as proxy:
        yield Track(lab, proxy, tmp_path_factory.mktemp("track"))
    assert difference(before, snapshot(admin, project)) == []


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Print a line of the report."""

    def line(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}")

    return line


@pytest.mark.timeout(1800)
def test_a_cluster_of_forty_workers(track: Track, tell: Tell) -> None:
    bare, ours = {}, {}
    for verb in ("up", "down"):
        bare[verb] = track.bare(verb, COUNT)
    for verb in ("up", "down"):
        ours[verb] = track.vcluster(verb, COUNT)
    for verb in ("up", "down"):
        wall, cpu = ours[verb].seconds / bare[verb].seconds, ours[verb].cpu / bare[verb].cpu
        tell(
            f"{verb} of 1+{COUNT}: bare openstacksdk {bare[verb]}; vcluster {ours[verb]};"
            f" ratio {wall:.2f}, of CPU {cpu:.2f} (target at most {RATIO})"
        )
        assert cpu <= RATIO, verb
    looks = ours["up"].count("GET")
    acts = len(ours["up"].requests) - looks
    tell(f"up of 1+{COUNT}: {acts} acts (target at most {EACH * (COUNT + 1)} + {CONSTANT}), {looks} listings")
    assert acts <= EACH * (COUNT + 1) + CONSTANT
    assert ours["up"].count("POST", "/servers") == COUNT + 1, "one create call a machine"
    for one in ("/servers/{id}", "/ports/{id}"):
        assert ours["up"].count("GET", one) == 0, "no machine is asked for on its own"
    assert ours["up"].count("POST", "/ports") <= 3, "the router's, the head's, and all others in one call"


@pytest.mark.timeout(3600)
def test_a_converged_cluster_costs_the_same_requests_whatever_its_size(track: Track, tell: Tell) -> None:
    seen: dict[str, list[dict[str, int]]] = {"up": [], "status": []}
    for count in (FEW, MANY):
        track.vcluster("up", count)
        for verb, tallies in seen.items():
            run = track.vcluster(verb, count)
            assert {request.method for request in run.requests} <= {"GET", "HEAD", "POST"}
            assert run.count("POST") == run.count("POST", "/auth/tokens"), "nothing is made or changed"
            tallies.append(run.tally())
            tell(f"converged {verb} of 1+{count}: {run}")
        track.vcluster("down", count)
    for verb, (few, many) in seen.items():
        assert few == many, verb
    listings = [number for kind, number in seen["status"][0].items() if "auth/tokens" not in kind]
    assert set(listings) == {1}, "status lists each kind of resource once"


@pytest.mark.skipif(not SOAK, reason="make soak: installs 600 MB of Ansible, and takes five minutes")
@pytest.mark.timeout(3600)
def test_ansible_doing_the_same(track: Track, tell: Tell) -> None:
    folder = openstack_ansible.ensure()
    env = openstack_ansible.environment(folder, track.folder / "ansible")
    for state, verb in (("present", "up"), ("absent", "down")):
        theirs = track.run(openstack_ansible.playbook(folder, state, CLOUD, ANSIBLE_COUNT), env)
        tell(f"{verb} of 1+{ANSIBLE_COUNT}: Ansible's openstack.cloud {theirs}")
    for verb in ("up", "down"):
        ours, bare = track.vcluster(verb, ANSIBLE_COUNT), track.bare(verb, ANSIBLE_COUNT)
        tell(f"{verb} of 1+{ANSIBLE_COUNT}: vcluster {ours}; bare openstacksdk {bare}")
