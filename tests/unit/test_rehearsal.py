"""A rehearsal's counting, drawing and framing, and that its accounts go whatever happens."""

from __future__ import annotations

import json
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcluster.errors import TemporaryError, UsageError
from vcluster.rehearsal.browser import Failed, plain
from vcluster.rehearsal.client import Account, Door, Pace, Visit
from vcluster.rehearsal.kernel import pack, unpack
from vcluster.rehearsal.picture import picture
from vcluster.rehearsal.report import Report, percentile
from vcluster.rehearsal.run import Rehearsal, Script, arrivals, guests, rehearse, state_of

STEPS = ("login", "spawn", "lab", "kernel", "cell")


def done(user: str, due: float, each: float, **more: Any) -> Visit:
    """A visit of which every step took so many seconds."""
    seen = Visit(user, due, host="cpu-1", job="1", left="yes", **more)
    for number, step in enumerate(STEPS):
        seen.began[step], seen.done[step] = due + number * each, due + (number + 1) * each
    seen.cells = [(due + 6 * each, 0.1)]
    seen.began["leave"], seen.done["leave"] = due + 7 * each, due + 8 * each
    return seen


def failed(user: str, step: str, reason: str) -> Visit:
    seen = Visit(user, 0.0, failed=step, reason=reason, left="yes")
    seen.began[step] = 0.5
    return seen


def report(*visits: Visit, bound: float | None = None, cancelled: bool = False) -> Report:
    script = Script(60.0, Pace(300.0))
    return Report.of(Rehearsal(script, visits, 0.0, 400.0, cancelled), bound)


@given(st.lists(st.binary(max_size=50), min_size=4, max_size=6), st.sampled_from(["shell", "iopub", "control"]))
def test_a_frame_comes_back_as_it_was(parts: list[bytes], channel: str) -> None:
    assert unpack(pack(channel, parts)) == (channel, parts)


@given(st.binary(max_size=40))
def test_no_frame_is_an_end_of_the_rehearsal(frame: bytes) -> None:
    try:
        channel, _ = unpack(frame)
    except Failed:
        return
    assert isinstance(channel, str)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(1, 100))
def test_a_percentile_is_one_of_the_values_and_enough_are_below(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values) - 1e-9


def test_percentiles_of_a_hundred() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [percentile(values, p) for p in (1, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_arrivals_begin_at_nought_keep_within_and_can_be_had_again() -> None:
    first = arrivals(127, 60.0, 7)
    assert first[0] == 0
    assert first == sorted(first)
    assert 30 < first[-1] <= 60
    assert first == arrivals(127, 60.0, 7)
    assert first != arrivals(127, 60.0, 8)


def test_everybody_worked() -> None:
    told = report(*(done(f"u{n}", n, 1.0 + n) for n in range(20)))
    assert told.passed
    whole = told.row("until cell")
    assert whole is not None
    assert (whole.count, whole.p50, whole.p95, whole.longest) == (20, 50.0, 95.0, 100.0)
    assert "PASSED: all 20 users worked; 95 of 100 had their first cell within 95.0 s" in told.text()
    assert dict(told.hosts) == {"cpu-1": 20}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (report(done("a", 0, 1), failed("b", "spawn", "full")), "FAILED: 1 of 2 users could not work"),
        (report(), "FAILED: nobody came"),
        (report(done("a", 0, 2), bound=9.0), "and 9 s were allowed"),
        (report(done("a", 0, 1), cancelled=True), "STOPPED early"),
        (report(Visit("a", 0.0), cancelled=True), "STOPPED early"),
    ],
)
def test_who_does_not_pass(told: Report, words: str) -> None:
    assert not told.passed
    assert words in told.verdict


def test_a_user_who_cannot_leave_is_a_failure_too() -> None:
    stuck = done("a", 0, 1)
    stuck.left = "the server does not stop"
    told = report(stuck, done("b", 0, 1))
    assert not told.passed
    assert "1 could not leave in order" in told.verdict
    assert "1 × the server does not stop" in told.text()


def test_a_user_of_whom_nothing_is_known_is_no_success() -> None:
    assert not report(done("a", 0, 1), Visit("b", 3.0)).passed


def test_failures_are_counted_by_reason() -> None:
    told = report(*(failed(f"u{n}", "spawn", "full") for n in range(3)), failed("x", "cells", "the kernel died"))
    assert told.failures == (("spawn", "full", 3), ("cells", "the kernel died", 1))
    assert "3 × server start: full" in told.text()


def test_the_json_holds_each_visit() -> None:
    told = json.loads(report(done("a", 0, 1), failed("b", "cell", "slow")).json())
    assert [visit["user"] for visit in told["visits"]] == ["a", "b"]
    assert told["times"]["until cell"]["p95"] == 5.0
    assert told["passed"] is False


@pytest.mark.parametrize("count", [0, 1, 127])
def test_the_picture_is_xml_with_a_line_for_each_user(count: int) -> None:
    told = report(*(done(f"u{n}", n / 2, 1) for n in range(count)), failed("x", "spawn", "<&>"))
    root = ElementTree.fromstring(picture(told, "a <title> & more"))
    name = "{http://www.w3.org/2000/svg}"
    assert "a <title> & more" in [text.text for text in root.iter(f"{name}text")]
    assert len(root.findall(f"{name}circle")) == 1
    # A background, the legend, five steps and a cell for each, and the one step that failed.
    assert len(root.findall(f"{name}rect")) == 1 + 7 + 6 * count + 1


@pytest.mark.parametrize(
    ("path", "same"),
    [
        ("/user/student-001/lab?reset", "/user/NAME/lab"),
        ("/hub/api/users/bob/server/progress", "/hub/api/users/NAME/server/progress"),
        ("/hub/spawn-pending/bob", "/hub/spawn-pending/NAME"),
        ("/user/a/api/kernels/0f0f0f0f-1111-2222-3333-444455556666/channels", "/user/NAME/api/kernels/ID/channels"),
        ("/hub/login", "/hub/login"),
    ],
)
def test_paths_are_told_without_what_differs(path: str, same: str) -> None:
    assert plain(path) == same


class PretendedHub:
    """Makes accounts, and takes them away at the ``bad``-th try after it refused before."""

    def __init__(self, bad: int = 0, refuse: bool = False) -> None:
        self.bad, self.refuse, self.made, self.ends, self.planned = bad, refuse, 0, 0, 0.0

    def rehearsal_begin(self, users: int, *, seconds: float = 0.0, force: bool = False) -> dict[str, Any]:
        if self.refuse:
            raise UsageError("no room")
        self.made, self.planned = users, seconds
        names = [f"rehearsal-{n:03d}" for n in range(1, users + 1)]
        return {"users": names, "password": "x", "url": "https://127.0.0.1:1/", "ca": None}

    def rehearsal_end(self) -> str:
        self.ends += 1
        if self.ends <= self.bad:
            raise TemporaryError("the head does not answer")
        self.made = 0
        return ""

    @contextmanager
    def __call__(self) -> Iterator[PretendedHub]:
        yield self


def test_accounts_go_when_the_rehearsal_breaks_off() -> None:
    hub = PretendedHub(bad=2)
    told: list[str] = []

    def break_off() -> None:
        with guests(hub, 3, told.append) as (door, accounts):
            assert (door, len(accounts)) == (Door("https://127.0.0.1:1/", ""), 3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert (hub.made, told) == (0, [])


def test_accounts_that_stay_are_told() -> None:
    hub = PretendedHub(bad=9)
    told: list[str] = []
    with guests(hub, 3, told.append):
        pass
    assert len(told) == 1
    assert "the head does not answer" in told[0]


def test_nothing_is_taken_away_that_was_not_made() -> None:
    hub = PretendedHub(refuse=True)
    with pytest.raises(UsageError, match="no room"), guests(hub, 3, print):
        pytest.fail("refused, and yet it went on")
    assert hub.ends == 0


def test_a_door_that_is_shut_is_told_with_its_reason() -> None:
    hub = PretendedHub()
    with guests(hub, 3, print) as (door, accounts):
        told = Report.of(rehearse(door, accounts, Script(0.1, Pace(1.0))))
    assert told.failures == (("login", "GET /hub/login: cannot connect: Connection refused", 3),)
    assert "of 3: 3 arrived, 0 logged in" in state_of(told.visits)


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """How many files this process may have open: few more than there are."""
    monkeypatch.setattr("vcluster.rehearsal.run.TELL_EVERY", 0.5)
    monkeypatch.setattr("vcluster.rehearsal.browser.REQUEST_TIMEOUT", 2.0)
    was = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = psutil.Process().num_fds() + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, was[1]))
    yield few
    resource.setrlimit(resource.RLIMIT_NOFILE, was)


def connecting(users: int) -> tuple[Report, int]:
    """A rehearsal with users who all wait for an answer at once; and how many files one may have open meanwhile."""
    limits = []
    with socket.create_server(("127.0.0.1", 0), backlog=users) as silent:
        door = Door(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        cancel = threading.Event()

        def told(_: str) -> None:
            limits.append(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

        accounts = [Account(f"rehearsal-{n:03d}", "x") for n in range(users)]
        return Report.of(rehearse(door, accounts, Script(0.1, Pace(1.0)), told=told, cancel=cancel)), max(limits)


def test_a_class_has_more_files_open_than_a_shell_allows(few_files: int) -> None:
    report, limit = connecting(80)
    assert report.failures == (("login", "GET /hub/login: no answer in time", 80),)
    assert limit == 256 + 8 * 80
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == few_files


def test_this_computers_own_limit_is_not_the_hubs_failure(few_files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FILES", "FILES_EACH"):
        monkeypatch.setattr(f"vcluster.rehearsal.run.{name}", 0)
    report, limit = connecting(80)
    assert limit == few_files
    reasons = {reason for _, reason, _ in report.failures}
    assert "GET /hub/login: this computer allows too few open files (ulimit -n); the Hub is not to blame" in reasons
    assert not any("Too many open" in reason for reason in reasons)


def test_a_rehearsal_that_is_stopped_before_anybody_came() -> None:
    hub, cancel = PretendedHub(), threading.Event()
    cancel.set()
    with guests(hub, 2, print, seconds=3601.0) as (door, accounts):
        assert hub.planned == 3601.0
        told = Report.of(rehearse(door, accounts[:1] * 2, Script(3600.0, Pace(1.0)), cancel=cancel))
    assert told.cancelled
    assert not told.passed
