"""The notes that bound repairs: read as written, and short enough for the longest name there can be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vcluster.actions import NOTE_ATTEMPTS
from vcluster.attempts import Attempts, life_of
from vcluster.model import Machine, MachineState, Part, PartKind, Role

MACHINE = Machine(
    "12345678-aaaa-4000-8000-000000000000", "t", "cpu-1", Role.WORKER, "cpu", MachineState.ERROR, "s", "p", "a", 1.7e9
)


def test_a_failure_is_counted_once_for_each_life() -> None:
    attempts = Attempts({}, most=2)
    for count in (1, 2, 3):
        machine = replace(MACHINE, started=1.7e9 + count)
        assert attempts.left("cpu-1", machine) is (count <= 2)
        attempts = Attempts(attempts.another("cpu-1", machine), most=2)
        assert attempts.counted("cpu-1", machine)
        assert attempts.another("cpu-1", machine) == attempts.notes
        assert attempts.made("cpu-1") == count
        assert attempts.last_failure("cpu-1") == 1.7e9 + count
    assert attempts.spent("cpu-1")
    assert Attempts({}, 2).last_failure("cpu-1") == 0


@pytest.mark.parametrize("role", [Role.HEAD, Role.WORKER])
def test_a_server_whose_boots_the_cloud_does_not_tell_has_a_budget_all_the_same(role: Role) -> None:
    """The head, and a peer of its."""
    server, notes, tries = replace(MACHINE, name="head", role=role, group="head"), dict[str, str](), list[float]()
    for now in range(1_700_000_600, 1_700_010_000, 300):  # a new process each time: all that it knows is the note
        attempts = Attempts(notes, 2, float(now), patience=600.0)
        if not attempts.left("head", server):
            break
        notes = attempts.another("head", server)
        tries.append(attempts.before("head", server) + 1)
        assert len("attempts/head=" + notes[NOTE_ATTEMPTS + "head"]) <= 58
    assert tries == [1, 1, 1, 2, 2, 2]
    assert Attempts(notes, 2, 1_700_009_999.0, 600.0).made("head") == 2


def test_a_reboot_that_the_cloud_tells_is_another_life_at_once() -> None:
    head = replace(MACHINE, name="head", role=Role.HEAD)
    first = Attempts({}, 2, 1.7e9 + 5, 600.0)
    noted = first.another("head", head)
    assert Attempts(noted, 2, 1.7e9 + 6, 600.0).before("head", head) == 0
    assert Attempts(noted, 2, 1.7e9 + 9, 600.0).before("head", replace(head, started=1.7e9 + 5)) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (MACHINE, replace(MACHINE, started=1.7e9 + 1)),
        (MACHINE, replace(MACHINE, uuid="12349678-aaaa-4000-8000-000000000000")),
        (MACHINE, Part(MACHINE.uuid, "t", PartKind.VOLUME, "cpu-1", created=5.0)),
    ],
)
def test_two_lives_are_told_apart(one: Machine, other: Machine | Part) -> None:
    assert life_of(one) != life_of(other)


def test_the_longest_note_fits() -> None:
    name = "x" * 30 + "-9999"  # a group's name has at most 30 characters
    ((key, word),) = Attempts({}, 2).another(name, MACHINE).items()
    assert key == NOTE_ATTEMPTS + name
    assert len(f"{key}={word}") <= 58
    assert word.isascii()
    assert "," not in word
    assert "/" not in word


@pytest.mark.parametrize("word", ["", "x", "1", "-1 @5", "1 12345678", "1 abcd@", "99999 a@1", "1 a@ÄÖ"])
def test_a_word_that_is_no_such_note_counts_as_none(word: str) -> None:
    attempts = Attempts({f"{NOTE_ATTEMPTS}cpu-1": word}, 2)
    assert (attempts.made("cpu-1"), attempts.last_failure("cpu-1")) == (0, 0.0)
