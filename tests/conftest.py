"""Fixtures that all tests share: folders of their own, so that no test sees a person's clusters, or leaves any."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

pytest_plugins = ["tests.hub.fixtures", "tests.lab.fixtures", "tests.lab.qemu.lab_qemu_fixtures"]

# On a busy machine an example takes as long as it takes; the rest as hypothesis has it, here or under CI.
settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """With ``-n 2 --dist loadscope`` tests that share a lab or a cluster stay in one process.

    Not pytest-xdist's own groups (``loadgroup``): 3.8 has none under pytest 9.2, and does not say so.
    """
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class BySharing(LoadScopeScheduling):  # type: ignore[misc]  # it tells no types
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", maxsplit=1)[0]
            if "/sweep/" in file:
                return file  # each has a project full of neighbours, in a lab of its own
            if "/test_workshop" in file:
                return "workshop"  # machines of its own
            return "lab" if "tests/lab/" in file else "local"

    return BySharing(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests among neighbours come last, as nobody takes these away again."""
    items.sort(key=_is_crowded)


def _is_crowded(item: pytest.Item) -> bool:
    return "neighbours" in getattr(item, "fixturenames", ())


def _short_folder() -> Path:
    """A new folder with a short path: the path of a unix socket may have no more than 107 bytes."""
    return Path(tempfile.mkdtemp(prefix="vc-", dir="/tmp"))


def qemu_processes(home: Path) -> list[psutil.Process]:
    """Every process that has a path below ``home`` in its arguments: QEMUs, switches, helpers."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(home) in argument for argument in process.info["cmdline"] or ())
    ]


@pytest.fixture(autouse=True)
def _own_folders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give every test without VMs an empty VCLUSTER_HOME and VCLUSTER_CACHE; those with VMs share ``vm_home``."""
    if request.node.get_closest_marker("vm"):
        request.getfixturevalue("vm_home")
        yield
        return
    folder = _short_folder()
    monkeypatch.setenv("VCLUSTER_HOME", str(folder / "home"))
    monkeypatch.setenv("VCLUSTER_CACHE", str(folder / "cache"))
    yield
    shutil.rmtree(folder)


@pytest.fixture
def vcluster_home(_own_folders: None) -> Path:
    """The test's own VCLUSTER_HOME; it may not exist yet."""
    return Path(os.environ["VCLUSTER_HOME"])


@pytest.fixture(scope="session")
def vm_home() -> Iterator[Path]:
    """One VCLUSTER_HOME for all tests with VMs; the image cache stays the user's, so the image is built once.

    A fixture that makes a cluster for more than one test must ask for this one, so that it ends before it.

    Whatever still runs at the end is stopped, and fails the session: a leak is a bug.
    """
    folder = _short_folder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCLUSTER_HOME", str(folder))
        yield folder
        left = qemu_processes(folder)
        names = [" ".join(process.info["cmdline"])[:120] for process in left]
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=10)
    shutil.rmtree(folder)
    assert not names, f"processes were left behind: {names}"
