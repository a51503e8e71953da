"""Files for machines, and the cloud-init user data that carries them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["File", "write_files"]

# What YAML may not hold in a literal block: control characters, other line ends, a first line that is indented.
_UNSAFE = re.compile(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd]|\u2028|\u2029|\A[ \n]|\A\Z|[^\n]\Z|\n\n\Z")


@dataclass(frozen=True, slots=True, repr=False)
class File:
    """A file on a machine. ``content`` may be a secret, so this class has a ``repr`` without it."""

    path: str
    content: str | bytes
    mode: int = 0o644

    def __repr__(self) -> str:
        return f"File({self.path!r}, mode={self.mode:#o})"


def write_files(files: Iterable[File]) -> str:
    """The entries of cloud-init's ``write_files``: as readable text where YAML can hold it, else as base64."""
    return "\n".join(_entry(file) for file in files)


def _entry(file: File) -> str:
    lines = [f"  - path: {json.dumps(file.path)}", f'    permissions: "{file.mode:04o}"']
    if isinstance(file.content, str) and not _UNSAFE.search(file.content):
        indented = file.content[:-1].replace("\n", "\n      ")
        return "\n".join([*lines, "    content: |", f"      {indented}"])
    raw = file.content.encode() if isinstance(file.content, str) else file.content
    # In quotation marks: an empty file's content would be YAML's null, and cloud-init then writes no file at all.
    return "\n".join([*lines, "    encoding: b64", f'    content: "{base64.b64encode(raw).decode()}"'])
