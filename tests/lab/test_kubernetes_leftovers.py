"""What a Kubernetes made for its cluster goes with `down`, against real services; every other Kubernetes' stays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab.cloud_bed import Bed
from tests.lab.kubernetes import Kubernetes
from tests.lab.lab import LabClient
from tests.lab.octavia import Octavia, octavia
from tests.lab.snapshot import difference, snapshot
from tests.lab.sweep.ready_cloud import ReadyCloud
from vcluster import Cluster, ClusterSpec, clusters
from vcluster.errors import CancelledError
from vcluster.events import Event, PlanMade, Retrying, StepFinished
from vcluster.model import ClusterRef
from vcluster.views import PlanView

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

SPEC = """
name: demo
cloud: alice
scheduler: k3s
image: debian-12
head: {flavor: m3.tiny}
workers: [{name: cpu, count: 2, flavor: m3.tiny}]
"""


@pytest.fixture(scope="module", autouse=True)
def balancers(lab: LabClient) -> Iterator[Octavia]:
    with octavia(lab) as running:
        yield running


class Field:
    """A project with Alice's cluster in it, the Kubernetes on that, and others."""

    def __init__(self, bed: Bed, folder: Path) -> None:
        self.bed, self.home = bed, folder / "home"
        # Slower than elsewhere: on a busy machine a load balancer takes long to go, and is gone without after a while.
        self.cloud = ReadyCloud(bed.cloud(), admin=bed.admin, speed=4.0)
        self.public = bed.admin.network.find_network("public", ignore_missing=False).id
        self.events: list[Event] = []
        self.demo = self.cluster()
        self.others: dict[str, str] = {}

    def cluster(self, on_event: Callable[[Event], None] | None = None) -> Cluster:
        spec = ClusterSpec.from_yaml(SPEC)
        return Cluster(spec, cloud=self.cloud, home=self.home, on_event=on_event or self.events.append)

    @property
    def ref(self) -> ClusterRef:
        return self.demo.ref

    def kubernetes(self, cluster: str, subnet: str, user: str = "alice") -> Kubernetes:
        return Kubernetes(self.bed.connection(user), cluster, subnet, self.public)

    def network(self, name: str) -> str:
        """One with a way out that was there before; its subnet."""
        network = self.bed.connection().network
        made = network.create_network(name=name)
        subnet = network.create_subnet(name=name, network_id=made.id, ip_version=4, cidr="10.8.0.0/24")
        router = network.create_router(name=name, external_gateway_info={"network_id": self.public})
        network.add_interface_to_router(router, subnet=subnet.id)
        self.others |= {"network": made.id, "subnet": subnet.id, "router": router.id}
        return str(subnet.id)

    def on_ours(self) -> Kubernetes:
        """Ours, with a Service that leads to all machines and two claims, of which a pod on a worker has one."""
        seen = self.bed.cloud().observe(self.ref)
        (network,) = (n.uuid for n in seen.networks)
        (subnet,) = (s.id for s in self.bed.connection().network.subnets(network_id=network))
        mine = self.kubernetes(f"vcluster-{self.ref.id}", subnet)
        mine.expose("web", ports=tuple(port.uuid for port in seen.ports))
        mine.claim("data", server=next(m.uuid for m in seen.machines if m.name == "cpu-1"))
        mine.claim("old")
        mine.snapshot("old")
        return mine

    def everything(self) -> dict[str, dict[str, dict[str, object]]]:
        return snapshot(self.bed.admin, self.bed.project.id)

    def clear(self, *others: Kubernetes) -> None:
        """Delete what others made, as they would, and the network that was there before."""
        for one in others:
            one.clear()
        if self.others:
            network = self.bed.connection().network
            network.remove_interface_from_router(self.others["router"], subnet=self.others["subnet"])
            network.delete_router(self.others["router"])
            network.delete_network(self.others["network"])


@pytest.fixture
def field(bed: Bed, tmp_path: Path) -> Field:
    return Field(bed, tmp_path)


