"""What starts a notebook server: who may read its new files, and what cannot keep the class's material away."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_kit import PROGRAMS

PULL = """
import json, sys
open("pulled", "w").write(json.dumps(sys.argv[1:]))
"""


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = importlib.machinery.SourceFileLoader("vcluster_starts_notebook", str(PROGRAMS / "notebook"))
    spec = importlib.util.spec_from_loader("vcluster_starts_notebook", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("groups", "mode"), [([10001, 2500], 0o077), ([], 0o077), ([10004, 2500, 2501], 0o002), ([2501], 0o002)]
)
def test_what_an_instructor_writes_the_class_may_read_and_what_a_student_writes_nobody(
    notebook: Any, groups: list[int], mode: int
) -> None:
    assert notebook.umask(groups) == mode


def test_a_module_of_a_beginners_breaks_no_material(
    notebook: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "json.py").write_text("raise SystemExit('mine')\n")
    package = tmp_path / "site/nbgitpuller"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "pull.py").write_text(PULL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    notebook.hand_out({"url": "https://git.example.org/course.git", "branch": "main"})
    assert (home / "pulled").read_text() == '["https://git.example.org/course.git", "main", "course"]'


def test_the_groups_number_is_the_one_that_the_head_gives(notebook: Any) -> None:
    people = (PROGRAMS / "hub_people.py").read_text()
    assert f"NOTEBOOKS, INSTRUCTORS = 2500, {notebook.INSTRUCTORS}\n" in people
