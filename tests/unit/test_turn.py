"""Whose turn it is: words on the cluster, whatever the listing lags."""

from __future__ import annotations

import pytest

from vcluster.clouds.memory import Fault, FaultScript, MemoryCloud
from vcluster.errors import CancelledError, ConflictError, PermanentError, TemporaryError
from vcluster.model import Network, Observed
from vcluster.turn import Turn

THERE = (Network("n", "t", "10.0.0.0/24"),)


def saying(word: str) -> Observed:
    return Observed(networks=THERE, notes={"leaving": word} if word else {})


class Desk:
    """A cluster on which words are written."""

    def __init__(self, *, leaving: bool, faults: FaultScript | None = None) -> None:
        self.cloud = MemoryCloud(faults=faults or FaultScript())
        self.ref = self.cloud.ref("demo")
        self.said: list[str] = []
        self.turn = Turn(self.cloud, self.ref, leaving=leaving, warn=self.said.append)

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
