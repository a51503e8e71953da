"""Private folders, atomic writes and locks: what makes a ``kill -9`` between any two steps harmless.

Everything here is 0700 or 0600. A file is either as it was or as it shall be; a folder appears whole, by a rename.
A lock is an ``flock``: the kernel drops it when its holder dies, so a held lock means that somebody is at work.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vcluster.errors import PermanentError, TemporaryError, disk_error

__all__ = [
    "LOCK",
    "NEW",
    "TRASH",
    "is_locked",
    "locked",
    "private_dir",
    "read_json",
    "remove_tree",
    "sweep",
    "sync_dir",
    "write_atomic",
    "write_json",
]

NEW = ".new-"
"""Prefix of a folder that is being made; renamed once it is whole."""

TRASH = ".trash-"
"""Prefix of a folder that is being removed; nobody observes it any more."""

LOCK = "lock"
"""The file in a folder whose lock is the folder's."""


_POLL = 0.05


def private_dir(path: Path) -> Path:
    """Make a folder (and those above it) that only its owner may enter."""
    for _ in range(20):
        try:
            for folder in reversed((path, *path.parents)):  # mkdir(parents=True) would leave those above open
                if not folder.exists():
                    folder.mkdir(mode=0o700, exist_ok=True)
        except FileNotFoundError:  # another process removed the empty parent in between
            continue
        return path
    raise TemporaryError(f"cannot make {path}: it is being removed all the time")


def write_atomic(path: Path, content: bytes, *, name_too: bool = True) -> None:
    """Replace a file's content, on the disk before this returns.

    Args:
        name_too: whether a new file's name must be on the disk as well; False where :func:`sync_dir` follows.
    """
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    if name_too:
        sync_dir(path.parent)


def write_json(path: Path, value: object, *, name_too: bool = True) -> None:
    """:func:`write_atomic` for JSON."""
    write_atomic(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode(), name_too=name_too)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None when the file is not there.

    Raises:
        PermanentError: it is there and holds something else.
    """
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise disk_error(error, "cannot read a record") from error
    try:
        value = json.loads(text)
    except ValueError as error:
        value = error
    if not isinstance(value, dict):
        raise PermanentError(
            f"the record {path} is damaged", remedy=f"end what still runs under it, then remove {path.parent}"
        )
    return value


def sync_dir(path: Path) -> None:
    """Bring the names in a folder to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_tree(path: Path) -> None:
    """Take a folder away: first out of sight by one rename, then for good. Not there: no error."""
    trash = path.with_name(f"{TRASH}{path.name}-{os.urandom(4).hex()}")
    try:
        path.rename(trash)
    except FileNotFoundError:
        return
    shutil.rmtree(trash, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half made or half removed. Call it with the folder's lock held."""
    for path in folder.glob(f"{TRASH}*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(f"{NEW}*"):
        if not is_locked(path):
            shutil.rmtree(path, ignore_errors=True)


def is_locked(folder: Path, name: str = LOCK) -> bool:
    """Whether somebody (in any process) holds this folder's lock, or another file of its there."""
    try:
        handle = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # A shared lock, so that two who only look do not take each other for somebody at work.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextlib.contextmanager
def locked(folder: Path, *, what: str, timeout: float = 30.0, create: bool = False) -> Iterator[bool]:
    """Hold a folder's lock; gives False (and holds nothing) when the folder is gone.

    Args:
        what: what the lock guards, for the error.
        timeout: seconds to wait for whoever holds it.
        create: make the folder's lock file (the folder is there and new).

    Raises:
        TemporaryError: somebody held it all the time.
    """
    deadline = time.monotonic() + timeout
    handle = -1
    try:
        while True:
            try:
                flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
                handle = os.open(folder / LOCK, flags, 0o600)
            except (FileNotFoundError, NotADirectoryError):
                yield False
                return
            while not _try_lock(handle):
                if time.monotonic() > deadline:
                    raise TemporaryError(f"another vcluster is at work on {what}", delay=5.0)
                time.sleep(_POLL)
            if _same_file(handle, folder / LOCK):  # else it was removed, and maybe made anew, while we waited
                yield True
                return
            os.close(handle)
            handle = -1
    finally:
        if handle >= 0:
            os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same_file(handle: int, path: Path) -> bool:
    try:
        there = path.stat()
    except OSError:
        return False
    here = os.fstat(handle)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
