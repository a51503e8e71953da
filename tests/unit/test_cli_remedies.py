"""Command lines in messages can be typed as they stand: they name the cloud where that is needed."""

from __future__ import annotations

import json
import sys

import pytest
from cli_fake import World

from vcluster.cli import main
from vcluster.commands.remedies import FORGOTTEN, add_cloud, cloud_words
from vcluster.errors import Problem, SpecError, UsageError

PARAMETERS = {
    "list": ["cloud"],
    "up": ["target", "cloud"],
    "ssh": ["target", "words", "cloud"],
    "replace": ["target", "machine", "cloud"],
    "render": ["spec"],
}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setitem(sys.modules, "vcluster.cluster", made.module())
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("VCLUSTER_CLOUD", raising=False)
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`vcluster list` shows those", "`vcluster list --cloud x` shows those"),
        ("`vcluster replace other cpu-1`", "`vcluster replace other cpu-1 --cloud x`"),
        ("`vcluster up a` or `vcluster up b`", "`vcluster up a --cloud x` or `vcluster up b --cloud x`"),
        ("`vcluster ssh demo -- srun -N2 id`", "`vcluster ssh demo --cloud x -- srun -N2 id`"),
        ("`vcluster ssh demo > file`", "`vcluster ssh demo --cloud x > file`"),
        ("`vcluster up --yes demo`", "`vcluster up --yes demo --cloud x`"),
        ("`vcluster up demo --cloud y`", "`vcluster up demo --cloud y`"),
        ("`vcluster up demo --cloud=y`", "`vcluster up demo --cloud=y`"),
        ("run `vcluster up` again", "run `vcluster up` again"),
        ("`vcluster up SPEC`", "`vcluster up SPEC`"),
        ("`vcluster up demo.yaml`", "`vcluster up demo.yaml`"),
        ("`vcluster render demo`", "`vcluster render demo`"),
        ("`vcluster --help`, `vcluster nonsense demo`", "`vcluster --help`, `vcluster nonsense demo`"),
        ("vcluster up demo", "vcluster up demo"),
        ("", ""),
    ],
)
def test_cloud_is_added_where_it_is_taken(text: str, expected: str) -> None:
    def mended(text: str, words: str) -> str:
        return add_cloud(text, words, lambda verb: PARAMETERS.get(verb, []), lambda word: word.endswith(".yaml"))

    assert mended(text, " --cloud x") == expected
    assert mended(expected, " --cloud x") == expected
    assert mended(text, "") == text


def test_words_for_the_default_cloud_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VCLUSTER_CLOUD", raising=False)
    assert (cloud_words("local"), cloud_words("jetstream2")) == ("", " --cloud jetstream2")
    monkeypatch.setenv("VCLUSTER_CLOUD", "jetstream2")
    assert cloud_words("local") == " --cloud local"


def test_errors_name_the_cloud_in_what_to_type(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.error = UsageError("demo is off: `vcluster status demo`", remedy="`vcluster start demo`, then again")
    assert main(["stop", "demo", "--cloud", "jetstream2"]) == 2
    assert capsys.readouterr().err == (
        "error: demo is off: `vcluster status demo --cloud jetstream2`\n"
        "remedy: `vcluster start demo --cloud jetstream2`, then again\n"
    )
    assert main(["stop", "demo", "--cloud", "jetstream2", "--json"]) == 2
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["remedy"] == "`vcluster start demo --cloud jetstream2`, then again"
    assert main(["stop", "demo"]) == 2
    assert "remedy: `vcluster start demo`, then again\n" in capsys.readouterr().err


def test_problems_name_it_too(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.error = SpecError([Problem("name", "is taken", "`vcluster down demo`")])
    assert main(["plan", "demo", "--cloud", "jetstream2"]) == 2
    assert "(`vcluster down demo --cloud jetstream2`)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["dem", "quite-another"])
def test_who_forgot_the_cloud_is_told(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.state = "absent"
    assert main(["status", name]) == 2
    assert FORGOTTEN in capsys.readouterr().err
    assert main(["status", name, "--cloud", "jetstream2"]) == 2
    assert FORGOTTEN not in capsys.readouterr().err
    monkeypatch.setenv("VCLUSTER_CLOUD", "jetstream2")
    assert main(["status", name]) == 2
    assert FORGOTTEN not in capsys.readouterr().err


def test_down_of_nothing_says_so_before_it_hints(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.changed = False
    assert main(["down", "soon", "-q"]) == 0
    out, err = capfd.readouterr()
    assert out == "nothing is there of 'soon'\n"
    assert err == f"`vcluster list` shows those that there are; {FORGOTTEN}\n"
    assert main(["down", "soon", "-q", "--cloud", "jetstream2"]) == 0
    assert capfd.readouterr().err == "`vcluster list --cloud jetstream2` shows those that there are\n"
