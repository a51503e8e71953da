"""What a person is told when the cloud, the credential or the spec will not do; nothing has been made by then."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.lab.bad_settings import (
    Setting,
    Stage,
    a_network_without_a_router,
    a_network_without_a_subnet,
    a_pool_used_up,
    a_reader,
    a_strangers_network,
    a_tiny_network,
    an_address_in_use,
    an_image_that_is_not_ready,
    credential_taken_back,
    credential_that_ended,
    crowd,
    entry,
    forbidden,
    no_clouds_yaml,
    no_keystone_there,
    nobody_there,
    quota,
    two_images_of_one_name,
    two_networks_of_one_name,
)
from vcluster.cli import main

if TYPE_CHECKING:
    from tests.lab.lab import LabClient

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

USAGE, CLOUD, QUOTA = 2, 1, 3


@dataclass(frozen=True)
class Situation:
    """One thing that is wrong.

    Attributes:
        code: the command's exit status.
        words: what the message must say, the remedy among it.
        spec: fields of the spec that differ.
        setting: prepares the lab or the credentials, and takes that back; may give further fields of the spec.
        command: the command line; ``SPEC`` is the spec's file.
    """

    name: str
    code: int
    words: tuple[str, ...]
    spec: Mapping[str, Any] = field(default_factory=dict)
    setting: Setting | None = None
    command: tuple[str, ...] = ("up", "SPEC", "--yes")


REFUSED = ("does not accept the credential", "get a new")
LARGE = {"image": "debian-12", "workers": [{"name": "cpu", "count": 3, "flavor": "m3.quad"}]}

TABLE = (
    # Who asks
    Situation("no such cloud", USAGE, ("no cloud", "`demmo`", "`demo`"), {"cloud": "demmo"}),
    Situation("no clouds.yaml", USAGE, ("no cloud", "no clouds.yaml was found"), setting=no_clouds_yaml),
    Situation("no variables", USAGE, ("no OS_* variables", "openrc"), {"cloud": "envvars"}),
    Situation(
        "a wrong password",
        CLOUD,
        REFUSED,
        setting=entry(auth={"password": "wrong"}),
    ),
    Situation("no password", CLOUD, ("password", "required"), setting=entry(auth={"password": None})),
    Situation(
        "no such user",
        CLOUD,
        REFUSED,
        setting=entry(auth={"username": "nobody"}),
    ),
    Situation(
        "no such project",
        CLOUD,
        REFUSED,
        setting=entry(auth={"project_name": "nothing"}),
    ),
    Situation("no project at all", CLOUD, ("no project", "project_name"), setting=entry(auth={"project_name": None})),
    Situation("no such region", CLOUD, ("no region 'Mars'", "RegionOne"), setting=entry(region_name="Mars")),
    Situation("nobody at auth_url", CLOUD, ("no answer",), setting=nobody_there),
    Situation("no Keystone at auth_url", CLOUD, ("auth_url",), setting=no_keystone_there),
    Situation("a credential taken back", CLOUD, REFUSED, setting=credential_taken_back),
    Situation("a credential that has ended", CLOUD, REFUSED, setting=credential_that_ended),
    Situation("a role that only reads", CLOUD, ("may not", "member"), setting=a_reader),
    # What the spec names
    Situation("no such flavor", USAGE, ("spec.yaml:", "m3.smal", "m3.small"), {"head": {"flavor": "m3.smal"}}),
    Situation(
        "a size of one's own",
        USAGE,
        ("spec.yaml:", "only its flavors"),
        {"head": {"flavor": {"cpus": 2, "memory": "2G"}}},
    ),
    Situation("no such image", USAGE, ("spec.yaml:", "debian-13", "debian-12"), {"image": "debian-13"}),
    Situation("two images of a name", USAGE, ("2 images", "id"), setting=two_images_of_one_name),
    Situation("an image not ready", USAGE, ("queued",), setting=an_image_that_is_not_ready),
    Situation(
        "an image's address",
        CLOUD,
        ("name or id", "upload"),
        {"image": {"url": "https://example.org/x.qcow2", "sha256": "0" * 64}},
    ),
    Situation("no such network", USAGE, ("spec.yaml:", "no network", "publik"), {"network": "publik"}),
    Situation("an external network", USAGE, ("public", "external"), {"network": "public"}),
    Situation("a stranger's network", USAGE, ("no network",), setting=a_strangers_network),
    Situation("two networks of a name", USAGE, ("2 networks", "id"), setting=two_networks_of_one_name),
    Situation("a network without a subnet", USAGE, ("IPv4",), setting=a_network_without_a_subnet),
    Situation("a network without a router", USAGE, ("router",), setting=a_network_without_a_router),
    Situation("a network without room", QUOTA, ("3 addresses asked",), {}, a_tiny_network),
    Situation("no such external network", USAGE, ("publik", "public"), {"external_network": "publik"}),
    Situation("no such address", USAGE, ("127.100.250.250",), {"access": {"floating_ip": "127.100.250.250"}}),
    Situation("an address in use", USAGE, ("in use",), setting=an_address_in_use),
    Situation("no such zone", USAGE, ("zone", "nova", "moon"), {"availability_zone": "moon"}),
    # Room
    Situation("too few machines", QUOTA, ("instances", "4", "2"), LARGE, quota(instances=2)),
    Situation("too few processors", QUOTA, ("cores", "13", "8"), LARGE, quota(cores=8)),
    Situation("too little memory", QUOTA, ("ram",), LARGE, quota(ram=8192)),
    Situation("too few ports", QUOTA, ("ports",), LARGE, quota(port=3)),
    Situation("no security groups", QUOTA, ("security groups",), {}, quota(security_group=1)),
    Situation("no networks", QUOTA, ("networks",), {}, quota(network=0)),
    Situation("no routers", QUOTA, ("routers",), {}, quota(router=0)),
    Situation("no floating IPs", QUOTA, ("floating",), {}, quota(floatingip=0)),
    Situation("no volumes", QUOTA, ("volumes",), {"head": {"flavor": "m3.tiny", "root_disk": 20}}, quota(volumes=0)),
    Situation(
        "too few gigabytes",
        QUOTA,
        ("gigabytes", "40"),
        {"head": {"flavor": "m3.tiny", "root_disk": 40}},
        quota(gigabytes=30),
    ),
    Situation("too much for user data", CLOUD, ("head", "user data", "65535"), {"users": crowd(700)}),
    # Commands
    Situation("down of nothing", 0, ("nothing is there",), command=("down", "bad", "--cloud", "demo", "--yes")),
    Situation("status of nothing", USAGE, ("no cluster",), command=("status", "bad", "--cloud", "demo")),
    Situation("ssh to nothing", USAGE, ("no cluster",), command=("ssh", "bad", "--cloud", "demo")),
    Situation(
        "nobody of that name",
        USAGE,
        ("nobody",),
        command=("down", "bad", "--cloud", "demo", "--owner", "nobody", "--yes"),
    ),
)


def what_is_there(lab: LabClient) -> set[str]:
    """The project's resources that `up` could make, by id."""
    demo = lab.connection("demo")
    network, mine = demo.network, lab.project_id()
    found: list[Any] = [*demo.compute.servers(), *demo.compute.server_groups(), *demo.block_storage.volumes()]
    for listing in (network.networks, network.ports, network.routers, network.security_groups, network.ips):
        found += listing(project_id=mine)
    return {str(thing.id) for thing in found}


