"""The base image's builder without building: what goes in, where packages come from, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from vcluster.clouds.local import image_build, image_run
from vcluster.clouds.local.image_sources import check_mirror, host_sources, mirror_sources
from vcluster.errors import CancelledError, PermanentError, QuotaError
from vcluster.model import ImageRequest

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# -- inputs --------------------------------------------------------------------------------------------------


@pytest.fixture
def debian(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    release = {"ID": "debian", "VERSION_CODENAME": "bookworm", "VERSION_ID": "12"}
    monkeypatch.setattr(image_build, "_release", lambda: release)
    monkeypatch.setattr(image_build, "host_sources", lambda suite: f"Types: deb\nSuites: {suite}")
    return release


REQUEST = ImageRequest(install="true", ca="x")


def test_the_same_inputs_give_the_same_image(debian: dict[str, str]) -> None:
    assert image_build.plan(REQUEST) == image_build.plan(replace(REQUEST))
    assert image_build.plan(REQUEST).identity.startswith("bookworm-")


@pytest.mark.parametrize("change", [{"install": "false"}, {"ca": "y"}, {"apt_mirror": "http://m.example/debian"}])
def test_another_input_gives_another_image(debian: dict[str, str], change: dict[str, str]) -> None:
    assert image_build.plan(REQUEST).identity != image_build.plan(replace(REQUEST, **change)).identity


def test_the_version_is_an_input(debian: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = image_build.plan(REQUEST).identity
    monkeypatch.setattr(image_build, "VERSION", "next")
    assert image_build.plan(REQUEST).identity != before


def test_a_script_may_ask_for_a_larger_disk(debian: dict[str, str]) -> None:
    plain = image_build.plan(REQUEST)
    larger = image_build.plan(replace(REQUEST, install="# disk: 6G\ntrue"))
    assert (plain.size, larger.size) == (image_build.SIZE, "6G")


def test_a_mirrors_slash_is_no_input(debian: dict[str, str]) -> None:
    slash, none = (replace(REQUEST, apt_mirror=f"http://m.example/debian{end}") for end in ("/", ""))
    assert image_build.plan(slash).identity == image_build.plan(none).identity


@pytest.mark.parametrize("change", [{"ID": "fedora"}, {"VERSION_ID": "11"}])
def test_another_host_is_told_so(debian: dict[str, str], change: dict[str, str]) -> None:
    debian.update(change)
    with pytest.raises(PermanentError, match="this host is"):
        image_build.plan(REQUEST)


def test_a_host_without_sources_is_told_so(debian: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_build, "host_sources", lambda _suite: "")
    with pytest.raises(PermanentError, match="no package source for bookworm"):
        image_build.plan(REQUEST)


# -- sources -------------------------------------------------------------------------------------------------


def sources(folder: Path, **files: str) -> str:
    (folder / "sources.list.d").mkdir()
    for name, text in files.items():
        stem, _, kind = name.rpartition("_")
        (folder / ("sources.list" if stem == "main" else f"sources.list.d/{stem}.{kind}")).write_text(text)
    return host_sources("bookworm", folder)


def test_deb822_entries_of_this_release(tmp_path: Path) -> None:
    text = f"""\
Types: deb deb-src
# a note
URIs: http://a.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: {KEYRING}

Types: deb
URIs: http://a.example/debian
Suites: trixie
Components: main

Types: deb
Enabled: no
URIs: http://b.example/debian
Suites: bookworm
Components: main
"""
    assert sources(tmp_path, debian_sources=text) == (
        "Types: deb\nURIs: http://a.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n"
        f"Signed-By: {KEYRING}"
    )


def test_one_line_entries_of_this_release(tmp_path: Path) -> None:
    text = f"""\
