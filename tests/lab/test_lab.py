"""The lab itself: what its README promises, against the running services."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import neighbours as others
from tests.lab.identity import keystone
from tests.lab.layout import FAULTY, SERVICES
from tests.lab.processes import runs
from tests.lab.snapshot import difference, snapshot, text

if TYPE_CHECKING:
    from openstack.connection import Connection

    from tests.lab.lab import LabClient

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


def until(done: Callable[[], Any], what: str, timeout: float = 300.0) -> Any:
    deadline = time.monotonic() + timeout
    while True:
        value = done()
        if value:
            return value
        assert time.monotonic() < deadline, f"no {what} after {timeout:.0f} s"
        time.sleep(0.2)


class Bench:
    """Makes things in the stranger's project, so that nobody else's test sees them, and takes them away again."""

    def __init__(self, lab: LabClient) -> None:
        self.lab = lab
        self.cloud: Connection = lab.connection("stranger")
        self._undo: list[Callable[[], Any]] = []
        self.flavor = self.cloud.compute.find_flavor("m3.tiny", ignore_missing=False).id
        self.image = self.cloud.image.find_image("debian-12", ignore_missing=False).id
        network = self.cloud.network.create_network(name="bench")
        self._undo.append(lambda: self.cloud.network.delete_network(network.id))
        self.subnet = self.cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.9.0.0/24")
        self.network = network.id

    def server(self, name: str, **more: Any) -> str:
        """Ask for a server, and return its id."""
        given: dict[str, Any] = {"flavor_id": self.flavor, "networks": [{"uuid": self.network}]}
        if "block_device_mapping" not in more:
            given["image_id"] = self.image
        made: str = self.cloud.compute.create_server(name=name, **(given | more)).id
        self._undo.append(lambda: self._delete(made))
        return made

    def state(self, server: str) -> str:
        status: str = self.cloud.compute.get_server(server).status
        return status

    def reaches(self, server: str, status: str) -> Any:
        """Wait for a status; ERROR ends the wait with the fault."""

        def reached() -> Any:
            now = self.cloud.compute.get_server(server)
            assert now.status == status or now.status != "ERROR", now.fault
            return now if now.status == status and not now.task_state else None

        return until(reached, f"server in {status}")

    def fails(self, server: str, words: str) -> None:
        """Wait for ERROR and for its reason, which Nova writes shortly after."""
        get = self.cloud.compute.get_server
        until(lambda: (now := get(server)).status == "ERROR" and words in (now.fault or {}).get("message", ""), words)

    def undo_with(self, action: Callable[[], Any]) -> None:
        self._undo.append(action)

    def close(self) -> None:
        for action in reversed(self._undo):
            action()

    def _delete(self, server: str) -> None:
        self.cloud.compute.delete_server(server)
        until(lambda: self.cloud.compute.find_server(server) is None, "end of the server")


@pytest.fixture(scope="module")
def project(lab: LabClient) -> Iterator[Bench]:
    bench = Bench(lab)
    yield bench
    bench.close()


@contextmanager
def faults(lab: LabClient, *order: Any) -> Iterator[None]:
    lab.fail_servers(*order)
    yield
    lab.fail_no_servers()


def test_every_service_answers_and_the_catalogue_has_both_regions(lab: LabClient) -> None:
    admin = lab.admin()
    kinds = {"identity", "image", "placement", "compute", "network", "block-storage"}
    services = {service.id: service.type for service in keystone(admin).services()}
    urls: dict[tuple[str, str], str] = {}
    for endpoint in keystone(admin).endpoints(interface="public"):
        urls[services[endpoint.service_id], endpoint.region_id] = endpoint.url
    assert {kind for kind, _ in urls} == kinds
    for service, kind in zip(SERVICES, ("identity", "image", "placement", "compute", "network"), strict=False):
        assert urls[kind, "RegionOne"].startswith(lab.upstreams[service])
        assert urls[kind, FAULTY].startswith(f"http://127.0.0.1:{lab.proxy_ports[service]}")
    assert {one.state for one in admin.compute.services()} == {"up"}
    assert {one.state for one in admin.block_storage.services()} == {"up"}


def test_demo_and_colleague_share_a_project_and_the_stranger_does_not(lab: LabClient) -> None:
    demo, colleague, stranger = (lab.connection(name) for name in ("demo", "colleague", "stranger"))
    assert demo.current_project_id == colleague.current_project_id == lab.project_id("demo")
    assert stranger.current_project_id == lab.project_id("other")
    assert demo.current_user_id != colleague.current_user_id


def test_a_member_is_no_operator_and_a_reader_makes_nothing(lab: LabClient) -> None:
    from openstack.exceptions import ForbiddenException

    with pytest.raises(ForbiddenException):
        lab.connection("demo").compute.create_flavor(name="mine", vcpus=1, ram=64, disk=1)
    with pytest.raises(ForbiddenException):
        lab.connection("reader").network.create_network(name="mine")
    assert lab.connection("reader").network.find_network("public") is not None


def test_openrc_logs_in(lab: LabClient, tmp_path: Path) -> None:
    rc = tmp_path / "openrc"
    rc.write_text(lab.openrc("demo"))
    program = "import openstack; print(openstack.connect().current_project_id)"
    command = ["sh", "-c", '. "$0" && exec "$@"', str(rc), sys.executable, "-c", program]
    done = subprocess.run(command, env=lab.clean_env(), capture_output=True, text=True, check=False)
    assert done.stdout.strip() == lab.project_id("demo"), done.stderr


@pytest.mark.parametrize("unrestricted", [False, True])
def test_application_credentials_log_in_and_only_unrestricted_ones_make_more(
    lab: LabClient, tmp_path: Path, unrestricted: bool
) -> None:
    from openstack.config import OpenStackConfig
    from openstack.connection import Connection
    from openstack.exceptions import ForbiddenException

    made = lab.application_credential("stranger", name=f"test-{unrestricted}", unrestricted=unrestricted)
    file = lab.credential_clouds_yaml(tmp_path, made)
    region = OpenStackConfig(config_files=[str(file)], load_envvars=False).get_one("openstack")
    cloud = Connection(config=region)
    try:
        assert cloud.current_project_id == lab.project_id("other")
        if unrestricted:
            more = keystone(cloud).create_application_credential(user=cloud.current_user_id or "", name="more")
            keystone(cloud).delete_application_credential(cloud.current_user_id or "", more.id)
        else:
            with pytest.raises(ForbiddenException):
                keystone(cloud).create_application_credential(user=cloud.current_user_id or "", name="more")
    finally:
        cloud.close()
        stranger = lab.connection("stranger")
        keystone(stranger).delete_application_credential(stranger.current_user_id or "", made.id)


def test_the_life_of_a_server(project: Bench) -> None:
    """With tags, a config drive, a group, a zone and a floating IP: all that a cluster's machine has."""
    compute, network = project.cloud.compute, project.cloud.network
    public = network.find_network("public", ignore_missing=False).id
    router = network.create_router(name="bench", external_gateway_info={"network_id": public})
    project.undo_with(lambda: network.delete_router(router.id))
    network.add_interface_to_router(router, subnet=project.subnet.id)
    project.undo_with(lambda: network.remove_interface_from_router(router, subnet=project.subnet.id))
    port = next(network.create_ports([{"network_id": project.network, "name": "life", "description": "mark"}]))
    project.undo_with(lambda: network.delete_port(port.id))
    address = network.create_ip(floating_network_id=public, port_id=port.id, description="mark")
    project.undo_with(lambda: network.delete_ip(address.id))
    group = compute.create_server_group(name="life", policy="soft-anti-affinity")
    project.undo_with(lambda: compute.delete_server_group(group.id))
    server = project.server(
        "life",
        networks=[{"port": port.id}],
        tags=["mark"],
        metadata={"mark": "1"},
        config_drive=True,
        user_data="aGVsbG8=",
        availability_zone="zone-b",
        scheduler_hints={"group": group.id},
    )
    active = project.reaches(server, "ACTIVE")
    assert (active.tags, active.metadata, active.availability_zone) == (["mark"], {"mark": "1"}, "zone-b")
    assert active.has_config_drive
    assert compute.get_server_group(group.id).member_ids == [server]
    assert address.floating_ip_address.startswith("127.100.")
    shown = until(lambda: compute.get_server(server).addresses["bench"][1:], "floating IP in the addresses")
    assert shown[0]["addr"] == address.floating_ip_address
    compute.stop_server(server)
    project.reaches(server, "SHUTOFF")
    compute.start_server(server)
    project.reaches(server, "ACTIVE")
    compute.reboot_server(server, "HARD")
    project.reaches(server, "ACTIVE")
    compute.shelve_server(server)
    project.reaches(server, "SHELVED_OFFLOADED")
    compute.unshelve_server(server)
    assert project.reaches(server, "ACTIVE").addresses["bench"][0]["addr"] == port.fixed_ips[0]["ip_address"]


