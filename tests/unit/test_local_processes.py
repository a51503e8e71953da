"""Whose process is whose, so that none is ended by mistake; and which port is free."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest

from vcluster.clouds.local import processes, switch, vm
from vcluster.errors import PermanentError, TemporaryError


@contextlib.contextmanager
def _impostor(script: str, mark: str) -> Iterator[subprocess.Popen[bytes]]:
    """A live process that calls itself a QEMU and carries a mark; it runs until its input ends."""
    argv = ["bash", "-c", f"exec -a qemu-system-test bash -c '{script}; echo; read' {mark}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process
        process.kill()


@pytest.fixture
def mark() -> str:
    """Of this test's own: others run beside it, on this computer."""
    return f"mark-{uuid4()}"


@pytest.fixture
def impostor(mark: str) -> Iterator[subprocess.Popen[bytes]]:
    with _impostor(":", mark) as process:
        yield process


def test_a_process_is_found_by_its_mark_alone(impostor: subprocess.Popen[bytes], mark: str) -> None:
    found = processes.find(impostor.pid, mark)
    assert found is not None
    assert processes.find_all({mark, "no-such-mark"}) == {mark: found}
    assert processes.find(impostor.pid, "no-such-mark") is None
    assert processes.find(os.getpid(), "") is None, "this process is no QEMU"
    assert processes.find(0, "mark-1") is None


def test_a_machine_is_not_taken_for_its_switch(tmp_path: Path) -> None:
    with _impostor(":", str(tmp_path)) as process:
        (tmp_path / "switch.pid").write_text(f"{process.pid}\n")
        assert processes.find(process.pid, str(tmp_path)) is not None
        assert switch.running(tmp_path) is None


def test_a_recycled_number_is_never_hit(impostor: subprocess.Popen[bytes], mark: str) -> None:
    found = processes.find(impostor.pid, mark)
    assert found is not None
    processes.kill(replace(found, started="1"), mark, grace=0.1)
    processes.kill(found, "no-such-mark", grace=0.1)
    processes.kill(processes.Process(2**22 - 1, "1", "x"), "mark-1", grace=0.1)
    assert impostor.poll() is None
    processes.kill(found, mark, grace=120.0)
    assert impostor.poll() == -signal.SIGTERM, "it returns when all is over, and not while files are being closed"


def test_one_that_does_not_listen_is_killed() -> None:
    with _impostor('trap "" TERM', "mark-3") as process:
        found = processes.find(process.pid, "mark-3")
        assert found is not None
        processes.kill(found, "mark-3", grace=0.2)
        assert process.poll() == -signal.SIGKILL


@pytest.mark.parametrize(("name", "ours"), [(processes.LAUNCH[3], True), ("sh", False)])
def test_a_shell_that_becomes_qemu_is_one_already_and_a_persons_is_none(mark: str, name: str, *, ours: bool) -> None:
    argv = ["/bin/sh", "-c", "echo; read line; exit", name, "/usr/bin/qemu-system-x86_64", mark]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        found = processes.find_all({mark}).get(mark)
        assert (found is not None and found.pid == process.pid) is ours
        if found is not None:
            assert found.command == f"{name} /usr/bin/qemu-system-x86_64 {mark}"
        process.kill()


def test_who_ends_a_machine_waits_for_a_shell_that_is_about_to_begin_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "begins").touch()
    looked: list[bool] = []
    with (tmp_path / "begins").open() as shell:
        fcntl.flock(shell, fcntl.LOCK_EX)
        monkeypatch.setattr(vm.time, "sleep", lambda _: shell.close())
        monkeypatch.setattr(processes, "find_all", lambda _: looked.append(shell.closed) or {})
        vm.end(tmp_path, SimpleNamespace(uuid="mark"))  # type: ignore[arg-type]
    assert looked == [True]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("memory", "found"), [(4096, True), (0, False)])
def test_a_program_that_is_being_executed_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int, *, found: bool
) -> None:
    """It has no arguments for a moment; what has ended has none for good."""
    folder = tmp_path / "77"
    folder.mkdir()
    (folder / "stat").write_text("77 (sh) R 1 " + "0 " * 17 + f"900 {memory} 5\n")
    (folder / "cmdline").write_bytes(b"")
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    words = b"/usr/bin/qemu-system-x86_64\0mark\0"
    monkeypatch.setattr(processes.time, "sleep", lambda _: (folder / "cmdline").write_bytes(words))
    assert (processes.find(77, "mark") is not None) is found


def test_a_port_in_use_is_not_chosen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not vm._port_free(server.getsockname()[1])
    assert not vm._port_free(0)
    assert vm._choose_port() in range(20000, 30000)


def test_no_free_port_is_weather(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "_port_free", lambda _port: False)
    with pytest.raises(TemporaryError, match="no free port"):
        vm._choose_port()


@pytest.fixture
def vde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A program in the switch's place, which a test writes, and the folder of its sockets."""
    monkeypatch.setattr(switch, "_BRIEF", 0.0)
    monkeypatch.setattr(switch, "_LONG", 0.2)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "net").mkdir()
    yield tmp_path / "vde_switch"
    switch.stop(tmp_path / "net")


def test_a_switch_that_died_at_once_does_not_start(vde: Path) -> None:
    vde.write_text("#!/bin/sh\n")
    vde.chmod(0o755)
    with pytest.raises(PermanentError, match="does not start"):
        switch.ensure(vde.parent / "net")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_switch_that_is_late_is_weather(vde: Path) -> None:
    late = 'exec -a vde_switch bash -c "while :; do sleep 0.2; done" "$@"'
    there = "until grep -q ^vde_switch /proc/$!/cmdline; do sleep 0.05; done"
    vde.write_text(f"#!/bin/bash\n({late}) </dev/null >/dev/null 2>&1 &\n{there}\n")
    vde.chmod(0o755)
    with pytest.raises(TemporaryError, match="not written its number"):
        switch.ensure(vde.parent / "net")
    assert list(processes.find_all({str(vde.parent / "net")}, program="vde_switch"))
