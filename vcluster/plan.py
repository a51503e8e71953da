"""What to do next: a pure function from a goal and what was observed to ordered actions.

Actions come in waves. Those of one wave do not depend on each other and may run at the same time; a later wave
needs what an earlier one makes or removes. The loop applies the first wave, looks again, and plans anew, so the later
waves are a forecast for people (``vcluster plan``) and never executed blindly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vcluster.actions import Action, Goal, Plan, Power, Verb, Wave
from vcluster.chosen import chosen_network, chosen_ports, own
from vcluster.identity import natural
from vcluster.model import ClusterRef, Observed
from vcluster.offspring import without_offspring
from vcluster.plan_absent import plan_absent
from vcluster.plan_rest import plan_rest
from vcluster.plan_running import Running

__all__ = ["chosen_network", "chosen_ports", "own", "plan"]


def plan(goal: Goal, observed: Observed, ref: ClusterRef, now: float) -> Plan:
    """Decide what leads from ``observed`` to ``goal``.

    Args:
        goal: what is wanted.
        observed: what was seen, with health where the head could be asked.
        ref: whose resources count; others are ignored, whatever their names.
        now: when the look began that ``observed`` comes from, in seconds since the epoch by the cloud's clock.
    """
    mine = own(observed, ref)
    match goal.power:
        case Power.ABSENT:
            made = plan_absent(goal, mine, now)
        case Power.STOPPED | Power.SHELVED:
            made = plan_rest(goal, without_offspring(mine), now)
        case Power.RUNNING:
            made = Running(goal, without_offspring(mine), now).plan()
    return replace(made, actions=_in_bulk(made.actions))


def _in_bulk(actions: Iterable[Action]) -> tuple[Action, ...]:
    """Orders to the scheduler for many workers are one order: each is a trip to the head."""
    together: dict[tuple[Verb, Wave, str], list[Action]] = {}
    order: list[Action] = []
    for action in actions:
        if action.verb not in (Verb.DRAIN, Verb.RESUME):
            order.append(action)
            continue
        same = together.setdefault((action.verb, action.wave, action.why), [])
        if not same:
            order.append(action)
        same.append(action)
    return tuple(_joined(together.get((action.verb, action.wave, action.why), [action])) for action in order)


def _joined(same: list[Action]) -> Action:
    if len(same) == 1:
        return same[0]
    # By name, not as the cloud lists them: people read "cpu-1 … cpu-8" as all between.
    named = sorted(same, key=lambda action: natural(action.names[0]))
    return replace(same[0], names=tuple(a.names[0] for a in named), uuids=tuple(a.uuids[0] for a in named))