def test_a_volume_to_boot_from_goes_with_its_server_and_another_stays(project: Bench) -> None:
    compute, storage = project.cloud.compute, project.cloud.block_storage
    root = {
        "boot_index": 0,
        "uuid": project.image,
        "source_type": "image",
        "destination_type": "volume",
        "volume_size": 5,
        "delete_on_termination": True,
    }
    server = compute.create_server(
        name="rooted",
        flavor_id=project.flavor,
        networks=[{"uuid": project.network}],
        block_device_mapping=[root],
    ).id
    extra = storage.create_volume(size=1, name="extra", metadata={"mark": "1"}).id
    attached = project.reaches(server, "ACTIVE").attached_volumes
    assert [volume.delete_on_termination for volume in attached] == [True]
    until(lambda: storage.get_volume(extra).status == "available", "volume")
    compute.create_volume_attachment(server, volume_id=extra)
    until(lambda: storage.get_volume(extra).status == "in-use", "attachment")
    compute.delete_server(server)
    until(lambda: [volume.id for volume in storage.volumes()] == [extra], "end of the root volume")
    until(lambda: storage.get_volume(extra).status == "available", "detachment")
    storage.delete_volume(extra)
    until(lambda: not list(storage.volumes()), "end of the volume")


def test_a_flavor_too_large_for_every_host_ends_in_the_schedulers_own_words(project: Bench) -> None:
    huge = project.cloud.compute.find_flavor("lab.huge", ignore_missing=False).id
    server = project.server("huge", flavor_id=huge)
    project.fails(server, "No valid host was found")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no-valid-host", "No valid host was found. hosts are full"),
        ("quota", "hosts are full"),
        ("abort", "aborted: hosts are full"),
        ("crash", "Exceeded maximum number of retries"),
    ],
)
def test_servers_fail_on_demand(lab: LabClient, project: Bench, kind: str, words: str) -> None:
    with faults(lab, f"failing-{kind}", kind, "hosts are full"):
        server = project.server(f"failing-{kind}")
        project.fails(server, words)


