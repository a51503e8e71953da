"""An ordinary cloud image, from a path or a URL, into the cache. It boots from its own disk."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vcluster.clouds.base import Notify
from vcluster.clouds.local.files import read_json, write_json
from vcluster.clouds.local.image import DISK, digest
from vcluster.errors import CancelledError, PermanentError, QuotaError, TemporaryError
from vcluster.model import ImageRequest

__all__ = ["fetch", "identity"]

KNOWN = ".digests.json"
"""The file in the images' folder with the digests of files that were read, and how many are kept."""
KNOWN_MOST = 100

CHUNK = 1 << 20
SILENCE = 60.0
"""Seconds without a byte after which a download counts as broken off."""


def identity(request: ImageRequest, images: Path, notify: Notify) -> str:
    """The image's name in the cache: of a file by its content, which is read once for as long as it does not change.

    Raises:
        PermanentError: there is no such file.
    """
    path = _path(request.source)
    if path is None:
        return f"url-{digest(request.source, request.sha256)}"
    try:
        path = path.resolve(strict=True)
        facts = path.stat()
        key = digest(str(path), str(facts.st_size), str(facts.st_mtime_ns), str(facts.st_ino))
        known = _known(images)
        if key not in known:
            notify(f"reading the image {path}")
            known[key] = _sha256(path)
            # Two processes at once: one forgets what the other learnt, and reads it again.
            write_json(images / KNOWN, dict(list(known.items())[-KNOWN_MOST:]))
    except OSError as error:
        raise PermanentError(
            f"cannot read the image {path}: {error.strerror}",
            remedy="image: a path, a URL, or nothing for vcluster's own",
        ) from error
    _compare(known[key], request)
    return f"file-{known[key][:12]}"


def _known(images: Path) -> dict[str, str]:
    return {str(key): str(value) for key, value in (read_json(images / KNOWN) or {}).items()}


def fetch(request: ImageRequest, folder: Path, notify: Notify, cancel: threading.Event | None = None) -> None:
    """Put the image into a folder as qcow2.

    Raises:
        PermanentError: wrong checksum (both are named), not an image, or one that needs other files.
        TemporaryError: a download broke off; what came so far is kept beside the folder.
        QuotaError: the disk is full.
        CancelledError: ``cancel`` was set.
    """
    copy = folder.parent / "download"
    path = _path(request.source)
    if path is None:
        notify(f"fetching the image {request.source}")
        _download(request.source, copy, cancel)
    else:
        notify(f"copying the image {path}")
        # Shares the blocks where the file system can.
        _tool("cp", "--reflink=auto", "--sparse=auto", "--", str(path), str(copy), name=request.source)
    try:
        copy.chmod(0o600)
        # The copy is what is looked at: the original may be changing.
        found = _sha256(copy) if request.sha256 or path else ""
        _compare(found, request)
        if path and not folder.parent.name.endswith(f"file-{found[:12]}"):
            raise TemporaryError(f"the image {path} changed while it was copied", delay=5.0)
        _place(copy, folder / DISK, request.source)
    finally:
        copy.unlink(missing_ok=True)


def _path(source: str) -> Path | None:
    """Where a local file lies, or None for one to be fetched."""
    parts = urlsplit(source)
    if parts.scheme in {"http", "https"}:
        return None
    return Path(unquote(parts.path) if parts.scheme == "file" else source).expanduser()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str, target: Path, cancel: threading.Event | None) -> None:
    part, mark = target.with_suffix(".part"), target.with_suffix(".mark")
    have = part.stat().st_size if part.exists() and mark.exists() else 0
    # Without the mark the server would go on with whatever lies there now.
    headers = {"Range": f"bytes={have}-", "If-Range": mark.read_text()} if have else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=SILENCE) as answer:  # noqa: S310
            on = bool(have) and answer.status == http.client.PARTIAL_CONTENT
            have = have if on else 0
            promised = answer.headers.get("Content-Length")
            whole = None if promised is None else have + int(promised)
            mark.unlink(missing_ok=True)
            with part.open("ab" if on else "wb") as file:
                tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
                if tag and not tag.startswith("W/"):
                    mark.write_text(tag)
                while block := answer.read(CHUNK):
                    file.write(block)
                    have += len(block)
                    if cancel and cancel.is_set():
                        raise CancelledError(f"fetching {url} was cancelled")
            if whole is not None and have < whole:
                raise TemporaryError(f"{url} broke off after {have} of {whole} bytes")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise TemporaryError(f"{url} changed while it was fetched") from error
        said = f"{url}: the server says {error.code} {error.reason}"
        if error.code >= http.client.INTERNAL_SERVER_ERROR or error.code == http.client.TOO_MANY_REQUESTS:
            raise TemporaryError(said) from error
        raise PermanentError(said, remedy="check the address in a browser") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise TemporaryError(f"{url}: {error}") from error
    mark.unlink(missing_ok=True)
    part.rename(target)


def _compare(found: str, request: ImageRequest) -> None:
    if request.sha256 and found != request.sha256.lower():
        raise PermanentError(
            f"the image {request.source} has the wrong checksum: sha256 is {found}, the spec says {request.sha256}",
            remedy="fetch the image's checksum from its publisher, and never from the place the image came from",
        )


def _place(source: Path, target: Path, name: str) -> None:
    facts = json.loads(_tool("qemu-img", "info", "--output=json", str(source), name=name))
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
    if facts.get("encrypted"):
        raise PermanentError(f"the image {name} is encrypted", remedy="decrypt it with `qemu-img convert`")
    if kind == "qcow2":
        source.rename(target)
        return
    if not _bootable(source):
        raise PermanentError(f"{name} is not a disk image: it has neither qcow2's header nor a partition table")
    _tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(source), str(target), name=name)


def _bootable(source: Path) -> bool:
    with source.open("rb") as file:
        return file.read(512)[510:] == b"\x55\xaa"


def _tool(*argv: str, name: str) -> str:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", check=False, env={**os.environ, "LC_ALL": "C"}
        )
    except FileNotFoundError as error:
        raise PermanentError(f"{argv[0]} is not installed", remedy="apt-get install qemu-utils") from error
    if done.returncode:
        said = f"the image {name} cannot be used: {(done.stderr.strip().splitlines() or [argv[0]])[-1]}"
        if os.strerror(errno.ENOSPC) in done.stderr:
            raise QuotaError(said, remedy="make room, or point VCLUSTER_CACHE at a larger disk")
        raise PermanentError(said)
    return done.stdout
