"""Progress: what is shown, and that nothing from outside can play with the terminal."""

from __future__ import annotations

import io
import json
import threading

import pytest
from rich.console import Console

from vcluster.console import JsonReporter, PlainReporter, clean, describe, duration, is_terminal, reporter
from vcluster.console.live import LiveReporter
from vcluster.events import Done, Event, Log, MachineChanged, PlanMade, Retrying, StepFinished, StepStarted

COMMON = {"cluster": "demo", "time": 1.0}


def machine(name: str, state: str = "ACTIVE", health: str = "booting", detail: str = "10.0.0.1") -> MachineChanged:
    return MachineChanged(**COMMON, machine=name, state=state, health=health, detail=detail)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Closed(io.StringIO):
    """A pipe whose reader went away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def live(clock: Clock | None = None, *, width: int = 100, height: int = 30) -> tuple[LiveReporter, io.StringIO]:
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=width, height=height, color_system=None, highlight=False)
    return LiveReporter(stream, clock=clock or Clock(), console=console), stream


def drawn(shown: LiveReporter, width: int = 100) -> str:
    """The table as text."""
    console = Console(file=io.StringIO(), width=width, height=30, color_system=None)
    with console.capture() as capture:
        console.print(shown.table())
    return capture.get()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP+q544e\x1b\\x", "x"),
        ("a\x00b\x07c\x9bd", "abcd"),
        ("one\r\ntwo\tthree", "one two three"),
        ("file\u202etxt.exe", "filetxt.exe"),
        ("\x1b", ""),
        ("naïve – 节点", "naïve – 节点"),
        (42, "42"),
    ],
)
def test_clean_takes_out_what_could_play_with_a_terminal(text: object, expected: str) -> None:
    assert clean(text) == expected


def test_clean_keeps_lines_when_asked() -> None:
    assert clean("a\r\nb\tc\x1b[2J\n", lines=True) == "a\nb\tc\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (59.94, "59.9s"), (59.97, "1m 00s"), (187, "3m 07s"), (3599.7, "1h 00m"), (7500, "2h 05m")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("event", "line", "verbose_line"),
    [
        (Log(**COMMON, level="info", message="building the image"), "building the image", None),
        (Log(**COMMON, level="warning", message="slow"), "warning: slow", None),
        (machine("cpu-1"), "cpu-1: ACTIVE, booting, 10.0.0.1", None),
        (machine("cpu-1", health="unknown", detail=""), "cpu-1: ACTIVE", None),
        (machine("cpu-1", "ERROR", "", "No valid\nhost \x1b[1m"), "cpu-1: ERROR, No valid host ", None),
        (Retrying(**COMMON, subject="observe", error="503", delay=2.0), "observe: 503; again in 2.0s", None),
        (StepStarted(**COMMON, action="create machine", subject="head"), "", "create machine head …"),
        (
            StepFinished(**COMMON, action="create machine", subject="head", error="", seconds=1.5),
            "",
            "create machine head: done in 1.5s",
        ),
        (
            StepFinished(**COMMON, action="create machine", subject="head", error="no room", seconds=1.5),
            "create machine head failed: no room",
            None,
        ),
        (PlanMade(**COMMON, actions=("a", "b"), waiting=("head",)), "", "plan: 2 actions, waiting for head"),
        (Done(**COMMON, changed=True, degraded=(), seconds=1.0), "", ""),
    ],
)
def test_each_event_has_its_line(event: Event, line: str, verbose_line: str | None) -> None:
    assert describe(event) == line
    assert describe(event, verbose=True) == (line if verbose_line is None else verbose_line)


def test_plain_lines_carry_the_seconds_since_the_start() -> None:
    clock, stream = Clock(), io.StringIO()
    shown = PlainReporter(stream, clock=clock)
    clock.now += 12.34
    shown.handle(machine("cpu-1"))
    assert stream.getvalue() == "[   12.3s] cpu-1: ACTIVE, booting, 10.0.0.1\n"


def test_quiet_shows_nothing() -> None:
    stream = io.StringIO()
    PlainReporter(stream, quiet=True).handle(machine("cpu-1"))
    assert not stream.getvalue()


def test_json_is_one_object_a_line_with_the_kind_first() -> None:
    stream = io.StringIO()
    shown = JsonReporter(stream)
    shown.handle(machine("cpu-1", detail="two\nlines"))
    shown.handle(Done(**COMMON, changed=True, degraded=("cpu-2",), seconds=3.0))
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert next(iter(first)) == "kind"
    assert first["detail"] == "two\nlines"
    assert second == {"kind": "done", **COMMON, "changed": True, "degraded": ["cpu-2"], "seconds": 3.0}


@pytest.mark.parametrize("kind", [PlainReporter, JsonReporter])
def test_a_reader_that_went_away_does_not_stop_the_work(kind: type[PlainReporter]) -> None:
    shown = kind(Closed())
    shown.handle(machine("cpu-1"))
    shown.handle(machine("cpu-2"))
    shown.close()
    assert shown._stream is None


def test_lines_of_many_threads_do_not_mix() -> None:
    stream = io.StringIO()
    shown = JsonReporter(stream)
    threads = [
        threading.Thread(target=lambda n=n: [shown.handle(machine(f"cpu-{n}-{i}")) for i in range(50)])
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = {json.loads(line)["machine"] for line in stream.getvalue().splitlines()}
    assert len(seen) == 400


def test_the_live_table_has_a_row_per_machine_and_freezes_its_time_when_ready() -> None:
    clock = Clock()
    shown, _ = live(clock)
    try:
        shown.handle(machine("head", "BUILD", ""))
        clock.now += 30
        shown.handle(machine("head", "ACTIVE", "ready"))
        clock.now += 1000
        text = drawn(shown)
    finally:
        shown.close()
    assert [line.split()[:4] for line in text.splitlines() if "head" in line] == [["head", "ACTIVE", "ready", "30.0s"]]
    assert "1 of 1 ready" in text


def test_markup_and_escapes_of_machines_are_only_text() -> None:
    shown, stream = live()
    try:
        shown.handle(machine("[bold]cpu-1[/bold]", "ERROR", "failed", "[link=http://x]fault\x1b[2J[/nope]"))
        text = drawn(shown)
    finally:
        shown.close()
    assert "[bold]cpu-1[/bold]" in text
    assert "[link=http://x]fault[/nope]" in text
    assert "\x1b[2J" not in stream.getvalue()
    assert "[link=http://x]fault[/nope]" in stream.getvalue(), "a failure is said in a line that stays"


def test_a_thousand_machines_fit_on_the_screen() -> None:
    shown, _ = live(height=30)
    try:
        for number in range(1000):
            shown.handle(machine(f"cpu-{number}", health="ready" if number < 900 else "booting"))
        text = drawn(shown)
    finally:
        shown.close()
    assert len(text.splitlines()) <= 30
    assert "900 of 1000 ready" in text
    assert "100 booting" in text
    assert "cpu-0 " not in text, "ready machines are only counted"


def test_a_thousand_machines_are_drawn_quickly() -> None:
    shown, _ = live()
    try:
        for number in range(1000):
            shown.handle(machine(f"cpu-{number}"))
        assert drawn(shown).count("cpu-") <= 30, "what does not fit is not laid out"
    finally:
        shown.close()


def test_deleted_machines_leave_the_table() -> None:
    shown, _ = live()
    try:
        shown.handle(machine("cpu-1"))
        shown.handle(machine("cpu-1", "GONE", ""))
        assert "cpu-1" not in drawn(shown)
    finally:
        shown.close()


def test_steps_that_run_are_named_until_they_end() -> None:
    shown, _ = live()
    step = {**COMMON, "action": "create machine", "subject": "head"}
    try:
        shown.handle(StepStarted(**step))
        during = drawn(shown)
        shown.handle(StepFinished(**step, error="", seconds=1.0))
        after = drawn(shown)
        shown.handle(PlanMade(**COMMON, actions=(), waiting=("head to boot",)))
        waiting = drawn(shown)
    finally:
        shown.close()
    assert "create machine head" in during
    assert "create machine head" not in after
    assert "waiting for head to boot" in waiting


def test_an_interruption_is_shown_below_the_table() -> None:
    shown, _ = live()
    shown.interrupted("stopping; what was made stays")
    text = drawn(shown)
    shown.close()
    assert "stopping; what was made stays" in text


def test_a_question_takes_the_table_away_and_brings_it_back() -> None:
    shown, _ = live()
    with shown.question():
        assert shown.asking
        assert not shown._live.is_started
    assert not shown.asking
    assert shown._live.is_started
    shown.close()
    shown.close()


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    shown = LiveReporter(stream)
    shown.handle(machine("cpu-1", "ERROR", "failed"))
    shown._live.refresh()
    shown.close()
    assert "cpu-1" in stream.getvalue()
    assert "\x1b[31m" not in stream.getvalue()
    assert "\x1b[1;31m" not in stream.getvalue()


def test_the_reporter_follows_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    kinds = {}
    for name, stream, settings in [
        ("terminal", Terminal(), {}),
        ("pipe", io.StringIO(), {}),
        ("quiet", Terminal(), {"quiet": True}),
        ("json", Terminal(), {"as_json": True}),
    ]:
        shown = reporter(
            **{
                "as_json": False,
                "quiet": False,
                "verbose": False,
                "stdout": io.StringIO(),
                "stderr": stream,
                **settings,
            }
        )
        kinds[name] = type(shown)
        shown.close()
    assert kinds == {"terminal": LiveReporter, "pipe": PlainReporter, "quiet": PlainReporter, "json": JsonReporter}


def test_a_dumb_terminal_gets_lines() -> None:
    assert not is_terminal(Terminal(), {"TERM": "dumb"})
    assert not is_terminal(Terminal(), {})
    assert is_terminal(Terminal(), {"TERM": "xterm"})
