"""The OpenStack cloud against real services: everything that the engine asks of it, once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.lab.cloud_bed import FLAVOR, Bed, Small, kinds, until
from tests.lab.database import sql
from tests.lab.lab import LabClient
from vcluster.actions import Goal, Power, Verb
from vcluster.clouds.openstack import OpenStackCloud
from vcluster.errors import CloudError, ConflictError, PermanentError, QuotaError
from vcluster.model import ImageRequest, MachineState, Part, PartKind, PartRequest, PortRequest, Role, Wishes
from vcluster.plan_absent import plan_absent

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.fixture
def cloud(bed: Bed) -> OpenStackCloud:
    return bed.cloud()


@pytest.fixture
def small(cloud: OpenStackCloud) -> Small:
    return Small(cloud, cloud.ref("demo"))


def test_a_life(bed: Bed, cloud: OpenStackCloud, small: Small) -> None:
    """Made on a network of its own, seen by another process for what it is, switched, noted on, and gone."""
    ref = small.ref
    before = cloud.now()
    seen = small.surroundings()
    assert list(kinds(seen)) == sorted(
        [
            (PartKind.SUBNET, "subnet"),
            (PartKind.ROUTER, "router"),
            (PartKind.GATEWAY, "gateway"),
            (PartKind.SECURITY_GROUP, "head"),
            (PartKind.SECURITY_GROUP, "members"),
            (PartKind.SERVER_GROUP, "workers"),
            (PartKind.FLOATING_IP, "head"),
        ]
    )
    assert all(part.ready and part.tag == ref.tag(part.kind) for part in seen.parts)
    by_kind = {part.kind: part for part in seen.parts}
    heads = [port for port in seen.ports if port.tag == ref.tag(Role.HEAD)]
    assert [(p.name, p.claim) for p in heads] == [("head", "0123456789ab")]
    assert by_kind[PartKind.FLOATING_IP].used_by == heads[0].uuid
    assert by_kind[PartKind.SECURITY_GROUP].used_by == heads[0].uuid
    assert by_kind[PartKind.GATEWAY].used_by == by_kind[PartKind.ROUTER].uuid
    assert by_kind[PartKind.SUBNET].used_by == heads[0].uuid
    assert by_kind[PartKind.SUBNET].network == seen.networks[0].uuid
    assert seen.networks[0].cidr
    # Both clocks are cut to whole seconds.
    assert before - 2 <= by_kind[PartKind.ROUTER].created <= cloud.now() + 2

    made = small.machines(seen)
    assert sorted(m.name for m in made) == ["cpu-1", "cpu-2", "head"]
    seen = small.settled()
    with pytest.raises(ConflictError, match="in use"):
        small.machines(seen)  # a port takes one server, so a lost answer makes no twin
    cloud = small.cloud = bed.again()  # from here on as another process
    assert {p.device for p in seen.ports} == {m.uuid for m in seen.machines}
    again = cloud.observe(ref)
    assert again == seen
    head = again.head
    assert head is not None
    assert head.endpoint is not None
    assert head.endpoint.host.startswith("127.100.")
    assert head.host_key == "ssh-ed25519 AAAA"
    assert head.self_contained
    assert not any(m.self_contained for m in again.workers())
    assert [(m.group, m.flavor, m.role) for m in again.workers()] == [("cpu", FLAVOR, Role.WORKER)] * 2
    assert cloud.layout(ref, small.wishes, again).network is None

    cloud.annotate(ref, {"spec": "0123456789abcdef", "attempts/cpu-1": "1 12345678", "leaving": "down-1"})
    assert cloud.observe(ref).notes == {
        "spec": "0123456789abcdef",
        "attempts/cpu-1": "1 12345678",
        "leaving": "down-1",
    }
    cloud.annotate(ref, {"leaving": "up-2", "attempts/cpu-1": ""})
    assert cloud.observe(ref).notes == {"spec": "0123456789abcdef", "leaving": "up-2"}

    for act, state in (
        ("stop_machine", MachineState.SHUTOFF),
        ("start_machine", MachineState.ACTIVE),
        ("shelve_machine", MachineState.SHELVED),
        ("unshelve_machine", MachineState.ACTIVE),
    ):
        until(lambda act=act: _done(cloud, act, ref, head.uuid), act)
        until(lambda state=state: cloud.observe(ref, again).head.state is state, state)
        getattr(cloud, act)(ref, head.uuid)  # done already: no error
    told = cloud.observe(ref, again).head
    assert told is not None
    assert told.started > head.started  # as this process told it to boot
    cloud.reboot_machine(ref, head.uuid)
    assert cloud.console(ref, head.uuid, 10)

    summary = next(iter(cloud.clusters()))
    assert (summary.ref.name, summary.ref.owner, summary.machines) == ("demo", f"alice-{bed.word}", 3)
    assert summary.ref == ref
    assert summary.notes["spec"] == "0123456789abcdef"
    assert not summary.headless
    small.down()
    assert cloud.observe(ref).empty
    assert list(cloud.clusters()) == []


def _done(cloud: OpenStackCloud, act: str, *words: Any) -> bool:
    try:
        getattr(cloud, act)(*words)
    except ConflictError:
        return False  # Nova is at something else
    return True


def test_volumes(bed: Bed, cloud: OpenStackCloud, small: Small) -> None:
    """Two machines boot from volumes; one volume goes with its machine, the other was asked to stay."""
    small.workers, ref = 1, small.ref
    seen = small.surroundings()
    uuids = {name: small.volume(name) for name in ("head", "cpu-1")}

    def ready() -> list[Part]:
        parts = [p for p in cloud.observe(ref).parts if p.kind is PartKind.VOLUME]
        return parts if all(p.ready for p in parts) else []

    parts = until(ready, "volumes")
    assert {p.name: p.uuid for p in parts} == uuids
    assert [p.used_by for p in parts] == ["", ""]
    small.machines(seen, volumes=uuids)
    seen = small.settled()
    mine = {p.name: p for p in seen.parts if p.kind is PartKind.VOLUME}
    machines = {m.name: m.uuid for m in seen.machines}
    assert {name: part.used_by for name, part in mine.items()} == machines
    with pytest.raises(ConflictError, match="in-use"):
        cloud.delete_part(ref, mine["head"])
    cloud.keep_volumes(ref, [mine["head"]])
    kept = next(p for p in cloud.observe(ref).parts if p.uuid == uuids["head"])
    assert kept.kept
    with pytest.raises(PermanentError, match="asked to stay"):
        cloud.delete_part(ref, kept)
    with pytest.raises(PermanentError, match="asked to stay"):
        cloud.delete_part(ref, mine["head"])  # also from an old picture
    small.down()
    left = cloud.observe(ref)
    assert left.empty
    assert [p.uuid for p in left.parts] == [uuids["head"]]
    connection = bed.connection()
    assert [v.id for v in connection.block_storage.volumes()] == [uuids["head"]]
    connection.block_storage.delete_volume(uuids["head"])
    until(lambda: not list(connection.block_storage.volumes()), "end of the volume")


def test_a_shelved_heads_volume_stays_when_asked_to(bed: Bed, cloud: OpenStackCloud, small: Small) -> None:
    """Cinder lists the volume of an offloaded server as nobody's, and Nova would delete it with the server."""
    small.workers, ref = 0, small.ref
    seen, uuid = small.surroundings(), small.volume("head")
    until(lambda: all(p.ready for p in cloud.observe(ref).parts if p.kind is PartKind.VOLUME), "the volume")
    small.machines(seen, volumes={"head": uuid})
    head = small.settled().head
    assert head is not None
    until(lambda: _done(cloud, "shelve_machine", ref, head.uuid), "shelve")
    connection = bed.connection()
    until(lambda: connection.compute.get_server(head.uuid).status == "SHELVED_OFFLOADED", "the shelf")
    seen = cloud.observe(ref)
    assert [p.used_by for p in seen.parts if p.kind is PartKind.VOLUME] == [""]  # else this shows nothing
    planned = plan_absent(Goal(Power.ABSENT, keep_volumes=True), seen, 0.0).actions
    (keep,) = (action for action in planned if action.verb is Verb.KEEP_VOLUMES)
    cloud.keep_volumes(ref, keep.kept)
    small.down()
    assert [v.id for v in connection.block_storage.volumes()] == [uuid]
    connection.block_storage.delete_volume(uuid)
    until(lambda: not list(connection.block_storage.volumes()), "end of the volume")


