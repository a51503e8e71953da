"""``vcluster doctor``: what is missing is named, with how to get it, and nothing is raised."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from vcluster.clouds.local import accel, doctor, room
from vcluster.clouds.local.accel import Accel
from vcluster.clouds.local.doctor import Check, checks


def _found(name: str) -> Check:
    (check,) = [check for check in checks() if check.name == name]
    return check


@pytest.fixture(autouse=True)
def _no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    accel.qemu_binary.cache_clear()
    monkeypatch.setattr(accel, "accelerator", lambda _cache: Accel("tcg", "for the tests"))


def test_every_line_has_a_name_of_its_own_and_what_was_found() -> None:
    found = checks()
    assert len({check.name for check in found}) == len(found) >= 10
    assert all(check.detail for check in found)
    assert [check.name for check in found if not check.ok and not check.remedy] == []


def test_missing_tools_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    packages = {
        "qemu": "qemu-system-x86",
        "qemu-img": "qemu-utils",
        "vde_switch": "vde2",
        "mmdebstrap": "mmdebstrap",
    }
    for name, package in packages.items():
        check = _found(name)
        assert not check.ok
        assert check.remedy == f"sudo apt-get install {package}"


def test_an_ordinary_user_needs_namespaces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    for tool, text in (("newuidmap", ""), ("unshare", "echo 'unshare: write failed: Operation not permitted' >&2")):
        (tmp_path / tool).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    check = _found("user namespaces")
    assert (check.ok, check.detail) == (False, "unshare: write failed: Operation not permitted")
    assert "/etc/subuid" in check.remedy
    (tmp_path / "unshare").write_text("#!/bin/sh\n")
    assert _found("user namespaces").ok
    (tmp_path / "newuidmap").unlink()
    assert "uidmap" in _found("user namespaces").remedy


@pytest.mark.parametrize(
    ("version", "netdevs", "ok", "words"),
    [
        ("QEMU emulator version 7.2.22 (Debian)", "user vde tap", True, "version 7.2"),
        ("QEMU emulator version 5.2.0", "user vde", False, "too old"),
        ("QEMU emulator version 8.0.0", "user tap", False, "no -netdev vde"),
        ("error while loading shared libraries", "", False, "does not run"),
    ],
)
def test_a_qemu_that_will_not_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, netdevs: str, *, ok: bool, words: str
) -> None:
    fake = tmp_path / accel.QEMU
    fake.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{version}"; else echo "{netdevs}"; fi\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    check = _found("qemu")
    assert check.ok is ok
    assert words in check.detail


def test_slow_is_told_and_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = _found("acceleration")
    assert slow.ok
    assert "slow" in slow.detail
    monkeypatch.setattr(accel, "accelerator", lambda _cache: Accel("kvm", "kvm works"))
    assert _found("acceleration") == Check("acceleration", ok=True, detail="kvm works")


def test_little_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_memory", lambda: 1000)
    monkeypatch.setattr(room, "free_disk", lambda _path: 1.0)
    assert not _found("memory").ok
    assert not _found("disk").ok
    monkeypatch.setattr(room, "free_memory", lambda: None)
    assert _found("memory").ok


def test_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _found("folders").ok
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "VCLUSTER_HOME" in _found("folders").remedy
    monkeypatch.setenv("VCLUSTER_HOME", "/tmp/" + "x" * 100)
    assert "shorter" in _found("folders").remedy


def test_a_command_that_cannot_run_is_words() -> None:
    assert "No such file" in doctor._run([str(Path("/nowhere/command"))])
    assert doctor._run([shutil.which("echo") or "echo", "hello"]) == "hello"
