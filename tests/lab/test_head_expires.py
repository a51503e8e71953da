"""The head's own program that shelves an expired cluster, against real services, with a restricted credential."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cloud_bed import Bed, Small, until
from tests.lab.identity import keystone
from tests.lab.layout import DIRECT
from vcluster.actions import NOTE_EXPIRES
from vcluster.model import MachineState, Observed
from vcluster.render import render

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


def program(folder: Path, bed: Bed, small: Small, head: str, credential: Any) -> Path:
    """The program as it lies on a head, with the head's disk moved to a folder."""
    openrc = folder / "openrc"
    openrc.write_text(
        f"export OS_AUTH_TYPE=v3applicationcredential\nexport OS_AUTH_URL={bed.auth['alice']['auth_url']}\n"
        f"export OS_REGION_NAME={DIRECT}\nexport OS_APPLICATION_CREDENTIAL_ID={credential.id}\n"
        f"export OS_APPLICATION_CREDENTIAL_SECRET={credential.secret}\n"
    )
    openrc.chmod(0o600)
    facts = {"cluster": small.ref.name, "id": small.ref.id, "head": "head", "workers": {"cpu-1": "", "cpu-2": ""}}
    (folder / "cluster.json").write_text(json.dumps(facts))
    (folder / "instance-id").write_text(f"{head}\n")
    (folder / "helper").write_text("#!/bin/sh\nexit 1\n")  # a scheduler that is broken
    (folder / "helper").chmod(0o755)
    text = render("machine/vcluster-expire")
    for place, name in {
        "/etc/vcluster/secrets/openrc": "openrc",
        "/var/lib/vcluster/cluster.json": "cluster.json",
        "/var/lib/cloud/data/instance-id": "instance-id",
        "/usr/local/sbin/vcluster-node": "helper",
    }.items():
        assert place in text
        text = text.replace(place, str(folder / name))
    file = folder / "vcluster-expire"
    file.write_text(text)
    return file


@pytest.fixture
def credential(bed: Bed) -> Iterator[Any]:
    """What alice gives her head: it can do what she can do in this project, but make no other credentials."""
    mine, alice = keystone(bed.connection()), bed.users["alice"].id
    made = mine.create_application_credential(user=alice, name="reaper", unrestricted=False)
    yield made
    mine.delete_application_credential(alice, made.id)


def states(observed: Observed) -> dict[str, MachineState]:
    return {machine.name: machine.state for machine in observed.machines}


def test_a_head_shelves_its_own_cluster_and_nobody_elses(bed: Bed, tmp_path: Path, credential: Any) -> None:
    cloud = bed.cloud()
    small, other = (Small(cloud, cloud.ref(name), workers=2) for name in ("demo", "demo2"))
    small.machines(small.surroundings())
    seen = small.settled()
    other.workers = 1
    other.machines(other.surroundings())
    untouched = states(other.settled())
    assert seen.head is not None
    file = program(tmp_path, bed, small, seen.head.uuid, credential)

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False, timeout=300)

    now = cloud.now()
    cloud.annotate(small.ref, {NOTE_EXPIRES: f"{now + 3600:.0f}"})
    done = run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert set(states(cloud.observe(small.ref)).values()) == {MachineState.ACTIVE}

    cloud.annotate(small.ref, {NOTE_EXPIRES: f"{now - 1:.0f}"})
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "demo expired" in done.stdout
    until(lambda: states(cloud.observe(small.ref)) == {"head": MachineState.SHELVED}, "shelf")
    assert states(cloud.observe(other.ref)) == untouched
    for cluster in (small, other):
        cluster.down()