def test_two_people_of_one_project(bed: Bed, cloud: OpenStackCloud) -> None:
    """Clusters of one name are two; nobody's call reaches the other's, whatever uuid it is given."""
    other = bed.cloud("bob")
    mine, theirs = Small(cloud, cloud.ref("demo"), workers=0), Small(other, other.ref("demo"), workers=0)
    assert mine.ref.id != theirs.ref.id
    with ThreadPoolExecutor(2) as pool:
        seen_mine, seen_theirs = pool.map(Small.surroundings, (mine, theirs))
    theirs.machines(seen_theirs)
    seen_theirs = theirs.settled()
    assert {p.uuid for p in cloud.observe(mine.ref).parts} == {p.uuid for p in seen_mine.parts}
    assert cloud.observe(mine.ref).machines == ()
    machine = seen_theirs.machines[0]
    calls: list[Any] = [
        lambda: cloud.delete_machine(mine.ref, machine.uuid),
        lambda: cloud.stop_machine(mine.ref, machine.uuid),
        lambda: cloud.delete_ports(mine.ref, [seen_theirs.ports[0].uuid]),
        *(lambda part=part: cloud.delete_part(mine.ref, part) for part in seen_theirs.parts),
    ]
    if own := [n for n in seen_theirs.networks if not n.foreign]:
        calls.append(lambda: cloud.delete_network(mine.ref, own[0].uuid))
    for call in calls:
        with pytest.raises(PermanentError, match="not touched"):
            call()
    assert other.observe(theirs.ref) == seen_theirs
    found = {summary.ref.owner: summary for summary in cloud.clusters()}
    assert {owner: s.ref.id for owner, s in found.items()} == {
        f"alice-{bed.word}": mine.ref.id,
        f"bob-{bed.word}": theirs.ref.id,
    }
    assert found[f"alice-{bed.word}"].headless
    assert found[f"alice-{bed.word}"].claimed > 0
    # With the other's ref, as `--owner` gives it, it can be taken down.
    ref = found[f"bob-{bed.word}"].ref
    assert ref == theirs.ref
    mine.down()
    Small(cloud, ref).down()


