"""What commands share: arguments and options, the way from a word to a cluster, questions and signals."""

from __future__ import annotations

import difflib
import functools
import inspect
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vcluster import spans
from vcluster.commands import summary_of
from vcluster.commands.remedies import CALLED_ON, cloud_words
from vcluster.console import Reporter, clean, reporter
from vcluster.errors import UsageError

if TYPE_CHECKING:
    from vcluster.cluster import Cluster, ClusterInfo, PlanView
    from vcluster.spec import ClusterSpec

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")
Option = Callable[[Callable[..., Any]], Callable[..., Any]]

STOPPING = "stopping; what was made stays, run the same command again (once more: stop at once)"


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that ``word`` was most likely meant to be, or an empty string."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), "")


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.3
    """A time span: ``90``, ``90s``, ``15m``, ``2h``, ``1h30m``, ``2d``; seconds as a float."""

    name = "duration"
    examples = "90, 90s, 15m, 2h, 1h30m or 2d"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds, more than none."""
        text = str(value).strip()
        seconds = spans.seconds(text)
        if seconds is None:
            self.fail(f"'{clean(text)}' is no time span; write {self.examples}", param, ctx)
        return seconds


class Lifetime(Duration):
    """A time span that a cluster lives: as :class:`Duration`, but a bare number is refused, as in a spec."""

    examples = "90m, 8h, 1h30m or 2d"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds, more than none."""
        text = str(value).strip()
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            wrong = f"'{text}' is a number without a unit; a span of time is as 90m, 8h or 2d"
            raise Misused(wrong, f"write {text}h for hours, {text}d for days", ctx)
        return super().convert(value, param, ctx)


def is_spec(word: str) -> bool:
    """Whether a NAME|SPEC argument means a file: it exists, or looks like a path."""
    return word.endswith((".yaml", ".yml")) or "/" in word or Path(word).is_file()


class Misused(click.UsageError):
    """A wrong command line, with what would be right."""

    def __init__(self, message: str, remedy: str, ctx: click.Context | None = None) -> None:
        super().__init__(message, ctx)
        self.remedy = remedy


@dataclass(frozen=True)
class How:
    """The options that many commands share.

    Attributes:
        cloud: the cloud of a cluster that is given by name, or None when it was not said.
        owner: whose cluster, or an empty string for one's own.
        yes: the person agreed beforehand.
        timeout: seconds, or None for the library's own deadline.
    """

    as_json: bool
    quiet: bool
    verbose: bool
    cloud: str | None = None
    owner: str = ""
    yes: bool = False
    timeout: float | None = None

    def reporter(self) -> Reporter:
        """The reporter for this run's progress."""
        return reporter(
            as_json=self.as_json, quiet=self.quiet, verbose=self.verbose, stdout=sys.stdout, stderr=sys.stderr
        )

    def result(self, command: str, fields: dict[str, Any], text: str) -> None:
        """The command's result: one JSON object of kind ``result``, or text for a person; both on stdout."""
        if self.as_json:
            click.echo(json.dumps({"kind": "result", "command": command, **fields}, default=str))
        elif text:
            click.echo(text)


