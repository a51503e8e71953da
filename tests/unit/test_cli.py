"""The commands, against a stand-in of the library: what they ask of it, what they print, and how they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_fake import LOSS, PlannedAction, PlanView, World

from vcluster.cli import main
from vcluster.commands import help_page
from vcluster.errors import (
    CancelledError,
    DeadlineError,
    PermanentError,
    Problem,
    QuotaError,
    SpecError,
    TemporaryError,
)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setitem(sys.modules, "vcluster.cluster", made.module())
    monkeypatch.setenv("TERM", "dumb")
    return made


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a person at a terminal who types a line."""

    class Keyboard:
        def __init__(self, line: str) -> None:
            self.line = line

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return self.line

    return lambda line: monkeypatch.setattr(sys, "stdin", Keyboard(line))


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """Command lines that would have taken this process's place; what was made ready for them is taken back, or a later
    test's broken pipe ends all tests.
    """
    before = signal.getsignal(signal.SIGPIPE)
    seen: list[list[str]] = []

    class Replaced(SystemExit):
        pass

    def execv(program: str, argv: list[str]) -> None:
        seen.append(argv)
        raise Replaced(0)

    monkeypatch.setattr(os, "execv", execv)
    yield seen
    signal.signal(signal.SIGPIPE, before)


