"""Secrets of the user: found when a machine needs them, told apart when they cannot be, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from vcluster import Cluster, ClusterSpec
from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import SpecError
from vcluster.spec_secrets import CREDENTIAL, SpecSecrets, registry_key, resolve

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
    assert SECRET not in spec.to_yaml() + repr(spec) + repr(SpecSecrets(spec))
    assert dict(SpecSecrets(spec)) == resolve(spec)
    assert resolve(ClusterSpec(name="demo", cloud="local")) == {}
    assert len(SpecSecrets(ClusterSpec(name="demo", cloud="local"))) == 0


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


# Kubernetes ----------------------------------------------------------------------------------------------------------

K3S = """\
name: demo
cloud: openstack
scheduler: k3s
workers: [{count: 1, flavor: medium}]
k3s:
  registries:
    - name: docker.io
      mirrors: ["https://mirror.example.org"]
    - name: registry.example.org
      username: class
      password: {env: REGISTRY}
    - name: other.example.org:5000
      username: class
      password: {file: other.secret}
  openstack:
    auth_url: https://cloud.example.org:5000/v3
    application_credential_id: 5a1c3b1f6d4e4f0e9b0f7c1f2d3e4a5b
    application_credential_secret: {env: CREDENTIAL}
"""
ONE, OTHER = registry_key("registry.example.org"), registry_key("other.example.org:5000")


@pytest.fixture
def k3s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec of a Kubernetes cluster with its secrets where it says."""
    (tmp_path / "spec.yaml").write_text(K3S)
    (tmp_path / "other.secret").write_text("x\n")
    (tmp_path / "other.secret").chmod(0o600)
    monkeypatch.setenv("REGISTRY", "pw")
    monkeypatch.setenv("CREDENTIAL", SECRET)
    return tmp_path


def test_those_of_kubernetes(k3s: Path) -> None:
    spec = load(k3s)
    assert resolve(spec) == {CREDENTIAL: SECRET, ONE: "pw", OTHER: "x"}
    assert (CREDENTIAL, ONE) == (
        "k3s.openstack.application_credential_secret",
        "k3s.registries[registry.example.org].password",
    )
    assert dict(SpecSecrets(spec)) == resolve(spec)
    assert SECRET not in spec.to_yaml() + repr(spec) + repr(SpecSecrets(spec))


def test_each_is_read_when_it_is_asked_for(k3s: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIAL")
    secrets = SpecSecrets(load(k3s))
    assert (secrets[ONE], secrets.get("admin_password"), CREDENTIAL in secrets) == ("pw", None, True)
    with pytest.raises(SpecError, match="there is no variable CREDENTIAL"):
        secrets.get(CREDENTIAL)
    monkeypatch.delenv("REGISTRY")
    assert secrets[ONE] == "pw"  # machines of one run do not differ
    with pytest.raises(KeyError):
        secrets[registry_key("docker.io")]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("REGISTRY", None, "there is no variable REGISTRY in the environment"),
        ("REGISTRY", " ", "is empty there"),
        ("REGISTRY", "a\nb", "cannot be typed everywhere"),
        ("CREDENTIAL", None, "there is no variable CREDENTIAL in the environment"),
        ("CREDENTIAL", "short-1", "has 7 characters, at least 8 are needed"),
    ],
)
def test_one_of_kubernetes_that_cannot_be_found(
    k3s: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None, message: str
) -> None:
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    with pytest.raises(SpecError) as caught:
        resolve(load(k3s))
    (problem,) = caught.value.problems
    assert (problem.where, problem.line) == {
        "REGISTRY": ("k3s.registries[1].password.env", 11),
        "CREDENTIAL": ("k3s.openstack.application_credential_secret.env", 18),
    }[variable]
    assert message in problem.message
    assert not value or not value.strip() or value not in str(caught.value)


def test_a_file_that_everybody_reads_is_no_registry_password(k3s: Path) -> None:
    (k3s / "other.secret").chmod(0o644)
    with pytest.raises(SpecError) as caught:
        resolve(load(k3s))
    (problem,) = caught.value.problems
    assert (problem.where, problem.line) == ("k3s.registries[2].password.file", 14)
    assert "can be read by everybody" in problem.message
