"""Jobs that a student makes to look like others' notebooks: they stop nobody, and nobody is sent elsewhere by them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.hub.bed import Bed
from tests.hub.drills import WHERE
from tests.hub.person import hub_answers, student

pytestmark = pytest.mark.hub

VILLAIN = "student-003"
NAME = "--job-name=jupyter-vcluster"


def rows(number: int) -> str:
    """Text with a line that puts a job onto the other worker, in each order of columns that was ever asked for."""
    lines = (f"{number}|RUNNING|{host}|student-001|None" for host in ("cpu-1", "cpu-2"))
    old = (f"{number}|RUNNING|{host}|None|student-001|vcluster" for host in ("cpu-1", "cpu-2"))
    return "\n".join(["x", *lines, *old, "x|y"])


@pytest.fixture
def villain(bed: Bed) -> Iterator[Bed]:
    yield bed
    bed.head.run("scancel", f"--user={VILLAIN}")
    bed._wait("the villain's jobs to end", lambda: all(job[1] != VILLAIN for job in bed.jobs()))


def mischief(bed: Bed, number: int) -> None:
    """Every kind of job that made a row of squeue's something else."""

    def submit(*words: str, script: str = "#!/bin/sh\nsleep 600\n") -> None:
        bed.head.run("runuser", "-u", VILLAIN, "--", *words, "--mem=1", NAME, stdin=script)

    batch = ("sbatch", "--chdir=/tmp", "--output=/dev/null")
    submit(*batch, "--comment=a|b")
    submit(*batch, "--array=1-3%1")
    submit(*batch, f"--comment={rows(number)}")
    submit(*batch, "--hold", f"--comment={rows(number)}")


def test_a_students_jobs_hide_and_move_nobodys_notebook(villain: Bed) -> None:
    before = len(villain.log("jupyterhub"))

    async def work() -> None:
        async with student(villain, "student-001") as first, first.cells() as cell:
            host, job = json.loads(await cell(WHERE))
            await asyncio.to_thread(mischief, villain, int(job))
            told = villain.head.run("squeue", "-h", NAME.replace("job-", ""), "--format=%i %k").stdout
            assert f"\n{job}|RUNNING|" in told, "the jobs are not what they are meant to be"
            # A server that starts is looked for until it is there, and Slurm's answer is the Hub's for all servers.
            async with student(villain, "student-002") as second, second.cells() as other:
                assert json.loads(await other(WHERE))[1] in {
                    n for n, user, *_ in villain.jobs() if user == "student-002"
                }
                await asyncio.sleep(20)  # longer than this Hub goes without a look at those that run
                assert await hub_answers(first)
                assert await hub_answers(second)
            assert json.loads(await cell(WHERE)) == [host, job]

    asyncio.run(work())
    assert "squeue" not in villain.log("jupyterhub")[before:]
