# ruff: noqa: INP001 - a script, not a package
"""Writes docs/reference/cli.md from the commands themselves; a test keeps the two the same.

Usage: ``python .ci/cli_reference.py``
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from vcluster.commands import PROGRAM, SECTIONS, TAGLINE
from vcluster.commands.root import root

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"

EXIT_CODES = """\
## Exit codes

| code | meaning |
|---|---|
| 0 | done (`plan`: nothing to do) |
| 1 | failed |
| 2 | the command line or the spec is wrong, or does not fit what is there |
| 3 | no room: a quota, or this computer's memory or disk |
| 4 | the deadline passed |
| 10 | `plan`: there are changes |
| 130 | interrupted |

`ssh` returns the remote command's own exit status, and 255 when OpenSSH could not connect.

## Output

Results go to stdout, progress and errors to stderr. With `--json` stdout carries one JSON object a line: events while
the command works (`kind` is `plan`, `started`, `finished`, `machine`, `retry`, `log` or `done`), then one of kind
`result` or `error`. An error has `class`, `message`, `remedy`, `problems` (each with `file`, `line`, `column`, `where`,
`message`, `remedy`) and `exit_code`.

On a terminal progress is a table; elsewhere it is one line per change. `NO_COLOR` is honoured.

The first Ctrl-C (or SIGTERM) stops in order: what was made stays, and the same command again goes on from there.
The second leaves at once.
"""


def page() -> str:
    """The whole page."""
    parts = [
        "# The command line",
        "<!-- Written by .ci/cli_reference.py from the commands themselves. Change those, then run it. -->",
        TAGLINE,
        "A cluster is given as NAME, or as SPEC, the file that describes it: a word that ends in `.yaml` or `.yml`, "
        "has a slash in it or is a file's name is a SPEC.",
    ]
    with click.Context(root, info_name=PROGRAM) as context:
        for section, commands in SECTIONS.items():
            parts.append(f"## {section}")
            for name in commands:
                command = root.get_command(context, name)
                assert command is not None
                parts += entry(command, name, context)
    return "\n\n".join([*parts, EXIT_CODES])


def entry(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    """One command's part, and those of the commands below it."""
    with click.Context(command, info_name=name, parent=parent, **command.context_settings) as context:
        yield f"### {context.command_path}"
        words = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        yield f"```text\n{words}\n```"
        yield from paragraphs(inspect.cleandoc(command.help or ""))
        records = [param.get_help_record(context) for param in command.params if isinstance(param, click.Option)]
        rows = [f"| `{record[0]}` | {record[1].replace('|', chr(92) + '|')} |" for record in records if record]
        if rows:
            yield "\n".join(["| option | |", "|---|---|", *rows])
        if isinstance(command, click.Group):
            for below in command.list_commands(context):
                child = command.get_command(context, below)
                assert child is not None
                yield from entry(child, below, context)


def paragraphs(text: str) -> Iterator[str]:
    """Click's help as Markdown: what stands behind its no-wrap mark is an example."""
    for block in text.split("\n\n"):
        if block.startswith("\b\n"):
            yield f"```shell\n{block[2:]}\n```"
        elif block:
            yield block


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())