def test_only_as_many_servers_fail_as_were_ordered(lab: LabClient, project: Bench) -> None:
    with faults(lab, "once-.*", "abort", "not this one", 1):
        first = project.server("once-1")
        until(lambda: project.state(first) == "ERROR", "fault")
        project.reaches(project.server("once-2"), "ACTIVE")


def test_quotas_are_the_services_own(lab: LabClient) -> None:
    from openstack.exceptions import ConflictException, HttpException

    stranger = lab.connection("stranger")
    flavor = stranger.compute.find_flavor("m3.tiny", ignore_missing=False).id
    image = stranger.image.find_image("debian-12", ignore_missing=False).id
    kept = stranger.network.create_router(name="one")  # a limit may be set below what is used
    lab.set_quota("other", instances=0, router=0, volumes=0, floatingip=-1)
    try:
        with pytest.raises(HttpException, match=r"(?i)quota exceeded for instances") as refused:
            stranger.compute.create_server(name="one", flavor_id=flavor, image_id=image, networks="none")
        assert refused.value.status_code == 403
        with pytest.raises(ConflictException, match="Quota exceeded for resources: \\['router'\\]"):
            stranger.network.create_router(name="two")
        with pytest.raises(HttpException, match="VolumeLimitExceeded") as full:
            stranger.block_storage.create_volume(size=1, name="one")
        assert full.value.status_code == 413
    finally:
        lab.reset_quota("other")
    for router in (kept, stranger.network.create_router(name="two")):
        stranger.network.delete_router(router.id)


