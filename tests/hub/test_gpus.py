"""GPUs as Slurm hands them out, on a worker whose devices are none: two notebooks get one each, and a third waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hub.bed import DEFAULT, Bed
from tests.hub.person import person, student, until

pytestmark = pytest.mark.hub

SPEC: dict[str, Any] = {
    **DEFAULT,
    "cloud": "openstack",
    "workers": [{"name": "gpu", "count": 1, "gpus": 2, "flavor": {"cpus": 4, "memory": "4G", "disk": "8G"}}],
    "jupyterhub": {
        **DEFAULT["jupyterhub"],
        "profiles": [{"name": "standard", "memory": "512M"}, {"name": "gpu", "memory": "512M", "gpus": 1}],
    },
}

# As the driver's own does: the devices are there once somebody asked.
NVIDIA_SMI = """#!/bin/sh
for n in 0 1; do
  [ -e /dev/nvidia$n ] || { : > /dev/nvidia$n && mount --bind /dev/null /dev/nvidia$n; }
done
"""
VISIBLE = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES', 'none'))"


@pytest.fixture(scope="module")
def gpu_bed() -> Iterator[Bed]:
    with Bed(SPEC, files={"/usr/bin/nvidia-smi": NVIDIA_SMI}) as bed:
        yield bed


def waiting(bed: Bed, name: str) -> str:
    """Why somebody's job waits, in Slurm's words."""
    return bed.head.run("squeue", "-h", f"--user={name}", "--states=PENDING", "--format=%r").stdout.strip()


def test_two_have_a_gpu_each_and_a_third_waits_for_one(gpu_bed: Bed) -> None:
    async def work() -> None:
        async with (
            student(gpu_bed, "student-001", profile="gpu") as one,
            person(gpu_bed.url, gpu_bed.ca, "student-003", gpu_bed.passwords()["class"], profile="gpu") as third,
        ):
            async with student(gpu_bed, "student-002", profile="gpu") as two:
                async with one.cells() as first, two.cells() as second:
                    seen = {(await cell(VISIBLE)).strip() for cell in (first, second)}
                    assert seen == {"0", "1"}
                await third.login()
                start = asyncio.create_task(third.spawn())

                async def waits() -> bool:
                    return waiting(gpu_bed, "student-003") == "Resources"

                try:
                    await until("the third one's job waits for a GPU", waits)
                    # There are processors and memory: who wants no GPU need not wait.
                    async with student(gpu_bed, "student-004") as plain, plain.cells() as cell:
                        assert (await cell(VISIBLE)).strip() not in {"0", "1", "0,1"}
                    assert not start.done()
                except BaseException:
                    start.cancel()
                    raise
            # The second one has left.
            try:
                await start
                await third.lab()
                await third.open_kernel()
                async with third.cells() as cell, one.cells() as first:
                    assert {(await cell(VISIBLE)).strip(), (await first(VISIBLE)).strip()} == seen
            finally:
                await third.leave()

    asyncio.run(work())


def test_a_batch_job_gets_what_it_asks_for(gpu_bed: Bed) -> None:
    ask = ["srun", "--immediate=240", "--mem=100", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]

    def seen(*words: str) -> str:
        return gpu_bed.head.run("runuser", "-u", "student-001", "--", ask[0], *words, *ask[1:]).stdout.strip()

    assert seen("--gres=gpu:2") == "0,1"
    assert seen() not in {"0", "1", "0,1"}


def test_slurm_knows_what_the_worker_has(gpu_bed: Bed) -> None:
    nodes = json.loads(gpu_bed.head.run("cat", "/etc/vcluster/hub/hub.json").stdout)
    assert nodes["profiles"][1]["gpus"] == 1
    assert "Gres=gpu:2\n" in gpu_bed.head.run("scontrol", "show", "node", "gpu-1").stdout
    done = gpu_bed.head.run("sbatch", "--gres=gpu:3", "--wrap=true", check=False)
    assert "Requested node configuration is not available" in done.stderr
