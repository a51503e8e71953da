"""vcluster on OpenStack against a bare openstacksdk script, in one run against the lab's real control plane.

Requests and CPU time are asserted; the clock's ratios are told, since they also measure what else the machine does.
Under VCLUSTER_SOAK they are asserted as well: `make soak` is no test of CI, and has a machine to itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from tests.bench import openstack_ansible
from tests.bench.openstack_track import CLOUD, Run, Track
from tests.lab.lab import LabClient
from tests.lab.proxy import FaultProxy
from tests.lab.snapshot import difference, snapshot

pytestmark = pytest.mark.lab

SOAK = bool(os.environ.get("VCLUSTER_SOAK"))
COUNT = 40
FEW, MANY = 2, 200 if SOAK else 20
ANSIBLE_COUNT = 20
RATIO = 1.25
ROUNDS = 6
"""How often both sides are measured at most, by turns; all rounds count together. One run of a side differs from its
next by a fifth, with what else the machine does. Under VCLUSTER_SOAK always, else as long as the bound is not kept."""

EACH = 2
"""Requests for each machine of a creation, at most."""
CONSTANT = 30
"""Further ones of a creation whatever its size: a log in, the network and what belongs to it, the address, notes."""

Tell = Callable[[str], None]


@pytest.fixture(scope="module")
def track(lab: LabClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Track]:
    """The track, warm; the project is afterwards as it was before."""
    admin, project = lab.connection("admin"), lab.project_id()
    before = snapshot(admin, project)
    with FaultProxy(lab.upstreams, lab.proxy_ports) as proxy:
        made = Track(lab, proxy, tmp_path_factory.mktemp("track"))
        # A service imports what it needs at the first request for it. That is no side's to pay.
        for side in (made.bare, made.vcluster):
            for verb in ("up", "down"):
                side(verb, FEW)
        yield made
    assert difference(before, snapshot(admin, project)) == []


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Print a line of the report."""

    def line(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}")

    return line


@pytest.mark.timeout(3600)
def test_a_cluster_of_forty_workers(track: Track, tell: Tell) -> None:
    bare: dict[str, list[Run]] = {"up": [], "down": []}
    ours: dict[str, list[Run]] = {"up": [], "down": []}
    for _ in range(ROUNDS):
        for side, runs in ((track.bare, bare), (track.vcluster, ours)):
            for verb in ("up", "down"):
                runs[verb].append(side(verb, COUNT))
        if not SOAK and all(ratio(cpu_of, ours[verb], bare[verb]) <= RATIO for verb in ours):
            break
    for verb in ("up", "down"):
        wall, cpu = (ratio(took, ours[verb], bare[verb]) for took in (lambda run: run.seconds, cpu_of))
        for theirs, mine in zip(bare[verb], ours[verb], strict=True):
            tell(f"{verb} of 1+{COUNT}: bare openstacksdk {theirs}; vcluster {mine}")
        tell(f"{verb} of 1+{COUNT}: ratio {wall:.2f}, of CPU {cpu:.2f} (target at most {RATIO})")
        assert cpu <= RATIO, verb
        if SOAK:
            assert wall <= RATIO, verb
    up = ours["up"][0]
    acts = acts_of(up)
    tell(f"up of 1+{COUNT}: {acts} acts (target at most {EACH * (COUNT + 1)} + {CONSTANT}), {up.count('GET')} listings")
    assert acts <= EACH * (COUNT + 1) + CONSTANT
    assert up.count("POST", "/servers") == COUNT + 1, "one create call a machine"
    assert up.count("POST", "/ports") <= 3, "the router's, the head's, and all others in one call"


def cpu_of(run: Run) -> float:
    return run.cpu


def ratio(took: Callable[[Run], float], ours: Sequence[Run], bare: Sequence[Run]) -> float:
    return sum(map(took, ours)) / sum(map(took, bare))


def acts_of(run: Run) -> int:
    """Requests that are no looks."""
    return len(run.requests) - run.count("GET")


@pytest.mark.timeout(3600)
def test_size_costs_two_requests_a_machine_and_no_looks(track: Track, tell: Tell) -> None:
    """Of a creation, each look at the machines is as many requests whatever their number; converged, all of it is."""
    made: dict[int, Run] = {}
    seen: dict[str, list[dict[str, int]]] = {"up": [], "status": []}
    for count in (FEW, MANY):
        made[count] = track.vcluster("up", count)
        tell(f"up of 1+{count}: {made[count]}")
        for verb, tallies in seen.items():
            run = track.vcluster(verb, count)
            assert {request.method for request in run.requests} <= {"GET", "HEAD", "POST"}
            assert run.count("POST") == run.count("POST", "/auth/tokens"), "nothing is made or changed"
            tallies.append(run.tally())
            tell(f"converged {verb} of 1+{count}: {run}")
        track.vcluster("down", count)
    for verb, (at_few, at_many) in seen.items():
        assert at_few == at_many, verb
        listings = {kind: number for kind, number in at_few.items() if "auth/tokens" not in kind}
        assert above(1, listings) == {}, f"{verb} lists each kind of resource once"
    few, many = made[FEW], made[MANY]
    assert acts_of(many) - acts_of(few) <= EACH * (MANY - FEW), "so many for each further machine"
    check_looks(few, many)


def check_looks(few: Run, many: Run) -> None:
    """How often one looks depends on how long machines take, but what one look costs does not on their number."""
    for one in ("/servers/{id}", "/ports/{id}", "/volumes/{id}"):
        assert many.count("GET", one) == 0, "no machine is asked for on its own"
    tallies = [{kind: number for kind, number in run.tally().items() if " GET " in kind} for run in (few, many)]
    assert tallies[0].keys() == tallies[1].keys(), "the same kinds of looks"
    for run, tally in zip((few, many), tallies, strict=True):
        assert above(run.count("GET", "/servers/detail"), tally) == {}, "a look lists a kind once"


def above(bound: int, tally: Mapping[str, int]) -> dict[str, int]:
    return {kind: number for kind, number in tally.items() if number > bound}


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
