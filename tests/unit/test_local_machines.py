"""The local cloud's machines without any: command lines, seeds, room, states, and whose process is whose."""

from __future__ import annotations

import gzip
import ipaddress
import json
import os
import re
import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pycdlib
import pytest
from local_kit import EMULATED, REF, SECRET, SMALL, local, make_network, make_ports, record_for

from vcluster.clouds.base import BOOT_MARK
from vcluster.clouds.local import LocalCloud, accel, processes, qmp, room, state, switch, vm
from vcluster.clouds.local.accel import Accel
from vcluster.clouds.local.argv import qemu_argv
from vcluster.clouds.local.records import ClusterFolder, MachineRecord, mac_of
from vcluster.clouds.local.seed import network_config, seed_iso
from vcluster.errors import PermanentError, QuotaError, UsageError
from vcluster.model import Flavor, MachineState, Port

PORT = Port("port-uuid", REF.tag("head"), "head", "10.77.0.10", mac_of("10.77.0.10", outside=False))


@pytest.fixture
def base(vcluster_home: Path) -> Path:
    return vcluster_home.parent


@pytest.fixture
def cloud(base: Path) -> LocalCloud:
    return local(base)


def _argv(record: MachineRecord, how: Accel = EMULATED, folder: str = "/h/m") -> list[str]:
    return qemu_argv(record, cluster="demo", folder=Path(folder), sockets=Path("/h/net"), binary="qemu", accel=how)


# -- command line --------------------------------------------------------------------------------------------


def test_the_name_is_exactly_cluster_and_machine() -> None:
    argv = _argv(record_for(REF, PORT))
    assert argv[1:3] == ["-name", "demo/head"]


def test_only_the_head_is_reachable_and_only_from_this_host() -> None:
    head = " ".join(_argv(replace(record_for(REF, PORT), ssh_port=20022)))
    worker = " ".join(_argv(replace(record_for(REF, PORT), role="worker")))
    assert re.findall(r"hostfwd=[^ ]*", head) == ["hostfwd=tcp:127.0.0.1:20022-:22"]
    assert "hostfwd" not in worker
    for words in (head, worker):
        assert "user,id=outside,ipv6=off" in words
        assert "-netdev vde,id=private,sock=/h/net" in words
        assert "mac=02:76:0a:4d:00:0a" in words
        assert "mac=02:77:0a:4d:00:0a" in words


def test_what_holds_data_is_flushed_and_what_is_replaced_is_not() -> None:
    assert "cache=writeback" in " ".join(_argv(record_for(REF, PORT)))
    assert "cache=unsafe" in " ".join(_argv(replace(record_for(REF, PORT), role="worker")))


def test_commas_in_paths_do_not_end_options() -> None:
    argv = _argv(record_for(REF, PORT), folder="/h,x/m")
    assert "file=/h,,x/m/disk.qcow2" in " ".join(argv)
    assert argv[-1] == "/h,x/m/qemu.pid"


def test_kernel_or_own_disk() -> None:
    own, direct = record_for(REF, PORT), replace(record_for(REF, PORT), kernel="/c/k", initrd="/c/i")
    assert "-kernel" not in _argv(own)
    argv = _argv(direct)
    assert argv[argv.index("-kernel") + 1] == "/c/k"
    assert argv[argv.index("-initrd") + 1] == "/c/i"
    assert "mitigations=off" in " ".join(argv)
    native = " ".join(_argv(direct, Accel("kvm", "")))
    assert "mitigations=off" not in native
    assert "-accel kvm -cpu host" in native


# -- seed ----------------------------------------------------------------------------------------------------


def _read(iso: bytes, name: str) -> bytes:
    image, out = pycdlib.PyCdlib(), BytesIO()
    image.open_fp(BytesIO(iso))
    image.get_file_from_iso_fp(out, joliet_path=f"/{name}")
    assert image.pvd.volume_identifier.decode().strip() == "cidata"
    image.close()
    return out.getvalue()


