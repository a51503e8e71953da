"""A cluster's folder on a disk that is full or not ours: said in the errors that everybody handles, nothing left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vcluster.errors import PermanentError, QuotaError, VclusterError
from vcluster.folder import Folder
from vcluster.model import ClusterRef
from vcluster.secrets import Keyring, load_or_create

REF = ClusterRef("demo", "here", "0")
WRITES: dict[str, Callable[[Folder], object]] = {
    "write": lambda folder: folder.write("consoles/cpu-1.log", "text"),
    "write_spec": lambda folder: folder.write_spec("name: demo"),
    "keyring": lambda folder: folder.keyring(),
}


@pytest.mark.parametrize("call", WRITES)
def test_a_home_that_is_a_file_is_named(tmp_path: Path, call: str) -> None:
    (tmp_path / "home").write_text("not a folder")
    with pytest.raises(PermanentError, match=r"cannot (make|write) .*home/clusters"):
        WRITES[call](Folder(tmp_path / "home", REF))


@pytest.mark.parametrize("call", WRITES)
@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, QuotaError), (errno.EACCES, PermanentError)])
def test_a_write_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, kind: type[VclusterError]
) -> None:
    folder = Folder(tmp_path / "home", REF)

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        patch.setattr(os, "fsync", fail)
        with pytest.raises(kind, match=os.strerror(number)):
            WRITES[call](folder)
    assert [path for path in folder.path.rglob("*") if path.is_file()] == []
    WRITES[call](folder)
    assert {path.stat().st_mode & 0o077 for path in folder.path.rglob("*")} == {0}


def test_a_secret_is_made_once(tmp_path: Path) -> None:
    secret = load_or_create(tmp_path / "new" / "secret")
    assert load_or_create(tmp_path / "new" / "secret") == secret
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["secret"]


def test_an_adopted_secret_replaces_a_stale_one_which_is_kept(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "home", REF)
    assert folder.claim == ""
    assert not folder.path.exists()
    stale, true = folder.keyring(), Keyring(bytes(32))
    aside = folder.adopt(true, "name: demo\n")
    assert folder.claim == true.claim
    assert aside is not None
    assert aside.read_bytes() == stale.secret
    assert aside.stat().st_mode & 0o077 == 0
    assert (folder.path / "spec.yaml").read_text() == "name: demo\n"
    assert folder.adopt(true, "") is None
    assert folder.claim == true.claim


def test_adopting_into_an_empty_folder(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "home", REF)
    assert folder.adopt(Keyring(bytes(32)), "name: demo\n") is None
    assert folder.known
    assert {path.stat().st_mode & 0o077 for path in folder.path.rglob("*")} == {0}
