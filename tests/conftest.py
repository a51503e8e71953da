"""Fixtures that all tests share: folders of their own, so that no test sees a person's clusters, or leaves any."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

TESTS = Path(__file__).parent

pytest_plugins = ["tests.lab.fixtures", "tests.lab.qemu.lab_qemu_fixtures"]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``-n 2 --dist loadgroup`` tests that share a lab or a cluster stay in one process.

    Those among neighbours come last, as nobody takes these away again.
    """
    items.sort(key=_is_crowded)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_what_is_shared(item)))


def _is_crowded(item: pytest.Item) -> bool:
    return "neighbours" in getattr(item, "fixturenames", ())


def _what_is_shared(item: pytest.Item) -> str:
    if _is_crowded(item):
        return item.path.stem
    return "lab" if item.path.is_relative_to(TESTS / "lab") else "local"


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