@pytest.mark.parametrize("situation", TABLE, ids=[s.name for s in TABLE])
def test_it_says_what_is_wrong_and_has_made_nothing(
    situation: Situation,
    lab: LabClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = Stage(lab, tmp_path, yaml.safe_load(lab.clouds_yaml.read_text()))
    before = what_is_there(lab)
    with situation.setting(stage) if situation.setting else contextlib.nullcontext() as more:
        clouds = tmp_path / "clouds.yaml"
        if stage.clouds:
            clouds.write_text(yaml.safe_dump(stage.clouds))
        for name in [n for n in lab.cloud_env() if n.startswith("OS_")]:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(tmp_path)
        # The SDK's other places for this file are fixed when it is loaded.
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(clouds))
        spec = {
            "name": "bad",
            "cloud": "demo",
            "image": "debian-12",
            "head": {"flavor": "m3.tiny"},
            "workers": [{"name": "cpu", "count": 2, "flavor": "m3.tiny"}],
            **situation.spec,
            **(more or {}),
        }
        (tmp_path / "spec.yaml").write_text(json.dumps(spec, indent=1))
        code = main(["spec.yaml" if word == "SPEC" else word for word in situation.command])
    told = capsys.readouterr()
    said = told.out + told.err
    assert code == situation.code, said
    assert [word for word in situation.words if word not in said] == [], said
    assert "Traceback" not in said
    assert what_is_there(lab) == before


@pytest.mark.parametrize(
    "policy",
    ["network create_security_group", "network create_floatingip", "compute os_compute_api:servers:create"],
)
def test_what_a_policy_forbids_is_told_and_what_was_made_goes(
    policy: str,
    lab: LabClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nobody may read a policy: it shows when it refuses."""
    before = what_is_there(lab)
    spec = small_spec(lab, tmp_path, monkeypatch)
    with forbidden(*policy.split())(Stage(lab, tmp_path, {})):
        code = main(["up", str(spec), "--yes"])
    said = capsys.readouterr().err
    assert code == CLOUD, said
    assert "may not" in said
    assert main(["down", str(spec), "--yes"]) == 0
    assert what_is_there(lab) == before


# So many addresses are left -> what is said.
POOL = ("'dry' has no address left", "what was made so far stays", "`vcluster down bad --cloud demo` deletes it")


@pytest.mark.parametrize("left", [0, 1], ids=["not even the router", "not the floating IP"])
def test_an_empty_pool_of_addresses_is_told_and_what_was_made_is_found_again(
    left: int,
    lab: LabClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nobody but the operator may count the addresses that are left: it shows when one is asked for."""
    with a_pool_used_up(Stage(lab, tmp_path, {}), left) as name:
        before = what_is_there(lab)
        spec = small_spec(lab, tmp_path, monkeypatch, external_network=name)
        code = main(["up", str(spec), "--yes"])
        said = capsys.readouterr().err
        kept = what_is_there(lab) - before
        shown = [main([*words, "--cloud", "demo"]) for words in (["list"], ["status", "bad"])]
        told = capsys.readouterr().out
        assert main(["down", str(spec), "--yes"]) == 0
        assert what_is_there(lab) == before
    assert code == QUOTA, said
    assert [words for words in POOL if words not in said] == [], said
    assert kept, "what was made is there for the next run"
    assert shown == [0, 0]
    assert "bad (leftovers)" in told
    assert "bad on demo: pending" in told


def small_spec(lab: LabClient, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Path:
    """The file of a good spec, and a log-in for the commands that take it."""
    for name in [n for n in lab.cloud_env() if n.startswith("OS_")]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(lab.clouds_yaml))
    spec, flavor = folder / "spec.yaml", {"flavor": "m3.tiny"}
    data = {"name": "bad", "cloud": "demo", "image": "debian-12", "head": flavor, "workers": [flavor]}
    spec.write_text(json.dumps(data | more))
    return spec


def test_there_are_enough_of_them() -> None:
    assert len(TABLE) >= 30
    assert len({situation.name for situation in TABLE}) == len(TABLE)
