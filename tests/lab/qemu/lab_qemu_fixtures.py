"""The lab with real machines behind Nova, for tests with the markers ``lab`` and ``vm``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.lab.lab import LabClient

__all__ = ["machine_processes", "qemu_lab"]


def machine_processes(root: Path) -> dict[int, str]:
    """Command by process number of every QEMU and switch of the lab in ``root``."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if Path(words[0]).name in {"qemu-system-x86_64", "vde_switch"} and str(root / "qemu") in " ".join(words):
            found[process.pid] = " ".join(words)
    return found


@pytest.fixture(scope="session")
def qemu_lab(vm_home: Path) -> Iterator[LabClient]:
    """A lab whose servers are machines, or the one that ``VCLUSTER_QEMU_LAB`` names by its folder.

    Whatever of the machines is left when the lab has ended fails the session.
    """
    from tests.lab.lab import Lab, LabClient, remove_stale_folders
    from tests.lab.qemu.image import baked_image

    if given := os.environ.get("VCLUSTER_QEMU_LAB"):
        running = LabClient.attach(Path(given))
        yield running
        running.close()
        return
    remove_stale_folders()
    with Lab(machines="qemu", extra_env=baked_image()) as mine:
        yield mine
        mine.check()
        before = []
        for pid in machine_processes(mine.root):
            with contextlib.suppress(psutil.NoSuchProcess):
                before.append(psutil.Process(pid))
    psutil.wait_procs(before, timeout=120)
    assert not machine_processes(mine.root)
