"""How a host reaches package servers while an image is built: lent to the build, and no word of it in its argv."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from vcluster.clouds.local import image_host


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "etc/ssl/certs").mkdir(parents=True)
    (tmp_path / "etc/ssl/certs/ca-certificates.crt").write_text("HOST\n")
    (tmp_path / "home/me/.config/pip").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    return tmp_path


def lend(root: Path, ca: str = "", **environment: str) -> Path:
    image_host.lend(root / "work", ca, environment, root)
    return root / "work"


def pip(work: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    parser.read(work / "pip.conf")
    return dict(parser["global"])


def test_both_authorities_are_believed(root: Path) -> None:
    assert (lend(root, "SITE") / "ca.pem").read_text().split() == ["HOST", "SITE"]


def test_pip_is_told_what_the_host_is_told_but_for_its_own_files(root: Path) -> None:
    (root / "etc/pip.conf").write_text("[global]\nindex-url = https://old.example/simple\ncert = /etc/x.pem\n")
    mine = root / "home/me/.config/pip/pip.conf"
    mine.write_text(
        "[install]\nindex-url = https://me:word@new.example/simple\nextra-index-url = file:///x https://b.example\n"
    )
    work = lend(root, PIP_DEFAULT_TIMEOUT="90", PIP_FIND_LINKS="/opt/wheels")
    assert pip(work) == {
        "default-timeout": "90",
        "extra-index-url": "https://b.example",
        "index-url": "https://me:word@new.example/simple",
    }
    assert (work / "pip.conf").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_none_is_passed_over(root: Path) -> None:
    (root / "etc/pip.conf").write_text("no section\n")
    assert pip(lend(root)) == {}


def test_npm_is_told_of_registries_and_not_of_files(root: Path) -> None:
    (root / "home/me/.npmrc").write_text(
        "cafile=/etc/x.pem\nregistry=https://n.example/\n//n.example/:_authToken=abc\nyes=false\n"
    )
    work = lend(root, npm_config_registry="https://m.example/")
    assert (work / "npmrc").read_text().splitlines() == [
        "registry=https://n.example/",
        "//n.example/:_authToken=abc",
        "registry=https://m.example/",
    ]


def test_the_steps_see_the_lent_files_and_no_variable_that_names_others(root: Path) -> None:
    work = lend(root, "SITE", PIP_INDEX_URL="https://me:word@i.example/")
    environment = {"PIP_INDEX_URL": "https://me:word@i.example/", "SSL_CERT_FILE": "/etc/x.pem", "HOME": "/root"}
    hooks, words = image_host.lent(work, environment)
    assert words.split()[:3] == ["env", "--unset=PIP_INDEX_URL", "--unset=SSL_CERT_FILE"]
    assert "HOME" not in words
    assert [hook.split()[-1] for hook in hooks if hook.startswith("upload")] == [
        "/tmp/vcluster-ca.pem",
        "/tmp/vcluster-pip.conf",
        "/tmp/vcluster-npmrc",
    ]
    assert "word@" not in words + "".join(hooks)
