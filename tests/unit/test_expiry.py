"""The words that say how long a cluster lives."""

from __future__ import annotations

import pytest

from vcluster.expiry import GRACE, Expiry, expiry_of, extended, lifetime_notes
from vcluster.spec import ClusterSpec

NOW = 1_700_000_000.0
HOUR = 3600.0


def spec(text: str = "") -> ClusterSpec:
    return ClusterSpec.from_yaml(f"name: demo\ncloud: local\n{text}")


def test_a_new_cluster_lives_as_long_as_its_spec_says() -> None:
    notes = lifetime_notes(spec("expires: 8h\ngrace_period: 2d"), {}, NOW)
    assert notes == {"expires": "1700028800", "lifetime": "28800+172800"}
    assert expiry_of(notes) == Expiry(NOW + 8 * HOUR, 48 * HOUR)


def test_bringing_it_up_again_does_not_make_it_live_longer() -> None:
    wanted = spec("expires: 8h")
    notes = lifetime_notes(wanted, {}, NOW)
    assert lifetime_notes(wanted, notes, NOW + HOUR) == {}
    longer = extended(notes, HOUR, NOW + HOUR) or {}
    assert lifetime_notes(wanted, {**notes, **longer}, NOW + 2 * HOUR) == {}


def test_another_word_in_the_spec_counts_anew() -> None:
    notes = {**lifetime_notes(spec("expires: 8h"), {}, NOW), "reaped-at": "5"}
    changed = lifetime_notes(spec("expires: 1h"), notes, NOW + HOUR)
    assert changed == {"expires": f"{NOW + 2 * HOUR:.0f}", "lifetime": "3600+86400", "reaped-at": ""}
    assert lifetime_notes(spec(), notes, NOW) == {"expires": "", "lifetime": "", "reaped-at": ""}
    assert lifetime_notes(spec(), {}, NOW) == {}


@pytest.mark.parametrize(
    ("said", "since", "expected"),
    [(NOW + HOUR, NOW, NOW + 5 * HOUR), (NOW - HOUR, NOW, NOW + 4 * HOUR), (NOW, NOW, NOW + 4 * HOUR)],
)
def test_more_time_counts_from_the_end_or_from_now(said: float, since: float, expected: float) -> None:
    notes = {"expires": f"{said:.0f}", "reaped-at": "7"}
    assert extended(notes, 4 * HOUR, since) == {"expires": f"{expected:.0f}", "reaped-at": ""}


def test_what_never_expires_cannot_live_longer() -> None:
    assert extended({}, HOUR, NOW) is None


def test_grace_counts_from_the_shelf() -> None:
    assert not Expiry(NOW).doomed(NOW + 30 * 86400)
    assert not Expiry(NOW, GRACE, NOW + HOUR).doomed(NOW + GRACE)
    assert Expiry(NOW, GRACE, NOW + HOUR).doomed(NOW + HOUR + GRACE)
    assert not Expiry(NOW, GRACE, NOW - HOUR).doomed(NOW + GRACE - 1)  # reaped before its end: it was extended then
    assert Expiry(NOW, GRACE, NOW - HOUR).deletion == NOW + GRACE
    assert Expiry(NOW).deletion == 0
    assert not Expiry(NOW, 0.0, NOW).doomed(NOW - 1)
    assert Expiry(NOW, 0.0, NOW).past(NOW)


@pytest.mark.parametrize("text", ["", "soon", "-5", "1e9", "٣", "9" * 13, "1.5"])
def test_a_word_that_is_no_time_expires_nothing(text: str) -> None:
    assert expiry_of({"expires": text}) is None


def test_a_grace_period_that_cannot_be_read_is_the_usual_one() -> None:
    assert expiry_of({"expires": "5", "lifetime": "x+y", "reaped-at": "z"}) == Expiry(5.0, GRACE, 0.0)


def test_words_fit_into_a_tag() -> None:
    notes = lifetime_notes(spec("expires: 3650d\ngrace_period: 3650d"), {}, NOW)
    assert all(len(f"{key}={value}") <= 58 and "," not in value for key, value in notes.items())
