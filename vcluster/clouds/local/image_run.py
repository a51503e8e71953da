"""Running the image's builder so that it never outlives whoever asked for it, and the workshop where it works.

The workshop lies under /var/tmp and not in the cache, because other users must pass through it: apt's own, and in a
user namespace all that the tree belongs to. Nothing in it is secret.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from vcluster.clouds.local.files import LOCK, is_locked, locked
from vcluster.errors import CancelledError

__all__ = ["PREFIX", "run", "sweep_workshops", "workshop"]

PREFIX = "vcluster-image-"
_POLL = 0.2
_GRACE = 10
"""Seconds from being told to stop to being stopped."""

_GUARD = f"""
told=
trap 'told=yes' TERM
exec 3<&0 </dev/null
"$@" 3<&- &
builder=$!
( trap '' TERM; read -r _ <&3; kill -TERM 0; sleep {_GRACE}; kill -KILL 0 ) &
guard=$!
exec 3<&-
wait $builder
code=$?
while kill -0 $builder 2>/dev/null; do wait $builder; code=$?; done
[ -z "$told" ] || kill -KILL 0
kill -KILL $guard
exit $code
"""
"""Ends the builder's whole process group when its own standard input ends: on purpose, or because whoever held the
other end was killed."""


def run(
    argv: Sequence[str],
    *,
    log: BinaryIO,
    environment: Mapping[str, str],
    folder: Path,
    handles: Sequence[int] = (),
    cancel: threading.Event | None = None,
) -> int:
    """Run a command to its end, output into a log; it ends with this process, however that ends.

    Args:
        handles: descriptors that it inherits.
        cancel: set to give up.

    Returns:
        Its exit status.

    Raises:
        CancelledError: ``cancel`` was set.
    """
    if os.geteuid() == 0:
        # What is mounted in the tree is then seen by nobody else, and goes with the last process; and with the first
        # process all others go, daemons that a package started among them.
        argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--", *argv]
    with subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "sh", *argv],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=handles,
        env=dict(environment),
        cwd=folder,
        start_new_session=True,
    ) as process:
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(_POLL if cancel else None)
                if cancel and cancel.is_set():
                    raise CancelledError("making the image was cancelled")
        except BaseException:  # Ctrl-C too
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
            raise


def _place() -> Path:
    return Path(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A folder for a build, gone afterwards; its lock tells a live one from what a killed process left."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_place()))
    with locked(folder, what="the workshop", create=True):
        folder.chmod(0o711)
        try:
            yield folder
        finally:
            _remove(folder)


def sweep_workshops() -> None:
    """Remove what killed builds of this user left."""
    for folder in _place().glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            facts = folder.lstat()
            # Without a lock file yet it is being made just now, or was left empty.
            ours = facts.st_uid == os.geteuid() and not folder.is_symlink() and folder.is_dir()
            if ours and (folder / LOCK).exists() and not is_locked(folder):
                _remove(folder)


def _remove(folder: Path) -> None:
    for tree in folder.glob("mmdebstrap.*"):
        words = ["rm", "-rf", "--one-file-system", "--", str(tree)]
        if os.geteuid() != 0:  # the tree belongs to users of the namespace it was made in
            words = ["mmdebstrap", "--unshare-helper", *words]
        subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)
