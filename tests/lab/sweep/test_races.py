"""Two `up`s at once, from two separate home directories: one cluster, no twins, one secret."""

from __future__ import annotations

import pytest

from tests.lab.sweep.bed import Task, Worker
from tests.lab.sweep.conftest import SOAK, Bed, homes

pytestmark = pytest.mark.lab

ROUNDS = 20 if SOAK else 6


@pytest.mark.timeout(3600)
def test_two_ups_within_the_same_second(bed: Bed, spec: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    env = bed.lab.cloud_env("demo")
    direct = spec.replace("demo-faulty", "demo")
    one, other = homes(2, tmp_path_factory)
    with Worker(one, env, "demo") as first, Worker(other, env, "demo") as second:
        for number in range(ROUNDS):
            one, other = homes(2, tmp_path_factory)
            first.move(one)
            second.move(other)
            tasks = [Task(), Task()]
            threads = [worker.start("up", direct, task) for worker, task in zip((first, second), tasks, strict=True)]
            for thread in threads:
                thread.join()
            assert [task.ok for task in tasks] == [True, True], (number, [task.answer for task in tasks])
            assert bed.amiss(spec) == [], number
            secrets = {path.read_bytes() for home in (one, other) for path in home.glob("clusters/*/secret")}
            assert len(secrets) == 1, number
            assert len(list(one.glob("clusters/*/secret")) + list(other.glob("clusters/*/secret"))) == 2, number
            assert second.run("down", direct).ok, number
            assert bed.leaks() == [], number
