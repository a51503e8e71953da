"""Files for machines, and the cloud-init user data that carries them."""

from __future__ import annotations

import ast
import base64
import functools
import io
import json
import re
import threading
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["File", "lean", "write_files"]

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


_PARSING = threading.Lock()
"""Python 3.11 counts the depth of all trees in one place: two threads that parse upset each other (SystemError)."""


@functools.cache
def lean(program: str) -> str:
    """A Python program without its docstrings and the comments that have a line of their own.

    Nova takes 64 KiB of user data, and a head with a Hub has some thirty programs. Lines go, and none is written anew,
    so the same program gives the same text under every Python.
    """
    lines = program.splitlines()
    inside: set[int] = set()  # of a text, where an empty line is one
    for token in tokenize.generate_tokens(io.StringIO(program).readline):
        row = token.start[0] - 1
        if token.type == tokenize.COMMENT and lines[row].lstrip().startswith("#") and not lines[row].startswith("#!"):
            lines[row] = ""
        inside.update(range(row, token.end[0] - 1))
    with _PARSING:
        tree = ast.parse(program)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for n, each in enumerate(body):
            if (
                isinstance(each, ast.Expr)
                and isinstance(each.value, ast.Constant)
                and isinstance(each.value.value, str)
            ):
                assert each.end_lineno is not None
                rows = range(each.lineno - 1, each.end_lineno)
                lines[rows.start : rows.stop] = [""] * len(rows)
                inside.difference_update(rows)
                if n == 0 and len(body) == 1:
                    lines[each.lineno - 1] = " " * each.col_offset + "pass"
    return "".join(f"{line}\n" for row, line in enumerate(lines) if line.strip() or row in inside)
