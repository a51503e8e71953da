"""The error tree; the class decides what happens next, and it does so in one place.

::

    VclusterError
    ├── SpecError            the user's file or arguments are wrong          exit 2
    ├── UsageError           the command does not fit what is there          exit 2
    ├── CloudError           something outside of us said no
    │   ├── TemporaryError   try again, after ``delay`` seconds              exit 1
    │   ├── ConflictError    the thing exists or is in use: look again       exit 1
    │   ├── QuotaError       no room: asked, used, allowed                   exit 3
    │   └── PermanentError   the same call will fail the same way            exit 1
    ├── DeadlineError        time ran out; says what was waited for          exit 4
    └── CancelledError       the caller asked to stop                        exit 130
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = [
    "CancelledError",
    "CloudError",
    "ConflictError",
    "DeadlineError",
    "PermanentError",
    "Problem",
    "QuotaError",
    "SpecError",
    "TemporaryError",
    "UsageError",
    "VclusterError",
    "disk_error",
    "disk_errors",
]

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM}


class VclusterError(Exception):
    """Base of all errors that vcluster raises on purpose.

    Args:
        message: what is wrong, in words for the person at the terminal.
        remedy: what to do about it, or an empty string.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}" if self.remedy else self.message


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a spec: where, what, and what would be right.

    Attributes:
        where: the field's path, as ``workers[0].flavor``; empty for the whole file.
        message: what is wrong.
        remedy: what would be right, or empty.
        file: the file's name as the user gave it, or empty for a spec made in Python.
        line: 1-based line, 0 when unknown.
        column: 1-based column, 0 when unknown.
    """

    where: str
    message: str
    remedy: str = ""
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)]) if self.file else ""
        head = f"{place}: " if place else ""
        field = f"{self.where}: " if self.where else ""
        tail = f" ({self.remedy})" if self.remedy else ""
        return f"{head}{field}{self.message}{tail}"


class SpecError(VclusterError):
    """The spec is wrong; carries every problem at once.

    Args:
        problems: at least one :class:`Problem`, in the order of the file.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UsageError(VclusterError):
    """The command cannot be carried out on what is there (wrong name, wrong state, missing tool)."""

    exit_code = 2


class CloudError(VclusterError):
    """A cloud refused or failed a call."""


class TemporaryError(CloudError):
    """Weather: the same call may work later.

    Args:
        delay: seconds that the other side asked us to wait; 0 when it did not say.
    """

    def __init__(self, message: str, *, remedy: str = "", delay: float = 0.0) -> None:
        super().__init__(message, remedy=remedy)
        self.delay = delay


class ConflictError(CloudError):
    """The resource exists already or is in use; the answer is to look again, never to repeat."""


class QuotaError(CloudError):
    """There is no room, in a project's quota or on this host."""

    exit_code = 3


class PermanentError(CloudError):
    """The same call would fail in the same way again."""


class DeadlineError(VclusterError):
    """A deadline passed; the message names what was waited for."""

    exit_code = 4


class CancelledError(VclusterError):
    """The caller cancelled the run; what was made so far stays, and the next run goes on from it."""

    exit_code = 130


def disk_error(error: OSError, doing: str) -> CloudError:
    """The error class for a system call that failed: no room is a matter of quota, the rest is permanent."""
    text = f"{doing}: {error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    if error.errno in _NO_SPACE:
        return QuotaError(text, remedy="make room on this disk, or point VCLUSTER_HOME at a larger one")
    return PermanentError(text)


@contextlib.contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Around what uses the disk, or as the decorator of a function that does.

    Raises:
        QuotaError: there was no room.
        PermanentError: another system call failed.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(error, doing) from error
