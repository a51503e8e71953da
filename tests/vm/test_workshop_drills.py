"""Bad luck in the middle of the workshop's example, on real VMs; `make drills`, since each waits for boots."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest
from conftest import MINUTE, Cli
from workshop import EXAMPLE, NAME, Workshop

from tests.hub.drills import head_reboots, hub_is_killed, proxy_is_killed, worker_dies

pytestmark = [pytest.mark.vm, pytest.mark.drill, pytest.mark.timeout(3600)]

PATIENCE = 15 * MINUTE
"""Seconds; a worker's power cut is noticed by slurmctld itself, and a head boots on a busy computer."""


def test_a_hub_that_is_killed_cuts_nobody_off(workshop: Workshop) -> None:
    hub_is_killed(workshop, "student-001", PATIENCE)


def test_a_proxy_that_is_killed_finds_everybody_again(workshop: Workshop) -> None:
    proxy_is_killed(workshop, "student-002", PATIENCE)


def test_a_worker_that_dies_is_mended_by_up_and_its_people_go_on_elsewhere(workshop: Workshop, cli: Cli) -> None:
    def kill(host: str) -> None:
        (process,) = [p for p in psutil.process_iter(["cmdline"]) if _is_vm(p, f"{NAME}/{host}")]
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)

    before = {m.name: m.uuid for m in workshop.cluster.status().machines}
    host = worker_dies(workshop, "student-003", PATIENCE, kill)
    cli("up", str(EXAMPLE), "--yes")
    after = {m.name: m.uuid for m in workshop.cluster.status().machines}
    assert {name for name in before if before[name] != after[name]} == {host}


def test_a_head_that_is_rebooted_finds_the_servers_again(workshop: Workshop) -> None:
    def reboot() -> None:
        boot = workshop.head.run("cat", "/proc/sys/kernel/random/boot_id").stdout
        workshop.head.run("systemctl", "reboot", check=False)
        deadline = time.monotonic() + PATIENCE
        while workshop.head.run("cat", "/proc/sys/kernel/random/boot_id", check=False).stdout in ("", boot):
            assert time.monotonic() < deadline, "the head did not come back"
            time.sleep(5)

    head_reboots(workshop, "student-001", PATIENCE, reboot)


def _is_vm(process: psutil.Process, name: str) -> bool:
    return any(word.split(",")[0] == name for word in process.info["cmdline"] or ())
