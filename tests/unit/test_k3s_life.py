"""A Kubernetes cluster from its spec to the machines that the engine makes, on the memory cloud."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from k3s_machines_kit import text_of
from slurm_kit import parsed

import vcluster.cluster
from vcluster import Cluster, ClusterSpec
from vcluster.actions import NOTE_ATTEMPTS
from vcluster.cli import main
from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import CancelledError, SpecError, UsageError
from vcluster.events import Event, StepStarted
from vcluster.model import ClusterRef, Flavor, Machine, MachineRequest, Network, Observed, Role
from vcluster.stacks.k3s_config import SERVERS
from vcluster.wiring import goal_of

ROOT = Path(__file__).parents[2]
THREE: dict[str, Any] = {
    "name": "demo",
    "cloud": "memory",
    "scheduler": "k3s",
    "head": {"count": 3},
    "workers": [{"name": "cpu", "count": 2, "max_count": 3}],
}
EVERY = {"head", "head-2", "head-3", "cpu-1", "cpu-2"}


class Recording(MemoryCloud):
    """A cloud that remembers what each machine was made with, and has every flavor."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.made: list[MachineRequest] = []

    def flavor(self, name: str) -> Flavor:
        return Flavor(name, 8, 30720, 60)

    def create_machine(self, ref: ClusterRef, request: MachineRequest) -> Machine:
        self.made.append(request)
        return super().create_machine(ref, request)

    def files(self) -> dict[str, dict[str, Any]]:
        """The files of each machine that was made since the last look, by its name."""
        found = {request.name: parsed(request.user_data)[1] for request in self.made}
        self.made.clear()
        return found


@pytest.fixture
def cloud() -> Recording:
    return Recording()


