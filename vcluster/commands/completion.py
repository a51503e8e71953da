"""The command that prints a shell's completion script."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from vcluster.commands import COMPLETION_VARIABLE, PROGRAM
from vcluster.commands.common import command

SHELLS = ("bash", "zsh", "fish")


@command("completion")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def completion_(shell: str | None) -> None:
    r"""By default for the shell of $SHELL. Names of clusters are completed too.

    \b
    vcluster completion bash > ~/.local/share/bash-completion/completions/vcluster
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    found = get_completion_class(name) if name in SHELLS else None
    if found is None:
        raise click.UsageError(f"say which shell: {', '.join(SHELLS)}")
    group = click.get_current_context().find_root().command
    click.echo(found(group, {}, PROGRAM, COMPLETION_VARIABLE).source())
