"""The main job on OpenStack: openstacksdk, Keystone, Glance, Nova, Neutron and Cinder are real, and so are the VMs.

The tests are one story about one cluster and run in their order: it is made by two `up`s at once from two home
directories, paused, mended from the home that never had its keys, and taken away; then the project is as it was.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.lab.neighbours import TOTAL
from tests.lab.snapshot import difference
from tests.lab.whole.conftest import CLOUD, Site

pytestmark = [pytest.mark.lab, pytest.mark.vm, pytest.mark.timeout(3600)]

HELLO_MPI = Path(__file__).parents[3] / "examples/hello_mpi.c"
AT = ("demo", "--cloud", CLOUD)


def run_mpi(site: Site) -> set[str]:
    """The machines on which the ranks of an MPI job over two workers say hello."""
    out = site.one.on_head("srun -N2 --ntasks-per-node=1 --mpi=pmix /home/vcluster/hello")
    return {line.rsplit(" on ", 1)[1] for line in out.splitlines() if " on " in line}


def secrets_of(site: Site) -> list[bytes]:
    folders = [person.home / ".local/share/vcluster" for person in (site.one, site.other)]
    return [path.read_bytes() for folder in folders for path in folder.glob("clusters/*/secret")]


def test_two_ups_at_once_from_two_homes_make_one_cluster(site: Site) -> None:
    people = (site.one, site.other)
    for person, process in [(person, person.start("up", str(site.spec), "--yes")) for person in people]:
        assert "demo is ready" in person.end(process)
    found = site.one.json("status", *AT)["machines"]
    assert [machine["name"] for machine in found] == ["head", "cpu-1", "cpu-2"]
    assert {machine["health"] for machine in found} == {"ready"}
    assert len(secrets_of(site)) == 2
    assert len(set(secrets_of(site))) == 1


def test_an_mpi_job_runs_over_all_workers(site: Site) -> None:
    site.one("cp", "demo", str(HELLO_MPI), ":hello_mpi.c", "--cloud", CLOUD)
    site.one.on_head("mpicc -o /home/vcluster/hello hello_mpi.c")
    assert run_mpi(site) == {"cpu-1", "cpu-2"}


def test_a_second_up_has_nothing_to_do(site: Site) -> None:
    assert site.one.json("up", str(site.spec), "--yes")["changed"] is False
    assert "nothing to do" in site.one("plan", str(site.spec))


def test_shelved_and_unshelved_it_has_its_files_and_runs_jobs(site: Site) -> None:
    site.one.on_head("echo kept > /home/vcluster/note && sync")
    site.one("shelve", *AT)
    shelved = site.one.json("status", *AT)
    assert [(machine["name"], machine["state"]) for machine in shelved["machines"]] == [("head", "SHELVED")]
    site.one("unshelve", *AT)
    assert site.one.on_head("cat /home/vcluster/note").strip() == "kept"
    assert run_mpi(site) == {"cpu-1", "cpu-2"}


def test_a_home_with_credentials_and_a_key_alone_looks_logs_in_mends_and_ends(site: Site) -> None:
    keyless = site.other.home / ".local/share/vcluster"
    for path in sorted(keyless.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert [m["name"] for m in site.other.json("status", *AT)["machines"]] == ["head", "cpu-1", "cpu-2"]
    assert site.other.on_head("hostname").strip() == "head"

    before = {m["name"]: m["uuid"] for m in site.other.json("status", *AT)["machines"]}
    (victim,) = [p for p in psutil.process_iter(["name", "cmdline"]) if _is_vm(p, before["cpu-1"])]
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait(120)
    site.other("up", *AT, "--yes")
    after = {m["name"]: m["uuid"] for m in site.other.json("status", *AT)["machines"]}
    assert after["head"] == before["head"]
    assert set(after) == set(before)
    assert run_mpi(site) == {"cpu-1", "cpu-2"}

    site.other("down", *AT, "--yes")
    assert site.other.json("status", str(site.spec))["state"] == "absent"


def test_the_project_is_as_it_was_before_neighbours_included(site: Site) -> None:
    assert difference(site.before, site.now()) == []
    assert sum(len(things) for things in site.before.values()) >= TOTAL


def _is_vm(process: psutil.Process, uuid: str) -> bool:
    name, words = process.info["name"] or "", process.info["cmdline"] or []
    return name.startswith("qemu-system") and any(uuid in word for word in words)
