"""Commands that reach into a cluster through OpenSSH: ssh, cp, forward, ssh-config."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from vcluster.commands.common import CLOUD, OWNER, How, Misused, command, open_cluster, options, target_argument
from vcluster.errors import UsageError

REMOTE = re.compile(r"([a-z][a-z0-9-]*)?:")
"""How a file on the head (``:path``) or on a machine (``cpu-1:path``) begins."""


def run_instead(argv: Sequence[str]) -> NoReturn:
    """Become another program, so that its terminal, signals and exit status are its own.

    Raises:
        UsageError: the program is not installed.
    """
    program = shutil.which(argv[0])
    if program is None:
        raise UsageError(
            f"the program '{argv[0]}' is not installed",
            remedy="install OpenSSH's client (Debian, Ubuntu: apt install openssh-client)",
        )
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and what it ignores, a new program inherits
    os.execv(program, list(argv))  # noqa: S606 - an argument list that the library made, no shell


class _SshCommand(click.Command):
    """Tells what to do when the remote command's options are taken for ours."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, with a hint at the two dashes."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hint = "a command with options goes after --, as in: vcluster ssh demo -- srun -N2 hostname"
            raise Misused(error.format_message(), hint, ctx) from error


@command("ssh", cls=_SshCommand)
@target_argument()
@click.argument("words", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "-m", "--machine", default="head", show_default=True, help="Which machine, as `vcluster status` names it."
)
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal, as top or an editor wants.")
@options(CLOUD, OWNER)
def ssh_(target: str, words: tuple[str, ...], machine: str, tty: bool, how: How) -> None:
    """As plain ssh does: the words are joined with spaces and the shell on the machine reads them, and the exit status
    is the command's own. Host keys are pinned; workers are reached through the head.
    """
    with open_cluster(target, how.cloud, how.owner) as cluster:
        argv = cluster.ssh_command(machine)
    run_instead([argv[0], *(["-t"] if tty else []), *argv[1:], *(["--", *words] if words else [])])


@command("cp")
@target_argument()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.argument("destination")
@options(CLOUD, OWNER)
def cp_(target: str, sources: tuple[str, ...], destination: str, how: How) -> None:
    r"""`:path` is a file on the head, `cpu-1:path` one on a worker, anything else one on this computer.
    Folders go with all that is in them.

    \b
    vcluster cp demo data.csv :data.csv
    """
    remote = [bool(REMOTE.match(word)) for word in (*sources, destination)]
    if not any(remote):
        raise UsageError(
            "none of these files is on the cluster",
            remedy="write :path for a file on the head, or MACHINE:path, as in: vcluster cp demo data.csv :data.csv",
        )
    for word in (word for word, is_remote in zip(sources, remote, strict=False) if not is_remote):
        if not Path(word).exists():
            raise UsageError(
                f"there is no file '{word}' on this computer", remedy="check the path; :path is the head's"
            )
    with open_cluster(target, how.cloud, how.owner) as cluster:
        argv = cluster.scp_command(list(sources), destination)
    run_instead(argv)


@command("forward")
@target_argument()
@click.argument("port", type=click.IntRange(1, 65535))
@click.option(
    "-l", "--local-port", type=click.IntRange(1, 65535), help="The port on this computer (default: the same)."
)
@options(CLOUD, OWNER)
def forward_(target: str, port: int, local_port: int | None, how: How) -> None:
    """Runs until Ctrl-C. Only this computer can use the port."""
    here = local_port or port
    _check_free(here)
    with open_cluster(target, how.cloud, how.owner) as cluster:
        argv = cluster.forward_command(port, here)
        name = cluster.name
    click.echo(f"127.0.0.1:{here} is port {port} of {name}'s head, until Ctrl-C", err=True)
    run_instead(argv)


def _check_free(port: int) -> None:
    """Refuse a port that is in use, before ssh says it less clearly.

    Raises:
        UsageError: taken, or only for root.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(
                f"port {port} of this computer cannot be used: {error.strerror}",
                remedy="choose another one with --local-port",
            ) from error


@command("ssh-config")
@target_argument()
@options(CLOUD, OWNER)
def ssh_config_(target: str, how: How) -> None:
    r"""Then `ssh NAME` is the head and `ssh NAME-cpu-1` a worker, in every program that uses OpenSSH.

    \b
    vcluster ssh-config demo >> ~/.ssh/config
    """
    with open_cluster(target, how.cloud, how.owner) as cluster:
        text = cluster.ssh_config()
    how.result("ssh-config", {"text": text}, text.rstrip("\n"))
