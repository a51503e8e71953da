"""The console script: prints the help page at once, and loads click and the rest only for a command."""

from __future__ import annotations

import os
import sys

from vcluster.commands import COMPLETION_VARIABLE, help_page

TYPE_CHECKING = False  # typing itself costs more than the help page
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

HELP: tuple[list[str], ...] = ([], ["-h"], ["--help"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        arguments: the words after the program's name; by default those of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in HELP and COMPLETION_VARIABLE not in os.environ:
        return show_help()
    from vcluster.commands.root import invoke

    return invoke(words)


def show_help() -> int:
    """Print the help page; a reader that went away is no error."""
    try:
        sys.stdout.write(help_page())
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter's own flush complains at exit
    return 0


if __name__ == "__main__":
    sys.exit(main())
