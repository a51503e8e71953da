"""Killed after every single side effect, the next run finishes: on a cloud that wants all around its machines."""

from __future__ import annotations

import pytest
from engine import ABSENT, Run, fresh, one_of_each, volumes, whole

from vcluster.actions import Goal, Power
from vcluster.clouds.memory import FaultScript, MemoryCloud, Trouble
from vcluster.model import Health


class Killed(BaseException):
    """Stands for kill -9: nothing in the loop may catch it."""


def kill_after(cloud: MemoryCloud, effect: int) -> None:
    first = cloud._effects

    def strike(number: int) -> None:
        if number - first >= effect:
            raise Killed

    cloud.after_effect = strike


def killed(cloud: MemoryCloud, goal: Goal, effect: int) -> bool:
    """Whether the run was killed after so many side effects."""
    kill_after(cloud, effect)
    try:
        Run(cloud).to(goal, pool=1)
    except Killed:
        return True
    finally:
        cloud.after_effect = None
    return False


KINDS = [(0.0, False), (4.0, False), (4.0, True)]


@pytest.mark.parametrize(("lag", "foreign"), KINDS)
def test_killed_after_every_single_side_effect_of_up_the_next_run_finishes(lag: float, *, foreign: bool) -> None:
    effect = 1
    while True:
        script = FaultScript(once={"cpu-2": (Trouble.ERROR, 1.0)}, volumes={"cpu-1": 1})
        cloud = fresh(lag, foreign=foreign, faults=script)
        if not killed(cloud, whole(cloud, 2, most=3), effect):
            break
        if effect % 2:  # the next run comes late, when the claim is old
            cloud.clock.sleep(1000)
        observed = Run(cloud).to(whole(cloud, 2, most=3)).observed
        one_of_each(observed)
        assert set(observed.health.values()) == {Health.READY}, effect
        assert volumes(cloud) == {name: name for name in ("head", "cpu-1", "cpu-2")}, effect
        Run(cloud).to(ABSENT)
        assert cloud.resources() == [], effect
        effect += 1
    assert effect > 20


@pytest.mark.parametrize(("lag", "foreign"), KINDS)
@pytest.mark.parametrize("power", [Power.ABSENT, Power.SHELVED])
def test_killed_after_every_single_side_effect_of_down_the_next_run_finishes(
    lag: float, power: Power, *, foreign: bool
) -> None:
    effect = 1
    while True:
        cloud = fresh(lag, foreign=foreign)
        Run(cloud).to(whole(cloud, 2, most=3))
        if not killed(cloud, Goal(power), effect):
            break
        Run(cloud).to(Goal(power))
        if power is Power.SHELVED:
            observed = Run(cloud).to(whole(cloud, 2, most=3)).observed
            assert set(observed.health.values()) == {Health.READY}, effect
            one_of_each(observed)
            Run(cloud).to(ABSENT)
        assert cloud.resources() == [], effect
        effect += 1
    assert effect > 3
