"""Files of this computer that machines need: the head is handed them once, and gives them to the others."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vcluster.errors import PermanentError, Problem, SpecError
from vcluster.k3s_checks import file_sha256

if TYPE_CHECKING:
    from vcluster.remote import Remote
    from vcluster.spec import ClusterSpec
    from vcluster.spec_checks import Path as Place
    from vcluster.spec_k3s import FileSpec

__all__ = ["STORE", "HandedFile", "check", "deliver", "handed"]

STORE = "/var/lib/vcluster/files"
"""On the head, readable by all: each file under its SHA-256."""

DRAFTS = "/var/lib/vcluster/admin"


@dataclass(frozen=True, slots=True)
class HandedFile:
    """A file here, and the 64 hex digits that machines know it by."""

    path: Path
    sha256: str


def handed(spec: ClusterSpec | None) -> tuple[HandedFile, ...]:
    """What the head of this cluster is to be handed; nothing where machines get all for themselves."""
    if spec is None or spec.scheduler != "k3s":
        return ()
    files = [file for file in (spec.kubernetes.binary, *spec.kubernetes.images) if file.local]
    return tuple(HandedFile(Path(file.source), file.sha256) for file in files)


def check(spec: ClusterSpec) -> None:
    """Say before anything is made that a file is not here, or is another one than the spec says.

    Raises:
        SpecError: with the line that names it.
    """
    if spec.scheduler != "k3s":
        return
    named: list[tuple[Place, FileSpec]] = [(("k3s", "binary"), spec.kubernetes.binary)]
    named += [(("k3s", "images", n), file) for n, file in enumerate(spec.kubernetes.images)]
    problems: list[Problem] = []
    for place, file in named:
        if not file.local:
            continue
        found = file_sha256(file.source)
        if not found:
            problems.append(spec.problem(place, f"there is no file {file.source}", "correct its path"))
        elif found != file.sha256:
            what = f"{file.source} has the SHA-256 {found}"
            problems.append(spec.problem((*place, "sha256"), what, "correct it, or leave it out"))
    if problems:
        raise SpecError(problems)


def deliver(remote: Remote, files: tuple[HandedFile, ...], told: Callable[[str], None]) -> None:
    """Put what is missing into the head's store, whole or not at all.

    Args:
        told: hears of each file that takes its way.

    Raises:
        TemporaryError: the connection broke.
        PermanentError: a file cannot be read here or written there.
    """
    listed = remote.run(f"ls {STORE}", timeout=60).stdout.split()
    for file in files:
        if file.sha256 in listed:
            continue
        size = file.path.stat().st_size if file.path.is_file() else None
        if size is None:
            raise PermanentError(f"there is no file {file.path} for the machines", remedy="put it back, and try again")
        told(f"the head gets {file.path.name} ({size / (1 << 20):.0f} MiB)")
        draft = f"{DRAFTS}/{file.sha256}.draft"
        remote.put(file.path, draft)
        steps = [
            f"echo {file.sha256}  {draft} | sha256sum -c --quiet",
            f"sudo -n install -d -m 0755 {STORE}",
            f"sudo -n install -m 0755 {draft} {STORE}/.{file.sha256}",
            f"sudo -n mv {STORE}/.{file.sha256} {STORE}/{file.sha256}",
        ]
        done = remote.run(f"{' && '.join(steps)}; e=$?; rm -f {shlex.quote(draft)}; exit $e", timeout=300)
        if done.exit_code:
            raise PermanentError(
                f"the head does not take {file.path.name}: {(done.stderr or done.stdout).strip()[-200:]}"
            )