def test_seed() -> None:
    network = network_config(private_mac=PORT.mac, address=PORT.address, prefix=20, mtu=1400, outside_mac="aa")
    data = f"#cloud-config\n# {SECRET} é\n"
    iso = seed_iso(instance_id="the-uuid", hostname="head", user_data=data, network=network)
    assert json.loads(_read(iso, "meta-data")) == {"instance-id": "the-uuid", "local-hostname": "head"}
    assert gzip.decompress(_read(iso, "user-data")).decode() == data
    config = json.loads(_read(iso, "network-config"))
    private, outside = config["ethernets"]["private"], config["ethernets"]["outside"]
    assert config["version"] == 2
    assert private["addresses"] == ["10.77.0.10/20"]
    assert (private["mtu"], private["match"], private["dhcp4"]) == (1400, {"macaddress": PORT.mac}, False)
    assert not {"gateway4", "routes", "nameservers"} & set(private)
    assert (outside["dhcp4"], outside["match"]) == (True, {"macaddress": "aa"})
    assert SECRET.encode() not in iso  # gzipped: not to be found by a careless grep


# -- networks ------------------------------------------------------------------------------------------------


def test_the_private_network_keeps_clear_of_the_hosts() -> None:
    assert switch.choose_cidr([]) == "10.77.0.0/20"
    assert switch.choose_cidr([ipaddress.IPv4Network("10.77.3.0/24")]) == "10.78.0.0/20"
    assert switch.choose_cidr([ipaddress.IPv4Network("10.64.0.0/10")]) == "10.128.0.0/20"
    assert switch.choose_cidr([ipaddress.IPv4Network("10.0.0.0/8")]) == "172.16.0.0/20"
    everywhere = [ipaddress.IPv4Network("0.0.0.0/1")]
    assert switch.choose_cidr([*everywhere, ipaddress.IPv4Network("128.0.0.0/1")]) == "10.77.0.0/20", "a VPN's routes"
    assert all(isinstance(route, ipaddress.IPv4Network) for route in switch.host_routes())


