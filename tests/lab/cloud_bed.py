"""A project of their own for the cloud's tests, with two users, and a cluster made step by step without the loop."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.lab.lab import LabClient
from tests.lab.layout import DIRECT
from tests.lab.snapshot import snapshot
from vcluster.chosen import chosen_network
from vcluster.clouds.openstack import OpenStackCloud
from vcluster.errors import ConflictError
from vcluster.model import (
    ClusterRef,
    ImageRequest,
    Layout,
    Machine,
    MachineRequest,
    MachineState,
    Observed,
    PartKind,
    PortRequest,
    Role,
    VolumeRequest,
    Wishes,
)

__all__ = ["Bed", "Small", "until"]

FLAVOR, IMAGE = "m3.tiny", "debian-12"
USER_DATA = "#cloud-config\nhostname: test\n"


def until(done: Callable[[], Any], what: str, timeout: float = 300.0) -> Any:
    """Ask until the answer is true."""
    deadline = time.monotonic() + timeout
    while not (value := done()):
        assert time.monotonic() < deadline, f"no {what} after {timeout:.0f} s"
        time.sleep(0.3)
    return value


class Bed:
    """A new project with the users ``alice`` and ``bob``; everything in it goes at the end.

    Args:
        folder: for clouds.yaml.
    """

    def __init__(self, lab: LabClient, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.word = uuid.uuid4().hex[:8]
        self.admin = lab.connection("admin")
        identity = self.admin.identity
        self.project = identity.create_project(name=f"cloud-{self.word}", domain_id="default")
        role = identity.find_role("member", ignore_missing=False)
        self.users = {}
        for name in ("alice", "bob"):
            user = identity.create_user(name=f"{name}-{self.word}", password=self.word, domain_id="default")
            identity.assign_project_role_to_user(self.project, user, role)
            self.users[name] = user
        self.auth = {
            name: {
                "auth_url": lab.layout.auth_url(DIRECT),
                "username": user.name,
                "password": self.word,
                "project_name": self.project.name,
                "user_domain_id": "default",
                "project_domain_id": "default",
            }
            for name, user in self.users.items()
        }
        clouds = {name: {"region_name": DIRECT, "auth": auth} for name, auth in self.auth.items()}
        self.clouds_yaml = folder / "clouds.yaml"
        self.clouds_yaml.write_text(yaml.safe_dump({"clouds": clouds}))
        self._clouds: dict[str, OpenStackCloud] = {}

    def cloud(self, name: str = "alice") -> OpenStackCloud:
        """One for each user; ``OS_CLIENT_CONFIG_FILE`` must name :attr:`clouds_yaml`."""
        if name not in self._clouds:
            self._clouds[name] = OpenStackCloud.connect(name)
        return self._clouds[name]

    def again(self, name: str = "alice") -> OpenStackCloud:
        """As a new process would see it: nothing is remembered."""
        self._clouds.pop(name).close()
        return self.cloud(name)

    def connection(self, name: str = "alice") -> Any:
        """The bare SDK as the same user, for what is made beside vcluster."""
        import openstack

        return openstack.connect(cloud=name)

    def everything(self) -> dict[str, list[str]]:
        """Uuids by kind of what is in the project, but for the group that Neutron makes for each."""
        found = {kind: sorted(items) for kind, items in snapshot(self.admin, self.project.id).items()}
        groups = self.admin.network.security_groups(project_id=self.project.id, name="default")
        default = {group.id for group in groups}
        rules = {r.id for r in self.admin.network.security_group_rules(project_id=self.project.id)}
        defaults = {
            r.id
            for r in self.admin.network.security_group_rules(project_id=self.project.id)
            if r.security_group_id in default
        }
        assert defaults <= rules
        found["security group"] = [u for u in found["security group"] if u not in default]
        found["security group rule"] = [u for u in found["security group rule"] if u not in defaults]
        return {kind: uuids for kind, uuids in found.items() if uuids}

    def close(self) -> None:
        """Take all of it away, with what a test that failed left behind."""
        for cloud in self._clouds.values():
            for summary in cloud.clusters():
                Small(cloud, summary.ref).down()
            cloud.close()
        for user in self.users.values():
            self.admin.identity.delete_user(user)
        self.admin.identity.delete_project(self.project)


@dataclass
class Small:
    """A head and some workers, made in the order of the waves, as the loop would."""

    cloud: OpenStackCloud
    ref: ClusterRef
    workers: int = 2
    wishes: Wishes = field(default_factory=lambda: Wishes(slots=3))
    layout: Layout = field(default_factory=Layout)

    def surroundings(self) -> Observed:
        """Network, groups, ports, gateway, floating IP."""
        cloud, ref = self.cloud, self.ref
        self.layout = cloud.layout(ref, self.wishes, cloud.observe(ref))
        if self.layout.network is None:
            cloud.create_network(ref, ref.tag(Role.NETWORK))
        self._parts(PartKind.SECURITY_GROUP, PartKind.SERVER_GROUP, PartKind.ROUTER)
        self._parts(PartKind.SUBNET)
        network = self.layout.network or chosen_network(cloud.observe(ref))
        assert network is not None
        cloud.create_ports(ref, [PortRequest("head", ref.tag(Role.HEAD), network.uuid, "0123456789ab")])
        names = [f"cpu-{n + 1}" for n in range(self.workers)]
        cloud.create_ports(ref, [PortRequest(name, ref.tag(Role.WORKER), network.uuid) for name in names])
        self._parts(PartKind.GATEWAY)
        self._parts(PartKind.FLOATING_IP)
        return cloud.observe(ref)

    def _parts(self, *kinds: PartKind) -> None:
        seen = self.cloud.observe(self.ref)
        for request in self.layout.parts:
            if request.kind in kinds:
                self.cloud.create_part(self.ref, request, seen)

    def machines(self, seen: Observed, *, volumes: dict[str, str] | None = None, zone: str = "") -> list[Machine]:
        """A server on each port."""
        cloud, ref = self.cloud, self.ref
        flavor, image = cloud.flavor(FLAVOR), cloud.image(ImageRequest(source=IMAGE), print)
        made = []
        for port in sorted(seen.ports, key=lambda p: p.name != "head"):
            role = Role.HEAD if port.name == "head" else Role.WORKER
            request = MachineRequest(
                name=port.name,
                tag=ref.tag(role),
                role=role,
                group="" if role is Role.HEAD else "cpu",
                flavor=flavor,
                port=port,
                image=image,
                user_data=USER_DATA,
                volume=(volumes or {}).get(port.name, ""),
                zone=zone,
                host_key="ssh-ed25519 AAAA" if role is Role.HEAD else "",
                self_contained=role is Role.HEAD,
            )
            made.append(cloud.create_machine(ref, request))
        return made

    def volume(self, name: str, size: int = 8) -> str:
        image = self.cloud.image(ImageRequest(source=IMAGE), print)
        request = VolumeRequest(name, self.ref.tag(PartKind.VOLUME), size, image)
        return self.cloud.create_volume(self.ref, request).uuid

    def settled(self, state: MachineState = MachineState.ACTIVE, count: int | None = None) -> Observed:
        """The whole picture, once so many machines are all in that state."""
        count = self.workers + 1 if count is None else count
        since = self.cloud.observe(self.ref)

        def there() -> bool:
            machines = self.cloud.observe(self.ref, since).machines
            assert state is MachineState.ERROR or not [m.fault for m in machines if m.state is MachineState.ERROR]
            return [m.state for m in machines] == [state] * count

        until(there, f"{count} machines {state}")
        return self.cloud.observe(self.ref)

    def down(self) -> None:
        """Delete it in the order that the planner has."""
        cloud, ref = self.cloud, self.ref
        seen = cloud.observe(ref)
        self._drop(seen, PartKind.FLOATING_IP)
        for machine in seen.machines:
            cloud.delete_machine(ref, machine.uuid)
        until(lambda: not cloud.observe(ref).machines, "end of the machines")
        cloud.delete_ports(ref, [port.uuid for port in seen.ports])
        for kinds in (
            (PartKind.VOLUME, PartKind.GATEWAY, PartKind.SERVER_GROUP),
            (PartKind.ROUTER, PartKind.SUBNET),
        ):
            until(lambda kinds=kinds: self._drop(cloud.observe(ref), *kinds), f"end of {kinds}")
        for network in seen.networks:
            if not network.foreign:
                cloud.delete_network(ref, network.uuid)
        self._drop(cloud.observe(ref), PartKind.SECURITY_GROUP)

    def _drop(self, seen: Observed, *kinds: PartKind) -> bool:
        """Ask for parts to go; whether none of them is there any more."""
        mine = [part for part in seen.parts if part.kind in kinds and not part.kept]
        for part in mine:
            try:
                self.cloud.delete_part(self.ref, part)
            except ConflictError:
                continue  # it is in use for a moment more
        return not mine


def kinds(observed: Observed) -> Iterable[tuple[PartKind, str]]:
    return sorted((part.kind, part.name) for part in observed.parts)