def test_ours_goes_and_every_neighbours_stays_as_it_is(field: Field) -> None:
    subnet, ours = field.network("kube"), f"vcluster-{field.ref.id}"
    theirs = f"vcluster-{field.bed.cloud('bob').ref('demo').id}"
    others = [
        field.kubernetes(name, subnet, "bob" if name == theirs else "alice")
        for name in (theirs, f"{ours}0", ours[:-1], f"{ours}_x", "kubernetes")
    ]
    for one in others:
        one.expose("web")
        one.claim("data")
    others[0].snapshot("data")
    before = field.everything()

    demo = field.demo
    demo.up()
    mine = field.on_ours()
    shown: list[PlanView] = []

    def yes(view: PlanView) -> bool:
        shown.append(view)
        return True

    assert demo.down(confirm=yes).changed
    lines = {action.uuid: action for action in shown[0].actions if action.uuid}
    assert set(mine.made.values()) <= set(lines)
    assert {lines[uuid].detail for uuid in mine.made.values()} == {"made by Kubernetes for this cluster"}
    assert lines[mine.made["volume data"]].name == "default/data"
    assert not set(lines) & {uuid for one in others for uuid in one.made.values()}
    after = field.everything()
    assert difference(before, after) == []

    steps = [f"{e.action} {e.subject}" for e in field.events if isinstance(e, StepFinished) and not e.error]
    done = list(dict.fromkeys(steps))  # what takes its time to go is told again
    order = ["load balancer default/web", "machine cpu-1", "volume default/data", "security group default/web"]
    assert [step for step in done if step.removeprefix("delete ") in order] == [f"delete {thing}" for thing in order]
    assert done.index("delete load balancer default/web") < done.index("delete floating ip default/web")

    asked = len([event for event in field.events if isinstance(event, PlanMade)])
    assert not demo.down().changed
    assert [e.actions for e in field.events if isinstance(e, PlanMade)][asked:] == []
    assert difference(before, field.everything()) == []
    field.clear(*others)


def test_a_down_that_was_interrupted_after_the_load_balancer_is_completed_by_the_next(field: Field) -> None:
    field.demo.up()
    mine, cancel = field.on_ours(), threading.Event()

    def stop(event: Event) -> None:
        if isinstance(event, StepFinished) and event.action == "delete load balancer":
            cancel.set()

    with pytest.raises(CancelledError):
        field.cluster(stop).down(cancel=cancel)
    left = field.everything()
    assert mine.made["floating IP web"] in left["floating IP"]
    assert len(left["server"]) == 3
    assert field.cluster().down().changed
    assert field.bed.everything() == {}


def test_a_load_balancer_in_the_middle_of_a_change_is_waited_for(field: Field, balancers: Octavia) -> None:
    field.demo.up()
    mine, said = field.on_ours(), list[str]()
    with ExitStack() as holding:
        holding.enter_context(balancers.holding())
        mine.change("web")

        def let_go(event: Event) -> None:
            if isinstance(event, Retrying) and "PENDING_UPDATE" in event.error:
                said.append(event.error)
                holding.close()

        field.cluster(let_go).down()
    uuid = mine.made["load balancer web"]
    assert set(said) == {f"delete load balancer {uuid}: it is PENDING_UPDATE"}
    assert field.bed.everything() == {}


def test_a_load_balancer_that_is_all_that_is_left_is_found(field: Field) -> None:
    left = field.kubernetes(f"vcluster-{field.ref.id}", field.network("kube"))
    left.expose("web")
    (found,) = clusters(cloud=field.cloud, home=field.home)
    assert (found.ref.id, found.machines, found.headless) == (field.ref.id, 0, True)
    assert field.demo.status().state == "absent"
    assert field.demo.down().changed
    assert not field.demo.down().changed
    assert not {"load balancer", "listener", "pool", "floating IP"} & set(field.bed.everything())
    field.clear()


def test_volumes_stay_when_asked_to_and_are_left_alone_from_then_on(field: Field) -> None:
    field.demo.up()
    mine = field.on_ours()
    field.demo.down(keep_volumes=True)
    kept = {"volume": sorted([mine.made["volume data"], mine.made["volume old"]])}
    kept["volume snapshot"] = [mine.made["snapshot old"]]
    assert field.bed.everything() == kept
    assert not field.demo.down().changed
    assert clusters(cloud=field.cloud, home=field.home) == []
    assert field.bed.everything() == kept
    field.clear(mine)