def test_its_own_network_is_not_where_its_pods_are() -> None:
    assert switch.choose_cidr([], ["10.77.0.0/16", "10.43.0.0/16"]) == "10.78.0.0/20"
    assert switch.choose_cidr([ipaddress.IPv4Network("0.0.0.0/0")], ["10.0.0.0/8"]) == "172.16.0.0/20"
    assert switch.choose_cidr([], ["10.0.0.0/8", "172.16.0.0/12"]) == "192.168.0.0/20"
    with pytest.raises(UsageError, match="no private network is left"):
        switch.choose_cidr([], ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"])


# -- accelerator ---------------------------------------------------------------------------------------------


def test_the_boot_sector_is_its_source(tmp_path: Path) -> None:
    sector = accel.boot_sector()
    assert (len(sector), sector[-2:]) == (512, b"\x55\xaa")
    source = Path(accel.__file__).with_name("probe.S")
    built = tmp_path / "probe"
    try:
        subprocess.run(["as", "--64", "-o", f"{built}.o", str(source)], check=True)
    except FileNotFoundError:
        pytest.skip("no assembler here")
    subprocess.run(
        ["ld", "-m", "elf_x86_64", "-Ttext", "0x7c00", "--oformat", "binary", "-o", str(built), f"{built}.o"],
        check=True,
    )
    assert built.read_bytes() == sector


def test_an_accelerator_is_tried_and_the_answer_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def attempt(_binary: str, name: str) -> str:
        tried.append(name)
        return "it did not"

    monkeypatch.setattr(accel, "_try", attempt)
    monkeypatch.setattr(accel, "qemu_binary", lambda: "/bin/sh")
    monkeypatch.setattr("os.access", lambda *_: True)
    monkeypatch.setattr(accel.platform, "machine", lambda: "x86_64")
    first, second = accel.accelerator(tmp_path), accel.accelerator(tmp_path)
    assert first == second == Accel("tcg", "kvm was tried and it did not")
    assert tried == ["kvm"]
    (tmp_path / "accel.json").write_text("damaged")
    monkeypatch.setattr(accel, "_try", lambda *_: "")
    assert accel.accelerator(tmp_path) == Accel("kvm", "kvm works")
    assert accel.accelerator(tmp_path).native


def test_missing_tools_are_named(cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="qemu-img") as caught:
        vm.create_disk(tmp_path, tmp_path / "base", 8)
    assert "qemu-utils" in caught.value.remedy
    accel.qemu_binary.cache_clear()
    with pytest.raises(UsageError, match="qemu-system-x86_64") as caught:
        accel.qemu_binary()
    assert "qemu-system-x86" in caught.value.remedy
    make_network(cloud, cloud.ref("demo"))
    folder = ClusterFolder(cloud._clouds, cloud.ref("demo"))
    with pytest.raises(UsageError, match="vde_switch") as caught:
        switch.ensure(folder.sockets)
    assert "vde2" in caught.value.remedy


# -- disks and room ------------------------------------------------------------------------------------------


def _qcow2(path: Path, size: int, cut: int = 104) -> Path:
    path.write_bytes((b"QFI\xfb" + bytes(20) + size.to_bytes(8, "big") + bytes(72))[:cut])
    return path


def test_a_base_image_must_fit(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"9\.0 GiB large, the flavor's disk 8 GiB"):
        vm.create_disk(tmp_path, _qcow2(tmp_path / "base.qcow2", 9 << 30), 8)
    with pytest.raises(PermanentError, match="cut off"):
        vm.create_disk(tmp_path, _qcow2(tmp_path / "base.qcow2", 9 << 30, cut=20), 8)
    with pytest.raises(PermanentError, match="No such file"):
        vm.create_disk(tmp_path, tmp_path / "absent", 8)


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_an_overlay_stands_on_its_image(tmp_path: Path, kind: str) -> None:
    base = tmp_path / "base"
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, str(base), "64M"], check=True)
    vm.create_disk(tmp_path, base, 2)
    said = subprocess.run(
        ["qemu-img", "info", "--output=json", str(tmp_path / "disk.qcow2")], check=True, capture_output=True
    )
    told = json.loads(said.stdout)
    assert (told["virtual-size"], told["full-backing-filename"]) == (2 << 30, str(base))
    assert told["backing-filename-format"] == kind
    assert (tmp_path / "disk.qcow2").stat().st_mode & 0o077 == 0


def test_flavors(cloud: LocalCloud) -> None:
    assert cloud.flavor("small") == SMALL
    with pytest.raises(PermanentError, match="tiny") as caught:
        cloud.flavor("tiny")
    assert all(name in caught.value.remedy for name in ("small", "medium", "large"))


