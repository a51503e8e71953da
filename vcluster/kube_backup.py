"""A backup of a Kubernetes cluster as a file: a tar of etcd's snapshot and of all that it takes to bring it back."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vcluster.errors import TemporaryError, UsageError, disk_errors

__all__ = ["Facts", "KubeBackup", "write"]

FORMAT = 1
FACTS, TOKEN, SPEC, SNAPSHOT = "backup.json", "token", "spec.yaml", "snapshot"
_SMALL = 4 << 20
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Facts:
    """What a backup is of.

    Attributes:
        cluster: the name.
        id: which cluster of that name.
        claim: the fingerprint of its secret, from which its keys and tokens come.
        version: k3s' release that wrote the snapshot.
        time: when, UTC, as 2026-11-27T22:49:11Z.
        size: the snapshot's, bytes.
        sha256: its checksum.
    """

    cluster: str
    id: str
    claim: str
    version: str
    time: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, repr=False)
class KubeBackup:
    """A backup that was read and found whole; its token is a secret, so it has no ``repr``.

    Attributes:
        path: the file.
        token: the server token, without which the snapshot cannot be used.
        spec: the cluster's spec then, YAML.
    """

    path: Path
    facts: Facts
    token: str
    spec: str

    def __repr__(self) -> str:
        return f"KubeBackup({str(self.path)!r})"

    @classmethod
    def read(cls, path: Path) -> KubeBackup:
        """Read a file, and check that its snapshot is whole.

        Raises:
            UsageError: it is not there, no such file, or damaged.
            PermanentError: it cannot be read.
        """
        with disk_errors(f"cannot read {path}"), _opened(path) as tar:
            data = _json(path, _small(path, tar, FACTS))
            if data.pop("format", None) != FORMAT:
                raise UsageError(f"{path} was written by another vcluster", remedy="use the one that wrote it")
            try:
                facts = Facts(**data)
            except TypeError:
                raise _not_ours(path) from None
            digest, size = hashlib.sha256(), 0
            with _part(path, tar, SNAPSHOT) as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
                    size += len(piece)
            if (size, digest.hexdigest()) != (facts.size, facts.sha256):
                raise UsageError(f"{path} is damaged: its snapshot is not what was put in", remedy="take another one")
            return cls(path, facts, _small(path, tar, TOKEN).decode(), _small(path, tar, SPEC).decode())

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[BinaryIO]:
        """The snapshot, to be read."""
        with (
            disk_errors(f"cannot read {self.path}"),
            _opened(self.path) as tar,
            _part(self.path, tar, SNAPSHOT) as file,
        ):
            yield file


def write(target: Path, facts: Facts, token: str, spec: str, fill: Callable[[BinaryIO], None]) -> None:
    """Write a backup, whole or not at all (0600).

    Args:
        fill: writes the snapshot, which is checked on its way.

    Raises:
        TemporaryError: what came is not the snapshot that ``facts`` tell of.
        QuotaError: the disk is full.
        PermanentError: the folder cannot be written.
    """
    with disk_errors(f"cannot write {target}"):
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # 0600
        draft = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                told = json.dumps({"format": FORMAT, **asdict(facts)}, indent=1) + "\n"
                for part, text in ((FACTS, told), (TOKEN, token), (SPEC, spec)):
                    file.write(_header(part, len(text.encode())))
                    file.write(_padded(text.encode()))
                file.write(_header(SNAPSHOT, facts.size))
                _snapshot(file, facts, fill)
                file.write(bytes(2 * tarfile.BLOCKSIZE))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


class _Checked(io.RawIOBase):
    """Counts and sums up what goes into a file; a disk that is full is told as that, not as a broken connection."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        super().__init__()
        self._file, self._most = file, most
        self.digest, self.size = hashlib.sha256(), 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, piece: Any) -> int:
        """Pass it on."""
        self.size += len(piece)
        if self.size > self._most:
            raise TemporaryError("the head sent more than its snapshot has")
        self.digest.update(piece)
        with disk_errors("cannot write the backup"):
            return self._file.write(piece)


def _snapshot(file: BinaryIO, facts: Facts, fill: Callable[[BinaryIO], None]) -> None:
    checked = _Checked(file, facts.size)
    fill(checked)  # type: ignore[arg-type]  # a raw stream is enough of one
    if (checked.size, checked.digest.hexdigest()) != (facts.size, facts.sha256):
        raise TemporaryError("the snapshot did not come over whole", remedy="run the same command again")
    file.write(bytes(-facts.size % tarfile.BLOCKSIZE))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.GNU_FORMAT)  # which knows sizes beyond 8 GiB


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % tarfile.BLOCKSIZE)


# Reading -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except FileNotFoundError:
        remedy = "name the one that `vcluster backup` wrote; told no name, it wrote into the folder where it was called"
        raise UsageError(f"there is no file {path}", remedy=remedy) from None
    except (tarfile.TarError, EOFError, UnicodeDecodeError):
        raise _not_ours(path) from None


@contextlib.contextmanager
def _part(path: Path, tar: tarfile.TarFile, name: str) -> Iterator[BinaryIO]:
    try:
        file = tar.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise _not_ours(path)
    with file:
        yield file  # type: ignore[misc]


def _small(path: Path, tar: tarfile.TarFile, name: str) -> bytes:
    with _part(path, tar, name) as file:
        return file.read(_SMALL)


def _json(path: Path, text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise _not_ours(path)
    return data


def _not_ours(path: Path) -> UsageError:
    return UsageError(f"{path} is no backup of vcluster's", remedy="`vcluster backup` writes one")