@pytest.fixture
def demo(cloud: Recording, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of three servers that is up."""
    with Cluster(ClusterSpec.model_validate(THREE), cloud=cloud, home=tmp_path / "home") as made:
        made.up()
        yield made


def founded(files: dict[str, Any]) -> bool:
    return bool(json.loads(text_of(files["/etc/vcluster/k3s/join.json"]))["founded"])


def uuids(demo: Cluster) -> dict[str, str]:
    return {machine.name: machine.uuid for machine in demo.status().machines}


def renewed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert set(before) == set(after)
    return {name for name in before if before[name] != after[name]}


def test_the_goal_has_three_servers_of_which_two_must_be_there(cloud: Recording) -> None:
    spec, ref = ClusterSpec.model_validate(THREE), cloud.ref("demo")
    goal = goal_of(spec, cloud, ref, cloud.observe(ref))
    assert [(slot.name, slot.role, slot.group) for slot in goal.slots][:4] == [
        ("head", Role.HEAD, ""),
        ("head-2", Role.WORKER, "head"),
        ("head-3", Role.WORKER, "head"),
        ("cpu-1", Role.WORKER, "cpu"),
    ]
    assert (goal.wanted, goal.peers) == (EVERY, {"head-2", "head-3"})
    assert goal.minimum == {"head": 1, "cpu": 2}
    alone = ClusterSpec.model_validate({**THREE, "head": {}})
    assert goal_of(alone, cloud, ref, cloud.observe(ref)).minimum == {"cpu": 2}


def test_three_servers_and_their_agents_come_up_together(demo: Cluster, cloud: Recording) -> None:
    status = demo.status()
    assert status.state == "ready"
    assert {machine.name for machine in status.machines} == EVERY
    groups = {machine.name: (machine.role, machine.group) for machine in status.machines}
    assert groups["head-2"] == groups["head-3"] == ("worker", "head")
    assert groups["cpu-1"] == ("worker", "cpu")
    files = cloud.files()
    assert set(files) == EVERY
    assert [founded(files[name]) for name in ("head", "head-2", "head-3")] == [False] * 3
    addresses = {machine.name: machine.address for machine in status.machines}
    hosts = text_of(files["cpu-1"]["/etc/hosts"])
    assert re.findall(rf"^(\S+) {SERVERS}$", hosts, re.M) == [addresses[n] for n in ("head", "head-2", "head-3")]
    assert demo.plan().empty


def test_a_head_that_is_lost_is_made_anew_alone_and_joins(demo: Cluster, cloud: Recording) -> None:
    before = uuids(demo)
    cloud.files()
    cloud.lose("head")
    assert not [action for action in demo.plan().actions if action.destroys_data]
    demo.up(confirm=lambda plan: pytest.fail("nothing is lost"))
    assert renewed(before, uuids(demo)) == {"head"}
    files = cloud.files()
    assert set(files) == {"head"}
    assert founded(files["head"])
    # It is the same machine to everybody else: its secret, its authorities, its password as a node.
    assert demo.folder.keyring().encoded in text_of(files["head"]["/etc/vcluster/secrets/cluster"])


def test_another_server_that_is_lost_is_made_anew_and_joins(demo: Cluster, cloud: Recording) -> None:
    before = uuids(demo)
    cloud.files()
    cloud.released.clear()
    cloud.lose("head-2")
    demo.up()
    assert renewed(before, uuids(demo)) == {"head-2"}
    assert {name: founded(files) for name, files in cloud.files().items()} == {"head-2": True}
    assert cloud.released == ["head-2"]


def test_a_head_that_lost_its_peers_too_is_rebuilt_after_asking(demo: Cluster, cloud: Recording) -> None:
    cloud.files()
    cloud.lose("head")
    cloud.lose("head-2")
    asked: list[Any] = []
    demo.up(confirm=lambda plan: not asked.append(plan))
    assert len(asked) == 1
    files = cloud.files()
    assert set(files) == EVERY
    assert not founded(files["head"])


def test_more_workers_and_fewer_leave_the_servers_alone(demo: Cluster) -> None:
    before = uuids(demo)
    demo.scale("cpu", 3)
    assert set(uuids(demo)) == {*EVERY, "cpu-3"}
    demo.scale("cpu", 1)
    assert set(uuids(demo)) == EVERY - {"cpu-2"}
    assert {name: before[name] for name in ("head", "head-2", "head-3")}.items() <= uuids(demo).items()
    with pytest.raises(SpecError, match="there is no group 'head'"):
        demo.scale("head", 1)


@pytest.mark.parametrize("machine", ["head", "head-3", "cpu-1"])
def test_any_machine_can_be_replaced(demo: Cluster, cloud: Recording, machine: str) -> None:
    before, events = uuids(demo), list[Event]()
    cloud.files()
    demo._on_event = events.append
    assert demo.replace(machine).status.state == "ready"
    assert renewed(before, uuids(demo)) == {machine}
    steps = [f"{event.action} {event.subject}" for event in events if isinstance(event, StepStarted)]
    assert steps[:2] == [f"drain worker {machine}", f"delete machine {machine}"]
    assert "create machine head" in steps or machine != "head"
    files = cloud.files()[machine]
    assert founded(files) if machine != "cpu-1" else "/etc/vcluster/k3s/join.json" not in files


@pytest.mark.parametrize("machine", ["head", "head-2"])
def test_a_server_stays_while_another_is_off(demo: Cluster, cloud: Recording, machine: str) -> None:
    """Without it and the other one there would be no majority."""
    before = uuids(demo)
    cloud.lose("head-3")
    with pytest.raises(
        UsageError, match=rf"^{machine} is not replaced while head-3 is off: Kubernetes' database"
    ) as no:
        demo.replace(machine)
    assert no.value.remedy == "`vcluster up demo` mends the others first"
    demo.replace("cpu-1")
    assert renewed(before, uuids(demo)) == {"cpu-1", "head-3"}
    demo.replace(machine)


def test_a_head_that_is_alone_is_not_replaced(cloud: Recording, tmp_path: Path) -> None:
    spec = ClusterSpec.model_validate({**THREE, "head": {}})
    with Cluster(spec, cloud=cloud, home=tmp_path) as demo:
        demo.up()
        with pytest.raises(UsageError, match="the head is not replaced: its disk holds Kubernetes' database"):
            demo.replace("head")
        assert demo.replace("cpu-1").changed


def test_stop_start_and_down(demo: Cluster, cloud: Recording) -> None:
    before = uuids(demo)
    assert demo.stop().status.state == "stopped"
    assert demo.start().status.state == "ready"
    assert uuids(demo) == before
    demo.down()
    assert cloud.resources() == []


# Networks ------------------------------------------------------------------------------------------------------------


def text(**k3s: str) -> str:
    section = "".join(f"  {key}: {value}\n" for key, value in k3s.items())
    return f"name: demo\ncloud: memory\nscheduler: k3s\nk3s:\n{section}"


OVERLAPS = [
    ({"pod_network": "10.77.0.0/20"}, ("k3s.pod_network", "10.77.0.0/20 overlaps 10.77.0.0/16, which machines", 5)),
    ({"service_network": "10.64.0.0/12"}, ("k3s.service_network", "10.64.0.0/12 overlaps 10.77.0.0/16, which", 5)),
]


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("k3s", [k3s for k3s, _ in OVERLAPS])
def test_the_machines_own_network_is_not_where_pods_are(tmp_path: Path, k3s: dict[str, str], parts: bool) -> None:
    """The one that is chosen without a wish is not there; with this one it is made elsewhere."""
    spec, cloud = ClusterSpec.from_yaml(text(**k3s)), MemoryCloud(parts=parts)
    with Cluster(spec, cloud=cloud, home=tmp_path) as demo:
        demo.up()
        (machines,) = (ipaddress.ip_network(n.cidr) for n in cloud.observe(demo.ref).networks)
        for key in ("pod_network", "service_network"):
            assert not machines.overlaps(ipaddress.ip_network(getattr(spec.kubernetes, key)))
        assert all(ipaddress.ip_address(m.address) in machines for m in demo.status().machines)


@pytest.mark.parametrize(("k3s", "told"), OVERLAPS)
def test_pods_are_not_where_machines_are(tmp_path: Path, k3s: dict[str, str], told: tuple[str, str, int]) -> None:
    """On a network that is there already: refused before anything is made."""
    cloud = Recording(parts=True, there=Network("site", "", "10.77.0.0/16", foreign=True))
    with Cluster(ClusterSpec.from_yaml(text(**k3s)), cloud=cloud, home=tmp_path) as demo:
        for act in (demo.up, demo.plan):
            with pytest.raises(SpecError) as caught:
                act()
            (problem,) = caught.value.problems
            assert (problem.where, problem.line) == (told[0], told[2])
            assert told[1] in problem.message
            assert problem.remedy == "take another one"
    assert cloud.resources() == []


def test_pods_are_not_at_guarded_addresses(tmp_path: Path) -> None:
    cloud = Recording(guarded=("10.0.2.0/24", "169.254.169.254", "fd00::1"))
    ref, observed = cloud.ref("demo"), Observed()
    with pytest.raises(SpecError, match=r"overlaps 10\.0\.2\.0/24"):
        goal_of(ClusterSpec.from_yaml(text(pod_network="10.0.0.0/16")), cloud, ref, observed)
    goal_of(ClusterSpec.from_yaml(text(pod_network="10.1.0.0/16")), cloud, ref, observed)
    there = Network("n", "t", "10.1.4.0/24")
    with pytest.raises(SpecError, match=r"overlaps 10\.1\.4\.0/24"):
        goal_of(ClusterSpec.from_yaml(text(pod_network="10.1.0.0/16")), cloud, ref, Observed(networks=(there,)))


# Examples ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("example", "machines"),
    [
        ("local-k3s.yaml", ["head", "cpu-1", "cpu-2"]),
        ("full-k3s.yaml", ["head", "head-2", "head-3", "core-1", *(f"user-{n}" for n in range(1, 5))]),
    ],
)
def test_examples_have_a_plan(
    cloud: Recording,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    example: str,
    machines: list[str],
) -> None:
    monkeypatch.setattr(vcluster.cluster, "connect", lambda name, home: cloud)
    for name in ("REGISTRY_PASSWORD", "OS_APPLICATION_CREDENTIAL_SECRET"):
        monkeypatch.setenv(name, "hunter2-hunter2")
    assert main(["plan", str(ROOT / "examples" / example)]) == 10
    said = capsys.readouterr().out
    assert re.findall(r"^ *\+ create machine (\S+)", said, re.M) == machines
    assert "hunter2" not in said
    assert cloud.resources() == []


def test_servers_that_no_reboot_helps_are_lost_only_with_a_persons_word_and_start_tries_again(
    demo: Cluster, cloud: Recording
) -> None:
    peers, before = {"head-2", "head-3"}, uuids(demo)

    def spent() -> None:
        cloud.annotate(demo.ref, {f"{NOTE_ATTEMPTS}{name}": "9 long@1" for name in peers})
        for name in peers:
            cloud.kill(name)

    spent()
    no = Mock(return_value=False)
    with pytest.raises(CancelledError):
        demo.up(confirm=no)
    assert {action.name for action in no.call_args.args[0].actions if action.destroys_data} == peers
    assert uuids(demo) == before
    demo.start()
    assert uuids(demo) == before
    assert demo.status().state == "ready"
    spent()
    demo.up(confirm=lambda view: True)
    assert renewed(before, uuids(demo)) == peers