def command(
    name: str, cls: type[click.Command] = click.Command, **settings: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """A click command whose first line of help is its line in the table."""

    def wrap(function: Callable[..., Any]) -> click.Command:
        said = inspect.cleandoc(function.__doc__ or "")
        # Docstrings are raw, and click knows an example by a real backspace.
        text = f"{summary_of(name)}\n\n{said}".replace("\\b\n", "\b\n")
        return click.command(name, cls, help=text, short_help=summary_of(name), **settings)(function)

    return wrap


OUTPUT: tuple[Option, ...] = (
    click.option("--json", "as_json", is_flag=True, help="Print NDJSON: events, then a result or an error."),
    click.option("-q", "--quiet", is_flag=True, help="No progress, only the result and errors."),
    click.option("-v", "--verbose", is_flag=True, help="Every step, and tracebacks of errors."),
)
CLOUD: Option = click.option(
    "--cloud",
    metavar="CLOUD",
    help="The cloud of a cluster that is given by name (default: $VCLUSTER_CLOUD, or local).",
)
OWNER: Option = click.option(
    "--owner", metavar="USER", default="", help="Whose cluster, when it is a colleague's: a user's name or id."
)
TIMEOUT: Option = click.option("--timeout", type=Duration(), help="Give up after this long: 90, 90s, 15m, 2h.")
YES: Option = click.option("--yes", is_flag=True, help="Do not ask, for scripts.")


def options(*wanted: Option) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Add shared options (and those of output, always); the function gets them all as ``how``."""

    def wrap(function: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(function)
        def wrapped(*args: Any, **given: Any) -> R:
            how = How(**{field.name: given.pop(field.name) for field in fields(How) if field.name in given})
            CALLED_ON.set(how.cloud or "")
            return function(*args, how=how, **given)

        decorated: Callable[..., R] = wrapped
        for option in reversed((*wanted, *OUTPUT)):
            decorated = option(decorated)
        return decorated

    return wrap


def known_clusters(cloud: str | None) -> list[ClusterInfo]:
    """The clusters on a cloud, everybody's."""
    from vcluster.cluster import clusters

    return clusters(cloud)


def unknown_cluster(name: str, how: How) -> UsageError:
    """The error for a name that no cluster of the caller's has: the nearest one, or whose it is."""
    from vcluster.connect import default_cloud

    cloud, known = how.cloud or default_cloud(), known_clusters(how.cloud)
    whose = f" of {how.owner}" if how.owner else ""
    return UsageError(f"there is no cluster '{name}'{whose} on {cloud}", remedy=meant(name, known, how.owner))


def meant(name: str, known: Sequence[ClusterInfo], owner: str = "", cloud: str | None = None) -> str:
    """What a name was probably meant to be, as a remedy; ``cloud`` is the one that the person named."""
    others = [info.owner for info in known if info.name == name and not info.mine and info.owner != owner]
    if others:
        return f"a colleague has one of that name: --owner {others[0]}"
    hint = nearest(name, [info.name for info in known if info.mine])
    return (
        f"did you mean {hint}?"
        if hint
        else f"`vcluster list{cloud_words(cloud) if cloud else ''}` shows those that there are"
    )


def _complete_target(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[Any]:
    """Names of clusters and spec files that begin so; nothing when the cloud cannot be asked."""
    from click.shell_completion import CompletionItem

    from vcluster.errors import VclusterError

    try:
        known = [info.name for info in known_clusters(ctx.params.get("cloud")) if info.mine]
    except (VclusterError, OSError):
        known = []
    folder, _, start = incomplete.rpartition("/")
    files = [
        str(Path(folder) / path.name) for path in Path(folder or ".").glob("*.y*ml") if path.name.startswith(start)
    ]
    return [CompletionItem(word) for word in [*(n for n in known if n.startswith(incomplete)), *sorted(files)]]


def target_argument(metavar: str = "NAME|SPEC") -> Callable[[F], F]:
    """The ``target`` argument, with completion."""
    return click.argument("target", metavar=metavar, shell_complete=_complete_target)


def _complete_machine(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the machines of the cluster that was typed before."""
    from vcluster.errors import VclusterError

    try:
        with open_cluster(ctx.params["target"], ctx.params.get("cloud"), ctx.params.get("owner", "")) as cluster:
            known = [machine.name for machine in cluster.status().machines]
    except (VclusterError, OSError):
        return []
    return [name for name in known if name.startswith(incomplete)]


machine_argument = click.argument("machine", default="head", shell_complete=_complete_machine)


def open_spec(target: str) -> ClusterSpec:
    """Read a spec file.

    Raises:
        SpecError: with every problem of the file.
    """
    from vcluster.spec import ClusterSpec

    return ClusterSpec.load(target)


def open_cluster(target: str, cloud: str | None, owner: str = "", **settings: Any) -> Cluster:
    """The cluster that a NAME|SPEC argument means.

    Raises:
        SpecError, UsageError: the file is wrong, or there is no such cloud, or that owner has no such cluster.
    """
    from vcluster.cluster import Cluster

    if is_spec(target):
        if cloud is not None:
            raise UsageError(
                f"--cloud goes with a cluster's name, and '{target}' is a spec, which says its cloud itself",
                remedy="leave --cloud out, or give the cluster's name",
            )
        spec = open_spec(target)
        CALLED_ON.set(spec.cloud)
        return Cluster(spec, owner=owner, **settings)
    return Cluster(target, cloud_name=cloud, owner=owner, **settings)


@dataclass(frozen=True)
class Run:
    """A cluster at work: what a command needs to drive it."""

    cluster: Cluster
    reporter: Reporter
    cancel: threading.Event


@contextmanager
def cancelling(how: How) -> Iterator[tuple[Reporter, threading.Event]]:
    """What shows progress, and an event that Ctrl-C and SIGTERM set."""
    shown = how.reporter()
    cancel = threading.Event()
    try:
        with _signals(shown, cancel):
            yield shown, cancel
    finally:
        shown.close()


@contextmanager
def running(target: str, how: How) -> Iterator[Run]:
    """A cluster whose progress is shown, and which Ctrl-C and SIGTERM stop in order."""
    with (
        cancelling(how) as (shown, cancel),
        open_cluster(target, how.cloud, how.owner, on_event=shown.handle) as cluster,
    ):
        yield Run(cluster, shown, cancel)


@contextmanager
def _signals(shown: Reporter, cancel: threading.Event) -> Iterator[None]:
    """The first signal asks the library to stop, the second leaves at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    # Event.set takes a lock, which the interrupted thread may hold just now, in Event.wait: it would wait for itself.
    # To put something into a SimpleQueue is the one way to pass it on that never waits.
    caught: SimpleQueue[bool] = SimpleQueue()
    asked_before = False

    def listen() -> None:
        if caught.get():
            cancel.set()

    def handler(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked_before
        if shown.asking:
            raise KeyboardInterrupt
        if asked_before:
            shown.close()
            os._exit(130)
        asked_before = True
        caught.put(True)
        shown.interrupted(STOPPING)

    listener = threading.Thread(target=listen, name="vcluster-signals", daemon=True)
    listener.start()
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
        caught.put(False)
        listener.join()


def action_lines(view: PlanView, *, only_loss: bool = False) -> list[str]:
    """A plan for a person: one action a line, UUIDs shown."""
    signs = {"create": "+", "delete": "-", "start": ">", "unshelve": ">", "stop": ".", "shelve": "."}
    lines = []
    for action in view.actions:
        if only_loss and not (action.destroys_data or action.verb == "delete"):
            continue
        words = [signs.get(action.verb, "~"), action.verb, action.kind, action.name, action.uuid]
        tail = f"  ({action.detail})" if action.detail else ""
        lines.append(
            "  "
            + clean(" ".join(word for word in words if word) + tail)
            + ("  DATA IS LOST" if action.destroys_data else "")
        )
    return lines


def confirmation(run: Run, how: How, *, typed: bool = False) -> Callable[[PlanView], bool]:
    """What the library calls before it deletes or replaces something.

    Args:
        run: the run that asks.
        how: with ``--yes`` nobody is asked.
        typed: the cluster's name must be typed; else ``y`` is enough.
    """

    def ask(view: PlanView) -> bool:
        if how.yes:
            return True
        if not sys.stdin.isatty():
            raise UsageError(
                f"this deletes or replaces parts of '{run.cluster.name}', and there is no terminal to ask at",
                remedy="run it on a terminal, or with --yes to agree beforehand; nothing was changed",
            )
        name = run.cluster.name
        with run.reporter.question():
            where = f", {clean(view.place)}" if view.place else ""
            click.echo(f"This will go from cluster '{clean(name)}'{where}:", err=True)
            click.echo("\n".join(action_lines(view, only_loss=True)), err=True)
            wanted = f"Type the cluster's name ({name}) to go on: " if typed else "Go on? [y/N] "
            click.echo(wanted, err=True, nl=False)
            answer = sys.stdin.readline().strip()
        return answer == name if typed else answer.lower() in {"y", "yes"}

    return ask


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns for a person and for awk: left-aligned, two spaces between, a dash for nothing."""
    cells = [list(headers), *([clean(cell) or "-" for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(headers))]
    return "\n".join("  ".join(f"{c:{w}}" for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)
