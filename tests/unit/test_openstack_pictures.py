"""Between the cloud's JSON and our pictures: marks, names, notes, states. No cloud is asked."""

from __future__ import annotations

import random
import string
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcluster.clouds.openstack import marks, pictures
from vcluster.clouds.openstack.create import USER_DATA_LIMIT, packed
from vcluster.clouds.openstack.networks import free_cidr
from vcluster.clouds.openstack.rest import HEARD, Clock
from vcluster.errors import PermanentError, QuotaError
from vcluster.model import ClusterRef, MachineState, PartKind, Port, Role

REF = ClusterRef("demo", "p" * 32, "u" * 32, owner="alice b. smith")
OTHER = ClusterRef("demo", "p" * 32, "v" * 32)
names = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)


def server(**more: Any) -> dict[str, Any]:
    metadata = marks.volume_mark(REF, REF.tag(Role.HEAD), "head") | {marks.PORT: "port-1"}
    told = {
        "id": "s1",
        "name": "demo-head",
        "status": "ACTIVE",
        "metadata": metadata,
        "created": "2026-11-22T12:00:00Z",
        "flavor": {"original_name": "m3.tiny"},
    }
    return told | more


# Marks ----------------------------------------------------------------------------------------------------------


@given(st.text(max_size=60))
def test_a_tag_is_only_what_was_written_as_one(text: str) -> None:
    tag = marks.tag_in(text)
    assert tag == "" or text.startswith(tag)
    assert not REF.owns(tag)


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        "vcluster",
        "my vcluster/0123456789/head",
        "vcluster/0123456789",
        "vcluster/012345678X/head",
        "x/0/head",
    ],
)
def test_what_is_not_ours(text: str | None) -> None:
    assert marks.tag_in(text) == ""
    assert marks.signature(text) is None


def test_a_description_tells_whose_cluster_it_is() -> None:
    text = marks.signed(REF, REF.tag(PartKind.SECURITY_GROUP))
    assert marks.tag_in(text) == REF.tag(PartKind.SECURITY_GROUP)
    assert marks.signature(text) == marks.Signature(REF.id, "demo", "alice b. smith", "u" * 32)
    assert marks.signature(REF.tag(Role.NETWORK)) == marks.Signature(REF.id)
    assert len(text) <= 255


def test_metadata_tells_whose_cluster_it_is() -> None:
    assert marks.signature(marks.volume_mark(REF, REF.tag(PartKind.VOLUME), "head")) == marks.Signature(
        REF.id, "demo", "alice b. smith", "u" * 32
    )
    assert marks.signature({"vcluster": "yes"}) is None


@given(slot=names, number=st.integers(1, 999), claim=st.sampled_from(["", "0123456789ab"]))
def test_names_of_ports(slot: str, number: int, claim: str) -> None:
    for name in (f"{slot}-{number}", "head"):
        port = marks.port_name(REF, name, claim)
        assert marks.slot_name(REF, port) == name
        assert marks.claim_of(port) == claim


def test_a_server_group_is_known_by_its_name() -> None:
    assert marks.cluster_of(marks.server_group_name(REF)) == REF.id
    assert marks.cluster_of("vcluster/0123456789/head") == "0123456789"
    assert marks.cluster_of("workers") == ""


# Notes ----------------------------------------------------------------------------------------------------------

note_keys = st.sampled_from(["spec", "ready-at", "attempts/cpu-1", "attempts/head", "leaving", "expires"])
note_values = st.text(string.ascii_lowercase + string.digits + "-@. ", min_size=1, max_size=30).map(str.strip)


@given(st.dictionaries(note_keys, note_values.filter(bool)))
def test_notes_come_back(notes: dict[str, str]) -> None:
    tags = [marks.note_tag(key, value) for key, value in notes.items()]
    assert marks.notes_of(tags) == notes
    assert all("/" not in tag and len(tag) <= 60 for tag in tags)


def test_the_first_carrier_counts_and_of_two_words_the_greater() -> None:
    assert marks.notes_of(["a=1"], ["a=2", "b=3"]) == {"a": "1", "b": "3"}
    assert marks.notes_of(["expires=1795348800", "expires=1795348900"]) == {"expires": "1795348900"}
    assert marks.notes_of(["leaving=up-1", "leaving=down-9"]) == {"leaving": "up-1"}
    assert marks.notes_of(["somebody's", "a="]) == {}


@pytest.mark.parametrize(
    ("key", "value"), [("spec", "a,b"), ("spec", "ä"), ("spec", "x" * 60), ("a", "b/c"), ("a", "\n")]
)
def test_notes_that_neutron_would_not_take(key: str, value: str) -> None:
    with pytest.raises(PermanentError, match="cannot be kept"):
        marks.note_tag(key, value)


# Pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "task", "state"),
    [
        ("BUILD", "spawning", MachineState.BUILD),
        ("ACTIVE", None, MachineState.ACTIVE),
        ("ACTIVE", "powering-off", MachineState.ACTIVE),
        ("ACTIVE", "deleting", MachineState.DELETING),
        ("ERROR", "deleting", MachineState.DELETING),
        ("ERROR", None, MachineState.ERROR),
        ("ERROR", "reboot_started_hard", MachineState.BUILD),
        ("ERROR", "rebooting", MachineState.BUILD),
        ("ERROR", "spawning", MachineState.ERROR),
        ("SHUTOFF", None, MachineState.SHUTOFF),
        ("SHUTOFF", "powering-on", MachineState.BUILD),
        ("HARD_REBOOT", "reboot_started_hard", MachineState.BUILD),
        ("SHELVED", "shelving_offloading", MachineState.SHELVED),
        ("SHELVED_OFFLOADED", None, MachineState.SHELVED),
        ("SHELVED_OFFLOADED", "spawning", MachineState.BUILD),
        ("PAUSED", None, MachineState.SHUTOFF),
        ("PAUSED", "unpausing", MachineState.BUILD),
        ("SUSPENDED", None, MachineState.SHUTOFF),
        ("SUSPENDED", "resuming", MachineState.BUILD),
        ("ACTIVE", "suspending", MachineState.ACTIVE),
        ("RESCUE", None, MachineState.UNKNOWN),
        ("SOMETHING_NEW", None, MachineState.UNKNOWN),
        ("DELETED", None, None),
        ("SOFT_DELETED", None, None),
    ],
)
def test_states(status: str, task: str | None, state: MachineState | None) -> None:
    assert pictures.state_of({"status": status, "OS-EXT-STS:task_state": task}) is state


def test_a_machine_has_its_port_from_neutron_or_from_its_own_word() -> None:
    port = Port("port-1", REF.tag(Role.HEAD), "head", "10.0.0.9", "fa:16")
    held = Port("port-2", REF.tag(Role.HEAD), "head", "10.0.0.8", "fa:17", device="s1")
    for ports, expected in (([port], port), ([port, held], held)):
        machine = pictures.machine(REF, server(), {p.uuid: p for p in ports})
        assert machine is not None
        assert (machine.port, machine.address) == (expected.uuid, expected.address)
    bare = pictures.machine(REF, server(), {})
    assert bare is not None
    assert (bare.port, bare.address, bare.started) == ("port-1", "", 1795348800.0)


def test_a_machine_of_another_is_not_seen() -> None:
    assert pictures.machine(OTHER, server(), {}) is None
    assert pictures.machine(REF, server(metadata={}), {}) is None
    assert pictures.machine(REF, server(metadata={"vcluster": "vcluster/0123456789/head"}), {}) is None
    assert pictures.machine(REF, server(status="DELETED"), {}) is None


def test_a_fault_is_told_and_a_boot_counts_from_when_it_was_told() -> None:
    machine = pictures.machine(
        REF, server(status="ERROR", fault={"message": "No valid host was found."}), {}, 1795348900.0
    )
    assert machine is not None
    assert (machine.fault, machine.started) == ("No valid host was found.", 1795348900.0)


@pytest.mark.parametrize("status", ["SUSPENDED", "PAUSED"])
def test_a_machine_that_somebody_put_to_sleep_says_so(status: str) -> None:
    machine = pictures.machine(REF, server(status=status), {})
    assert machine is not None
    assert (machine.state, machine.fault) == (MachineState.SHUTOFF, f"somebody {status.lower()} it")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-22T12:00:00Z", 1795348800.0),
        ("2026-11-22T12:00:00.500000", 1795348800.5),
        ("2026-11-22T13:00:00+01:00", 1795348800.0),
        ("", 0.0),
        (None, 0.0),
    ],
)
def test_moments(text: str | None, seconds: float) -> None:
    assert pictures.moment(text) == seconds


def test_a_port_on_two_families_has_its_ipv4_address() -> None:
    told = {
        "id": "1",
        "name": "demo-cpu-1",
        "description": REF.tag(Role.WORKER),
        "network_id": "n",
        "fixed_ips": [{"ip_address": "2001:db8::5"}, {"ip_address": "10.0.0.5"}],
    }
    port = pictures.port(REF, told)
    assert port is not None
    assert (port.address, port.name) == ("10.0.0.5", "cpu-1")
    assert pictures.port(OTHER, told) is None
    assert pictures.port(REF, told | {"description": REF.tag(PartKind.GATEWAY)}) is None


def volume(**more: Any) -> dict[str, Any]:
    return {
        "id": "v",
        "name": "demo-cpu-1",
        "status": "available",
        "metadata": marks.volume_mark(REF, REF.tag(PartKind.VOLUME), "cpu-1"),
        "created_at": "2026-11-22T12:00:00.000000",
    } | more