def test_room_in_memory(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = cloud.ref("demo")
    monkeypatch.setattr(room, "free_disk", lambda _path: 100.0)
    monkeypatch.setattr(room, "free_memory", lambda: 6300)
    cloud.check_room(ref, [SMALL] * 3)
    with pytest.raises(QuotaError, match=r"4 machines ask for 7648 MiB .* 5788 MiB are left") as caught:
        cloud.check_room(ref, [SMALL] * 4)
    assert caught.value.exit_code == 3
    cloud.check_room(ref, [])
    cloud._accel = Accel("kvm", "")
    with pytest.raises(QuotaError, match="4 machines ask for 6624 MiB"):
        cloud.check_room(ref, [SMALL] * 4)
    monkeypatch.setattr(room, "free_memory", lambda: None)
    cloud.check_room(ref, [SMALL] * 8)


def test_room_counts_what_runs_already(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    (port,) = make_ports(cloud, ref, "head")
    folder = ClusterFolder(cloud._clouds, ref)
    with folder.building(record_for(ref, port)):
        pass
    monkeypatch.setattr(room, "free_memory", lambda: 6300)
    here = processes.Process(os.getpid(), "0", "qemu")
    monkeypatch.setattr(state, "live", lambda _f, records: {record.uuid: here for record in records})
    monkeypatch.setattr(room, "_resident", lambda _pid: 912)
    with pytest.raises(QuotaError, match="1000 MiB promised to 1 machines"):
        cloud.check_room(ref, [SMALL] * 3)
    cloud.check_room(ref, [SMALL] * 2)


def test_room_on_the_disk(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_memory", lambda: 10**6)
    monkeypatch.setattr(room, "free_disk", lambda _path: 7.5)
    cloud.check_room(cloud.ref("demo"), [SMALL] * 3)
    with pytest.raises(QuotaError, match=r"4 machines ask for 8 GiB .* 6\.5 GiB are left"):
        cloud.check_room(cloud.ref("demo"), [SMALL] * 4)
    cloud.check_room(cloud.ref("demo"), [Flavor("x", cpus=1, memory=64, disk=1)] * 6)


def test_the_host_is_measured(base: Path) -> None:
    assert (room.free_memory() or 1) > 0
    assert room.free_disk(base / "not" / "there") > 0


# -- states --------------------------------------------------------------------------------------------------

GUEST = {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}}
SIGNAL = {"event": "SHUTDOWN", "data": {"guest": False, "reason": "host-signal"}}
FULL: dict[str, object] = {"event": "BLOCK_IO_ERROR", "data": {"nospace": True, "reason": "No space left on device"}}
Told = list[dict[str, object]]
Past = tuple[str, str, Told]
STOP: dict[str, object] = {"event": "STOP"}
RESUME: dict[str, object] = {"event": "RESUME"}


@pytest.mark.parametrize(
    ("past", "expected", "words"),
    [
        (("off", "now", []), MachineState.SHUTOFF, ""),
        (("shelved", "before", []), MachineState.SHELVED, ""),
        (("building", "now", []), MachineState.ERROR, "interrupted before it booted"),
        (("deleted", "now", []), MachineState.ERROR, "deletion was interrupted"),
        (("running", "now", []), MachineState.ERROR, "killed"),
        (("running", "now", [SIGNAL]), MachineState.ERROR, "a signal told it to"),
        (("running", "now", [GUEST]), MachineState.SHUTOFF, ""),
        (("running", "before", []), MachineState.SHUTOFF, ""),
    ],
)
def test_a_machine_without_a_process(cloud: LocalCloud, past: Past, expected: MachineState, words: str) -> None:
    wish, boot, events = past
    folder, record = _machine(cloud, wish=wish, boot=boot, events=events)
    console = folder.machine_path(record.uuid) / "console.log"
    console.write_text(f"of the boot before\n{BOOT_MARK} x\n" + "y" * 300 + "\nlast words\n")
    (machine,) = cloud.observe(folder.ref).machines
    assert machine.state is expected
    assert words in machine.fault
    assert ("last words" in machine.fault) == (expected is MachineState.ERROR)
    assert "of the boot before" not in machine.fault
    assert "y" * 201 not in machine.fault
    assert cloud.console(folder.ref, record.uuid, 1) == "last words"


@pytest.mark.parametrize(
    ("past", "expected", "words"),
    [
        (("1:2", []), MachineState.ACTIVE, ""),
        (("", []), MachineState.ERROR, "switch of its private network died"),
        (("1:3", []), MachineState.ERROR, "switch of its private network died"),
        (("1:2", [FULL, STOP]), MachineState.ERROR, "disk is full"),
        (("1:2", [FULL, STOP, RESUME]), MachineState.ACTIVE, ""),
        (("1:2", [STOP]), MachineState.ERROR, "paused"),
    ],
)
def test_a_machine_with_a_process(
    cloud: LocalCloud,
    monkeypatch: pytest.MonkeyPatch,
    past: tuple[str, Told],
    expected: MachineState,
    words: str,
) -> None:
    run, events = past
    folder, record = _machine(cloud, wish="running", boot="now", events=events)
    alive = processes.Process(os.getpid(), "0", "qemu")
    monkeypatch.setattr(state, "live", lambda _f, records: {record.uuid: alive for record in records})
    pid, started = run.split(":") if run else ("0", "")
    monkeypatch.setattr(switch, "running", lambda _s: processes.Process(int(pid), started, "") if run else None)
    (machine,) = cloud.observe(folder.ref).machines
    assert (machine.state, machine.uuid) == (expected, record.uuid)
    assert words in machine.fault
    assert cloud.clusters()[0].active == (expected is MachineState.ACTIVE)


def _machine(cloud: LocalCloud, *, wish: str, boot: str, events: Told) -> tuple[ClusterFolder, MachineRecord]:
    ref = cloud.ref("demo")
    make_network(cloud, ref)
    (port,) = make_ports(cloud, ref, "head")
    folder = ClusterFolder(cloud._clouds, ref)
    with folder.building(record_for(ref, port)):
        pass
    boot_id = processes.boot_id() if boot == "now" else "another"
    record = replace(folder.machines()[0], wish=wish, boot_id=boot_id, switch="1:2")
    folder.save(record)
    lines = [json.dumps({**event, "timestamp": {"seconds": 7}}) for event in events]
    text = "\n".join(['{"QMP": {}}', '{"return": {}}', *lines, '{"event": "cut o'])
    (folder.machine_path(record.uuid) / "events.out").write_text(text)
    return folder, record


@pytest.mark.parametrize("answer", ["runs", "still full", "silence", "switch died"])
def test_what_a_full_disk_paused_goes_on(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    folder, record = _machine(cloud, wish="running", boot="now", events=[FULL, STOP])
    path = folder.machine_path(record.uuid)
    for name in ("disk.qcow2", "seed.iso"):
        (path / name).touch()
    answers: dict[str, Told] = {"runs": [RESUME], "still full": [RESUME, FULL, STOP]}
    told = answers.get(answer, [])

    def resume(_socket: Path) -> bool:
        with (path / "events.out").open("a") as events:
            events.write("".join(f"\n{json.dumps({**event, 'timestamp': {'seconds': 8}})}" for event in told))
        return answer != "silence"

    ended: list[str] = []
    run = processes.Process(1, "3" if answer == "switch died" else "2", "")
    monkeypatch.setattr(switch, "running", lambda _s: run)
    monkeypatch.setattr(vm, "process_of", lambda _p, _r: processes.Process(os.getpid(), "0", "qemu"))
    monkeypatch.setattr(vm, "end", lambda _p, _r: ended.append("end"))
    monkeypatch.setattr(vm, "launch", lambda *_: ended.append("launch"))
    monkeypatch.setattr(vm, "_SETTLE", 0.1)
    monkeypatch.setattr(qmp, "resume", resume)
    if answer == "still full":
        with pytest.raises(QuotaError, match="disk is full"):
            cloud.reboot_machine(folder.ref, record.uuid)
    else:
        cloud.reboot_machine(folder.ref, record.uuid)
    assert ended == ([] if answer in {"runs", "still full"} else ["end", "launch"])


def test_a_console_does_not_grow_for_ever(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    console.write_bytes(b"old\n" + bytes(vm._CONSOLE_MOST) + b"last words\n")
    vm._fresh_files(tmp_path)
    assert vm._CONSOLE_KEPT < console.stat().st_size < vm._CONSOLE_KEPT + 200
    assert console.stat().st_mode & 0o077 == 0
    before, mark = vm.tail(console, 2).splitlines()
    assert before.endswith("last words")
    assert mark.startswith(BOOT_MARK)


def test_a_guests_own_reboot_counts_as_a_start(tmp_path: Path) -> None:
    path = tmp_path / "events.out"
    path.write_text('{"event": "RESET", "data": {"guest": true}, "timestamp": {"seconds": 99, "microseconds": 1}}\n')
    assert qmp.read_events(path) == qmp.Events(reset=99.0)
    assert qmp.read_events(tmp_path / "absent") == qmp.Events()


def test_a_silent_control_socket_is_no_error(tmp_path: Path) -> None:
    assert qmp.power_down(tmp_path / "qmp.sock") is False
    assert qmp.resume(tmp_path / "qmp.sock") is False