# deb http://no.example/debian bookworm main
deb http://a.example/debian bookworm main contrib # why
deb-src http://a.example/debian bookworm main
deb [arch=amd64 signed-by={KEYRING}] http://a.example/security bookworm-security main
"""
    found = sources(tmp_path, main_list=text)
    assert found.split("\n\n") == [
        "Types: deb\nURIs: http://a.example/debian\nSuites: bookworm\nComponents: main",
        "Types: deb\nURIs: http://a.example/security\nSuites: bookworm-security\nComponents: main\n"
        f"Signed-By: {KEYRING}",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "deb [signed-by=/etc/apt/keyrings/docker.gpg] https://d.example/linux/debian bookworm stable",
        "deb [signed-by=/etc/apt/keyrings/other.gpg] https://d.example/debian bookworm main",
        "deb https://d.example/apt bookworm-pgdg main",
        "deb https://d.example/apt ./",
        "deb https://name:swordfish@d.example/debian bookworm main",
        "deb https://token@d.example/debian bookworm main",
        "deb cdrom:[disc]/ bookworm main",
        "deb file:/srv/debian bookworm main",
        "deb https://d.example/debian bookworm contrib",
    ],
)
def test_other_peoples_entries_and_passwords_stay_out(tmp_path: Path, line: str) -> None:
    assert sources(tmp_path, third_list=line + "\n") == ""


def test_a_key_within_an_entry_is_not_the_distributions(tmp_path: Path) -> None:
    text = "Types: deb\nURIs: http://a.example\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN\n .\n x\n"
    assert sources(tmp_path, third_sources=text) == ""


def test_a_list_of_mirrors_is_read_out(tmp_path: Path) -> None:
    (tmp_path / "mirrors").write_text("# note\nhttp://a.example/debian priority:1\nhttp://u:p@b.example/debian\n")
    found = sources(tmp_path, main_list=f"deb mirror+file:{tmp_path}/mirrors bookworm main\n")
    assert "URIs: http://a.example/debian\n" in found


def test_a_mirror_has_updates_and_security_where_it_answers_for_them() -> None:
    base = "http://m.example/debian"
    beside = {f"{base}/dists/bookworm-updates/InRelease", f"{base}-security/dists/bookworm-security/InRelease"}
    found = mirror_sources("bookworm", base + "/", beside.__contains__)
    assert f"URIs: {base}\nSuites: bookworm bookworm-updates\n" in found
    assert f"URIs: {base}-security\nSuites: bookworm-security\n" in found
    within = mirror_sources("noble", base, {f"{base}/dists/noble-security/InRelease"}.__contains__)
    assert f"URIs: {base}\nSuites: noble\n" in within
    assert f"URIs: {base}\nSuites: noble-security\n" in within
    assert "security" not in mirror_sources("noble", base, lambda _address: False)


def test_a_mirror_with_a_password_is_refused_without_saying_it() -> None:
    with pytest.raises(PermanentError) as caught:
        check_mirror("https://me:swordfish@m.example/debian")
    assert "swordfish" not in str(caught.value)
    check_mirror("https://m.example/@debian")


# -- failing -------------------------------------------------------------------------------------------------

PLAN = image_build.Plan("base-1", "bookworm", "Types: deb", ("a",), b"", "")


def fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(image_build, "_argv", lambda *_: ["sh", "-c", script])
    monkeypatch.setattr("vcluster.clouds.local.image_build.shutil.which", lambda name, path="": name)
    monkeypatch.setattr(image_run.os, "geteuid", lambda: 1000)
    work = tmp_path / "images" / ".work-base-1"
    (work / "result").mkdir(parents=True)
    image_build.build(PLAN, work / "result", lambda _sentence: None)


def test_a_failed_build_tells_its_last_lines_and_keeps_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PermanentError) as caught:
        fail(tmp_path, monkeypatch, "seq 1 40; exit 3")
    log = tmp_path / "images" / "base-1.log"
    assert caught.value.message.splitlines()[1:] == [str(number) for number in range(26, 41)]
    assert str(log) in caught.value.remedy
    assert log.read_text().startswith("1\n")
    assert not list(tmp_path.glob(f"{image_run.PREFIX}*"))


def test_a_build_without_room_is_a_matter_of_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QuotaError, match="No space left"):
        fail(tmp_path, monkeypatch, "echo 'dpkg: cannot write: No space left on device'; exit 1")


def test_missing_tools_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcluster.clouds.local.image_build.shutil.which", lambda name, path="": None)
    with pytest.raises(PermanentError, match="not installed: mmdebstrap, mke2fs, qemu-img"):
        image_build.build(PLAN, tmp_path, lambda _sentence: None)


def test_words_hold_no_certificate_and_no_source(tmp_path: Path) -> None:
    argv = image_build._argv(replace(PLAN, ca="AUTHORITY"), tmp_path / "with space", tmp_path / "result", 7)
    assert not any("AUTHORITY" in word or PLAN.sources in word for word in argv)
    assert any(f"tar-in '{tmp_path}/with space/tree.tar' /" in word for word in argv)


# -- running -------------------------------------------------------------------------------------------------


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def await_(what: Callable[[], bool], seconds: float = 120.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the namespaces that only root may make."""
    monkeypatch.setattr(image_run.os, "geteuid", lambda: 1000)


@pytest.mark.usefixtures("ordinary")
def test_a_command_gives_its_status_and_its_output(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        argv = ["sh", "-c", "echo $WORD; pwd; exit 5"]
        environment = {**os.environ, "WORD": "hello"}
        assert image_run.run(argv, log=log, environment=environment, folder=tmp_path) == 5
    assert (tmp_path / "log").read_text() == f"hello\n{tmp_path}\n"


@pytest.mark.usefixtures("ordinary")
def test_cancelling_ends_the_whole_group(tmp_path: Path) -> None:
    cancel = threading.Event()
    pids = tmp_path / "pids"
    threading.Thread(target=lambda: await_(pids.exists) and cancel.set()).start()
    argv = ["sh", "-c", f"sleep 600 & echo $! > {pids}.new; mv {pids}.new {pids}; sleep 600"]
    with (tmp_path / "log").open("wb") as log, pytest.raises(CancelledError):
        image_run.run(argv, log=log, environment=os.environ, folder=tmp_path, cancel=cancel)
    assert await_(lambda: gone(int(pids.read_text())))


def test_the_builder_does_not_outlive_whoever_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"""
import os
from pathlib import Path
from vcluster.clouds.local import image_run
image_run.os.geteuid = lambda: 1000
argv = ["sh", "-c", "sleep 600 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait"]
with open(os.devnull, "wb") as log:
    image_run.run(argv, log=log, environment=os.environ, folder=Path("/"))
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    assert await_(pids.exists)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert await_(lambda: all(gone(int(pid)) for pid in pids.read_text().split()))


def test_a_dead_workshop_is_swept_and_a_live_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    dead = tmp_path / f"{image_run.PREFIX}dead"
    (dead / "mmdebstrap.x" / "etc").mkdir(parents=True)
    (dead / "lock").touch()
    other = tmp_path / f"{image_run.PREFIX}link"
    other.symlink_to(tmp_path)
    with image_run.workshop() as live:
        image_run.sweep_workshops()
        assert live.is_dir()
        assert not dead.exists()
        assert other.is_symlink()
    assert not live.exists()
