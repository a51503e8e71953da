"""The click group: loads a command's module when it is called, and turns every error into one message and exit code."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from types import FrameType

import click

from vcluster.commands import COMPLETION_VARIABLE, PROGRAM, help_page, module_of, names
from vcluster.commands.common import Misused, is_spec, nearest
from vcluster.commands.remedies import CALLED_ON, add_cloud, cloud_words, forgotten_cloud
from vcluster.console import clean
from vcluster.errors import Problem, SpecError, VclusterError

__all__ = ["invoke", "root"]

INTERRUPTED = 130
BROKEN_PIPE = 128 + signal.SIGPIPE


class ReaderGoneError(Exception):
    """Nobody reads our stdout any more. Not an OSError, for click would end the process by itself with another code."""


class LazyGroup(click.Group):
    """Knows its commands from the table and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help page."""
        return names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, its module imported; None for an unknown name."""
        module = module_of(cmd_name)
        if module is None:
            return None
        command = getattr(importlib.import_module(f"vcluster.commands.{module}"), cmd_name.replace("-", "_") + "_")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name in the error."""
        if args and module_of(args[0]) is None and not args[0].startswith("-"):
            hint = nearest(args[0], names())
            remedy = f"did you mean {hint}?" if hint else "`vcluster --help` lists them"
            if is_spec(args[0]):
                remedy = f"did you mean `vcluster up {clean(args[0])}`?"
            raise Misused(f"there is no command '{clean(args[0])}'", remedy, ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """As click does, but the end of a pipe stays ours to handle."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGoneError from error

    def get_help(self, ctx: click.Context) -> str:
        """The same page that is printed without click."""
        return help_page().rstrip()


def _version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"{PROGRAM} {version(PROGRAM)}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version)
def root() -> None:
    """One YAML file, one command, a working cluster on cloud VMs; and it takes it all away again."""


@dataclass(frozen=True)
class Failure:
    """How a command ended that did not end well; ``kind`` is the error's class."""

    kind: str
    message: str
    exit_code: int
    remedy: str = ""
    problems: tuple[Problem, ...] = ()


def invoke(words: Sequence[str]) -> int:
    """Run one command line and return its exit code; every error ends here, said once.

    Args:
        words: the command line without the program's name.
    """
    options = words[: list(words).index("--")] if "--" in words else words
    CALLED_ON.set("")
    verbose = any(word in {"-v", "--verbose"} for word in options)
    try:
        try:
            with _terminate_like_interrupt():
                code = root.main(
                    list(words), prog_name=PROGRAM, standalone_mode=False, complete_var=COMPLETION_VARIABLE
                )
                sys.stdout.flush()
        except (BrokenPipeError, ReaderGoneError):
            raise
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last line of defence, for all errors
            failure = _typable(_failure(error, verbose))
            if verbose and not isinstance(error, click.ClickException):
                traceback.print_exc()
            _say(failure, as_json="--json" in options)
            return failure.exit_code
    except (BrokenPipeError, ReaderGoneError):
        _forget_stdout()
        return BROKEN_PIPE
    return code if isinstance(code, int) else 0


def _failure(error: BaseException, verbose: bool) -> Failure:
    """What to tell of an error."""
    kind = type(error).__name__
    match error:
        case KeyboardInterrupt() | click.Abort():
            return Failure("Interrupted", "interrupted", INTERRUPTED)
        case SpecError():
            return Failure(kind, error.message, error.exit_code, error.remedy, error.problems)
        case VclusterError():
            return Failure(kind, error.message, error.exit_code, error.remedy)
        case Misused():
            return Failure("UsageError", error.format_message(), error.exit_code, error.remedy)
        case click.ClickException():
            context = getattr(error, "ctx", None)
            page = f"see `{context.command_path if context else PROGRAM} --help`"
            return Failure("UsageError", error.format_message(), error.exit_code, page)
    hint = "" if verbose else "this looks like a bug; the same command with -v shows where it comes from"
    return Failure(kind, f"{kind}: {error}" if str(error) else kind, 1, hint)


def _typable(failure: Failure) -> Failure:
    """The same failure, its command lines fit to be typed, with a hint at the cloud that was perhaps forgotten."""
    cloud = CALLED_ON.get()
    remedy = failure.remedy
    if failure.message.startswith("there is no cluster ") and (hint := forgotten_cloud(cloud)):
        remedy = "; ".join(filter(None, (remedy, hint)))
    if not cloud:
        return replace(failure, remedy=remedy)
    words = cloud_words(cloud)

    def mended(text: str) -> str:
        return add_cloud(text, words, _parameters, is_spec)

    problems = (replace(each, message=mended(each.message), remedy=mended(each.remedy)) for each in failure.problems)
    return replace(failure, message=mended(failure.message), remedy=mended(remedy), problems=tuple(problems))


def _parameters(name: str) -> list[str]:
    command = root.get_command(click.Context(root), name)
    return [str(parameter.name) for parameter in command.params] if command else []


def _say(failure: Failure, *, as_json: bool) -> None:
    if as_json:
        problems = [asdict(problem) for problem in failure.problems]
        report = {"kind": "error", "class": failure.kind, "message": failure.message, "remedy": failure.remedy}
        click.echo(json.dumps({**report, "problems": problems, "exit_code": failure.exit_code}))
        return
    if failure.problems:
        text = "\n".join(clean(problem) for problem in failure.problems)
    else:
        text = f"error: {clean(failure.message, lines=True)}"
    if failure.remedy:
        text += f"\nremedy: {clean(failure.remedy, lines=True)}"
    click.echo(text, err=True)


def _forget_stdout() -> None:
    """Let the interpreter's own flush at exit go nowhere instead of complaining about the broken pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as SIGINT does (signals belong to the main thread alone)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
