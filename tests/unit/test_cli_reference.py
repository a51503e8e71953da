"""docs/reference/cli.md says what the commands say."""

from __future__ import annotations

import runpy
from pathlib import Path

import click
import pytest

from vcluster.cli import main
from vcluster.commands import PROGRAM, help_page, names, summary_of
from vcluster.commands.root import root

TOOL = Path(__file__).parents[2] / ".ci" / "cli_reference.py"


def test_the_page_is_what_the_tool_writes() -> None:
    tool = runpy.run_path(str(TOOL))
    assert tool["PAGE"].read_text() == tool["page"](), "run: python .ci/cli_reference.py"


def test_the_page_has_every_command() -> None:
    text = runpy.run_path(str(TOOL))["page"]()
    assert [name for name in names() if f"### {PROGRAM} {name}\n" not in text] == []


def test_examples_stand_in_blocks_of_their_own() -> None:
    text = runpy.run_path(str(TOOL))["page"]()
    assert "```shell\n*/10 * * * * vcluster reap" in text
    assert "```shell\nvcluster cp demo data.csv :data.csv\n```" in text
    assert [mark for mark in ("\\b", "\b") if mark in text] == []


def test_help_shows_examples_and_no_mark(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("reap", "cp", "ssh-config", "completion"):
        assert main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert "vcluster" in shown
        assert [mark for mark in ("\\b", "\b") if mark in shown] == []


def test_every_command_is_in_the_table_with_its_own_summary() -> None:
    context = click.Context(root)
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.get_short_help_str(200).rstrip(".") == summary_of(name).rstrip(".")
        assert (command.help or "").startswith(summary_of(name))


def test_the_help_page_is_one_line_per_command_and_fits_a_terminal() -> None:
    lines = help_page().splitlines()
    assert max(map(len, lines)) <= 100
    for name in names():
        assert sum(line.split()[:1] == [name] for line in lines) == 1
