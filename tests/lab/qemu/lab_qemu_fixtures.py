"""The lab with real machines behind Nova, for tests with the markers ``lab`` and ``vm``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.lab.lab import Lab

__all__ = ["baked_image", "machine_processes", "qemu_lab"]


def baked_image() -> Path:
    """The folder of the image that machines of the local cloud start from, built if it is not there yet."""
    from vcluster.places import cache_root

    vcluster = Path(sys.executable).with_name("vcluster")
    done = subprocess.run(
        [vcluster, "image", "build", "--json"], stdout=subprocess.PIPE, text=True, check=True, stdin=subprocess.DEVNULL
    )
    return cache_root() / "images" / str(json.loads(done.stdout.splitlines()[-1])["id"])


def machine_processes(root: Path) -> dict[int, str]:
    """Command by process number of every QEMU and switch of the lab in ``root``."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if Path(words[0]).name in {"qemu-system-x86_64", "vde_switch"} and str(root / "qemu") in " ".join(words):
            found[process.pid] = " ".join(words)
    return found


@pytest.fixture(scope="session")
def qemu_lab(vm_home: Path) -> Iterator[Lab]:
    """A lab whose servers are machines. Whatever of them is left when the lab has ended fails the session."""
    from tests.lab.lab import Lab, remove_stale_folders

    remove_stale_folders()
    with Lab(machines="qemu", extra_env={"LAB_IMAGE": str(baked_image())}) as mine:
        yield mine
        mine.check()
        before = machine_processes(mine.root)
    psutil.wait_procs([psutil.Process(pid) for pid in before if psutil.pid_exists(pid)], timeout=30)
    assert not machine_processes(mine.root)
