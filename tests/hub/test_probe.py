"""The Hub's proof on the bed: a server of nobody's comes and goes, once a boot, and is in no person's way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.hub.bed import Bed
from tests.hub.person import student
from vcluster.errors import PermanentError

pytestmark = pytest.mark.hub

PROOF = "/etc/vcluster/hub/proof.json"
FACTS = "/etc/vcluster/hub/hub.json"


@pytest.fixture(autouse=True)
def unproved(bed: Bed) -> Iterator[None]:
    """As after a boot, whatever other tests did."""
    bed.head.run("rm", "-f", PROOF)
    yield
    assert (
        "rehearsal-probe"
        not in bed.head.run("cat", "/var/lib/extrausers/passwd", "/etc/vcluster/hub/people.json").stdout
    )
    assert bed.head.run("ls", "-A", "/home/.rehearsal", check=False).stdout == ""


def test_a_server_is_started_once_and_nothing_is_left(bed: Bed) -> None:
    with bed.hub() as hub:
        assert not hub.front(bed.url).proved
        proof = hub.probe(120.0)
        assert (proof.skipped, proof.problem) == ("", "")
        assert proof.host in {"cpu-1", "cpu-2"}
        assert 0 < proof.seconds < 120
        assert hub.front(bed.url).proved
        assert hub.probe(120.0) == proof
        assert hub.status().servers == 0


def test_a_server_that_cannot_start_is_told_with_the_reason(bed: Bed) -> None:
    facts = bed.head.run("cat", FACTS).stdout
    broken = {**json.loads(facts), "user_python": "/bin/false"}
    try:
        bed.head.run("sh", "-c", f"cat > {FACTS}", stdin=json.dumps(broken))
        with bed.hub() as hub, pytest.raises(PermanentError, match=r"Job \d+ ended before the server was up"):
            hub.probe(120.0)
    finally:
        bed.head.run("sh", "-c", f"cat > {FACTS}", stdin=facts)
    with bed.hub() as hub:
        assert not hub.front(bed.url).proved


def test_people_who_work_are_proof_enough(bed: Bed) -> None:
    async def work() -> None:
        async with student(bed, "student-001"):
            with bed.hub() as hub:
                assert hub.probe(120.0).skipped == "people's servers run"
                assert hub.front(bed.url).proved

    asyncio.run(work())


def test_it_does_not_join_a_queue(bed: Bed) -> None:
    jobs = [
        bed.head.run(
            "sbatch", "--parsable", "--exclusive", "--nodes=2", "--output=/dev/null", "--wrap=sleep 300"
        ).stdout.strip()
        for _ in range(2)
    ]
    try:
        with bed.hub() as hub:
            assert hub.probe(120.0).skipped == "jobs wait for the workers"
            assert not hub.front(bed.url).proved
    finally:
        bed.head.run("scancel", *jobs)
        bed._wait("the jobs to end", lambda: not bed.jobs())
