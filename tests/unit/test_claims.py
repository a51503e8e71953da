"""Two computers, two secrets, one cluster: at every interleaving one secret holds, and nothing is there twice."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, repeat
from typing import Any

import pytest
from engine import ABSENT, Run, running, standing_parts
from hypothesis import given, settings
from hypothesis import strategies as st

from vcluster.actions import Goal
from vcluster.clouds.memory import MemoryCloud, VirtualClock
from vcluster.errors import CancelledError, PermanentError
from vcluster.model import Health, Machine, MachineState, Observed, PortRequest, Role
from vcluster.reconcile import ClaimedError

FULL = int(os.environ.get("VCLUSTER_CHAOS_SEEDS", "10")) >= 100
FIRST = range(18) if FULL else range(0, 18, 3)
SECOND = (*range(0, 18, 3), 100_000) if FULL else (0, 5, 12, 100_000)

GATED = ("observe", "annotate", "create_", "delete_", "start_", "stop_", "reboot_", "unshelve_")


class Killed(BaseException):
    """Stands for kill -9."""


@dataclass
class Seat:
    """One computer: it goes on to its next call, or to its next sleep, only when it is told to."""

    cloud: MemoryCloud
    claim: str
    makers: dict[str, str]
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    done: bool = False
    killed: bool = False
    failure: BaseException | None = None
    thread: threading.Thread | None = None

    def gate(self) -> None:
        self.arrived.release()
        self.go.acquire()
        if self.killed:
            raise Killed

    def step(self) -> None:
        if not self.done:
            self.go.release()
            self.arrived.acquire()

    def begin(self, goal: Goal) -> None:
        self.thread = threading.Thread(target=self._live, args=(goal,), daemon=True)
        self.thread.start()
        self.arrived.acquire()

    def end(self) -> None:
        """Kill it where it is, and wait until it is gone."""
        self.killed = True
        self.go.release(100)
        assert self.thread is not None
        self.thread.join(120)
        assert not self.thread.is_alive()

    def _live(self, goal: Goal) -> None:
        try:
            self._up(goal)
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
            self.failure = error
        finally:
            self.done = True
            self.arrived.release()

    def _up(self, goal: Goal) -> None:
        """What the facade does: whoever meets another's claim goes on with that one's secret."""
        while True:
            run = Run(Gated(self), poll=2.0)  # type: ignore[arg-type]
            try:
                run.to(replace(goal, claim=self.claim), pool=1)
            except ClaimedError as error:
                if error.observed.head is None or error.observed.head.state is not MachineState.ACTIVE:
                    raise
                self.claim = error.claim
            else:
                return


class Gated:
    """The cloud as one seat sees it."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.clock = GatedClock(seat)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.seat.cloud, name)
        if not name.startswith(GATED):
            return found

        def call(*args: Any) -> Any:
            self.seat.gate()
            result = found(*args)
            if isinstance(result, Machine):
                self.seat.makers[result.uuid] = self.seat.claim
            return result

        return call


class GatedClock(VirtualClock):
    def __init__(self, seat: Seat) -> None:
        super().__init__()
        self.seat = seat

    def now(self) -> float:
        return self.seat.cloud.now()

    def sleep(self, seconds: float, cancel: threading.Event | None = None) -> None:
        self.seat.gate()
        self.seat.cloud.clock.sleep(seconds)


def goal_on(cloud: MemoryCloud) -> Goal:
    parts = standing_parts(cloud.ref("demo")) if cloud.parts else ()
    return running(2, most=3, parts=parts, root_disk=20 if cloud.parts else 0)


def seats(cloud: MemoryCloud, *claims: str) -> list[Seat]:
    makers: dict[str, str] = {}
    return [Seat(cloud, claim, makers) for claim in claims]


