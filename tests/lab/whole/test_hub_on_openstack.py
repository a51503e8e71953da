"""A class on OpenStack: real services, real VMs, a real login over https to the head's floating IP; `make drills`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.hub.drills import WHERE
from tests.hub.person import person, student
from tests.lab.neighbours import settle
from tests.lab.snapshot import difference, snapshot
from tests.lab.whole.conftest import CLOUD, MINUTE, Person, new_key, person_of
from vcluster.rehearsal.browser import Failed

if TYPE_CHECKING:
    from tests.lab.lab import LabClient

pytestmark = [pytest.mark.lab, pytest.mark.vm, pytest.mark.drill, pytest.mark.timeout(5400)]

NAME = "class"
EXAMPLE = Path(__file__).parents[3] / "examples/workshop-slurm.yaml"
PATIENCE = 15 * MINUTE


@pytest.fixture(scope="module")
def hub_lab(vm_home: Path) -> Iterator[LabClient]:
    """A lab whose machines start from the workshop's image, with 200 neighbours in the project."""
    from tests.lab.lab import Lab, remove_stale_folders
    from tests.lab.qemu.image import baked_image

    remove_stale_folders()
    with Lab(machines="qemu", extra_env=baked_image(EXAMPLE)) as mine:
        settle(mine)
        yield mine
        mine.check()


@pytest.fixture(scope="module")
def organiser(hub_lab: LabClient, tmp_path_factory: pytest.TempPathFactory) -> Person:
    folder = tmp_path_factory.mktemp("class")
    return person_of(hub_lab, folder / "home", new_key(folder))


@pytest.fixture(scope="module")
def spec(organiser: Person) -> Path:
    """The workshop's example with what a cloud needs: where, and its flavors."""
    data: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    data |= {"name": NAME, "cloud": CLOUD, "image": "debian-12", "head": {"flavor": "m3.tiny"}}
    data["workers"] = [{"name": "cpu", "count": 1, "flavor": "m3.tiny"}]
    data["jupyterhub"]["class_size"] = 1
    data["access"] = {"ssh_keys": [(organiser.home / ".ssh/id_ed25519.pub").read_text().strip()]}
    path = organiser.home / "class.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_class_comes_up_somebody_logs_in_and_all_of_it_goes(
    hub_lab: LabClient, organiser: Person, spec: Path
) -> None:
    def now() -> dict[str, Any]:
        return snapshot(hub_lab.connection("admin"), hub_lab.project_id())

    before = now()
    printed = organiser("up", str(spec), "--yes")
    door = organiser.json("up", str(spec), "--yes")["hub"]
    assert door["url"] in printed
    words = organiser.json("users", NAME, "password", "--cloud", CLOUD)["passwords"]
    assert words["class"] in printed

    assert open_ports(hub_lab) == {"head": {22, 80, 443}, "worker": set()}
    host, job = asyncio.run(visit(door, words["class"]))
    assert host == "cpu-1"
    assert job.isdigit()
    assert asyncio.run(refused(door, "student-001", "not the password"))
    assert asyncio.run(refused(door, "stranger", words["class"]))

    organiser("down", NAME, "--cloud", CLOUD, "--yes")
    assert difference(before, now()) == []


async def visit(door: dict[str, str], password: str) -> tuple[str, str]:
    """Where a student's cell ran, and the number of its job."""

    class Door:
        url, ca = door["url"], door["ca"]

        def passwords(self) -> dict[str, str]:
            return {"class": password}

    async with student(Door(), "student-001", PATIENCE) as one, one.cells() as cell:
        host, job = json.loads(await cell(WHERE))
        return host, job


async def refused(door: dict[str, str], name: str, password: str) -> bool:
    async with person(door["url"], door["ca"], name, password, PATIENCE) as somebody:
        try:
            await somebody.login()
        except Failed:
            return True
        return False


def open_ports(lab: LabClient) -> dict[str, set[int]]:
    """By kind of machine, the TCP ports that the security groups of its Neutron port let anybody in to."""
    network = lab.connection("demo").network
    ports = [port for port in network.ports() if port.name.startswith(f"{NAME}-")]
    found: dict[str, set[int]] = {}
    for port in ports:
        kind = "head" if port.name.startswith(f"{NAME}-head") else "worker"
        for group in port.security_group_ids:
            for rule in network.security_group_rules(security_group_id=group, direction="ingress"):
                found.setdefault(kind, set())
                if rule.remote_group_id is None:
                    assert rule.protocol in {"tcp", "icmp"}, rule
                    if rule.protocol == "tcp":
                        found[kind] |= set(range(rule.port_range_min, rule.port_range_max + 1))
    return found
