"""Images in the cache: what machines' disks stand on. Each is a folder that appears whole, by a rename.

With no source an image is built (:mod:`vcluster.clouds.local.image_build`); a path or a URL is an ordinary cloud
image, copied into the cache once, so that machines go on working when the original is moved or changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vcluster.clouds.base import Notify
from vcluster.clouds.local.files import (
    NEW,
    TRASH,
    locked,
    private_dir,
    read_json,
    remove_tree,
    sweep,
    sync_dir,
    write_json,
)
from vcluster.clouds.local.records import ClusterFolder, created_at
from vcluster.errors import CancelledError, PermanentError, TemporaryError, UsageError, disk_error
from vcluster.model import ImageRequest
from vcluster.places import state_root

__all__ = ["BaseImage", "ensure_image", "list_images", "remove_image"]

DISK, KERNEL, INITRD = "disk.qcow2", "kernel", "initrd"

USERS = "users"
"""The folder beside an image that names the state folders with machines on it."""

WORK = ".work-"
"""Prefix of the folder in which an image is made."""

LOOK = 1.0
"""Seconds between two looks whether to go on waiting."""

KEEP_DOWNLOAD = 86400.0
"""Seconds for which what came of a broken download is kept."""

BUILD_TIMEOUT = 3600.0
"""Seconds that one process waits while another makes the image that both want."""


@dataclass(frozen=True, slots=True)
class BaseImage:
    """An image in the cache.

    Attributes:
        disk: qcow2, never written to; machines have overlays on it.
        kernel: booted directly if there is one; else the disk boots by itself.
    """

    id: str
    disk: Path
    kernel: Path | None
    initrd: Path | None


def ensure_image(
    request: ImageRequest,
    cache: Path,
    notify: Notify,
    *,
    home: Path | None = None,
    cancel: threading.Event | None = None,
) -> BaseImage:
    """The image that a request asks for, made or fetched where it is not in the cache yet.

    Of several processes that want the same image one makes it, and the others wait for it.

    Args:
        home: the state folder whose machines will stand on it; default as :func:`vcluster.places.state_root`.
        cancel: set by another thread to give up.

    Raises:
        PermanentError: it cannot be had: no such file, wrong checksum, a build step failed, a tool is missing.
        TemporaryError: a download broke off; the next call goes on where it did.
        QuotaError: the disk is full.
        CancelledError: ``cancel`` was set.
    """
    from vcluster.clouds.local import image_build, image_fetch

    images = private_dir(cache / "images")
    try:
        if request.source:
            identity = image_fetch.identity(request, images, notify)
            make: Callable[[Path], None] = lambda folder: image_fetch.fetch(request, folder, notify, cancel)  # noqa: E731
        else:
            plan = image_build.plan(request)
            identity = plan.identity
            make = lambda folder: image_build.build(plan, folder, notify, cancel)  # noqa: E731
        image = _found(images / identity) or _make(images, identity, make, notify, cancel)
        _remember(image, home or state_root())
    except OSError as error:
        raise disk_error(error, "cannot make an image") from error
    return image


def _make(
    images: Path, identity: str, make: Callable[[Path], None], notify: Notify, cancel: threading.Event | None
) -> BaseImage:
    _sweep(images, identity)
    work = images / f"{WORK}{identity}"
    with contextlib.ExitStack() as held:
        _take(work, held, identity, notify, cancel)
        if found := _found(images / identity):
            remove_tree(work)
            return found
        result = work / "result"
        remove_tree(result)
        try:
            make(private_dir(result))
        except (TemporaryError, CancelledError, KeyboardInterrupt):  # what came of a download is of use to the next
            raise
        except BaseException:
            remove_tree(work)
            raise
        private_dir(result / USERS)
        sync_dir(result)
        result.rename(images / identity)
        sync_dir(images)
        remove_tree(work)
    (images / f"{identity}.log").unlink(missing_ok=True)
    image = _found(images / identity)
    if image is None:
        raise PermanentError(f"the image {identity} vanished as soon as it was made")
    return image


def _take(
    work: Path, held: contextlib.ExitStack, identity: str, notify: Notify, cancel: threading.Event | None
) -> None:
    """Hold the lock of an image's work folder; whoever holds it may remove the folder, so it is made again."""
    deadline = time.monotonic() + BUILD_TIMEOUT
    said = False
    while True:
        if cancel and cancel.is_set():
            raise CancelledError(f"waiting for the image {identity} was cancelled")
        private_dir(work)
        try:
            if held.enter_context(locked(work, what=f"the image {identity}", timeout=LOOK, create=True)):
                return
        except TemporaryError:
            if time.monotonic() > deadline:
                raise
            if not said:
                notify(f"waiting for another process that makes the image {identity}")
            said = True


