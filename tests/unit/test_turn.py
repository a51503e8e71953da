"""Whose turn it is: words on the cluster, whatever the listing lags."""

from __future__ import annotations

import pytest

from vcluster.clouds.memory import Fault, FaultScript, MemoryCloud
from vcluster.errors import CancelledError, ConflictError, PermanentError, TemporaryError
from vcluster.model import Machine, MachineState, Network, Observed, Role
from vcluster.turn import OvertakenError, Turn, going_down

THERE = (Network("n", "t", "10.0.0.0/24"),)


def saying(word: str) -> Observed:
    return Observed(networks=THERE, notes={"leaving": word} if word else {})


class Desk:
    """A cluster on which words are written."""

    def __init__(self, *, leaving: bool = False, resting: bool = False, faults: FaultScript | None = None) -> None:
        self.cloud = MemoryCloud(faults=faults or FaultScript())
        self.ref = self.cloud.ref("demo")
        self.said: list[str] = []
        self.turn = Turn(self.cloud, self.ref, leaving=leaving, resting=resting, warn=self.said.append)

    @property
    def word(self) -> str:
        return self.cloud.observe(self.ref).notes.get("leaving", "")


def test_down_writes_its_word_and_goes_on_whatever_an_old_listing_says() -> None:
    desk = Desk(leaving=True)
    desk.turn.check(saying("up-old"))
    assert desk.word.startswith("down-")
    for seen in ("up-old", "", desk.word, "", "down-another"):
        desk.turn.check(saying(seen))


def test_down_stops_for_an_up_that_was_called_after_it() -> None:
    desk = Desk(leaving=True)
    desk.turn.check(saying(""))
    with pytest.raises(CancelledError, match="another command brings demo up again"):
        desk.turn.check(saying("up-new"))


def test_up_says_nothing_where_nobody_leaves() -> None:
    desk = Desk(leaving=False)
    for seen in ("", "up-old", "up-other"):
        desk.turn.check(saying(seen))
    assert desk.cloud.calls.get("annotate") is None


def test_up_writes_over_the_word_of_a_down_that_was_before_it() -> None:
    desk = Desk(leaving=False)
    desk.turn.check(saying("down-old"))
    assert desk.word.startswith("up-")
    desk.turn.check(saying("down-old"))  # the listing lags
    desk.turn.check(saying(""))
    with pytest.raises(CancelledError, match="`vcluster down demo` was called meanwhile"):
        desk.turn.check(saying("down-new"))


def test_up_stops_when_all_is_gone() -> None:
    desk = Desk(leaving=False)
    desk.turn.check(Observed())
    desk.turn.check(saying(""))
    with pytest.raises(CancelledError, match="taken down meanwhile"):
        desk.turn.check(Observed())


def test_a_word_that_could_not_be_written_is_said_again() -> None:
    script = FaultScript(nth={("annotate", 1): Fault(error=TemporaryError("weather"))})
    desk = Desk(leaving=True, faults=script)
    desk.turn.check(saying(""))
    assert desk.word == ""
    desk.turn.check(saying(""))
    assert desk.word.startswith("down-")
    desk.turn.check(saying(""))
    assert desk.cloud.calls["annotate"] == 2


def test_where_nothing_is_left_to_write_on_nothing_is_said() -> None:
    desk = Desk(leaving=True, faults=FaultScript(nth={("annotate", 1): Fault(error=ConflictError("all gone"))}))
    desk.turn.check(saying(""))
    desk.turn.check(saying(""))
    assert desk.cloud.calls["annotate"] == 1


def test_what_cannot_be_marked_can_still_be_taken_down() -> None:
    refused = Fault(error=PermanentError("the number of tags is limited"))
    desk = Desk(leaving=True, faults=FaultScript(nth={("annotate", 1): refused}))
    desk.turn.check(saying(""))
    desk.turn.check(saying(""))
    assert desk.cloud.calls["annotate"] == 1
    assert desk.said == ["other commands cannot see that demo goes down: the number of tags is limited"]
    desk = Desk(leaving=False, faults=FaultScript(nth={("annotate", 1): refused}))
    with pytest.raises(PermanentError):
        desk.turn.check(saying("down-old"))


def test_a_command_that_only_looks_writes_nothing_and_speaks_when_it_runs() -> None:
    desk = Desk(leaving=False)
    desk.turn.check(saying("down-old"), act=False)
    assert desk.word == ""
    desk.turn.check(saying("down-old"))
    assert desk.word.startswith("up-")


def test_what_a_command_met_before_its_run_it_remembers() -> None:
    desk = Desk(leaving=False)
    desk.turn.check(saying(""), act=False)
    with pytest.raises(CancelledError, match="`vcluster down demo` was called meanwhile"):
        desk.turn.check(saying("down-new"))
    desk = Desk(leaving=False)
    desk.turn.check(saying(""), act=False)
    with pytest.raises(CancelledError, match="taken down meanwhile"):
        desk.turn.check(Observed())


# Putting to rest ----------------------------------------------------------------------------------------------------


def with_head(word: str, state: MachineState = MachineState.ACTIVE) -> Observed:
    head = Machine("m", "t", "head", Role.HEAD, "head", state, "small", "p", "10.0.0.2")
    return Observed(networks=THERE, machines=(head,), notes={"leaving": word})


def test_down_says_when_it_was_called() -> None:
    desk = Desk(leaving=True)
    desk.turn.check(saying(""))
    assert float(desk.word.rpartition("@")[2]) == desk.cloud.now()


def test_who_puts_to_rest_leaves_alone_what_goes_down_and_writes_nothing() -> None:
    desk = Desk(resting=True)
    word = f"down-1234@{desk.cloud.now() - 120:.0f}"
    with pytest.raises(OvertakenError, match="demo is left alone: it is being taken down: `down` was called 2m ago"):
        desk.turn.check(with_head(word))
    desk = Desk(resting=True)
    desk.turn.check(with_head(""))
    with pytest.raises(OvertakenError, match="`vcluster down demo` was called meanwhile"):
        desk.turn.check(with_head("down-new"))
    assert desk.cloud.calls.get("annotate") is None


def test_a_down_that_died_keeps_nobody_from_putting_to_rest_what_it_left_whole() -> None:
    desk = Desk(resting=True)
    now = desk.cloud.now()
    old = f"down-1234@{now - 7200:.0f}"
    desk.turn.check(with_head(old))
    with pytest.raises(OvertakenError, match="was called meanwhile"):
        desk.turn.check(with_head(f"down-5678@{now:.0f}"))
    assert desk.cloud.calls.get("annotate") is None
    assert going_down(with_head(old, MachineState.DELETING), now)  # there is nothing left to put to rest
    assert going_down(saying(old), now)
    assert going_down(with_head("down-5"), now)  # who knows when
    assert not going_down(with_head("up-5"), now)
    assert not going_down(with_head(""), now)
