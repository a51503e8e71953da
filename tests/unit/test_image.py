"""The cache of images: whole or not there, made once, and not removed from under machines."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from local_kit import REF, local, make_network, make_ports, record_for
from loopback import refusing

from vcluster.clouds.local import image_build
from vcluster.clouds.local.files import locked, private_dir
from vcluster.clouds.local.image import DISK, WORK, ensure_image, list_images, remove_image
from vcluster.clouds.local.records import ClusterFolder
from vcluster.errors import CancelledError, CloudError, PermanentError, QuotaError, TemporaryError, UsageError
from vcluster.model import ImageRequest
from vcluster.places import cache_root, state_root


def quiet(_sentence: str) -> None:
    """A notify that nobody hears."""


@pytest.fixture
def cache() -> Path:
    return private_dir(cache_root())


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A user's own image."""
    path = tmp_path / "mine.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M"], check=True)
    return path


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "images").glob("*") if path.name != ".digests.json")


def ask(source: object, sha256: str = "") -> ImageRequest:
    return ImageRequest(source=str(source), sha256=sha256)


# -- files ---------------------------------------------------------------------------------------------------


def test_a_file_is_copied_and_known_by_its_content(cache: Path, disk: Path, tmp_path: Path) -> None:
    first = ensure_image(ask(disk), cache, quiet)
    assert first.id == f"file-{hashlib.sha256(disk.read_bytes()).hexdigest()[:12]}"
    assert first.disk.read_bytes() == disk.read_bytes()
    assert first.disk.stat().st_mode & 0o777 == 0o600
    same = tmp_path / "same.qcow2"
    same.write_bytes(disk.read_bytes())
    assert ensure_image(ask(same), cache, quiet) == first
    before = first.disk.read_bytes()
    disk.write_bytes(b"something else")
    assert first.disk.read_bytes() == before


def test_a_file_is_read_once_for_as_long_as_it_does_not_change(cache: Path, disk: Path) -> None:
    said: list[str] = []
    for _ in range(3):
        ensure_image(ask(disk.as_uri()), cache, said.append)
    assert [sentence.split()[0] for sentence in said] == ["reading", "copying"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "2M"], check=True)
    ensure_image(ask(disk), cache, said.append)
    assert len(list_images(cache)) == 2


def test_a_raw_disk_becomes_qcow2(cache: Path, tmp_path: Path) -> None:
    raw = tmp_path / "disk.img"
    raw.write_bytes(bytes(510) + b"\x55\xaa" + bytes(1 << 16))
    assert ensure_image(ask(raw), cache, quiet).disk.read_bytes()[:4] == b"QFI\xfb"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-f", "qcow2", "-b", "mine.qcow2", "-F", "qcow2"], "stands on another file"),
        (["-f", "vmdk"], "is vmdk"),
        (["-f", "raw"], "not a disk image"),
    ],
)
def test_what_is_no_whole_image_is_refused(cache: Path, disk: Path, arguments: list[str], text: str) -> None:
    bad = disk.with_name("bad")
    subprocess.run(["qemu-img", "create", "-q", *arguments, str(bad), "1M"], check=True)
    with pytest.raises(PermanentError, match=text):
        ensure_image(ask(bad), cache, quiet)
    assert leftovers(cache) == []


def test_a_wrong_checksum_names_both_digests_and_leaves_nothing(cache: Path, disk: Path) -> None:
    found = hashlib.sha256(disk.read_bytes()).hexdigest()
    with pytest.raises(PermanentError) as caught:
        ensure_image(ask(disk, "0" * 64), cache, quiet)
    assert found in caught.value.message
    assert "0" * 64 in caught.value.message
    assert leftovers(cache) == []


def test_a_file_that_is_not_there(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="No such file"):
        ensure_image(ask(tmp_path / "none"), cache, quiet)


