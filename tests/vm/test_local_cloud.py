"""The local cloud with real QEMUs. Most have an empty disk: what is tried here is their life, not what runs in them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from vcluster.clouds.local import LocalCloud, processes, room, switch, vm
from vcluster.clouds.local.image import BaseImage, ensure_image, list_images
from vcluster.clouds.local.records import ClusterFolder
from vcluster.errors import ConflictError, PermanentError, QuotaError, VclusterError
from vcluster.model import (
    ClusterRef,
    Flavor,
    ImageRequest,
    Machine,
    MachineRequest,
    MachineState,
    Port,
    PortRequest,
    Role,
)
from vcluster.places import cache_root

pytestmark = pytest.mark.vm

TINY = Flavor("tiny", cpus=1, memory=64, disk=1)
FORK = multiprocessing.get_context("fork")


class Bed:
    """One cluster in a cloud of its own, whose image ``empty`` holds nothing."""

    def __init__(self, home: Path, cache: Path, name: str = "bed") -> None:
        self.cloud = LocalCloud(home, cache)
        self.ref: ClusterRef = self.cloud.ref(name)
        self.folder = ClusterFolder(self.cloud._clouds, self.ref)
        cache.mkdir(parents=True, exist_ok=True)
        disk = cache / "empty.qcow2"
        if not disk.exists():
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], check=True)
        self.cloud._images["empty"] = BaseImage(id="empty", disk=disk, kernel=None, initrd=None)
        self.ports: dict[str, Port] = {}

    def network(self, *names: str) -> None:
        """Make the network and the ports of these machines."""
        self.cloud.create_network(self.ref, self.ref.tag(Role.NETWORK))
        requests = [PortRequest(name, self.ref.tag(_role(name))) for name in names]
        self.ports = {port.name: port for port in self.cloud.create_ports(self.ref, requests)}

    def request(self, name: str, image: str = "empty", flavor: Flavor = TINY, data: str = "") -> MachineRequest:
        role, port = _role(name), self.ports[name]
        data = data or "#cloud-config\n"
        return MachineRequest(name, self.ref.tag(role), role, "cpu", flavor, port, image, data)

    def create(self, name: str, **how: Any) -> Machine:
        return self.cloud.create_machine(self.ref, self.request(name, **how))

    def machines(self) -> dict[str, Machine]:
        return {machine.name: machine for machine in self.cloud.observe(self.ref).machines}

    def state(self, name: str) -> MachineState:
        return self.machines()[name].state

    def qemu(self, name: str) -> psutil.Process:
        return psutil.Process(int((self.folder.machine_path(self.machines()[name].uuid) / "qemu.pid").read_text()))

    def running(self) -> list[psutil.Process]:
        """Every process of this cluster, found without the help of what is tried here."""
        mark = str(self.folder.path)
        return [
            process
            for process in psutil.process_iter(["cmdline", "status"])
            if process.info["status"] != psutil.STATUS_ZOMBIE and any(mark in word for word in process.info["cmdline"])
        ]

    def clear(self) -> None:
        """What ``down`` does."""
        seen = self.cloud.observe(self.ref)
        for machine in seen.machines:
            self.cloud.delete_machine(self.ref, machine.uuid)
        self.cloud.delete_ports(self.ref, [port.uuid for port in seen.ports])
        for network in seen.networks:
            self.cloud.delete_network(self.ref, network.uuid)


def _role(name: str) -> Role:
    return Role.HEAD if name == "head" else Role.WORKER


@pytest.fixture
def bed(vm_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    monkeypatch.setattr(LocalCloud, "_grace", 1.0)  # nothing in an empty machine hears the power button
    one = Bed(vm_home / "bed", tmp_path)
    yield one
    one.clear()
    assert one.running() == []
    assert not one.cloud._home.exists()


def _gone(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.TimeoutExpired):
        process.wait(10)
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


def test_a_machine_outlives_its_maker_and_the_makers_terminal(bed: Bed) -> None:
    bed.network("cpu-1")
    child = FORK.Process(target=lambda: (os.setsid(), bed.create("cpu-1")))
    child.start()
    child.join(60)
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
    bed.qemu("cpu-1").kill()
    terminated = bed.qemu("cpu-2")
    terminated.terminate()
    assert _gone(terminated)
    assert (bed.state("cpu-1"), bed.state("cpu-2")) == (MachineState.ERROR, MachineState.ERROR)
    assert "killed" in bed.machines()["cpu-1"].fault
    assert "signal" in bed.machines()["cpu-2"].fault
    bed.cloud.reboot_machine(bed.ref, one.uuid)
    bed.cloud.delete_machine(bed.ref, two.uuid)
    assert {name: machine.state for name, machine in bed.machines().items()} == {"cpu-1": MachineState.ACTIVE}


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
    os.kill(process.pid, signal.SIGKILL)
    assert _gone(psutil.Process(process.pid)) if psutil.pid_exists(process.pid) else True
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
    bed.cloud.reboot_machine(bed.ref, machine.uuid)
    assert bed.state("cpu-1") is MachineState.ACTIVE


# -- kill -9 between any two steps ---------------------------------------------------------------------------

STEPS: list[tuple[Any, str]] = [
    (Path, "rename"),
    (Path, "replace"),
    (Path, "unlink"),
    (Path, "rmdir"),
    (Path, "mkdir"),
    (vm, "create_disk"),
    (vm, "_fresh_files"),
    (vm, "end"),
    (switch, "ensure"),
    (subprocess, "run"),
    (processes, "kill"),
]


def _die_at(act: Callable[[], object], step: int) -> None:
    """In a child: do ``act`` and be killed before (even ``step``) or after (odd) the step of this number."""
    count = 0

    def counted(real: Callable[..., Any], *args: Any, **named: Any) -> Any:
        nonlocal count
        for moment in ("before", "after"):
            if moment == "after":
                result = real(*args, **named)
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
        return result

    for where, name in STEPS:
        real = getattr(where, name)

        def wrapper(*args: Any, _real: Callable[..., Any] = real, **named: Any) -> Any:
            return counted(_real, *args, **named)

        setattr(where, name, wrapper)
    act()


def _killed_at_each_step(act: Callable[[], object]) -> Iterator[int]:
    for step in range(200):
        child = FORK.Process(target=_die_at, args=(act, step))
        child.start()
        child.join(60)
        if child.exitcode == 0:
            assert step > 4, "hardly a step was seen"
            return
        assert child.exitcode == -signal.SIGKILL
        yield step
    pytest.fail("it never came to its end")


def test_killed_while_making_a_machine(bed: Bed) -> None:
    bed.network("head")
    for step in _killed_at_each_step(partial(bed.create, "head")):
        qemus = [process for process in bed.running() if "qemu" in process.name()]
        machine = bed.machines().get("head")
        if machine is None:
            assert qemus == [], f"step {step}"
            assert bed.cloud.observe(bed.ref).ports[0].device == ""
            continue
        assert machine.state is (MachineState.ACTIVE if qemus else MachineState.ERROR), f"step {step}"
        assert bed.cloud.observe(bed.ref).ports[0].device == machine.uuid
        bed.cloud.delete_machine(bed.ref, machine.uuid)
        assert [process for process in bed.running() if "qemu" in process.name()] == []
        assert list((bed.folder.path / "machines").iterdir()) == []


def test_killed_while_making_and_removing_what_machines_need(bed: Bed) -> None:
    names = [f"cpu-{n}" for n in range(4)]
    for step in _killed_at_each_step(partial(bed.network, *names)):
        seen = bed.cloud.observe(bed.ref)
        assert len(seen.networks) <= 1, f"step {step}"
        assert {port.name for port in seen.ports} <= set(names)
        bed.clear()
        assert bed.cloud.observe(bed.ref).empty
    for _ in _killed_at_each_step(bed.clear):
        if bed.cloud.observe(bed.ref).empty:
            bed.network(*names)


def test_killed_while_deleting_a_machine(bed: Bed) -> None:
    bed.network("cpu-1")
    machine = bed.create("cpu-1")

    def delete() -> None:
        bed.cloud.delete_machine(bed.ref, machine.uuid)

    for _ in _killed_at_each_step(delete):
        if not bed.machines():
            assert [process for process in bed.running() if "qemu" in process.name()] == []
            machine = bed.create("cpu-1")
        else:
            assert bed.state("cpu-1") in {MachineState.ACTIVE, MachineState.ERROR}
    assert bed.machines() == {}


def test_killed_while_starting_a_machine(bed: Bed) -> None:
    bed.network("head")
    machine = bed.create("head")

    def start() -> None:
        bed.cloud.start_machine(bed.ref, machine.uuid)

    bed.cloud.stop_machine(bed.ref, machine.uuid)
    for step in _killed_at_each_step(start):
        found = bed.state("head")
        assert found in {MachineState.SHUTOFF, MachineState.ACTIVE, MachineState.ERROR}, f"step {step}"
        assert (found is MachineState.ACTIVE) == any("qemu" in process.name() for process in bed.running())
        bed.cloud.reboot_machine(bed.ref, machine.uuid)
        assert bed.state("head") is MachineState.ACTIVE
        bed.cloud.stop_machine(bed.ref, machine.uuid)
    assert bed.state("head") is MachineState.ACTIVE


def test_two_at_once_end_with_one(bed: Bed) -> None:
    bed.network("head")
    answers = FORK.SimpleQueue()

    def make() -> None:
        try:
            answers.put(bed.create("head").uuid)
        except VclusterError as error:
            answers.put(type(error).__name__)

    children = [FORK.Process(target=make) for _ in range(3)]
    for child in children:
        child.start()
    got = sorted(answers.get() for _ in children)
    for child in children:
        child.join(60)
    assert got[1:] == ["ConflictError"] * 2 or got.count("ConflictError") == 2
    assert bed.machines()["head"].uuid in got
    assert sum("qemu" in process.name() for process in bed.running()) == 1


# -- networks ------------------------------------------------------------------------------------------------


class Plug:
    """A cable into a cluster's switch that shows the frames."""

    def __init__(self, sockets: Path) -> None:
        self.process = subprocess.Popen(
            ["vde_plug", str(sockets)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def send(self, text: bytes) -> None:
        frame = b"\xff" * 6 + b"\x02\x00\x00\x00\x00\x01" + b"\x88\xb5" + text.ljust(46, b"\0")
        assert self.process.stdin is not None
        self.process.stdin.write(struct.pack(">H", len(frame)) + frame)

    def receive(self, text: bytes, seconds: float) -> bool:
        """Whether a frame with this text comes within so many seconds."""
        assert self.process.stdout is not None
        heard, deadline = b"", time.monotonic() + seconds
        while text not in heard and (left := deadline - time.monotonic()) > 0:
            if select.select([self.process.stdout], [], [], left)[0]:
                heard += self.process.stdout.read(4096)
        return text in heard

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.kill()
        self.process.wait()


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
        deadline = time.monotonic() + 20
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


def _until(done: Callable[[], bool], what: str, seconds: float = 900.0) -> float:
    begin = time.monotonic()
    while not done():
        assert time.monotonic() < begin + seconds, what
        time.sleep(0.5)
    return time.monotonic() - begin


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
        return subprocess.run([*ssh, "me@127.0.0.1", command], capture_output=True, text=True, check=False, timeout=120)

    took = _until(lambda: run("true").returncode == 0, "SSH never answered")
    assert took < bed.cloud.boot_timeout
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
