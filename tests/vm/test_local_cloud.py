"""The local cloud with real QEMUs. Most have an empty disk: what is tried here is their life, not what runs in them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from local_bed import FORK, TINY, Bed, Plug, made

from vcluster.clouds.local import LocalCloud, qmp, room, switch, vm
from vcluster.clouds.local.image import BaseImage, ensure_image, list_images
from vcluster.errors import ConflictError, PermanentError, QuotaError, TemporaryError
from vcluster.model import (
    ImageRequest,
    MachineState,
)
from vcluster.places import cache_root

pytestmark = pytest.mark.vm


@pytest.fixture
def bed(vm_home: Path, tmp_path: Path) -> Iterator[Bed]:
    with made(vm_home, tmp_path) as one:
        yield one


def _gone(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.TimeoutExpired):
        process.wait(120)
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


# -- one life ------------------------------------------------------------------------------------------------


def test_a_machines_life(bed: Bed) -> None:
    bed.network("head", "cpu-1")
    head, worker = bed.create("head"), bed.create("cpu-1")
    assert (head.state, worker.state) == (MachineState.ACTIVE, MachineState.ACTIVE)
    assert worker.endpoint is None
    assert bed.cloud.forward(bed.ref, head.uuid) == head.endpoint is not None
    words = bed.qemu("cpu-1").cmdline()
    assert words[words.index("-name") + 1] == "bed/cpu-1"
    with pytest.raises(ConflictError):
        bed.create("head")

    first = bed.qemu("head").pid
    bed.cloud.start_machine(bed.ref, head.uuid)
    assert bed.qemu("head").pid == first, "on already: nothing to do"
    bed.cloud.stop_machine(bed.ref, head.uuid)
    bed.cloud.stop_machine(bed.ref, head.uuid)
    assert bed.state("head") is MachineState.SHUTOFF
    LocalCloud(bed.cloud._home, bed.cloud._cache).start_machine(bed.ref, head.uuid)
    assert bed.state("head") is MachineState.ACTIVE
    assert bed.machines()["head"].endpoint == head.endpoint, "the port is kept"
    bed.cloud.reboot_machine(bed.ref, head.uuid)
    assert bed.machines()["head"].started > head.started

    bed.cloud.delete_machine(bed.ref, worker.uuid)
    bed.cloud.delete_machine(bed.ref, worker.uuid)
    assert set(bed.machines()) == {"head"}


def test_a_paused_machine_goes_on_and_is_not_reset(bed: Bed) -> None:
    bed.network("head")
    head = bed.create("head")
    process = bed.qemu("head")
    assert asyncio.run(qmp._execute(bed.folder.machine_path(head.uuid) / "qmp.sock", "stop"))
    assert bed.state("head") is MachineState.ERROR
    bed.cloud.reboot_machine(bed.ref, head.uuid)
    assert bed.state("head") is MachineState.ACTIVE
    assert bed.qemu("head").pid == process.pid
    assert process.is_running()


def test_a_machine_outlives_its_maker_and_the_makers_terminal(bed: Bed) -> None:
    bed.network("cpu-1")
    child = FORK.Process(target=lambda: (os.setsid(), bed.create("cpu-1")))
    child.start()
    child.join(300)
    assert child.exitcode == 0
    qemu = bed.qemu("cpu-1")
    assert qemu.ppid() != os.getpid()
    assert os.getsid(qemu.pid) not in {os.getsid(0), child.pid}
    assert qemu.terminal() is None
    log = str(bed.folder.machine_path(bed.machines()["cpu-1"].uuid) / "qemu.log")
    assert [str(Path(f"/proc/{qemu.pid}/fd/{fd}").resolve()) for fd in (0, 1, 2)] == ["/dev/null", log, log]
    status = Path(f"/proc/{qemu.pid}/status").read_text()
    assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE), "the sandbox is on"
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)


def test_nothing_of_it_is_for_others(bed: Bed) -> None:
    bed.network("head")
    bed.create("head", data="#cloud-config\n# swordfish\n")
    for path in bed.folder.path.rglob("*"):
        assert path.lstat().st_mode & 0o077 == 0, path
    for process in bed.running():
        assert "swordfish" not in " ".join(process.cmdline())
    listening = {c.laddr.ip for c in bed.qemu("head").net_connections() if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


# -- bad luck ------------------------------------------------------------------------------------------------


def test_a_killed_qemu_is_seen_and_mended(bed: Bed) -> None:
    bed.network("cpu-1", "cpu-2")
    one, two = bed.create("cpu-1"), bed.create("cpu-2")
    killed, terminated = bed.qemu("cpu-1"), bed.qemu("cpu-2")
    killed.kill()
    terminated.terminate()
    assert _gone(killed)
    assert _gone(terminated)
    assert (bed.state("cpu-1"), bed.state("cpu-2")) == (MachineState.ERROR, MachineState.ERROR)
    assert "killed" in bed.machines()["cpu-1"].fault
    assert "signal" in bed.machines()["cpu-2"].fault
    bed.cloud.reboot_machine(bed.ref, one.uuid)
    bed.cloud.delete_machine(bed.ref, two.uuid)
    assert {name: machine.state for name, machine in bed.machines().items()} == {"cpu-1": MachineState.ACTIVE}


def test_a_disk_that_somebody_still_closes_is_weather(bed: Bed) -> None:
    bed.network("cpu-1")
    machine = bed.create("cpu-1")
    bed.cloud.stop_machine(bed.ref, machine.uuid)
    disk = bed.folder.machine_path(machine.uuid) / "disk.qcow2"
    with subprocess.Popen(["qemu-io", str(disk)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as last:
        assert last.stdout is not None
        assert last.stdout.read(len("qemu-io> "))  # it is open
        with pytest.raises(TemporaryError, match="the disk of cpu-1 is in use still"):
            bed.cloud.start_machine(bed.ref, machine.uuid)
        last.kill()
    bed.cloud.start_machine(bed.ref, machine.uuid)
    assert bed.state("cpu-1") is MachineState.ACTIVE


def test_a_lost_pid_file_hides_nothing(bed: Bed) -> None:
    bed.network("cpu-1")
    machine = bed.create("cpu-1")
    qemu = bed.qemu("cpu-1")
    pid_file = bed.folder.machine_path(machine.uuid) / "qemu.pid"
    pid_file.unlink()
    assert bed.state("cpu-1") is MachineState.ACTIVE
    pid_file.write_text(str(os.getpid()))  # a recycled number: this very process
    assert bed.state("cpu-1") is MachineState.ACTIVE
    bed.cloud.delete_machine(bed.ref, machine.uuid)
    assert _gone(qemu)


def test_a_dead_switch_is_seen_and_mended(bed: Bed) -> None:
    bed.network("cpu-1")
    machine = bed.create("cpu-1")
    process = switch.running(bed.folder.sockets)
    assert process is not None
    dead = psutil.Process(process.pid)
    dead.kill()
    assert _gone(dead)
    assert bed.state("cpu-1") is MachineState.ERROR
    assert "switch" in bed.machines()["cpu-1"].fault
    bed.cloud.reboot_machine(bed.ref, machine.uuid)
    assert bed.state("cpu-1") is MachineState.ACTIVE


def test_after_the_host_rebooted_start_brings_it_back(bed: Bed) -> None:
    bed.network("head")
    machine = bed.create("head")
    for process in bed.running():
        process.kill()
        assert _gone(process)
    record = bed.folder.machine(machine.uuid)
    assert record is not None
    bed.folder.save(replace(record, boot_id="the boot before"))
    assert bed.state("head") is MachineState.SHUTOFF
    bed.cloud.start_machine(bed.ref, machine.uuid)
    assert bed.state("head") is MachineState.ACTIVE


def test_a_port_that_was_taken_meanwhile_is_replaced(bed: Bed) -> None:
    bed.network("head")
    machine = bed.create("head")
    assert machine.endpoint is not None
    bed.cloud.stop_machine(bed.ref, machine.uuid)
    with socket.create_server(("127.0.0.1", machine.endpoint.port)):
        bed.cloud.start_machine(bed.ref, machine.uuid)
        other = bed.cloud.forward(bed.ref, machine.uuid)
    assert other is not None
    assert other.port != machine.endpoint.port
    assert bed.machines()["head"].endpoint == other


def test_a_port_taken_at_the_last_moment_is_replaced(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.network("head")
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        choices = iter([taken])
        real = vm._choose_port
        monkeypatch.setattr(vm, "_choose_port", lambda: next(choices, None) or real())
        endpoint = bed.create("head").endpoint
    assert endpoint is not None
    assert endpoint.port != taken


def test_a_qemu_that_does_not_start_says_why_and_leaves_nothing(bed: Bed) -> None:
    bed.network("cpu-1")
    empty = bed.cloud._images["empty"]
    bed.cloud._images["bad"] = replace(empty, id="bad", kernel=Path("/nowhere/kernel"))
    with pytest.raises(PermanentError, match=r"QEMU of cpu-1 does not start:\n.*/nowhere/kernel"):
        bed.create("cpu-1", image="bad")
    with pytest.raises(QuotaError, match="Cannot allocate memory"):
        bed.create("cpu-1", flavor=replace(TINY, memory=1 << 30))
    with pytest.raises(PermanentError, match="no image"):
        bed.create("cpu-1", image="unknown")
    assert bed.machines() == {}
    assert list((bed.folder.path / "machines").iterdir()) == []
    assert [port.device for port in bed.cloud.observe(bed.ref).ports] == [""]


def test_a_full_disk_pauses_and_says_so(bed: Bed) -> None:
    bed.network("cpu-1")
    machine = bed.create("cpu-1")
    events = bed.folder.machine_path(machine.uuid) / "events.out"
    assert '"QMP"' in events.read_text(), "QEMU itself writes here"
    with events.open("a") as file:
        stamp = '"timestamp": {"seconds": 1, "microseconds": 1}'
        file.write(
            f'{{{stamp}, "event": "BLOCK_IO_ERROR", "data": {{"nospace": true}}}}\n{{{stamp}, "event": "STOP"}}\n'
        )
    assert bed.state("cpu-1") is MachineState.ERROR
    assert "disk is full" in bed.machines()["cpu-1"].fault
    # Nothing says that it goes on, so the disk counts as full still: a reset would lose what is not written yet.
    with pytest.raises(QuotaError, match="the host's disk is full"):
        bed.cloud.reboot_machine(bed.ref, machine.uuid)


# -- networks ------------------------------------------------------------------------------------------------


def test_two_clusters_do_not_hear_each_other(bed: Bed, tmp_path: Path) -> None:
    other = Bed(bed.cloud._home, tmp_path, "other")
    with contextlib.ExitStack() as stack:
        stack.callback(other.clear)
        for one in (bed, other):
            one.network("cpu-1")
            one.create("cpu-1")
        assert bed.ports["cpu-1"].address == other.ports["cpu-1"].address, "the same address in each"
        assert {summary.ref.name for summary in bed.cloud.clusters()} == {"bed", "other"}
        here, there, elsewhere = (Plug(folder.sockets) for folder in (bed.folder, bed.folder, other.folder))
        for plug in (here, there, elsewhere):
            stack.callback(plug.close)
        deadline = time.monotonic() + 120
        heard = False
        while not heard and time.monotonic() < deadline:  # a plug needs a moment to be plugged in
            here.send(b"are you there")
            heard = there.receive(b"are you there", 0.5)
        assert heard
        elsewhere_heard = elsewhere.receive(b"are you there", 1.0)
        assert not elsewhere_heard
        elsewhere.send(b"hello, is this thing on")
        assert not there.receive(b"hello, is this thing on", 1.0)


# -- a system inside -----------------------------------------------------------------------------------------


@pytest.fixture
def system(bed: Bed) -> BaseImage:
    """The newest image there is, or a plain one that is made now."""
    cache = cache_root()
    there = list(list_images(cache))
    image = there[-1] if there else ensure_image(ImageRequest(), cache, lambda _sentence: None)
    bed.cloud._images[image.id] = image
    return image


def _until(done: Callable[[], bool], what: str, seconds: float = 900.0) -> None:
    begin = time.monotonic()
    while not done():
        assert time.monotonic() < begin + seconds, what
        time.sleep(0.5)


def test_a_system_boots_answers_and_powers_off(bed: Bed, system: BaseImage, tmp_path: Path) -> None:
    bed.network("head")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text().strip()
    data = f"#cloud-config\nusers: [{{name: me, ssh_authorized_keys: ['{public}'], sudo: 'ALL=(ALL) NOPASSWD:ALL'}}]\n"
    small = room.FLAVORS["small"]
    machine = bed.create("head", image=system.id, flavor=small, data=data)
    endpoint = machine.endpoint
    assert endpoint is not None
    ssh = ["ssh", "-F", "none", "-i", str(key), "-p", str(endpoint.port), "-o", "StrictHostKeyChecking=no"]
    ssh += ["-o", f"UserKnownHostsFile={tmp_path / 'known'}", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60"]

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*ssh, "me@127.0.0.1", command], capture_output=True, text=True, check=False, timeout=300)

    _until(lambda: run("true").returncode == 0, "SSH never answered")
    addresses = run("ip -brief -4 address; ip route").stdout
    assert re.search(r" 10\.\d+\.0\.10/20", addresses)
    assert re.search(r"^default via 10\.0\.2\.2 ", addresses, re.MULTILINE)
    assert run("hostname").stdout.strip() == "head"

    run("sudo systemctl poweroff")
    _until(lambda: bed.state("head") is not MachineState.ACTIVE, "it never powered off")
    assert bed.state("head") is MachineState.SHUTOFF, bed.machines()["head"].fault
    events = (bed.folder.machine_path(machine.uuid) / "events.out").read_text()
    assert "guest-shutdown" in events, "it went down by itself, and not by force"
    assert "Power" in bed.cloud.console(bed.ref, machine.uuid, 50)


def test_what_is_needed_is_here() -> None:
    for tool in ("qemu-system-x86_64", "qemu-img", "vde_switch", "vde_plug", "ssh"):
        assert shutil.which(tool), tool
