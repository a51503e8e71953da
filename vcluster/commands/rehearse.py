"""The dress rehearsal of a class: rehearse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcluster.commands.common import CLOUD, OWNER, Duration, How, command, options, running, target_argument
from vcluster.console import clean
from vcluster.errors import disk_errors

if TYPE_CHECKING:
    from vcluster.rehearsal.report import Report


@command("rehearse")
@target_argument()
@click.option("--users", "-n", type=click.IntRange(1, 999), required=True, help="How many come.")
@click.option(
    "--within", type=Duration(), default="60s", show_default=True, help="They arrive at random within this time."
)
@click.option(
    "--for",
    "lasting",
    type=Duration(),
    default="5m",
    show_default=True,
    help="Each works so long after the first cell.",
)
@click.option("--profile", default="", help="Which of the Hub's profiles they take (default: the first).")
@click.option("--at-most", type=Duration(), help="Fail when 95 of 100 have their first cell later after logging in.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the moments at which they arrive.")
@click.option("--force", is_flag=True, help="End another rehearsal that seems to be going on.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    help="The folder for NAME-rehearsal.json and NAME-rehearsal.svg (default: this one).",
)
@options(CLOUD, OWNER)
def rehearse_(
    *,
    target: str,
    users: int,
    within: float,
    lasting: float,
    profile: str,
    at_most: float | None,
    seed: int,
    force: bool,
    output: Path,
    how: How,
) -> int:
    r"""Real log-ins over https, a server and a kernel for each, and cells until the time is over. The users are made
    for it and removed afterwards; people who work on the Hub are left alone. The exit status is 0 when every user could
    do everything, else 1.

    \b
    vcluster rehearse demo --users 127 --within 60s --for 5m
    """
    from vcluster.rehearsal.picture import picture

    with running(target, how) as run:
        report = run.cluster.rehearse(
            users,
            within=within,
            lasting=lasting,
            profile=profile,
            bound=at_most,
            seed=seed,
            force=force,
            cancel=run.cancel,
        )
        name = run.cluster.name
    title = f"Rehearsal on {name}: {users} users within {within:.0f} s"
    files = _keep(output, f"{name}-rehearsal", {".json": report.json(), ".svg": picture(report, title)})
    fields = {key: value for key, value in report.to_dict().items() if key != "visits"}
    how.result("rehearse", {"cluster": name, **fields, "files": files}, _text(report, files))
    return 0 if report.passed else 130 if report.cancelled else 1


def _keep(folder: Path, stem: str, texts: dict[str, str]) -> list[str]:
    with disk_errors("the rehearsal's report cannot be written"):
        folder.mkdir(parents=True, exist_ok=True)
        paths = {folder / f"{stem}{ending}": text for ending, text in texts.items()}
        for path, text in paths.items():
            path.write_text(text)
    return [str(path) for path in paths]


def _text(report: Report, files: list[str]) -> str:
    return f"{_clean_lines(report.text())}\n{' '.join(files)}"


def _clean_lines(text: str) -> str:
    """Text of others, line by line without what a terminal would obey."""
    return "\n".join(clean(line) for line in text.splitlines())
