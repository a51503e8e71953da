"""How the lab, or the person's credentials, are brought into each bad situation, and out of it again."""

from __future__ import annotations

import base64
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openstack.exceptions import BadRequestException

from tests.lab.layout import free_ports

if TYPE_CHECKING:
    from tests.lab.clouds import ApplicationCredential
    from tests.lab.lab import LabClient


@dataclass
class Stage:
    """Where a situation is set up: the lab, and the credentials of the person at the terminal."""

    lab: LabClient
    folder: Path
    clouds: dict[str, Any]

    @property
    def demo(self) -> Any:
        return self.lab.connection("demo")

    @property
    def entry(self) -> dict[str, Any]:
        """The person's own cloud in clouds.yaml."""
        entry: dict[str, Any] = self.clouds["clouds"]["demo"]
        return entry


Setting = Callable[[Stage], AbstractContextManager[Mapping[str, Any] | None]]


def crowd(count: int) -> list[dict[str, Any]]:
    """Users whose keys no packing makes smaller."""
    dice = random.Random(count)
    kind = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"
    keys = [base64.b64encode(kind + dice.randbytes(32)).decode() for _ in range(count)]
    return [{"name": f"student{n}", "ssh_keys": [f"ssh-ed25519 {key}"]} for n, key in enumerate(keys)]


def entry(**changes: Any) -> Setting:
    """Other words in the person's entry of clouds.yaml; None removes one. ``auth`` is merged."""

    @contextlib.contextmanager
    def prepare(stage: Stage) -> Iterator[None]:
        for key, value in changes.items():
            if key == "auth":
                stage.entry["auth"] = {k: v for k, v in {**stage.entry["auth"], **value}.items() if v is not None}
            else:
                stage.entry[key] = value
        yield

    return prepare


def quota(**limits: int) -> Setting:
    @contextlib.contextmanager
    def prepare(stage: Stage) -> Iterator[None]:
        stage.lab.set_quota("demo", **limits)
        try:
            yield
        finally:
            stage.lab.reset_quota()

    return prepare


def forbidden(service: str, *rules: str) -> Setting:
    @contextlib.contextmanager
    def prepare(stage: Stage) -> Iterator[None]:
        stage.lab.forbid(service, *rules)
        try:
            yield
        finally:
            stage.lab.forbid(service)

    return prepare


@contextlib.contextmanager
def no_clouds_yaml(stage: Stage) -> Iterator[None]:
    stage.clouds.clear()
    yield


@contextlib.contextmanager
def nobody_there(stage: Stage) -> Iterator[None]:
    (port,) = free_ports(1)
    stage.entry["auth"]["auth_url"] = f"http://127.0.0.1:{port}/v3"
    yield


@contextlib.contextmanager
def no_keystone_there(stage: Stage) -> Iterator[None]:
    stage.entry["auth"]["auth_url"] = stage.lab.upstreams["image"] + "/nothing/v3"
    yield


@contextlib.contextmanager
def credential_taken_back(stage: Stage) -> Iterator[None]:
    credential = stage.lab.application_credential("demo", name="taken-back")
    _take_away(stage, credential)
    _log_in_with(stage, credential)
    yield


@contextlib.contextmanager
def credential_that_ended(stage: Stage) -> Iterator[None]:
    """Keystone makes none whose end is past, so a moment is waited for; a longer one where it is busy."""
    for seconds in (3, 30, 300):
        end = datetime.now(UTC) + timedelta(seconds=seconds)
        try:
            told = end.strftime("%Y-%m-%dT%H:%M:%S.%f")
            credential = stage.lab.application_credential("demo", name="ended", expires_at=told)
        except BadRequestException:
            continue
        break
    _log_in_with(stage, credential)
    time.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds()) + 0.1)
    try:
        yield
    finally:
        _take_away(stage, credential)


def _log_in_with(stage: Stage, credential: ApplicationCredential) -> None:
    stage.entry.clear()
    stage.entry.update(
        auth_type="v3applicationcredential",
        region_name="RegionOne",
        auth={
            "auth_url": stage.lab.layout.auth_url("RegionOne"),
            "application_credential_id": credential.id,
            "application_credential_secret": credential.secret,
        },
    )


def _take_away(stage: Stage, credential: ApplicationCredential) -> None:
    stage.demo.identity.delete_application_credential(stage.demo.current_user_id, credential.id)


