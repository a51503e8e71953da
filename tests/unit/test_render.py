"""Templates: a value that is missing is an error that names the template, and both kinds of installation have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vcluster import render as rendering
from vcluster import resources
from vcluster.errors import PermanentError
from vcluster.render import render


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of templates in place of the real one."""
    monkeypatch.setattr(rendering, "templates", lambda: tmp_path)
    rendering._environment.cache_clear()
    rendering._plain.cache_clear()
    yield tmp_path
    rendering._environment.cache_clear()
    rendering._plain.cache_clear()


def test_values_go_in_and_nothing_is_escaped(folder: Path) -> None:
    (folder / "a.j2").write_text("{% for n in names %}\n<{{ n }}>\n{% endfor %}\n")
    assert render("a.j2", names=["x", "&y"]) == "<x>\n<&y>\n"


def test_a_file_that_is_no_template_comes_as_it_is(folder: Path) -> None:
    (folder / "plain").write_text("{{ not jinja }}\n")
    assert render("plain") == "{{ not jinja }}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ absent }}\n", "'absent' is undefined"),
        ("{{ host.absent }}\n", "has no attribute 'absent'"),
        ("\n{% if %}\n", "line 2"),
    ],
)
def test_an_error_names_the_template(folder: Path, text: str, says: str) -> None:
    (folder / "wrong.j2").write_text(text)
    with pytest.raises(PermanentError) as caught:
        render("wrong.j2", host={})
    assert "wrong.j2" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["no/such.j2", "no/such"])
def test_a_template_that_is_not_there(folder: Path, name: str) -> None:
    with pytest.raises(PermanentError, match=name):
        render(name)


def test_every_real_template_compiles() -> None:
    environment = rendering._environment()
    names = [name for name in environment.list_templates() if name.endswith(".j2")]
    assert len(names) > 10
    for name in names:
        assert environment.get_template(name).name == name


def test_templates_of_a_wheel_and_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vcluster"
    package.mkdir()
    monkeypatch.setattr(resources, "__file__", str(package / "resources.py"))
    with pytest.raises(FileNotFoundError, match="install it again"):
        resources.templates()
    for parent in (tmp_path, package):
        (parent / "templates").mkdir()
        (parent / "templates" / "install.sh.j2").touch()
        assert resources.templates() == parent / "templates"
