"""What a Kubernetes made, in an OpenStack: whose it is by the marks that its programs write, and how it goes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from openstack_kit import NOON, OTHER, PROJECT, REF, USER, FakeCloud, connected, fake, token

from vcluster.clouds.openstack import OpenStackCloud, kubernetes
from vcluster.errors import CloudError, ConflictError, PermanentError, TemporaryError
from vcluster.model import ClusterRef, Part, PartKind

__all__ = ["fake"]

SERVICES = ("compute", "network", "image", "volumev3", "load-balancer")
OURS = f"vcluster-{REF.id}"
NOT_OURS = [f"{OURS}0", f"{OURS[:-1]}", f"{OURS}_x", f"x{OURS}", f"{OURS}-2", OURS.upper(), "kubernetes", "", " "]
AT = "2026-11-22T12:00:00"


@pytest.fixture
def cloud(fake: FakeCloud) -> Iterator[OpenStackCloud]:
    """With an Octavia."""
    fake.login(token(SERVICES))
    with contextlib.closing(connected(fake)) as made:
        yield made


def balancer(cluster: str = OURS, **more: Any) -> dict[str, Any]:
    name = f"kube_service_{cluster}_default_web"
    return {
        "id": "lb1",
        "name": name,
        "description": f"Kubernetes external service default/web from cluster {cluster}",
        "tags": [name],
        "provisioning_status": "ACTIVE",
        "created_at": AT,
        "vip_port_id": "vip",
    } | more


def address(cluster: str = OURS, **more: Any) -> dict[str, Any]:
    said = f"Floating IP for Kubernetes external service default/web from cluster {cluster}"
    told = {"id": "f1", "floating_ip_address": "192.0.2.7", "description": said, "port_id": None, "created_at": AT}
    return told | {"revision_number": 3} | more


def group(cluster: str = OURS, **more: Any) -> dict[str, Any]:
    said = f"Security Group for default/web Service LoadBalancer in cluster {cluster}"
    name = "lb-sg-4ef0a7b4-2c1c-4a52-8f4b-a5b9d8c1d111-default-web"
    return {"id": "g1", "name": name, "description": said, "created_at": AT} | more


def volume(cluster: str = OURS, **more: Any) -> dict[str, Any]:
    claim = {"csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "default"}
    return {
        "id": "v1",
        "name": "pvc-5c9d",
        "status": "available",
        "attachments": [],
        "metadata": {kubernetes.CSI: cluster, **claim},
        "created_at": AT,
    } | more


def snapshot(cluster: str = OURS, **more: Any) -> dict[str, Any]:
    told = {"id": "s1", "name": "snapshot-77", "status": "available", "metadata": {kubernetes.CSI: cluster}}
    return told | {"created_at": AT} | more


MAKE = {
    PartKind.LOAD_BALANCER: balancer,
    PartKind.FLOATING_IP: address,
    PartKind.SECURITY_GROUP: group,
    PartKind.VOLUME: volume,
    PartKind.SNAPSHOT: snapshot,
}
ONE = {
    PartKind.LOAD_BALANCER: ("octavia", "/lbaas/loadbalancers", "loadbalancer"),
    PartKind.FLOATING_IP: ("neutron", "/floatingips", "floatingip"),
    PartKind.SECURITY_GROUP: ("neutron", "/security-groups", "security_group"),
    PartKind.VOLUME: ("cinder", "/volumes", "volume"),
    PartKind.SNAPSHOT: ("cinder", "/snapshots", "snapshot"),
}


def serve(fake: FakeCloud, kind: PartKind, *things: dict[str, Any], gone: bool = False) -> None:
    """The things of a kind, in their listing and each by itself."""
    service, path, key = ONE[kind]
    detail = "/detail" if service == "cinder" else ""
    answer = getattr(fake, service)
    answer("GET", f"{path}{detail}", json={f"{key}s": list(things)})
    for told in things:
        found: dict[str, Any] = {"status_code": 404} if gone else {"json": {key: told}}
        answer("GET", f"{path}/{told['id']}", **found)
        answer("DELETE", f"{path}/{told['id']}", status_code=204)


def part(kind: PartKind, told: dict[str, Any] | None = None) -> Part:
    made = kubernetes.part(REF, kind, told or MAKE[kind]())
    assert made is not None
    return made


# What is listed -----------------------------------------------------------------------------------------------------


def test_each_kind_is_found_and_has_the_name_of_its_object(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    for kind, make in MAKE.items():
        serve(fake, kind, make(), make(f"vcluster-{OTHER.id}", id="x"), make("kubernetes", id="y"))
    found = {p.kind: p for p in cloud.offspring(REF)}
    assert found == {kind: part(kind) for kind in MAKE}
    assert {p.name for p in found.values()} == {"default/web", "default/data", "snapshot-77"}
    for kind, one in found.items():
        assert (one.tag, one.maker, one.created, one.kept) == (REF.tag(kind), "Kubernetes", NOON, False)
    (listed,) = fake.asked("GET", "/lbaas/loadbalancers")
    assert listed.qs["project_id"] == [PROJECT]


def test_who_has_a_volume_or_an_address() -> None:
    used = part(PartKind.VOLUME, volume(status="in-use", attachments=[{"server_id": "s9"}]))
    assert (used.used_by, used.status) == ("s9", "in-use")
    assert part(PartKind.FLOATING_IP, address(port_id="p7")).used_by == "p7"
    assert part(PartKind.VOLUME, volume(metadata={kubernetes.CSI: OURS, "vcluster-kept": "yes"})).kept
    assert part(PartKind.VOLUME, volume(metadata={kubernetes.CSI: OURS})).name == "pvc-5c9d"


@pytest.mark.parametrize("cluster", NOT_OURS)
@pytest.mark.parametrize("kind", list(MAKE))
def test_a_name_that_only_looks_like_ours_is_anothers(kind: PartKind, cluster: str) -> None:
    assert kubernetes.part(REF, kind, MAKE[kind](cluster)) is None


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (PartKind.LOAD_BALANCER, {"name": "kube_service_other_default_web"}),  # taken over by another controller
        (PartKind.LOAD_BALANCER, {"name": f"kube_service_{OURS}_default_web2"}),
        (PartKind.LOAD_BALANCER, {"name": "web"}),
        (PartKind.LOAD_BALANCER, {"description": ""}),
        (PartKind.LOAD_BALANCER, {"description": None}),
        (PartKind.LOAD_BALANCER, {"description": f"{balancer()['description']} and mine"}),
        (PartKind.LOAD_BALANCER, {"description": f"was: {balancer()['description']}"}),
        (PartKind.LOAD_BALANCER, {"description": f"{balancer()['description']}\n"}),
        (PartKind.FLOATING_IP, {"description": f"{address()['description']}."}),
        (PartKind.FLOATING_IP, {"description": balancer()["description"]}),
        (PartKind.SECURITY_GROUP, {"name": "web"}),
        (PartKind.SECURITY_GROUP, {"name": "lb-sg-4ef0a7b4-default-other"}),
        (PartKind.VOLUME, {"metadata": {}}),
        (PartKind.VOLUME, {"metadata": None}),
        (PartKind.VOLUME, {"metadata": {"cluster": OURS}, "name": f"pvc-{OURS}"}),
    ],
)
def test_all_marks_must_agree(kind: PartKind, more: dict[str, Any]) -> None:
    assert kubernetes.part(REF, kind, MAKE[kind](**more)) is None


def test_names_as_long_as_kubernetes_allows() -> None:
    space, name = "n" * 63, "s" * 63
    said = f"{space}/{name}"
    told = balancer(
        name=f"kube_service_{OURS}_{space}_{name}"[:255],
        description=f"Kubernetes external service {said} from cluster {OURS}",
    )
    assert part(PartKind.LOAD_BALANCER, told).name == said
    told = group(
        name=f"lb-sg-4ef0a7b4-2c1c-4a52-8f4b-a5b9d8c1d111-{space}-{name}"[:255],
        description=f"Security Group for {said} Service LoadBalancer in cluster {OURS}",
    )
    assert part(PartKind.SECURITY_GROUP, told).name == said


def test_a_cloud_that_has_neither_is_not_asked(fake: FakeCloud) -> None:
    fake.login(token(("compute", "network", "image")))
    with contextlib.closing(connected(fake)) as cloud:
        assert cloud.offspring(REF) == []
    assert {r.hostname for r in fake.mocker.request_history} == {"keystone.test", "neutron.test"}


def test_nobody_but_down_asks_for_them(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    serve(fake, PartKind.LOAD_BALANCER, balancer())
    serve(fake, PartKind.FLOATING_IP, address())
    serve(fake, PartKind.VOLUME, volume())
    assert cloud.observe(REF).empty
    assert fake.asked("GET", "octavia.test") == []
    assert fake.asked("GET", "/snapshots") == []


@pytest.mark.parametrize("status", [403, 404])
def test_who_may_have_none_has_none(fake: FakeCloud, cloud: OpenStackCloud, status: int) -> None:
    fake.octavia("GET", "/lbaas/loadbalancers", status_code=status)
    fake.cinder("GET", "/snapshots/detail", status_code=status)
    assert cloud.offspring(REF) == []


def test_access_rules_that_leave_octavia_out(fake: FakeCloud) -> None:
    body = token(SERVICES)
    rules = [{"service": service, "method": "GET", "path": "/**"} for service in ("compute", "network")]
    body["token"]["application_credential"] = {"id": "1", "name": "x", "restricted": True, "access_rules": rules}
    fake.login(body)
    with contextlib.closing(connected(fake)) as cloud:
        assert cloud.offspring(REF) == []
    assert fake.asked("GET", "octavia.test") == []


def test_an_octavia_that_does_not_answer_is_told(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.octavia("GET", "/lbaas/loadbalancers", status_code=503)
    with pytest.raises(TemporaryError, match="list load balancers"):
        cloud.offspring(REF)


@pytest.mark.parametrize("kind", [k for k in MAKE if k is not PartKind.SNAPSHOT])
def test_list_shows_a_cluster_of_which_nothing_else_is_left(
    fake: FakeCloud, cloud: OpenStackCloud, kind: PartKind
) -> None:
    serve(fake, kind, MAKE[kind](), MAKE[kind]("kubernetes", id="x"), MAKE[kind]("vcluster-prod", id="y"))
    (found,) = cloud.clusters()
    assert found.ref == ClusterRef(REF.id, PROJECT, "", known_id=REF.id)
    assert (found.machines, found.headless, found.created) == (0, True, NOON)


def test_list_knows_the_name_where_anything_of_ours_tells_it(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    serve(fake, PartKind.LOAD_BALANCER, balancer())
    told = {"id": "n1", "name": "demo", "description": REF.tag(PartKind.SUBNET), "created_at": AT}
    fake.neutron("GET", "/networks", json={"networks": [told]})
    (found,) = cloud.clusters()
    assert (found.ref, found.ref.creator) == (REF, USER)


def test_list_does_not_need_octavia(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    fake.octavia("GET", "/lbaas/loadbalancers", status_code=503)
    assert cloud.clusters() == []
    kept = volume(metadata={kubernetes.CSI: OURS, "vcluster-kept": "yes"})
    serve(fake, PartKind.VOLUME, kept)
    assert cloud.clusters() == []


# What goes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(MAKE))
def test_each_goes_after_a_look_at_its_mark(fake: FakeCloud, cloud: OpenStackCloud, kind: PartKind) -> None:
    serve(fake, kind, MAKE[kind]())
    cloud.delete_part(REF, part(kind))
    before, (last,) = fake.asked("GET")[-1], fake.asked("DELETE")
    assert last.path == before.path
    assert last.query == ("cascade=true" if kind is PartKind.LOAD_BALANCER else "")


@pytest.mark.parametrize("kind", list(MAKE))
def test_what_is_gone_already_is_no_error(fake: FakeCloud, cloud: OpenStackCloud, kind: PartKind) -> None:
    serve(fake, kind, MAKE[kind](), gone=True)
    cloud.delete_part(REF, part(kind))
    assert fake.asked("DELETE") == []


@pytest.mark.parametrize("cluster", ["kubernetes", f"{OURS}0", f"vcluster-{OTHER.id}"])
@pytest.mark.parametrize("kind", list(MAKE))
def test_what_bears_another_mark_now_is_not_touched(
    fake: FakeCloud, cloud: OpenStackCloud, kind: PartKind, cluster: str
) -> None:
    serve(fake, kind, MAKE[kind](cluster))
    cloud.offspring(REF)  # what a listing showed is no proof
    with pytest.raises(PermanentError, match="is not touched"):
        cloud.delete_part(REF, part(kind))
    serve(fake, kind, MAKE[kind]())
    with pytest.raises(PermanentError, match="is not touched"):
        cloud.delete_part(OTHER, replace(part(kind), tag=OTHER.tag(kind)))
    assert fake.asked("DELETE") == []


@pytest.mark.parametrize("status", ["PENDING_CREATE", "PENDING_UPDATE"])
def test_a_load_balancer_in_the_middle_of_a_change_is_a_conflict(
    fake: FakeCloud, cloud: OpenStackCloud, status: str
) -> None:
    serve(fake, PartKind.LOAD_BALANCER, balancer(provisioning_status=status))
    with pytest.raises(ConflictError, match=f"it is {status}"):
        cloud.delete_part(REF, part(PartKind.LOAD_BALANCER))
    assert fake.asked("DELETE") == []


@pytest.mark.parametrize("status", ["PENDING_DELETE", "DELETED"])
def test_a_load_balancer_on_its_way_out_is_left_to_it(fake: FakeCloud, cloud: OpenStackCloud, status: str) -> None:
    serve(fake, PartKind.LOAD_BALANCER, balancer(provisioning_status=status))
    cloud.delete_part(REF, part(PartKind.LOAD_BALANCER))
    assert fake.asked("DELETE") == []


@pytest.mark.parametrize(
    ("status", "says", "kind"),
    [
        (409, "Load Balancer lb1 is immutable and cannot be updated.", ConflictError),
        (500, "Provider 'amphora' reports error: no answer", TemporaryError),
        (501, "Provider 'ovn' does not support a requested action: cascade", PermanentError),
    ],
)
def test_octavias_refusals_are_told_in_its_words(
    fake: FakeCloud, cloud: OpenStackCloud, status: int, says: str, kind: type[CloudError]
) -> None:
    serve(fake, PartKind.LOAD_BALANCER, balancer(provisioning_status="ERROR"))
    body = {"faultcode": "Client", "faultstring": says, "debuginfo": None}
    fake.octavia("DELETE", "/lbaas/loadbalancers/lb1", status_code=status, json=body)
    with pytest.raises(kind, match=f"delete load balancer lb1: {says}"):
        cloud.delete_part(REF, part(PartKind.LOAD_BALANCER))


def test_a_load_balancer_that_another_cluster_uses_too_stays(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    own = [f"kube_service_{OURS}_default_web", f"kube_service_{OURS}_default_api", "mine", ""]
    for theirs in ("kube_service_kubernetes_default_web", f"kube_service_{OURS}_x_default_web"):
        serve(fake, PartKind.LOAD_BALANCER, balancer(tags=[*own, theirs]))
        with pytest.raises(PermanentError, match=rf"serves another cluster, too \({theirs}\)"):
            cloud.delete_part(REF, part(PartKind.LOAD_BALANCER))
    assert fake.asked("DELETE") == []
    serve(fake, PartKind.LOAD_BALANCER, balancer(tags=own))
    cloud.delete_part(REF, part(PartKind.LOAD_BALANCER))
    assert len(fake.asked("DELETE")) == 1


def test_an_address_goes_from_our_load_balancer_and_from_no_strangers_machine(
    fake: FakeCloud, cloud: OpenStackCloud
) -> None:
    serve(fake, PartKind.FLOATING_IP, address(port_id="vip"))
    fake.neutron("GET", "/ports/vip", json={"port": {"id": "vip", "description": "", "device_id": "lb-lb1"}})
    serve(fake, PartKind.LOAD_BALANCER, balancer("kubernetes"), balancer(vip_port_id="another", id="lb2"))
    with pytest.raises(PermanentError, match="was given to port vip of lb-lb1, which is not this cluster's"):
        cloud.delete_part(REF, part(PartKind.FLOATING_IP))
    serve(fake, PartKind.LOAD_BALANCER, balancer())
    cloud.delete_part(REF, part(PartKind.FLOATING_IP))
    (last,) = fake.asked("DELETE")
    assert last.headers["If-Match"] == "revision_number=3"


@pytest.mark.parametrize("kind", [PartKind.VOLUME, PartKind.SNAPSHOT])
def test_a_disk_that_is_busy_is_a_conflict_and_a_kept_one_stays(
    fake: FakeCloud, cloud: OpenStackCloud, kind: PartKind
) -> None:
    serve(fake, kind, MAKE[kind](status="in-use"))
    with pytest.raises(ConflictError, match="it is in-use"):
        cloud.delete_part(REF, part(kind))
    kept = {kubernetes.CSI: OURS, "vcluster-kept": "yes"}
    serve(fake, kind, MAKE[kind](metadata=kept))
    with pytest.raises(PermanentError, match="was asked to stay"):
        cloud.delete_part(REF, part(kind))
    serve(fake, kind, MAKE[kind](status="deleting"))
    cloud.delete_part(REF, part(kind))
    assert fake.asked("DELETE") == []


@pytest.mark.parametrize("kind", [PartKind.VOLUME, PartKind.SNAPSHOT])
def test_a_disk_is_marked_as_kept(fake: FakeCloud, cloud: OpenStackCloud, kind: PartKind) -> None:
    _, path, key = ONE[kind]
    serve(fake, kind, MAKE[kind]("kubernetes"))
    fake.cinder("POST", f"{path}/{part(kind).uuid}/metadata", json={"metadata": {}})
    with pytest.raises(PermanentError, match="is not touched"):
        cloud.keep_volumes(REF, [part(kind)])
    serve(fake, kind, MAKE[kind](), gone=True)
    cloud.keep_volumes(REF, [part(kind)])
    assert fake.asked("POST", "/metadata") == []
    serve(fake, kind, MAKE[kind]())
    cloud.keep_volumes(REF, [part(kind)])
    (post,) = fake.asked("POST", f"/{key}s/")
    assert post.json() == {"metadata": {"vcluster-kept": "yes"}}
