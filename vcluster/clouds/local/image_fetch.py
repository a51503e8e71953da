"""An ordinary cloud image, from a path or a URL, into the cache. It boots from its own disk."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from vcluster.clouds.base import Notify
from vcluster.clouds.local.image import DISK, digest
from vcluster.errors import PermanentError, TemporaryError
from vcluster.model import ImageRequest

__all__ = ["fetch", "identity"]

CHUNK = 1 << 20
SILENCE = 60.0
"""Seconds without a byte after which a download counts as broken off."""


def identity(request: ImageRequest) -> str:
    """The image's name in the cache. A local file that changed is another image.

    Raises:
        PermanentError: there is no such file.
    """
    if _is_url(request.source):
        return f"url-{digest(request.source, request.sha256)}"
    path = Path(request.source).expanduser()
    try:
        facts = path.stat()
    except OSError as error:
        raise PermanentError(
            f"there is no image {path}: {error.strerror}", remedy="image: a path, a URL, or nothing for vcluster's own"
        ) from error
    return f"file-{digest(str(path.resolve()), str(facts.st_size), str(facts.st_mtime_ns), request.sha256)}"


def fetch(request: ImageRequest, folder: Path, notify: Notify) -> None:
    """Put the image into a folder as qcow2.

    Raises:
        PermanentError: wrong checksum (both are named), not an image, or one that needs other files.
        TemporaryError: a download broke off; what came so far is kept beside the folder.
    """
    if _is_url(request.source):
        notify(f"fetching the image {request.source}")
        source = folder.parent / "download"
        _download(request.source, source)
    else:
        source = Path(request.source).expanduser()
        notify(f"copying the image {source}")
    try:
        _check(source, request)
        _convert(source, folder / DISK, request.source)
    finally:
        if source.parent == folder.parent:
            source.unlink(missing_ok=True)


def _is_url(source: str) -> bool:
    return urlsplit(source).scheme in {"http", "https", "file"}


def _download(url: str, target: Path) -> None:
    part = target.with_suffix(".part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=SILENCE) as answer:  # noqa: S310
            # A server that knows no ranges sends all of it again.
            mode = "ab" if have and answer.status == http.client.PARTIAL_CONTENT else "wb"
            with part.open(mode) as file:
                while block := answer.read(CHUNK):
                    file.write(block)
                    have = file.tell()
            promised = answer.headers.get("Content-Length")
            if answer.status == http.client.OK and promised is not None and have < int(promised):
                raise TemporaryError(f"{url} broke off after {have} of {promised} bytes")
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise TemporaryError(f"{url} changed while it was fetched") from error
        said = f"{url}: the server says {error.code} {error.reason}"
        if error.code >= http.client.INTERNAL_SERVER_ERROR or error.code == http.client.TOO_MANY_REQUESTS:
            raise TemporaryError(said) from error
        raise PermanentError(said, remedy="check the address in a browser") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise TemporaryError(f"{url}: {error}") from error
    part.rename(target)


def _check(path: Path, request: ImageRequest) -> None:
    if not request.sha256:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != request.sha256.lower():
        raise PermanentError(
            f"the image {request.source} has the wrong checksum: sha256 is {found}, the spec says {request.sha256}",
            remedy="fetch the image's checksum from its publisher, and never from the place the image came from",
        )


def _convert(source: Path, target: Path, name: str) -> None:
    facts = json.loads(_qemu_img("info", "--output=json", str(source), name=name))
    kind = facts.get("format")
    if kind not in {"qcow2", "raw"}:
        raise PermanentError(
            f"the image {name} is {kind}, not qcow2 or raw", remedy="convert it with `qemu-img convert`"
        )
    # Such an image could name any file of this host as part of itself.
    details = facts.get("format-specific", {}).get("data", {})
    if facts.get("backing-filename") or details.get("data-file"):
        raise PermanentError(
            f"the image {name} is not whole: it stands on another file",
            remedy="`qemu-img convert` makes one file of it; do it only if you know where it comes from",
        )
    if kind == "raw" and not _bootable(source):
        raise PermanentError(f"{name} is not a disk image: it has neither qcow2's header nor a partition table")
    _qemu_img("convert", "-f", kind, "-O", "qcow2", str(source), str(target), name=name)


def _bootable(source: Path) -> bool:
    with source.open("rb") as file:
        return file.read(512)[510:] == b"\x55\xaa"


def _qemu_img(*arguments: str, name: str) -> str:
    try:
        done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise PermanentError("qemu-img is not installed", remedy="apt-get install qemu-utils") from error
    if done.returncode:
        raise PermanentError(f"the image {name} cannot be used: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout
