"""The package as it is shipped, and the rules that the whole repository keeps."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from vcluster.resources import templates

ROOT = Path(__file__).parents[2]

# Put together here, so that this file does not name them either.
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("ftp", "debian", "org"),
        ("snapshot", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("security", "ubuntu", "com"),
        ("registry", "npmjs", "org"),
        ("proxy", "golang", "org"),
    )
]


def tracked(pattern: str = "*") -> list[Path]:
    """The repository's files; those that are new and not ignored count as well."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", pattern]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def pip(command: str, *arguments: str) -> None:
    """Run pip without the network and without dependencies."""
    words = [sys.executable, "-m", "pip", command, "--quiet", "--no-deps", "--no-index", *arguments]
    result = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (found,) = folder.glob("vcluster-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed, with no checkout around it."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--target", str(folder), str(wheel))
    return folder


def python_in(folder: Path, code: str) -> str:
    """What ``code`` prints when ``vcluster`` comes from ``folder``."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_wheel_has_everything_that_is_read_at_run_time(wheel: Path) -> None:
    """Every template, the typing marker, the schema and the command are in the wheel, and no test is."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    wanted = {f"vcluster/{path.relative_to(ROOT)}" for path in tracked("templates/*")}
    assert wanted, "no templates in the checkout"
    assert wanted <= names
    assert {"vcluster/py.typed", "vcluster/schema.json"} <= names
    assert "vcluster = vcluster.cli:main" in entry_points
    assert not [name for name in names if name.startswith(("tests/", "templates/"))]


def test_templates_are_found_in_an_installed_wheel(installed: Path) -> None:
    """An installed package finds its templates in itself."""
    found = python_in(installed, "from vcluster.resources import templates; print(templates())")
    assert Path(found) == installed / "vcluster" / "templates"


def test_templates_are_found_in_the_checkout() -> None:
    """An editable install finds ``templates/`` at the top of the checkout."""
    assert templates() == ROOT / "templates"


def test_schema_of_an_installed_wheel_is_json(installed: Path) -> None:
    """The schema can be read as package data."""
    code = "from importlib.resources import files; print(files('vcluster').joinpath('schema.json').read_text())"
    schema = json.loads(python_in(installed, code))
    assert {"name", "cloud"} <= set(schema["properties"])


def test_no_file_names_a_registry() -> None:
    """Sites have mirrors; where packages come from is the host's or the spec's business."""
    named = []
    for path in tracked():
        text = path.read_bytes().decode("utf-8", errors="replace")
        named += [f"{path.relative_to(ROOT)}: {host}" for host in REGISTRY_HOSTS if host in text]
    assert named == []


def test_no_source_file_is_two_files() -> None:
    """A source file of over 400 lines is two files."""
    sizes = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in tracked("*.py")
        if not path.is_relative_to(ROOT / "tests")
    }
    assert sizes
    assert {name: lines for name, lines in sizes.items() if lines > 400} == {}


def test_every_dependency_says_why() -> None:
    """Each requirement in pyproject.toml has a comment that says what it is for."""
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)
    wanted = list(project["project"]["dependencies"])
    for group in project["dependency-groups"].values():
        wanted += [item for item in group if isinstance(item, str)]
    assert len(wanted) > 10
    unexplained = [
        requirement
        for requirement in wanted
        if not re.search(rf'^\s*"{re.escape(requirement)}",\s+# \S.{{3,}}$', text, flags=re.MULTILINE)
    ]
    assert unexplained == []


def test_version_has_one_source_and_a_changelog_entry() -> None:
    """The changelog knows the version in pyproject.toml, or keeps what is new under Unreleased."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{version}]" in changelog or "## [Unreleased]" in changelog


def test_license_is_the_whole_apache_text() -> None:
    """LICENSE is the licence that pyproject.toml names."""
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"