def play(schedule: Iterator[int], players: list[Seat]) -> None:
    """Let the players go on in this order until all are done."""
    for player in players:
        player.begin(goal_on(player.cloud))
    for turn, index in enumerate(schedule):
        assert turn < 20_000, "nobody gets anywhere"
        players[index].step()
        if all(player.done for player in players):
            break
    for player in players:
        player.end()
        assert player.failure is None, repr(player.failure)


def one_cluster_of_one_secret(cloud: MemoryCloud, makers: dict[str, str]) -> str:
    outcome = Run(cloud).to(replace(goal_on(cloud), claim=claim_of(cloud)))
    observed = outcome.observed
    assert Counter(m.name for m in observed.machines) == {"head": 1, "cpu-1": 1, "cpu-2": 1}
    assert Counter(p.name for p in observed.ports) == {"head": 1, "cpu-1": 1, "cpu-2": 1, "cpu-3": 1}
    assert set(Counter((p.kind, p.name) for p in observed.parts).values()) <= {1}
    assert len(observed.networks) == 1
    assert set(observed.health.values()) == {Health.READY}
    assert {makers[m.uuid] for m in observed.machines} == {claim_of(cloud)}
    Run(cloud).to(ABSENT)
    assert cloud.resources() == []
    return claim_of(cloud)


def claim_of(cloud: MemoryCloud) -> str:
    return next((p.claim for p in cloud.observe(cloud.ref("demo")).ports if p.name == "head"), "")


CLOUDS = {"plain": (False, 0.0), "parts": (True, 0.0), "lag": (True, 3.0)}


def cloud_like(kind: str) -> MemoryCloud:
    parts, lag = CLOUDS[kind]
    return MemoryCloud(parts=parts, lag=lag)


@pytest.mark.parametrize("kind", CLOUDS)
@pytest.mark.parametrize("first", FIRST)
def test_two_ups_whose_steps_are_shuffled_make_one_cluster(kind: str, first: int) -> None:
    for second in SECOND:
        cloud = cloud_like(kind)
        players = seats(cloud, "a", "b")
        # So many steps of one, so many of the other (the last time: all of them), then by turns.
        play(chain(repeat(0, first), until_done(players[1], 1, second), cycle((0, 1))), players)
        assert players[0].claim == players[1].claim
        one_cluster_of_one_secret(cloud, players[0].makers)


def until_done(player: Seat, index: int, most: int) -> Iterator[int]:
    for _ in range(most):
        if player.done:
            return
        yield index


@settings(max_examples=60 if FULL else 15, deadline=None)
@given(turns=st.lists(st.integers(0, 2), max_size=120), kind=st.sampled_from(sorted(CLOUDS)))
def test_three_ups_in_any_order_make_one_cluster(turns: list[int], kind: str) -> None:
    cloud = cloud_like(kind)
    players = seats(cloud, "a", "b", "c")
    play(chain(turns, cycle((0, 1, 2))), players)
    assert len({player.claim for player in players}) == 1
    one_cluster_of_one_secret(cloud, players[0].makers)


@pytest.mark.parametrize("kind", CLOUDS)
def test_one_is_killed_anywhere_and_the_other_finishes(kind: str) -> None:
    for steps in range(0, 60, 1 if FULL else 3):
        cloud = cloud_like(kind)
        dead, alive = seats(cloud, "a", "b")
        dead.begin(goal_on(cloud))
        for _ in range(steps):
            dead.step()
        finished = dead.done
        dead.end()
        play(repeat(0), [alive])
        one_cluster_of_one_secret(cloud, alive.makers)
        if finished:
            break
    assert steps > 10


def test_a_claim_that_was_given_up_is_taken_over_after_a_while() -> None:
    cloud = cloud_like("parts")
    dead, alive = seats(cloud, "a", "b")
    dead.begin(goal_on(cloud))
    while not claim_of(cloud):
        dead.step()
    dead.end()
    began = cloud.now()
    play(repeat(0), [alive])
    assert alive.claim == "b"
    assert cloud.now() - began > 120
    one_cluster_of_one_secret(cloud, alive.makers)