@contextlib.contextmanager
def a_reader(stage: Stage) -> Iterator[None]:
    stage.clouds["clouds"]["demo"] = stage.clouds["clouds"]["reader"]
    yield


@contextlib.contextmanager
def a_strangers_network(stage: Stage) -> Iterator[Mapping[str, Any]]:
    network = stage.lab.connection("stranger").network.create_network(name="strangers")
    try:
        yield {"network": network.id}
    finally:
        stage.lab.connection("stranger").network.delete_network(network.id)


@contextlib.contextmanager
def a_network_without_a_subnet(stage: Stage) -> Iterator[Mapping[str, Any]]:
    network = stage.demo.network.create_network(name="bare")
    try:
        yield {"network": "bare"}
    finally:
        stage.demo.network.delete_network(network.id)


@contextlib.contextmanager
def a_network_without_a_router(stage: Stage) -> Iterator[Mapping[str, Any]]:
    network = stage.demo.network.create_network(name="closed")
    stage.demo.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.9.9.0/24")
    try:
        yield {"network": "closed"}
    finally:
        stage.demo.network.delete_network(network.id)


@contextlib.contextmanager
def two_networks_of_one_name(stage: Stage) -> Iterator[Mapping[str, Any]]:
    made = [stage.demo.network.create_network(name="twice") for _ in range(2)]
    try:
        yield {"network": "twice"}
    finally:
        for network in made:
            stage.demo.network.delete_network(network.id)


@contextlib.contextmanager
def a_tiny_network(stage: Stage) -> Iterator[Mapping[str, Any]]:
    network = stage.demo.network.create_network(name="tiny")
    stage.demo.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.9.8.0/30")
    try:
        yield {"network": "tiny", "access": {"public_ip": False}}
    finally:
        stage.demo.network.delete_network(network.id)


@contextlib.contextmanager
def an_address_in_use(stage: Stage) -> Iterator[Mapping[str, Any]]:
    network = stage.demo.network
    inner = network.create_network(name="inner")
    subnet = network.create_subnet(network_id=inner.id, ip_version=4, cidr="10.9.7.0/24")
    public = network.find_network("public", ignore_missing=False)
    router = network.create_router(name="inner", external_gateway_info={"network_id": public.id})
    network.add_interface_to_router(router, subnet=subnet.id)
    port = network.create_port(network_id=inner.id)
    address = network.create_ip(floating_network_id=public.id, port_id=port.id)
    try:
        yield {"access": {"floating_ip": address.floating_ip_address}}
    finally:
        network.delete_ip(address.id)
        network.delete_port(port.id)
        network.remove_interface_from_router(router, subnet=subnet.id)
        network.delete_router(router.id)
        network.delete_network(inner.id)


@contextlib.contextmanager
def a_pool_used_up(stage: Stage, left: int) -> Iterator[str]:
    """Another external network, of whose addresses a colleague has all but so many; its name."""
    operator = stage.lab.connection("admin").network
    colleague = stage.lab.connection("colleague").network
    dry = operator.create_network(name="dry", is_router_external=True)
    operator.create_subnet(
        network_id=dry.id,
        ip_version=4,
        cidr="127.101.0.0/24",
        allocation_pools=[{"start": "127.101.0.10", "end": f"127.101.0.{10 + left}"}],
        is_dhcp_enabled=False,
    )
    taken = colleague.create_ip(floating_network_id=dry.id)
    try:
        yield dry.name
    finally:
        colleague.delete_ip(taken.id)
        operator.delete_network(dry.id)


@contextlib.contextmanager
def two_images_of_one_name(stage: Stage) -> Iterator[Mapping[str, Any]]:
    words = {"container_format": "bare", "disk_format": "raw", "data": b"x", "validate_checksum": False}
    made = [stage.demo.image.create_image(name="twice", allow_duplicates=True, **words) for _ in range(2)]
    try:
        yield {"image": "twice"}
    finally:
        for image in made:
            stage.demo.image.delete_image(image.id)


@contextlib.contextmanager
def an_image_that_is_not_ready(stage: Stage) -> Iterator[Mapping[str, Any]]:
    image = stage.demo.image.create_image(name="empty", container_format="bare", disk_format="raw")
    try:
        yield {"image": "empty"}
    finally:
        stage.demo.image.delete_image(image.id)