# -- downloads -----------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Serves one content at /ok, half of it at /short until asked for the rest, and nothing elsewhere."""

    content = b""
    ranges: tuple[str, ...] = ()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content, wanted = self.server.content, self.headers.get("Range", "")
        self.server.ranges += (wanted,)
        if self.path not in {"/ok", "/short"}:
            self.send_error(503 if self.path == "/busy" else 404)
            return
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if begin else 200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        short = self.path == "/short" and not begin
        self.wfile.write(content[begin : len(content) // 2 if short else None])

    def log_message(self, *_: object) -> None:
        """Not to the terminal."""


@pytest.fixture
def server(disk: Path) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as served:
        served.content = disk.read_bytes()
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def address(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


def test_an_image_is_fetched_once(cache: Path, server: Server) -> None:
    digest = hashlib.sha256(server.content).hexdigest()
    first = ensure_image(ask(address(server, "/ok"), digest), cache, quiet)
    assert first.disk.read_bytes() == server.content
    assert ensure_image(ask(address(server, "/ok"), digest.upper()), cache, quiet).disk.is_file()
    assert ensure_image(ask(address(server, "/ok"), digest), cache, quiet) == first
    assert len(server.ranges) == 2


def test_a_download_that_broke_off_goes_on_where_it_did(cache: Path, server: Server) -> None:
    request = ask(address(server, "/short"), hashlib.sha256(server.content).hexdigest())
    with pytest.raises(TemporaryError, match="broke off after"):
        ensure_image(request, cache, quiet)
    assert list_images(cache) == []
    assert ensure_image(request, cache, quiet).disk.read_bytes() == server.content
    assert server.ranges == ("", f"bytes={len(server.content) // 2}-")


@pytest.mark.parametrize(("path", "kind"), [("/none", PermanentError), ("/busy", TemporaryError)])
def test_a_server_that_says_no(cache: Path, server: Server, path: str, kind: type[CloudError]) -> None:
    with pytest.raises(kind, match="the server says"):
        ensure_image(ask(address(server, path)), cache, quiet)
    assert list_images(cache) == []


def test_a_download_with_the_wrong_checksum_leaves_nothing(cache: Path, server: Server) -> None:
    with pytest.raises(PermanentError, match="wrong checksum"):
        ensure_image(ask(address(server, "/ok"), "1" * 64), cache, quiet)
    assert leftovers(cache) == []


def test_a_server_that_is_not_there(cache: Path, server: Server) -> None:
    with refusing() as port, pytest.raises(TemporaryError, match="refused"):
        ensure_image(ask(f"http://127.0.0.1:{port}/ok"), cache, quiet)


# -- making --------------------------------------------------------------------------------------------------


def fake(monkeypatch: pytest.MonkeyPatch, build: object) -> None:
    plan = image_build.Plan("base-1", "suite", "sources", (), b"", "")
    monkeypatch.setattr(image_build, "plan", lambda _request: plan)
    monkeypatch.setattr(image_build, "build", build)


def race(cache: Path, start: Barrier) -> None:
    start.wait()
    ensure_image(ImageRequest(), cache, quiet)


def test_of_two_processes_one_makes_it(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(_plan: object, folder: Path, *_: object) -> None:
        with (tmp_path / "built").open("a") as out:
            out.write("once\n")
        time.sleep(0.3)  # the other one comes meanwhile
        (folder / DISK).write_bytes(b"whole")

    fake(monkeypatch, build)
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    processes = [context.Process(target=race, args=(cache, start)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "built").read_text() == "once\n"
    assert leftovers(cache) == ["base-1"]


def test_no_room_is_a_matter_of_quota(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fake(monkeypatch, build)
    with pytest.raises(QuotaError, match="No space left"):
        ensure_image(ImageRequest(), cache, quiet)
    assert leftovers(cache) == []


def test_waiting_can_be_cancelled(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, None)
    cancel = threading.Event()
    work = private_dir(cache / "images" / f"{WORK}base-1")
    with locked(work, what="it", create=True), pytest.raises(CancelledError):
        ensure_image(ImageRequest(), cache, lambda _sentence: cancel.set(), cancel=cancel)


def test_what_a_killed_process_left_is_swept(cache: Path, disk: Path) -> None:
    images = cache / "images"
    for name in (f"{WORK}dead", ".trash-old", f"{WORK}live", f"{WORK}broken"):
        private_dir(images / name)
    for name in (f"{WORK}dead", f"{WORK}broken"):
        (images / name / "lock").touch()
    (images / f"{WORK}broken" / "download.part").touch()
    with locked(images / f"{WORK}live", what="it", create=True):
        image = ensure_image(ask(disk), cache, quiet)
    assert leftovers(cache) == [f"{WORK}broken", f"{WORK}live", image.id]


# -- removing ------------------------------------------------------------------------------------------------


def stand_on(home: Path, image: str) -> ClusterFolder:
    """A cluster in another state folder with a machine on the image."""
    cloud = local(home.parent)
    make_network(cloud, REF)
    record = record_for(REF, make_ports(cloud, REF, "head")[0])
    folder = ClusterFolder(home / "local", REF)
    with folder.building(replace(record, image=image)):
        pass
    return folder


def test_an_image_goes_when_nothing_stands_on_it(cache: Path, disk: Path) -> None:
    image = ensure_image(ask(disk), cache, quiet)
    assert list_images(cache) == [image]
    remove_image(cache, image.id)
    assert leftovers(cache) == []
    for name in (image.id, "..", "", ".digests.json", "a/b"):
        with pytest.raises(UsageError, match="there is no image"):
            remove_image(cache, name)


def test_machines_of_another_state_folder_keep_it(cache: Path, disk: Path, tmp_path: Path) -> None:
    home = cache.with_name("other") / "home"
    image = ensure_image(ask(disk), cache, quiet, home=home)
    folder = stand_on(home, image.id)
    ensure_image(ask(disk), cache, quiet, home=tmp_path / "idle")
    users = image.disk.parent / "users"
    assert len(list(users.iterdir())) == 2
    with pytest.raises(UsageError, match="machines of demo stand on") as caught:
        remove_image(cache, image.id)
    assert f"VCLUSTER_HOME={home} vcluster down demo" in caught.value.remedy
    assert len(list(users.iterdir())) == 1, "the idle one is forgotten"
    for path in (folder.path / "machines").iterdir():
        (path / "machine.json").unlink()
    remove_image(cache, image.id)
    assert list_images(cache) == []


def test_machines_of_ones_own_keep_it_without_a_note(cache: Path, disk: Path) -> None:
    image = ensure_image(ask(disk), cache, quiet)
    stand_on(state_root(), image.id)
    for note in (image.disk.parent / "users").iterdir():
        note.unlink()
    with pytest.raises(UsageError) as caught:
        remove_image(cache, image.id)
    assert caught.value.remedy == "vcluster down demo"
