"""1,000 machines under scripted weather, many seeds: temporary faults converge, permanent ones end as predicted."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from engine import ABSENT, Run, running, standing_parts

from vcluster.clouds.memory import Fault, FaultScript, MemoryCloud, Trouble
from vcluster.errors import CloudError, PermanentError, QuotaError
from vcluster.model import Health

WORKERS = 999
pytestmark = pytest.mark.slow

SEEDS = int(os.environ.get("VCLUSTER_CHAOS_SEEDS", "10"))
TEMPORARY = range(0, SEEDS, 2)
PERMANENT = range(1, SEEDS, 2)


def weather(seed: int) -> FaultScript:
    """30 % of all calls fail (half of them after the act), and 30 % of the machines get into trouble once."""
    return FaultScript(rate=0.3, machine_rate=0.3, seed=seed)


def clean(cloud: MemoryCloud) -> None:
    Run(cloud, poll=15.0).to(ABSENT, timeout=100_000, pool=1)
    assert cloud.resources() == []


@pytest.mark.parametrize("seed", TEMPORARY)
def test_temporary_faults_alone_always_converge(seed: int) -> None:
    cloud = MemoryCloud(faults=weather(seed), lag=seed % 5)
    outcome = Run(cloud, poll=15.0).to(running(WORKERS), timeout=100_000, pool=1)
    names = Counter(machine.name for machine in outcome.observed.machines)
    assert len(names) == WORKERS + 1
    assert set(names.values()) == {1}
    assert set(outcome.observed.health.values()) == {Health.READY}
    assert outcome.degraded == ()
    clean(cloud)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_cluster_with_all_that_an_openstack_wants_converges_too(seed: int) -> None:
    cloud = MemoryCloud(faults=weather(seed), lag=seed % 5, parts=True)
    parts = standing_parts(cloud.ref("demo"))
    goal = running(20, root_disk=20 * (seed % 2), parts=parts, claim="c1", max_attempts=4)
    outcome = Run(cloud, poll=5.0).to(goal, timeout=100_000, pool=1)
    assert set(Counter(machine.name for machine in outcome.observed.machines).values()) == {1}
    assert set(Counter((part.kind, part.name) for part in outcome.observed.parts).values()) == {1}
    assert len(outcome.observed.machines) == len(outcome.observed.ports) == 21
    assert set(outcome.observed.health.values()) == {Health.READY}
    clean(cloud)


def scripts(seed: int) -> tuple[FaultScript, int, type[CloudError]]:
    """Weather with one permanent trouble in it, the project's quota, and the error that must come of it."""
    script = weather(seed)
    victim = f"cpu-{random.Random(seed).randrange(1, WORKERS + 1)}"
    match seed // 2 % 4:
        case 0:
            script.subjects["create_machine", victim] = Fault(error=PermanentError("no such flavor"))
            return script, -1, PermanentError
        case 1:
            return script, WORKERS // 2, QuotaError
        case 2:
            script.machines[victim] = (Trouble.ERROR, 3.0)
            return script, -1, PermanentError
        case _:
            script.machines["head"] = (Trouble.MISCONFIGURED, 0.0)
            return script, -1, PermanentError


@pytest.mark.parametrize("seed", PERMANENT)
def test_a_permanent_fault_ends_in_the_class_that_the_script_predicts(seed: int) -> None:
    script, quota, expected = scripts(seed)
    cloud = MemoryCloud(faults=script, quota=quota, lag=seed % 5)
    with pytest.raises(CloudError) as caught:
        Run(cloud, poll=15.0).to(running(WORKERS), timeout=100_000, pool=1)
    assert type(caught.value) is expected
    clean(cloud)