def test_twins_of_lost_answers_are_seen(cloud: OpenStackCloud, small: Small) -> None:
    """What was made twice is listed twice; every call with it is for one of the two."""
    ref = small.ref
    for _ in range(2):
        cloud.create_network(ref, ref.tag(Role.NETWORK))
        small.layout = cloud.layout(ref, small.wishes, cloud.observe(ref))
        seen = cloud.observe(ref)
        for request in small.layout.parts:
            if request.kind is PartKind.SERVER_GROUP:
                cloud.create_part(ref, request, seen)
    seen = cloud.observe(ref)
    assert len(seen.networks) == 2
    assert [p.kind for p in seen.parts] == [PartKind.SERVER_GROUP] * 2
    small.down()


def test_what_a_killed_run_left_is_completed(bed: Bed, cloud: OpenStackCloud, small: Small) -> None:
    """A group without rules, a gateway on no router, a floating IP on no port: not ready, and mended by one call."""
    ref, connection = small.ref, bed.connection()
    small.surroundings()
    seen = cloud.observe(ref)
    parts = {(p.kind, p.name): p for p in seen.parts}
    for name in ("head", "members"):
        group = connection.network.get_security_group(parts[PartKind.SECURITY_GROUP, name].uuid)
        for rule in group.security_group_rules:
            if rule["direction"] == "ingress":
                connection.network.delete_security_group_rule(rule["id"])
    address = parts[PartKind.FLOATING_IP, "head"].uuid
    connection.network.update_ip(address, port_id=None)
    gateway = parts[PartKind.GATEWAY, "gateway"]
    router, subnet = parts[PartKind.ROUTER, "router"].uuid, parts[PartKind.SUBNET, "subnet"].uuid
    connection.network.remove_interface_from_router(router, port=gateway.uuid)
    first = str(connection.network.get_subnet(subnet).gateway_ip)
    loose = connection.network.create_port(
        network_id=seen.networks[0].uuid,
        description=gateway.tag,
        fixed_ips=[{"subnet_id": subnet, "ip_address": first}],
    )
    broken = cloud.observe(ref)
    assert {(p.kind, p.name) for p in broken.parts if not p.ready} == {
        (PartKind.SECURITY_GROUP, "head"),
        (PartKind.SECURITY_GROUP, "members"),
        (PartKind.GATEWAY, "gateway"),
        (PartKind.FLOATING_IP, "head"),
    }
    layout = cloud.layout(ref, small.wishes, broken)
    requests = {(r.kind, r.name): r for r in layout.parts}
    for key in ((PartKind.SECURITY_GROUP, "head"), (PartKind.SECURITY_GROUP, "members"), (PartKind.GATEWAY, "gateway")):
        cloud.create_part(ref, requests[key], cloud.observe(ref))
    cloud.create_part(ref, requests[PartKind.FLOATING_IP, "head"], cloud.observe(ref))
    mended = cloud.observe(ref)
    assert all(part.ready for part in mended.parts)
    assert {p.uuid for p in mended.parts} == {p.uuid for p in seen.parts} - {gateway.uuid} | {loose.id}
    small.down()