@pytest.mark.parametrize("state", [MachineState.SHUTOFF, MachineState.SHELVED])
def test_a_head_at_rest_is_woken_before_its_secret_is_fetched(state: MachineState) -> None:
    cloud = MemoryCloud()
    head = Run(cloud).to(running(1, claim="a")).observed.head
    assert head is not None
    rest = cloud.stop_machine if state is MachineState.SHUTOFF else cloud.shelve_machine
    rest(cloud.ref("demo"), head.uuid)
    with pytest.raises(ClaimedError) as caught:
        Run(cloud).to(running(1, claim="b"))
    assert caught.value.claim == "a"
    assert caught.value.observed.head is not None
    assert caught.value.observed.head.state is MachineState.ACTIVE


def test_nothing_is_made_while_somebody_elses_claim_holds() -> None:
    cloud = MemoryCloud()
    ref = cloud.ref("demo")
    network = cloud.create_network(ref, ref.tag(Role.NETWORK))
    (theirs,) = cloud.create_ports(ref, [PortRequest("head", ref.tag(Role.HEAD), network.uuid, "a")])
    cloud.clock.sleep(1)
    cloud.create_ports(ref, [PortRequest("head", ref.tag(Role.HEAD), network.uuid, "b")])
    loop = Run(cloud).loop(running(1, claim="b"))
    plan = loop.plan(loop.look())
    assert plan.claimed == "a"
    assert [str(action) for action in plan.actions] == ["delete ports head: somebody else's claim is older"]
    assert plan.waiting == ("the head that another run is about to make",)
    assert theirs.uuid not in plan.actions[0].uuids


def test_a_cluster_that_was_ready_is_not_rebuilt_under_a_new_claim_unless_a_person_agrees() -> None:
    cloud = MemoryCloud()
    Run(cloud).to(running(1, claim="a"))
    cloud.lose("head")
    cloud.clock.sleep(1000)
    run = Run(cloud)
    loop = run.loop(running(1, claim="b"))
    loop._may_destroy = False
    with pytest.raises(CancelledError, match="not agreed to"):
        loop.run(7200)
    assert [m.name for m in cloud.observe(cloud.ref("demo")).machines] == ["cpu-1"]
    Run(cloud).to(running(1, claim="b"))
    assert claim_of(cloud) == "b"


def test_a_head_that_shows_another_host_key_is_not_asked_and_its_claim_is_told() -> None:
    cloud = MemoryCloud()
    Run(cloud).loop(running(1, claim="a"), host_key="ssh-ed25519 AAAA demo").run(7200)
    loop = Run(cloud).loop(running(1, claim="b"), host_key="ssh-ed25519 BBBB demo")

    class Refused:
        """What SSH says where the pinned key is another one."""

        def health(self, observed: Observed) -> dict[str, Health]:
            raise PermanentError("127.0.0.1 shows another host key than this cluster's head has")

    loop._view.control = Refused()  # type: ignore[assignment]
    with pytest.raises(ClaimedError) as caught:
        loop.run(7200)
    assert caught.value.claim == "a"
    again = Run(cloud).loop(running(1, claim="a"), host_key="ssh-ed25519 AAAA somebody")
    assert not again.run(7200).changed


@pytest.mark.parametrize("kind", ["plain", "parts"])
def test_a_head_that_failed_and_nobody_mends_is_taken_over(kind: str) -> None:
    cloud = cloud_like(kind)
    dead, alive = seats(cloud, "a", "b")
    dead.begin(goal_on(cloud))
    while not [entry for entry in cloud.entries(cloud.ref("demo")) if entry.machine.role is Role.HEAD]:
        dead.step()
    dead.end()
    cloud.kill("head")
    began = cloud.now()
    play(repeat(0), [alive])
    assert alive.claim == "b"
    assert cloud.now() - began > 30
    one_cluster_of_one_secret(cloud, alive.makers)