def _sweep(images: Path, identity: str) -> None:
    """Remove what killed processes left. A broken download is of use for a while, and half a build is not."""
    from vcluster.clouds.local.image_run import sweep_workshops

    sweep_workshops()
    sweep(images)
    now = time.time()
    for work in images.glob(f"{WORK}*"):
        useful = KEEP_DOWNLOAD if (work / "download.part").exists() else 0.0
        if work.name == f"{WORK}{identity}" or now - work.stat().st_mtime < useful:
            continue
        with contextlib.suppress(TemporaryError, FileNotFoundError), locked(work, what="it", timeout=0) as there:
            if there:
                remove_tree(work)


def _found(folder: Path) -> BaseImage | None:
    if not (folder / DISK).is_file():
        return None
    kernel, initrd = folder / KERNEL, folder / INITRD
    return BaseImage(
        id=folder.name,
        disk=folder / DISK,
        kernel=kernel if kernel.is_file() else None,
        initrd=initrd if initrd.is_file() else None,
    )


def list_images(cache: Path) -> Sequence[BaseImage]:
    """Every whole image in the cache, oldest first."""
    folders = (path for path in (cache / "images").glob("*") if not path.name.startswith("."))
    found = [image for image in map(_found, folders) if image is not None]
    return sorted(found, key=lambda image: (image.disk.stat().st_mtime, image.id))


def remove_image(cache: Path, identity: str) -> None:
    """Take an image out of the cache.

    Raises:
        UsageError: there is none of this name, or machines stand on it.
    """
    folder = cache / "images" / identity
    if identity.startswith(".") or folder.parent != cache / "images" or _found(folder) is None:
        raise UsageError(f"there is no image {identity}", remedy="`vcluster image list` shows those that there are")
    users = sorted(set(_users(folder)))
    if users:
        here = str(state_root())
        raise UsageError(
            f"machines of {', '.join(sorted({name for _, name in users}))} stand on the image {identity}",
            remedy="; ".join(
                f"vcluster down {name}" if home == here else f"VCLUSTER_HOME={shlex.quote(home)} vcluster down {name}"
                for home, name in users
            ),
        )
    remove_tree(folder)


def _remember(image: BaseImage, home: Path) -> None:
    """Write beside the image which state folder uses it: the cache is shared by all of them."""
    home = home.resolve()
    note = image.disk.parent / USERS / digest(str(home))
    if not note.exists():
        private_dir(note.parent)
        write_json(note, {"home": str(home)})


def _users(folder: Path) -> Iterator[tuple[str, str]]:
    """State folder and name of each cluster with a machine on this image; forgets state folders that have none.

    The state folder of this process counts in any case.
    """
    homes = {str(state_root().resolve()): folder / USERS / "none"}
    for note in (folder / USERS).glob("*"):
        homes[str((read_json(note) or {}).get("home", ""))] = note
    for home, note in homes.items():
        clouds = Path(home) / "local"
        names = [name for path in _clusters(clouds) if (name := _user(clouds, path, folder.name))]
        if not names:
            note.unlink(missing_ok=True)
        yield from ((home, name) for name in names)


def _clusters(clouds: Path) -> list[Path]:
    try:
        return [path for path in clouds.iterdir() if path.is_dir() and not path.name.startswith((NEW, TRASH))]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _user(clouds: Path, path: Path, identity: str) -> str:
    known = created_at(path)
    stands = known and any(machine.image == identity for machine in ClusterFolder(clouds, known[0]).machines())
    return known[0].name if known and stands else ""


def digest(*parts: str) -> str:
    """Twelve hex digits that name an image by what it was made of."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
