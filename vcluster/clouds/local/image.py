"""Images in the cache: what machines' disks stand on. Each is a folder that appears whole, by a rename.

With no source an image is built (:mod:`vcluster.clouds.local.image_build`); a path or a URL is an ordinary cloud
image, copied into the cache once, so that machines go on working when the original is moved or changed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vcluster.clouds.base import Notify
from vcluster.clouds.local.files import failed, locked, private_dir, remove_tree, sync_dir
from vcluster.clouds.local.records import ClusterFolder, created_at
from vcluster.errors import PermanentError, UsageError
from vcluster.model import ImageRequest
from vcluster.places import state_root

__all__ = ["BaseImage", "ensure_image", "list_images", "remove_image"]

DISK, KERNEL, INITRD = "disk.qcow2", "kernel", "initrd"

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


def ensure_image(request: ImageRequest, cache: Path, notify: Notify) -> BaseImage:
    """The image that a request asks for, made or fetched where it is not in the cache yet.

    Of several processes that want the same image one makes it, and the others wait for it.

    Raises:
        PermanentError: it cannot be had: no such file, wrong checksum, a build step failed, a tool is missing.
        TemporaryError: a download broke off; the next call goes on where it did.
        QuotaError: the disk is full.
    """
    from vcluster.clouds.local import image_build, image_fetch

    if request.source:
        identity = image_fetch.identity(request)
        make: Callable[[Path], None] = lambda folder: image_fetch.fetch(request, folder, notify)  # noqa: E731
    else:
        plan = image_build.plan(request)
        identity = plan.identity
        make = lambda folder: image_build.build(plan, folder, notify)  # noqa: E731
    images = private_dir(cache / "images")
    if found := _found(images / identity):
        return found
    try:
        return _make(images, identity, make, notify)
    except OSError as error:
        raise failed(error, f"cannot make the image {identity}") from error


def _make(images: Path, identity: str, make: Callable[[Path], None], notify: Notify) -> BaseImage:
    work = images / f".work-{identity}"
    private_dir(work)
    if _busy(work):
        notify(f"waiting for another process that makes the image {identity}")
    with locked(work, what=f"the image {identity}", timeout=BUILD_TIMEOUT, create=True) as there:
        if found := _found(images / identity):
            return found
        if not there:
            raise PermanentError(f"the image {identity} was removed while it was awaited", remedy="run it again")
        result = work / "result"
        remove_tree(result)
        make(private_dir(result))
        sync_dir(result)
        result.rename(images / identity)
        sync_dir(images)
        remove_tree(work)
    image = _found(images / identity)
    if image is None:
        raise PermanentError(f"the image {identity} vanished as soon as it was made")
    return image


def _busy(work: Path) -> bool:
    from vcluster.clouds.local.files import is_locked

    return is_locked(work)


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
    users = sorted(set(_users(identity)))
    if users:
        raise UsageError(
            f"machines of {', '.join(users)} stand on the image {identity}",
            remedy="; ".join(f"vcluster down {name}" for name in users),
        )
    remove_tree(folder)


def _users(identity: str) -> Iterator[str]:
    """Names of this host's clusters with a machine on this image."""
    clouds = state_root() / "local"
    with contextlib.suppress(FileNotFoundError):
        for path in clouds.iterdir():
            known = created_at(path)
            if known and any(machine.image == identity for machine in ClusterFolder(clouds, known[0]).machines()):
                yield known[0].name


def digest(*parts: str) -> str:
    """Twelve hex digits that name an image by what it was made of."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
