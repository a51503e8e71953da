"""The Hub's secrets: found when a head is made, told apart when they cannot be, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from vcluster import Cluster, ClusterSpec
from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import SpecError
from vcluster.hub_secrets import HubSecrets, resolve

SECRET = "correct-horse"
TEXT = """\
name: demo
cloud: memory
workers: [{count: 1, max_count: 2, flavor: medium}]
jupyterhub:
  class_size: 1
  auth:
    password: {env: HUB_CLASS}
    admin_password: {file: admin.secret}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec with both secrets where it says."""
    (tmp_path / "spec.yaml").write_text(TEXT)
    (tmp_path / "admin.secret").write_text("a-longer-one-for-admins\n")
    (tmp_path / "admin.secret").chmod(0o600)
    monkeypatch.setenv("HUB_CLASS", SECRET)
    return tmp_path


def load(folder: Path) -> ClusterSpec:
    return ClusterSpec.load(folder / "spec.yaml")


def test_found_where_the_spec_says(folder: Path) -> None:
    spec = load(folder)
    assert resolve(spec) == {"password": SECRET, "admin_password": "a-longer-one-for-admins"}
    assert SECRET not in spec.to_yaml() + repr(spec) + repr(HubSecrets(spec))
    assert dict(HubSecrets(spec)) == resolve(spec)
    assert resolve(ClusterSpec(name="demo", cloud="local")) == {}
    assert len(HubSecrets(ClusterSpec(name="demo", cloud="local"))) == 0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "there is no variable HUB_CLASS in the environment"),
        ("", "is empty there"),
        ("  ", "is empty there"),
        ("short-1", "has 7 characters, at least 8 are needed"),
        ("two\nlines-of-it", "cannot be typed everywhere"),
        ("umläute-überall", "cannot be typed everywhere"),
    ],
)
def test_a_variable_without_a_secret(
    folder: Path, monkeypatch: pytest.MonkeyPatch, value: str | None, message: str
) -> None:
    if value is None:
        monkeypatch.delenv("HUB_CLASS")
    else:
        monkeypatch.setenv("HUB_CLASS", value)
    with pytest.raises(SpecError) as caught:
        resolve(load(folder))
    (problem,) = caught.value.problems
    assert (problem.where, problem.line) == ("jupyterhub.auth.password.env", 7)
    assert message in problem.message
    assert not value or not value.strip() or value not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (None, 0o600, "there is no file"),
        (b"a-longer-one-for-admins\n", 0o644, "can be read by everybody on this computer"),
        (b"one-of-two-lines\nsecond\n", 0o600, "holds more than one line"),
        (b"x" * 5000, 0o600, "holds more than one line"),
        (b"", 0o600, "is empty there"),
        (b"\xff\xfe-not-a-text", 0o600, "is not UTF-8 text"),
        (b"eleven-char", 0o600, "has 11 characters, at least 12"),
    ],
)
def test_a_file_without_a_secret(folder: Path, content: bytes | None, mode: int, message: str) -> None:
    file = folder / "admin.secret"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    with pytest.raises(SpecError) as caught:
        resolve(load(folder))
    (problem,) = caught.value.problems
    assert (problem.where, problem.line) == ("jupyterhub.auth.admin_password.file", 8)
    assert message in problem.message
    assert not content or content.decode(errors="replace").splitlines()[0] not in str(caught.value)


def test_a_folder_is_no_secret(folder: Path) -> None:
    (folder / "admin.secret").unlink()
    (folder / "admin.secret").mkdir()
    with pytest.raises(SpecError, match="is not an ordinary file"):
        resolve(load(folder))


def test_every_missing_one_is_told_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUB_CLASS")
    (folder / "admin.secret").unlink()
    with pytest.raises(SpecError) as caught:
        resolve(load(folder))
    assert [problem.line for problem in caught.value.problems] == [7, 8]


def test_a_missing_one_is_told_before_anything_is_made_and_not_asked_for_by_workers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = MemoryCloud()
    monkeypatch.delenv("HUB_CLASS")
    with Cluster(load(folder), cloud=cloud, home=folder / "home") as demo:
        for act in (demo.plan, demo.up):
            with pytest.raises(SpecError, match="there is no variable HUB_CLASS"):
                act()
        assert cloud.resources() == []
        monkeypatch.setenv("HUB_CLASS", SECRET)
        demo.up()
        monkeypatch.delenv("HUB_CLASS")
        assert demo.plan().empty
        assert demo.scale("cpu", 2).changed
        assert SECRET not in "".join(path.read_text() for path in demo.folder.path.rglob("*.yaml"))
