"""The local cloud's calls, killed with -9 between any two steps: what is left is seen, and can be removed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from local_bed import FORK, Bed, made

from vcluster.clouds.local import processes, switch, vm
from vcluster.errors import TemporaryError, VclusterError
from vcluster.model import (
    MachineState,
)

pytestmark = pytest.mark.vm

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


SLOW = ("/bin/sh", "-c", '(while :; do sleep 0.2; done; exec "$@") </dev/null &', processes.LAUNCH[3])
"""A shell that never becomes QEMU."""


@pytest.fixture
def bed(vm_home: Path, tmp_path: Path) -> Iterator[Bed]:
    with made(vm_home, tmp_path) as one:
        yield one


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
        child.join(300)
        if child.exitcode == 0:
            assert step > 4, "hardly a step was seen"
            return
        assert child.exitcode == -signal.SIGKILL
        yield step
    pytest.fail("it never came to its end")


def test_killed_while_making_a_machine(bed: Bed) -> None:
    bed.network("head")
    for step in _killed_at_each_step(partial(bed.create, "head")):
        qemus = bed.qemus()
        machine = bed.machines().get("head")
        if machine is None:
            assert qemus == [], f"step {step}"
            assert bed.cloud.observe(bed.ref).ports[0].device == ""
            continue
        assert machine.state is (MachineState.ACTIVE if qemus else MachineState.ERROR), f"step {step}"
        assert bed.cloud.observe(bed.ref).ports[0].device == machine.uuid
        bed.cloud.delete_machine(bed.ref, machine.uuid)
        assert bed.qemus() == []
        assert list((bed.folder.path / "machines").iterdir()) == []


def test_killed_before_the_shell_became_qemu(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that begins to run when it was taken for one that does not would run on without its disk."""
    bed.network("head")
    monkeypatch.setattr(processes, "LAUNCH", SLOW)

    def make() -> None:
        monkeypatch.setattr(vm.qmp, "answered", lambda _: os.kill(os.getpid(), signal.SIGKILL))
        bed.create("head")

    child = FORK.Process(target=make)
    child.start()
    child.join(300)
    assert child.exitcode == -signal.SIGKILL
    head = bed.machines()["head"]
    assert head.state is MachineState.ACTIVE
    assert bed.qemus()
    bed.cloud.delete_machine(bed.ref, head.uuid)
    assert bed.machines() == {}
    assert bed.qemus() == []


def test_a_qemu_that_takes_too_long_to_begin_is_weather(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.network("head")
    monkeypatch.setattr(processes, "LAUNCH", SLOW)
    monkeypatch.setattr(vm, "_START", 1.0)
    with pytest.raises(TemporaryError, match="did not start within 1 s"):
        bed.create("head")
    assert bed.machines() == {}
    assert bed.qemus() == []


def test_killed_while_making_and_removing_what_machines_need(bed: Bed) -> None:
    names = [f"cpu-{n}" for n in range(4)]
    for step in _killed_at_each_step(partial(bed.network, *names)):
        seen = bed.cloud.observe(bed.ref)
        assert len(seen.networks) <= 1, f"step {step}"
        assert bool(seen.networks) == bool(bed.cloud.clusters())
        assert {port.name for port in seen.ports} <= set(names)
        bed.clear()
        assert bed.cloud.observe(bed.ref).empty
    for _ in _killed_at_each_step(bed.clear):
        if bed.cloud.observe(bed.ref).empty:
            assert list(bed.cloud.clusters()) == []
            bed.network(*names)


def test_killed_while_deleting_a_machine(bed: Bed) -> None:
    bed.network("cpu-1")
    machine = bed.create("cpu-1")

    def delete() -> None:
        bed.cloud.delete_machine(bed.ref, machine.uuid)

    for _ in _killed_at_each_step(delete):
        if not bed.machines():
            assert bed.qemus() == []
            machine = bed.create("cpu-1")
        else:
            assert bed.state("cpu-1") in {MachineState.ACTIVE, MachineState.ERROR}
    assert bed.machines() == {}


def test_a_head_whose_deletion_was_killed_boots_again(bed: Bed) -> None:
    bed.network("head")
    head = bed.create("head")
    seen = set()

    def delete() -> None:
        bed.cloud.delete_machine(bed.ref, head.uuid)

    for step in _killed_at_each_step(delete):
        machine = bed.machines().get("head")
        if machine is None:
            head = bed.create("head")
            continue
        seen.add(machine.state)
        bed.cloud.reboot_machine(bed.ref, head.uuid)
        assert bed.state("head") is MachineState.ACTIVE, f"step {step}"
    assert MachineState.ERROR in seen, "no deletion was interrupted after it was written down"


def test_killed_while_starting_a_machine(bed: Bed) -> None:
    bed.network("head")
    machine = bed.create("head")

    def start() -> None:
        bed.cloud.start_machine(bed.ref, machine.uuid)

    bed.cloud.stop_machine(bed.ref, machine.uuid)
    for step in _killed_at_each_step(start):
        found = bed.state("head")
        assert found in {MachineState.SHUTOFF, MachineState.ACTIVE, MachineState.ERROR}, f"step {step}"
        assert (found is MachineState.ACTIVE) == bool(bed.qemus())
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
        child.join(300)
    assert got[1:] == ["ConflictError"] * 2 or got.count("ConflictError") == 2
    assert bed.machines()["head"].uuid in got
    assert len(bed.qemus()) == 1