def test_a_policy_can_forbid_and_allow_again(lab: LabClient) -> None:
    from openstack.exceptions import ForbiddenException

    network = lab.connection("stranger").network
    address = network.create_ip(floating_network_id=network.find_network("public", ignore_missing=False).id)
    lab.forbid("network", "delete_floatingip")
    with pytest.raises(ForbiddenException):
        network.delete_ip(address.id, ignore_missing=False)
    lab.forbid("network")
    network.delete_ip(address.id, ignore_missing=False)
    assert network.find_ip(address.floating_ip_address) is None


def test_a_project_may_have_the_network_that_neutron_allocates(lab: LabClient) -> None:
    network = lab.auto_network("stranger")
    cloud = lab.connection("stranger").network
    assert cloud.get_network(network).name == "auto_allocated_network"
    assert cloud.find_router("auto_allocated_router") is not None
    lab.remove_auto_network("stranger")
    assert cloud.find_network("auto_allocated_network") is None


def test_two_hundred_neighbours_and_a_snapshot_that_sees_every_change(neighbours: LabClient) -> None:
    lab, admin, project_id = neighbours, neighbours.admin(), neighbours.project_id()
    before = snapshot(admin, project_id)
    counts = {kind: len([one for one in before[kind].values() if _theirs(lab, one)]) for kind in others.COUNTS}
    own_rules = {"security group rule": counts["security group rule"]}  # Neutron adds two to each group itself
    assert counts | own_rules == others.COUNTS | own_rules
    assert others.TOTAL == 200
    assert text(snapshot(admin, project_id)) == text(before)

    colleague = lab.connection("colleague")
    pair = colleague.compute.create_keypair(name="fresh")
    address = next(colleague.network.ips(project_id=project_id))
    colleague.network.update_ip(address.id, description="changed")
    changes = difference(before, snapshot(admin, project_id))
    assert f"new: key pair fresh {colleague.current_user_id}/fresh" in changes
    title = f"floating IP {address.floating_ip_address} {address.id}"
    assert f"changed: {title}: description: {address.description!r} -> 'changed'" in changes
    colleague.compute.delete_keypair(pair.name)
    assert all(line.startswith("changed: floating IP") for line in difference(before, snapshot(admin, project_id)))
    colleague.network.update_ip(address.id, description=address.description)


def _theirs(lab: LabClient, item: dict[str, Any]) -> bool:
    """Whether the neighbours made it themselves: not Neutron for a router, and not Keystone for everybody."""
    made_by_neutron = str(item.get("device_owner", "")).startswith("network:")
    return not made_by_neutron and item.get("name") != "default"


def test_what_was_started_ends_with_its_starter(tmp_path: Path) -> None:
    """However that ends: here it is killed, as a test run may be."""
    program = (
        "import sys, time; from pathlib import Path; from tests.lab.processes import Processes\n"
        "mine = Processes(Path(sys.argv[1])); mine.start('sleeper', ['sleep', '600'])\n"
        "print(mine.running['sleeper'].pid, flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    starter.kill()
    starter.wait()
    starter.stdout.close()
    until(lambda: not runs(pid), "end of the process")