def last_json(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    return found


def test_no_word_and_help_print_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        assert capsys.readouterr().out == help_page()


def test_help_through_click_is_the_same_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help", "up"]) == 0
    assert capsys.readouterr().out == help_page()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("vcluster 0.")


def test_up_passes_everything_on_and_ends_with_what_to_type_next(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", "demo", "--timeout", "15m", "--keep-on-failure"]) == 0
    assert world.calls == [("up", {"name": "demo", "cloud": "local", "timeout": 900.0, "keep_on_failure": True})]
    out, err = capsys.readouterr()
    assert "demo is ready: a head and 2 workers, in 2m 22s" in out
    for line in ("vcluster ssh demo\n", "vcluster ssh demo -- srun -N2 -l hostname\n", "vcluster down demo\n"):
        assert line in out
    assert "cpu-1: ACTIVE, ready" in err, "progress is on stderr"


def test_a_second_up_says_that_there_is_nothing_to_do(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.changed = False
    assert main(["up", "demo"]) == 0
    assert "demo is ready: nothing to do" in capsys.readouterr().out


def test_up_on_another_cloud_names_it_in_what_to_type(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "demo", "--cloud", "jetstream2", "-q"]) == 0
    out, err = capsys.readouterr()
    assert "vcluster ssh demo --cloud jetstream2 -- srun" in out
    assert not err


def test_a_degraded_up_is_done_and_says_without_whom(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.degraded = ("cpu-2",)
    assert main(["up", "demo"]) == 0
    out, err = capsys.readouterr()
    assert "srun -N1" in out
    assert "degraded, it goes on without cpu-2" in err


def test_up_in_json_gives_events_and_a_result(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "demo", "--json"]) == 0
    out, err = capsys.readouterr()
    event, result = (json.loads(line) for line in out.splitlines())
    assert (event["kind"], event["machine"]) == ("machine", "cpu-1")
    assert result["kind"] == "result"
    assert (result["command"], result["cluster"], result["changed"]) == ("up", "demo", True)
    assert [machine["uuid"] for machine in result["status"]["machines"]] == ["u-head", "u-1", "u-2"]
    assert not err


@pytest.mark.parametrize(("view", "code"), [(PlanView(), 0), (LOSS, 10), (PlanView(waiting=("head to boot",)), 10)])
def test_plan_tells_by_its_exit_code(
    world: World, view: PlanView, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    world.view = view
    assert main(["plan", "demo"]) == code
    out = capsys.readouterr().out
    assert ("nothing to do" in out) == (code == 0)
    assert main(["plan", "demo", "--json"]) == code
    assert last_json(capsys.readouterr().out)["kind"] == "result"


def test_plan_shows_uuids_and_what_loses_data(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.view = PlanView([PlannedAction("create", "machine", "cpu-3", detail="small"), *LOSS.actions])
    main(["plan", "demo"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "demo: 4 actions"
    assert "  + create machine cpu-3  (small)" in lines
    assert "  - delete machine head u-head  (with the homes)  DATA IS LOST" in lines


def test_down_shows_uuids_and_takes_the_typed_name(
    world: World, typed: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    world.loss = LOSS
    typed("demo\n")
    assert main(["down", "demo"]) == 0
    out, err = capsys.readouterr()
    assert "demo is gone" in out
    for uuid in ("u-1", "u-head", "u-net"):
        assert uuid in err
    assert "Type the cluster's name (demo)" in err


@pytest.mark.parametrize("line", ["dem\n", "y\n", "\n", ""])
def test_down_without_the_right_name_deletes_nothing(
    world: World, typed: Callable[[str], None], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.loss = LOSS
    typed(line)
    assert main(["down", "demo"]) == 130
    out, err = capsys.readouterr()
    assert "nothing was changed" in err
    assert not out


@pytest.mark.parametrize(("line", "code"), [("y\n", 0), ("Yes\n", 0), ("n\n", 130), ("", 130)])
def test_up_asks_only_yes_or_no(world: World, typed: Callable[[str], None], line: str, code: int) -> None:
    world.loss = LOSS
    typed(line)
    assert main(["up", "demo"]) == code


def test_yes_asks_nobody(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.loss = LOSS
    assert main(["down", "demo", "--yes"]) == 0
    assert "Type" not in capsys.readouterr().err


def test_down_of_nothing_is_done(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.changed = False
    assert main(["down", "demo"]) == 0
    assert "nothing is there of 'demo'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "call", "text"),
    [
        (["stop", "demo"], ("stop", {"wait_jobs": 0.0, "timeout": None}), "demo is stopped; next: vcluster start demo"),
        (["stop", "demo", "--wait-jobs", "2h"], ("stop", {"wait_jobs": 7200.0, "timeout": None}), "demo is stopped"),
        (
            ["shelve", "demo", "--wait-jobs", "10m"],
            ("shelve", {"wait_jobs": 600.0, "timeout": None}),
            "demo is shelved; next: vcluster unshelve demo",
        ),
        (["unshelve", "demo"], ("unshelve", {"timeout": None}), "demo is ready"),
        (["start", "demo", "--owner", "dora"], ("start", {"owner": "dora", "timeout": None}), "demo is ready"),
        (["start", "demo", "--timeout", "90"], ("start", {"timeout": 90.0}), "demo is ready"),
        (
            ["scale", "demo", "cpu", "2"],
            ("scale", {"group": "cpu", "count": 2, "timeout": None}),
            "demo: group cpu has now 2 workers",
        ),
        (["replace", "demo", "cpu-1"], ("replace", {"machine": "cpu-1", "timeout": None}), "demo: cpu-1 is new"),
    ],
)
def test_the_other_changes(
    world: World, words: list[str], call: tuple[str, dict[str, Any]], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    assert world.calls == [(call[0], {"name": "demo", "cloud": "local", **call[1]})]
    assert text in capsys.readouterr().out


def test_status_names_every_machine(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "demo on local: ready"
    assert lines[2].split() == ["MACHINE", "ROLE", "GROUP", "STATE", "HEALTH", "ADDRESS", "FLAVOR", "SSH", "UUID"]
    assert lines[3].split() == [
        "head",
        "head",
        "-",
        "ACTIVE",
        "ready",
        "10.77.0.2",
        "small",
        "127.0.0.1:40022",
        "u-head",
    ]
    assert main(["status", "demo", "--json"]) == 0
    result = last_json(capsys.readouterr().out)
    assert [(m["name"], m["state"], m["address"], m["uuid"]) for m in result["machines"]][1] == (
        "cpu-1",
        "ACTIVE",
        "10.77.0.3",
        "u-1",
    )


def test_list(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    columns = ["NAME", "CLOUD", "OWNER", "MACHINES", "ACTIVE", "AGE", "COST/H", "EXPIRES", "ID"]
    assert lines[0].split() == columns
    assert [line.split()[:3] for line in lines[1:]] == [[name, "local", "you"] for name in ("demo", "other")] + [
        ["theirs", "local", "dora"]
    ]
    assert "18 SU" in lines[3]
    assert "1970-01-01 00:33 UTC (past)" in lines[3]
    assert main(["list", "--json"]) == 0
    told = last_json(capsys.readouterr().out)["clusters"]
    assert [(c["name"], c["mine"], c["cost"]) for c in told] == [
        ("demo", True, None),
        ("other", True, None),
        ("theirs", False, 18.0),
    ]
    world.names = []
    assert main(["list", "--mine"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "no clusters on local\n")


def test_logs_are_the_heads_by_default_and_cannot_play_with_the_terminal(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.console = "boot\r\n\x1b[31mlogin:\x1b]0;x\x07\n"
    assert main(["logs", "demo"]) == 0
    assert capsys.readouterr().out == "boot\nlogin:\n"
    assert main(["logs", "demo", "cpu-1", "-n", "5"]) == 0
    assert world.calls == [
        ("logs", {"name": "demo", "cloud": "local", "machine": "head", "lines": 100}),
        ("logs", {"name": "demo", "cloud": "local", "machine": "cpu-1", "lines": 5}),
    ]


def test_ssh_becomes_openssh_with_the_words_after_the_dashes(world: World, executed: list[list[str]]) -> None:
    world.ssh = ["true", "-p", "40022", "vcluster@127.0.0.1"]
    for words in (["--", "srun", "-N2", "-l", "hostname"], ["-m", "cpu-1"], ["-t", "--", "top"], ["-mcpu-2", "id"]):
        with pytest.raises(SystemExit):
            main(["ssh", "demo", *words])
    assert [argv[1:] for argv in executed] == [
        ["-p", "40022", "vcluster@127.0.0.1", "--", "srun", "-N2", "-l", "hostname"],
        ["-p", "40022", "vcluster@127.0.0.1"],
        ["-t", "-p", "40022", "vcluster@127.0.0.1", "--", "top"],
        ["-p", "40022", "vcluster@127.0.0.1", "--", "id"],
    ]
    assert [call[1]["machine"] for call in world.calls] == ["head", "cpu-1", "head", "cpu-2"]


def test_words_after_the_dashes_are_never_ours(world: World, executed: list[list[str]]) -> None:
    with pytest.raises(SystemExit):
        main(["ssh", "demo", "--", "tool", "--json", "-v", "--", "--help"])
    assert executed == [["true", "--", "tool", "--json", "-v", "--", "--help"]]


def test_cp(world: World, executed: list[list[str]], tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("1")
    with pytest.raises(SystemExit):
        main(["cp", "demo", str(data), ":data.csv"])
    with pytest.raises(SystemExit):
        main(["cp", "demo", "cpu-1:out", ":more", str(tmp_path)])
    assert executed == [["scp", str(data), ":data.csv"], ["scp", "cpu-1:out", ":more", str(tmp_path)]]


def test_forward(world: World, executed: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(SystemExit):
        main(["forward", "demo", "8000", "--local-port", str(port)])
    assert world.calls == [("forward", {"name": "demo", "cloud": "local", "port": 8000, "local_port": port})]
    assert f"127.0.0.1:{port} is port 8000 of demo's head" in capsys.readouterr().err


def test_ssh_config(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ssh-config", "demo"]) == 0
    assert capsys.readouterr().out == "Host demo\n  Port 40022\n"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (TemporaryError("it rains", remedy="wait"), 1, "error: it rains\nremedy: wait\n"),
        (PermanentError("no such image"), 1, "error: no such image\n"),
        (QuotaError("no room: 3 of 2"), 3, "error: no room: 3 of 2\n"),
        (DeadlineError("still waiting for head"), 4, "error: still waiting for head\n"),
        (CancelledError("stopped"), 130, "error: stopped\n"),
        (KeyboardInterrupt(), 130, "\nerror: interrupted\n"),
        (
            SpecError([Problem("name", "is missing", "add it", "a.yaml", 1, 1), Problem("cloud", "is missing")]),
            2,
            "a.yaml:1:1: name: is missing (add it)\ncloud: is missing\n",
        ),
        (
            RuntimeError("out of cheese"),
            1,
            "error: RuntimeError: out of cheese\n"
            "remedy: this looks like a bug; the same command with -v shows where it comes from\n",
        ),
    ],
)
def test_every_error_is_said_once(
    world: World, error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.error = error
    assert main(["plan", "demo"]) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", text)


def test_errors_in_json(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.error = SpecError([Problem("name", "is missing", "add it", "a.yaml", 1, 2)])
    assert main(["up", "demo", "--json"]) == 2
    out, err = capsys.readouterr()
    assert not err
    assert json.loads(out) == {
        "kind": "error",
        "class": "SpecError",
        "message": "a.yaml:1:2: name: is missing (add it)",
        "remedy": "",
        "problems": [
            {"where": "name", "message": "is missing", "remedy": "add it", "file": "a.yaml", "line": 1, "column": 2}
        ],
        "exit_code": 2,
    }


def test_verbose_shows_the_traceback(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.error = RuntimeError("out of cheese")
    assert main(["plan", "demo", "-v"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("error: RuntimeError: out of cheese\n")


def test_remote_text_in_errors_is_cleaned(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.error = PermanentError("fault: \x1b[2Jboom\x07")
    main(["plan", "demo"])
    assert capsys.readouterr().err == "error: fault: boom\n"