def test_volumes() -> None:
    fresh = pictures.volume(REF, volume(status="downloading"))
    assert fresh is not None
    assert (fresh.name, fresh.ready, fresh.fault, fresh.kept) == ("cpu-1", False, "", False)
    assert fresh.status == "downloading"  # for people, when it stays so
    faulty = pictures.volume(REF, volume(status="error"))
    assert faulty is not None
    assert (faulty.ready, faulty.fault) == (False, "Cinder says error")
    used = pictures.volume(REF, volume(status="in-use", attachments=[{"server_id": "s1"}]))
    assert used is not None
    assert (used.ready, used.used_by) == (True, "s1")
    kept = pictures.volume(REF, volume(metadata=volume()["metadata"] | {marks.KEPT: "yes"}))
    assert kept is not None
    assert kept.kept
    assert pictures.volume(OTHER, volume()) is None


def test_an_address_lent_to_the_head_is_kept() -> None:
    port = Port("p", REF.tag(Role.HEAD), "head", "10.0.0.9", "fa:16")
    lent = pictures.floating_ip(REF, {"id": "f", "description": "Alice's own", "port_id": "p"}, {"p": port})
    assert lent is not None
    assert (lent.kept, lent.ready, lent.used_by) == (True, True, "p")
    assert pictures.floating_ip(REF, {"id": "f", "description": "", "port_id": "q"}, {"p": port}) is None
    own = pictures.floating_ip(REF, {"id": "f", "description": REF.tag(PartKind.FLOATING_IP), "port_id": None}, {})
    assert own is not None
    assert (own.kept, own.ready) == (False, False)


@pytest.mark.parametrize(
    ("owner", "ready"),
    [
        ("network:router_interface", True),
        ("network:ha_router_replicated_interface", True),
        ("network:router_interface_distributed", True),
        ("network:router_gateway", False),
        ("", False),
    ],
)
def test_a_leg_is_on_its_router_whatever_kind_of_router_that_is(owner: str, ready: bool) -> None:
    told = {"id": "g", "description": REF.tag(PartKind.GATEWAY), "device_owner": owner, "device_id": "r1"}
    leg = pictures.gateway(REF, told)
    assert leg is not None
    assert (leg.ready, leg.used_by) == (ready, "r1")


# Small things ---------------------------------------------------------------------------------------------------


def test_user_data_is_the_same_each_time_and_has_its_limit() -> None:
    assert packed("#cloud-config\n") == packed("#cloud-config\n")
    noise = random.Random(1).randbytes(40_000).hex() * 2
    with pytest.raises(PermanentError, match=f"Nova takes {USER_DATA_LIMIT}") as caught:
        packed(noise)
    assert str(len(noise)) in caught.value.message


@given(st.integers(1, 2000), st.integers(0, 16**10))
def test_an_own_network_overlaps_no_other(slots: int, start: int) -> None:
    import ipaddress

    used = ["10.64.0.0/12", "192.168.0.0/16", "2001:db8::/64"]
    found = ipaddress.ip_network(free_cidr(used, slots, start))
    assert found.num_addresses >= slots + 10
    assert not any(found.overlaps(ipaddress.ip_network(u)) for u in used[:2])
    assert found.subnet_of(ipaddress.ip_network("10.64.0.0/10"))  # type: ignore[arg-type]


def test_no_network_is_left() -> None:
    with pytest.raises(QuotaError, match="no network in 10"):
        free_cidr(["10.0.0.0/8"], 5, 0)


def test_the_clouds_clock() -> None:
    clock = Clock()
    own = clock.now()
    assert own > 1.7e9
    clock.heard("Thu, 22 Nov 2046 12:00:00 GMT")
    ahead = clock.now()
    assert 2.4264e9 < ahead < 2.4266e9
    clock.heard("Thu, 22 Nov 2046 11:59:00 GMT")  # an answer that was long under way
    clock.heard("not a date")
    clock.heard("")
    clock.heard("Thu, 22 Nov 2046 12:00:00 GMT")
    assert clock.now() >= ahead - 1e-3


def test_one_host_with_a_wrong_clock_is_outvoted() -> None:
    clock = Clock()
    for n in range(3 * HEARD):
        clock.heard("Thu, 22 Nov 2046 14:00:00 GMT" if n % 3 == 0 else "Thu, 22 Nov 2046 12:00:00 GMT")
        clock.heard("Thu, 22 Nov 2046 11:00:00 GMT" if n % 5 == 0 else "Thu, 22 Nov 2046 12:00:00 GMT")
    noon = datetime(2046, 11, 22, 12, tzinfo=UTC).timestamp()
    assert abs(clock.now() - noon) < 60
