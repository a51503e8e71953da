"""Shell completion: the scripts, and what is offered."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cli_fake import World

from vcluster.cli import main
from vcluster.errors import PermanentError


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setitem(sys.modules, "vcluster.cluster", made.module())
    return made


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert "_VCLUSTER_COMPLETE" in out
    assert "vcluster" in out


def complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, number: int) -> list[str]:
    with monkeypatch.context() as patch:
        patch.setenv("_VCLUSTER_COMPLETE", "bash_complete")
        patch.setenv("COMP_WORDS", words)
        patch.setenv("COMP_CWORD", str(number))
        with pytest.raises(SystemExit) as end:
            main([])
    assert end.value.code == 0
    return [line.partition(",")[2] for line in capsys.readouterr().out.splitlines() if line]


def test_names_and_spec_files_are_completed(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demand.yaml").write_text("")
    assert complete(monkeypatch, capsys, "vcluster down de", 2) == ["demo", "demand.yaml"]
    assert complete(monkeypatch, capsys, "vcluster logs demo cpu", 3) == ["cpu-1", "cpu-2"]
    world.error = PermanentError("no cloud")
    assert complete(monkeypatch, capsys, "vcluster logs demo cpu", 3) == []
