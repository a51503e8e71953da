"""Whose process is whose, so that none is ended by mistake; and which port is free."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from vcluster.clouds.local import processes, switch, vm
from vcluster.errors import TemporaryError


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
    assert processes.find_all({mark, "mark-2"}) == {mark: found}
    assert processes.find(impostor.pid, "mark-2") is None
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
    processes.kill(found, "mark-2", grace=0.1)
    processes.kill(processes.Process(2**22 - 1, "1", "x"), "mark-1", grace=0.1)
    assert impostor.poll() is None
    processes.kill(found, mark, grace=120.0)
    assert impostor.wait(120) == -signal.SIGTERM


def test_one_that_does_not_listen_is_killed() -> None:
    with _impostor('trap "" TERM', "mark-3") as process:
        found = processes.find(process.pid, "mark-3")
        assert found is not None
        processes.kill(found, "mark-3", grace=0.2)
        assert process.wait(120) == -signal.SIGKILL


def test_a_port_in_use_is_not_chosen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not vm._port_free(server.getsockname()[1])
    assert not vm._port_free(0)
    assert vm._choose_port() in range(20000, 30000)


def test_no_free_port_is_weather(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "_port_free", lambda _port: False)
    with pytest.raises(TemporaryError, match="no free port"):
        vm._choose_port()