def test_a_half_attached_gateway_is_made_anew(lab: LabClient, cloud: OpenStackCloud, small: Small) -> None:
    """What Neutron leaves of two legs attached at the same moment: a record of one that it says is on no router."""
    ref = small.ref
    seen = small.surroundings()
    gateway = next(p for p in seen.parts if p.kind is PartKind.GATEWAY)
    sql(lab.layout, "USE neutron", f"UPDATE ports SET device_id = '', device_owner = '' WHERE id = '{gateway.uuid}'")
    broken = cloud.observe(ref)
    assert [(p.uuid, p.ready) for p in broken.parts if p.kind is PartKind.GATEWAY] == [(gateway.uuid, False)]
    (request,) = (r for r in cloud.layout(ref, small.wishes, broken).parts if r.kind is PartKind.GATEWAY)
    with pytest.raises(ConflictError, match="already has a port on subnet"):
        cloud.create_part(ref, request, broken)
    clean = cloud.observe(ref)
    assert not [p for p in clean.parts if p.kind is PartKind.GATEWAY]
    cloud.create_part(ref, request, clean)
    mended = [p for p in cloud.observe(ref).parts if p.kind is PartKind.GATEWAY]
    assert [p.ready for p in mended] == [True]
    assert mended[0].uuid != gateway.uuid
    small.down()


def test_failures_have_their_class(bed: Bed, lab: LabClient, cloud: OpenStackCloud, small: Small) -> None:
    ref = small.ref
    with pytest.raises(PermanentError, match="no flavor") as caught:
        cloud.flavor("m3.tinny")
    assert "`m3.tiny`" in caught.value.remedy
    with pytest.raises(PermanentError, match="no image") as caught:
        cloud.image(ImageRequest(source="debian-13"), print)
    assert "`debian-12`" in caught.value.remedy
    with pytest.raises(ConflictError, match="security group"):
        cloud.create_ports(ref, [PortRequest("head", ref.tag(Role.HEAD), "0" * 8, "a")])
    seen = small.surroundings()
    gone = PortRequest("cpu-9", ref.tag(Role.WORKER), "6f0b4bbc-0000-4000-8000-000000000000")
    with pytest.raises(ConflictError):
        cloud.create_ports(ref, [gone])
    lab.set_quota(bed.project.name, instances=0)
    with pytest.raises(QuotaError, match="already used 0 of 0") as quota:
        small.machines(seen)
    assert "more quota" in quota.value.remedy
    with pytest.raises(QuotaError, match="1 asked, 0 used, 0 allowed"):
        cloud.check_room(ref, [cloud.flavor(FLAVOR)])
    lab.set_quota(bed.project.name, instances=10, port=0, floatingip=0)
    assert cloud.allowances()["instances"].limit == 10
    with pytest.raises(QuotaError, match="port"):
        cloud.create_ports(ref, [PortRequest("cpu-9", ref.tag(Role.WORKER), seen.networks[0].uuid)])
    address = PartRequest(PartKind.FLOATING_IP, "head", ref.tag(PartKind.FLOATING_IP), {"network": _public(bed)})
    bare = Small(cloud, ref)._drop(seen, PartKind.FLOATING_IP)
    assert not bare
    with pytest.raises(QuotaError, match="floatingip"):
        cloud.create_part(ref, address, cloud.observe(ref))
    lab.reset_quota(bed.project.name)
    head = next(p for p in seen.ports if p.name == "head")
    cloud.delete_ports(ref, [head.uuid])
    with pytest.raises(ConflictError):
        cloud.create_part(ref, address, seen)  # the picture is older than the port's end
    with pytest.raises(ConflictError):
        small.machines(seen)
    small.down()


def _public(bed: Bed) -> str:
    return str(bed.admin.network.find_network("public", ignore_missing=False).id)


def test_a_policy_that_forbids(bed: Bed, lab: LabClient, cloud: OpenStackCloud, small: Small) -> None:
    small.workers = 0
    seen = small.surroundings()
    address = next(p for p in seen.parts if p.kind is PartKind.FLOATING_IP)
    lab.forbid("network", "delete_floatingip")
    try:
        with pytest.raises(PermanentError, match="may not do this") as caught:
            cloud.delete_part(small.ref, address)
        assert caught.value.remedy or "policy" in caught.value.message
    finally:
        lab.forbid("network")
    small.down()


def test_faults_are_told(bed: Bed, lab: LabClient, cloud: OpenStackCloud, small: Small) -> None:
    small.workers = 0
    seen = small.surroundings()
    lab.fail_servers("demo-head", "no-valid-host", "There are not enough hosts available.", times=1)
    try:
        small.machines(seen)
        head = small.settled(MachineState.ERROR).head
    finally:
        lab.fail_no_servers()
    assert head is not None
    assert "No valid host" in head.fault
    small.down()


def test_many_threads(cloud: OpenStackCloud, small: Small) -> None:
    """One cloud object, asked from many threads at once from its first call on."""
    barrier = threading.Barrier(8)

    def ask(_: int) -> tuple[int, str]:
        barrier.wait()
        return cloud.flavor(FLAVOR).memory, cloud.ref("demo").id

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {(3072, small.ref.id)}


def test_errors_are_ours_alone(cloud: OpenStackCloud) -> None:
    with pytest.raises(CloudError):
        cloud.layout(cloud.ref("demo"), Wishes(network="nothing-like-it"), cloud.observe(cloud.ref("demo")))
