"""Which network a cluster gets, and every way to log in, against real services."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.cloud_bed import Bed, Small
from tests.lab.lab import LabClient
from vcluster.clouds.openstack import OpenStackCloud
from vcluster.errors import PermanentError, QuotaError, TemporaryError, UsageError
from vcluster.model import Layout, Observed, PartKind, Wishes

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


class Networks:
    """Networks that were there before, made by the bare SDK, and taken away at the end."""

    def __init__(self, bed: Bed) -> None:
        self.network = bed.connection("bob").network
        self.public = bed.admin.network.find_network("public", ignore_missing=False).id
        self._made: list[tuple[str, str, str]] = []

    def make(
        self, name: str, cidr: str = "10.9.0.0/24", *, router: bool = True, ends: tuple[str, str] | None = None
    ) -> str:
        net = self.network.create_network(name=name)
        pools = [{"start": ends[0], "end": ends[1]}] if ends else None
        more = {"allocation_pools": pools} if pools else {}
        subnet = self.network.create_subnet(network_id=net.id, ip_version=4, cidr=cidr, **more)
        gate = ""
        if router:
            gate = self.network.create_router(name=name, external_gateway_info={"network_id": self.public}).id
            self.network.add_interface_to_router(gate, subnet=subnet.id)
        self._made.append((net.id, subnet.id, gate))
        return str(net.id)

    def remove(self) -> None:
        for net, subnet, gate in self._made:
            if gate:
                self.network.remove_interface_from_router(gate, subnet=subnet)
                self.network.delete_router(gate)
            self.network.delete_network(net)
        self._made.clear()


@pytest.fixture
def networks(bed: Bed) -> Iterator[Networks]:
    made = Networks(bed)
    yield made
    made.remove()


def layout(cloud: OpenStackCloud, **wishes: Any) -> Layout:
    return cloud.layout(cloud.ref("demo"), Wishes(**{"slots": 3, **wishes}), Observed())


def kinds_of(found: Layout) -> set[PartKind]:
    return {part.kind for part in found.parts}


OWN = {PartKind.SUBNET, PartKind.GATEWAY}


def test_which_network(bed: Bed, lab: LabClient, networks: Networks) -> None:
    cloud = bed.cloud()
    # Nothing there: everything is made, in a private network that the project has not.
    alone = layout(cloud)
    assert alone.network is None
    assert {*OWN, PartKind.ROUTER} < kinds_of(alone)

    # One that is fit: it is used, with an address from where its router leads.
    fit = networks.make("fit")
    used = layout(cloud)
    assert used.network is not None
    assert (used.network.uuid, used.network.cidr, used.network.foreign) == (fit, "10.9.0.0/24", True)
    assert not kinds_of(used) & {*OWN, PartKind.ROUTER}
    assert next(p for p in used.parts if p.kind is PartKind.FLOATING_IP).detail == {"network": networks.public}

    # Too small for so many: an own one, behind the router that is there (a project often may have one alone).
    many = layout(cloud, slots=300)
    assert many.network is None
    assert PartKind.ROUTER not in kinds_of(many)
    details = {p.kind: p.detail for p in many.parts}
    assert details[PartKind.GATEWAY]["router"]
    assert details[PartKind.SUBNET]["cidr"].endswith("/22")

    # Two that are fit: nobody said which. One by its name or id.
    networks.make("fit-2", "10.10.0.0/24")
    assert layout(cloud).network is None
    for word in ("fit", fit):
        named = layout(cloud, network=word)
        assert named.network is not None
        assert named.network.uuid == fit

    # The one that Neutron makes for a project that asks goes before all.
    auto = bed.connection("bob").network.get_auto_allocated_topology(bed.project.id).id
    try:
        chosen = layout(cloud)
        assert chosen.network is not None
        assert chosen.network.uuid == auto
    finally:
        bed.connection("bob").network.delete_auto_allocated_topology(bed.project.id)


def test_networks_that_cannot_be_used(bed: Bed, networks: Networks) -> None:
    cloud = bed.cloud()
    networks.make("alpha")
    networks.make("beta", "10.10.0.0/24", router=False)
    networks.make("tiny", "10.11.0.0/24", ends=("10.11.0.10", "10.11.0.12"))
    networks.make("twice", "10.12.0.0/24", router=False)
    networks.make("twice", "10.13.0.0/24", router=False)
    for wishes, error, word, remedy in (
        ({"network": "alfa"}, PermanentError, "no network 'alfa'", "`alpha`"),
        ({"network": "public"}, PermanentError, "external", "name one"),
        ({"network": "beta"}, PermanentError, "no router to 'public'", "public_ip"),
        ({"network": "twice", "public_ip": False}, PermanentError, "2 networks", "give the id"),
        ({"network": "tiny", "slots": 9}, QuotaError, "no room: 9 addresses asked", "larger"),
        ({"external_network": "publik"}, PermanentError, "no external network 'publik'", "`public`"),
        ({"floating_ip": "127.100.9.9"}, PermanentError, r"no floating IP 127\.100\.9\.9", "floating ip list"),
    ):
        with pytest.raises(error, match=word) as caught:
            layout(cloud, **wishes)
        assert remedy in caught.value.remedy
    without = layout(cloud, network="beta", public_ip=False)
    assert without.network is not None
    assert PartKind.FLOATING_IP not in kinds_of(without)


def test_a_network_that_was_there_is_left_as_it_was(bed: Bed, networks: Networks) -> None:
    """A cluster on it, with a floating IP that was there as well; both stay."""
    networks.make("fit")
    address = networks.network.create_ip(floating_network_id=networks.public)
    before = bed.everything()
    cloud = bed.cloud()
    small = Small(cloud, cloud.ref("demo"), wishes=Wishes(slots=3, floating_ip=address.floating_ip_address))
    seen = small.surroundings()
    assert [n.foreign for n in seen.networks] == [True]
    lent = next(p for p in seen.parts if p.kind is PartKind.FLOATING_IP)
    assert (lent.uuid, lent.kept, lent.ready) == (address.id, True, True)
    assert cloud.layout(small.ref, small.wishes, seen).network == seen.networks[0]
    again = bed.again()
    assert again.observe(small.ref) == seen
    other = bed.cloud("bob")
    with pytest.raises(PermanentError, match="in use"):
        other.layout(other.ref("demo"), small.wishes, Observed())
    small.cloud = again
    with pytest.raises(PermanentError, match="not deleted"):
        again.delete_part(small.ref, lent)
    with pytest.raises(PermanentError, match="not touched"):
        again.delete_network(small.ref, seen.networks[0].uuid)
    small.down()
    assert again.observe(small.ref).empty
    assert bed.everything() == before
    assert networks.network.get_ip(address.id).port_id is None
    networks.network.delete_ip(address)


def test_an_own_network_behind_a_router_that_was_there(bed: Bed, networks: Networks) -> None:
    networks.make("one")
    networks.make("two", "10.10.0.0/24")
    before = bed.everything()
    cloud = bed.cloud()
    small = Small(cloud, cloud.ref("demo"), workers=0)
    seen = small.surroundings()
    assert [n.foreign for n in seen.networks] == [False]
    leg = next(p for p in seen.parts if p.kind is PartKind.GATEWAY)
    assert PartKind.ROUTER not in {p.kind for p in seen.parts}
    assert cloud.layout(small.ref, small.wishes, seen).parts[-2].detail == {"router": leg.used_by}
    small.down()
    assert bed.everything() == before


# Ways to log in -------------------------------------------------------------------------------------------------

SHOW = """
from vcluster.clouds.openstack import OpenStackCloud
import sys
cloud = OpenStackCloud.connect(sys.argv[1])
ref = cloud.ref("demo")
print(cloud.place, ref.id, len(cloud.observe(ref).machines))
"""


def show(name: str, env: dict[str, str]) -> str:
    words = [sys.executable, "-W", "ignore", "-c", SHOW, name]
    return subprocess.run(words, env=env, capture_output=True, text=True, check=True, timeout=300).stdout


def test_ways_to_log_in(lab: LabClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """clouds.yaml, openrc and application credentials are the same person in the same project."""
    by_file = show("demo", lab.cloud_env("demo"))
    assert "project demo (" in by_file
    assert "as demo," in by_file
    rc = tmp_path / "openrc"
    rc.write_text(lab.openrc("demo"))
    script = f". {shlex.quote(str(rc))} && exec {shlex.join([sys.executable, '-W', 'ignore', '-c', SHOW, 'openstack'])}"
    clean = lab.clean_env()
    by_rc = subprocess.run(["sh", "-c", script], env=clean, capture_output=True, text=True, check=True, timeout=300)
    for unrestricted in (False, True):
        name = f"vcluster-test-{unrestricted}-{tmp_path.name}"
        credential = lab.application_credential("demo", name=name, unrestricted=unrestricted)
        try:
            file = lab.credential_clouds_yaml(_folder(tmp_path / str(unrestricted)), credential)
            by_credential = show("openstack", clean | {"OS_CLIENT_CONFIG_FILE": str(file)})
        finally:
            identity = lab.connection("demo").identity
            identity.delete_application_credential(lab.connection("demo").current_user_id, credential.id)
        assert by_credential.replace("`openstack`", "`demo`") == by_file
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(file))
        with pytest.raises(PermanentError, match="does not accept the credential") as caught:
            OpenStackCloud.connect("openstack").ref("demo")
        assert credential.secret not in str(caught.value)
    assert by_rc.stdout.replace("`openstack`", "`demo`") == by_file


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_ways_that_do_not(bed: Bed, lab: LabClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = yaml.safe_load(bed.clouds_yaml.read_text())
    alice = told["clouds"]["alice"]
    clouds = {
        "wrong-password": {**alice, "auth": {**alice["auth"], "password": "wrong"}},
        "wrong-project": {**alice, "auth": {**alice["auth"], "project_name": "demo"}},
        "wrong-region": {**alice, "region_name": "Elsewhere"},
        "wrong-port": {**alice, "auth": {**alice["auth"], "auth_url": "http://127.0.0.1:9/v3"}},
        "no-password": {**alice, "auth": {k: v for k, v in alice["auth"].items() if k != "password"}},
    }
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump({"clouds": clouds}))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(file))
    for name, word in (
        ("wrong-password", "does not accept the credential"),
        ("wrong-project", "does not accept the credential"),
        ("wrong-region", "no region 'Elsewhere'"),
        ("no-password", "password"),
    ):
        with pytest.raises(PermanentError, match=word) as caught:
            OpenStackCloud.connect(name).ref("demo")
        assert bed.word not in caught.value.message.replace(f"cloud-{bed.word}", "").replace(f"alice-{bed.word}", "")
    # Nobody listens there: that may pass, so it is tried for a while, and then told with what to look at.
    with pytest.raises(TemporaryError, match="no answer") as silent:
        OpenStackCloud.connect("wrong-port").ref("demo")
    assert "http://127.0.0.1:9/v3" in silent.value.remedy
    assert "`wrong-port`" in silent.value.remedy
    assert bed.word not in silent.value.message + silent.value.remedy
    with pytest.raises(UsageError) as unknown:
        OpenStackCloud.connect("wrong-pasword")
    assert "`wrong-password`" in unknown.value.remedy


def test_who_may_only_read(lab: LabClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(lab.clouds_yaml))
    cloud = OpenStackCloud.connect("reader")
    ref = cloud.ref("demo")
    assert cloud.observe(ref).empty
    with pytest.raises(PermanentError, match="may not do this") as caught:
        cloud.create_network(ref, ref.tag("network"))  # type: ignore[arg-type]
    assert "role" in caught.value.remedy
    cloud.close()
