"""The texts that people read say what is true: commands exist, specs are valid, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from vcluster.commands import names
from vcluster.errors import SpecError
from vcluster.spec import ClusterSpec

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIaB4mpWaNlebwCMuRIdnQSTdf/ZGy6r864Yr3IMTdw7 alice\n"


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_there_are_pages() -> None:
    assert {"README.md", "docs/index.md", "docs/tutorial.md"} <= {page_id(page) for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    typed = re.findall(r"(?:^\$ |`)vcluster ([a-z][a-z-]*)", page.read_text(), flags=re.MULTILINE)
    assert sorted(set(typed) - set(names())) == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_spec_on_a_page_is_valid(page: Path, tmp_path: Path) -> None:
    (tmp_path / "alice.pub").write_text(KEY)
    wrong = []
    for block in blocks(page, "yaml"):
        data = yaml.safe_load(block)
        if not isinstance(data, dict) or not {"name", "cloud"} <= data.keys():
            continue
        try:
            ClusterSpec.from_yaml(block, file=page.name, folder=tmp_path)
        except SpecError as error:
            # A page may name a file that its reader has, or shorten a checksum.
            wrong += [str(p) for p in error.problems if "there is no file" not in p.message and "…" not in p.message]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_example_file_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"\bexamples/[\w.-]+\w", page.read_text()))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_the_example_with_the_memory_cloud_runs() -> None:
    """Its own assertions are the test."""
    (code,) = [block for block in blocks(ROOT / "docs/how-to/python-api.md", "python") if "MemoryCloud" in block]
    assert code.count("assert ") == 3
    exec(compile(code, "python-api.md", "exec"), {})


def test_the_site_asks_nothing_of_other_hosts() -> None:
    """The theme's fonts would come from elsewhere."""
    config = (ROOT / "mkdocs.yml").read_text()
    assert re.search(r"^\s+font: false", config, flags=re.MULTILINE)
    assert "http" not in config
