"""A person's kubeconfig on this computer: changed whole or not at all, for nobody else to read, one at a time."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from vcluster.errors import TemporaryError, UsageError, disk_errors
from vcluster.kubeconfig import Kubeconfig, merged

__all__ = ["default_path", "merge", "write"]

LOCK_TIMEOUT = 10.0
"""Seconds to wait for another program that changes the file; it takes milliseconds."""

_POLL = 0.05


def default_path() -> Path:
    """Where kubectl would write: the first file of ``KUBECONFIG``, or ``~/.kube/config``."""
    named = [word for word in os.environ.get("KUBECONFIG", "").split(os.pathsep) if word]
    return Path(named[0]).expanduser() if named else Path.home() / ".kube" / "config"


def merge(own: Kubeconfig, path: Path | None = None, *, use: bool = False, timeout: float = LOCK_TIMEOUT) -> Path:
    """Put a cluster's entries into a person's file, which is made where there is none; all else in it stays.

    Args:
        path: the file; None means :func:`default_path`.
        use: make it the current context.
        timeout: seconds to wait for another program that changes the file.

    Returns:
        The file that was written, behind whatever links.

    Raises:
        UsageError: it is no kubeconfig, or no file.
        TemporaryError: another program changes it all the time.
        QuotaError, PermanentError: it cannot be read or written.
    """
    path = path or default_path()
    with disk_errors(f"cannot change {path}"):
        target = _behind(path)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _held(path, timeout):
            _replace(target, _with(own, path, target, use=use, remedy=_ANOTHER))
    return target


_ANOTHER = "it stays as it is; name another file in KUBECONFIG, or write one of its own with --output"
_ELSEWHERE = "it stays as it is: give another name"


def _with(own: Kubeconfig, path: Path, target: Path, *, use: bool, remedy: str) -> str:
    """What a file would be with a cluster's entries in it.

    Raises:
        UsageError: it is no kubeconfig.
    """
    before = target.read_bytes() if target.exists() else b""
    try:
        return merged(before.decode(), own, use=use)
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no kubeconfig: it is no text", remedy=remedy) from None
    except UsageError as error:
        raise UsageError(f"{path} {error.message}", remedy=remedy) from None


def write(own: Kubeconfig, path: Path) -> Path:
    """Write a file for this cluster alone, in the place of a kubeconfig that is there.

    Raises:
        UsageError: what is there is another kind of file, a folder or a device.
        QuotaError, PermanentError: it cannot be written.
    """
    with disk_errors(f"cannot write {path}"):
        target = _behind(path)
        if not target.parent.is_dir():
            raise UsageError(f"there is no folder {target.parent}", remedy="make it, or give another name")
        _with(own, path, target, use=False, remedy=_ELSEWHERE)  # for its refusal: a backup may lie there
        _replace(target, own.text)
    return target


def _behind(path: Path) -> Path:
    """The file itself: a link stays a link.

    Raises:
        UsageError: it is a folder or a device, of which /dev/null is one that people have in KUBECONFIG.
    """
    try:
        target = path.resolve()
    except RuntimeError as error:  # links in a circle, before Python 3.13
        raise UsageError(f"{path} is no file: its links lead in a circle", remedy=_ANOTHER) from error
    if target.exists() and not target.is_file():
        raise UsageError(f"{path} is no regular file", remedy=_ANOTHER)
    return target


def _replace(target: Path, text: str) -> None:
    handle, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
            if target.exists() and (owner := target.stat()).st_uid != os.geteuid():
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)  # root at work in somebody's home
        Path(draft).replace(target)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _held(path: Path, timeout: float) -> Iterator[None]:
    """Hold the lock that kubectl and its kin take themselves: a file beside it, which must not be there before.

    Not an ``flock``, as elsewhere in this house: `kubectl config` would not see that.
    """
    lock = path.with_name(f"{path.name}.lock")
    end = time.monotonic() + timeout
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            break
        except FileExistsError:
            if time.monotonic() >= end:
                raise TemporaryError(
                    f"another program is changing {path}", remedy=f"if none does any more, remove {lock}"
                ) from None
            time.sleep(_POLL)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
