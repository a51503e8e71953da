"""The command line starts light: what is heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "openstack",
    "fabric",
    "paramiko",
    "jinja2",
    "pydantic",
    "rich",
    "yaml",
    "cryptography",
    "tenacity",
    "keystoneauth1",
}
SCRIPT = Path(sys.executable).with_name("vcluster")


def imported(*words: str) -> set[str]:
    """Top-level modules that were imported while the installed script ran."""
    code = (
        "import sys\n"
        f"sys.argv = ['vcluster', *{list(words)!r}]\n"
        "try:\n"
        f"    exec(open({str(SCRIPT)!r}).read(), {{'__name__': '__main__'}})\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print('\\n'.join(['MODULES', *sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return {name.partition(".")[0] for name in done.stdout.partition("MODULES\n")[2].split()}


@pytest.mark.parametrize("words", [["--help"], ["-h"], []])
def test_the_help_page_imports_nothing_heavy_and_not_even_click(words: list[str]) -> None:
    modules = imported(*words)
    assert "vcluster" in modules
    assert modules & (HEAVY | {"click", "dataclasses", "typing", "asyncio", "ssl"}) == set()


@pytest.mark.parametrize(
    "words", [["--version"], ["up", "--help"], ["status", "--help"], ["doctor", "--help"], ["completion", "bash"]]
)
def test_help_of_commands_and_completion_import_nothing_heavy(words: list[str]) -> None:
    assert imported(*words) & HEAVY == set()


def test_completion_of_command_names_imports_nothing_heavy() -> None:
    environment = {**os.environ, "_VCLUSTER_COMPLETE": "bash_complete", "COMP_WORDS": "vcluster sta", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(SCRIPT)], env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["plain,status", "plain,start"]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert loaded & HEAVY == set()


def test_importtime_agrees_for_the_help_page() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(SCRIPT), "--help"], check=True, capture_output=True, text=True
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "vcluster.cli" in loaded
    assert loaded & (HEAVY | {"click"}) == set()
