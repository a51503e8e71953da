"""Who may use a cluster's JupyterHub: users add, remove, list, password."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcluster.commands import summary_of
from vcluster.commands.common import CLOUD, OWNER, How, Misused, open_cluster, options, table, target_argument
from vcluster.console import clean
from vcluster.errors import UsageError
from vcluster.events import Log

if TYPE_CHECKING:
    from collections.abc import Callable

    from vcluster.events import Event
    from vcluster.hub import NewPerson

MOST_CSV = 512 * 1024
SHARED = ("class", "admin")


@click.group(
    "users",
    short_help=summary_of("users"),
    help=f"""{summary_of("users")}

While the cluster runs: the spec says who is there at first. The class's password and the admins' are for everybody;
with an identity provider people have none here.""",
    no_args_is_help=False,
)
@target_argument()
@click.pass_context
def users_(ctx: click.Context, target: str) -> None:
    ctx.obj = target


@users_.command("list")
@options(CLOUD, OWNER)
@click.pass_obj
def list_(target: str, how: How) -> None:
    """Everybody who may use the Hub, and whose server runs."""
    with open_cluster(target, how.cloud, how.owner, on_event=_warn(how)) as cluster:
        people = cluster.users()
    rows = []
    for each in people:
        rank = "admin" if each.admin else "instructor" if each.instructor else ""
        rows.append((each.name, each.kind, rank, each.email, each.login, str(each.uid), each.server))
    headers = ("NAME", "KIND", "RANK", "EMAIL", "LOGIN", "UID", "SERVER")
    fields = {"cluster": cluster.name, "people": [asdict(each) for each in people]}
    how.result("users list", fields, table(headers, rows) if rows else f"{clean(cluster.name)} has nobody")


@users_.command("add")
@click.argument("people", metavar="PERSON...", nargs=-1)
@click.option(
    "--rank",
    type=click.Choice(["instructor", "admin"]),
    help="Instructors see and stop everybody's servers and fill /srv/shared; admins may do anything in the Hub.",
)
@click.option("--csv", type=click.Path(path_type=Path, dir_okay=False), help="Add those in a file, as in a spec.")
@options(CLOUD, OWNER)
@click.pass_obj
def add_(target: str, people: tuple[str, ...], rank: str | None, csv: Path | None, how: How) -> None:
    """All or none. Somebody who was removed gets the same files back."""
    from vcluster.hub import NewPerson

    new = [NewPerson(_name(name)) for name in people] + ([] if csv is None else _rows(csv))
    if not new:
        raise Misused("nobody was named", "name people, or a file of them with --csv")
    with open_cluster(target, how.cloud, how.owner, on_event=_warn(how)) as cluster:
        ranked = [replace(each, instructor=rank is not None, admin=rank == "admin") for each in new]
        added = cluster.users_add(ranked)
    text = f"{clean(cluster.name)}: {clean(', '.join(added))} may come in"
    how.result("users add", {"cluster": cluster.name, "added": list(added)}, text)


def _warn(how: How) -> Callable[[Event], None]:
    """Tells warnings to a person."""

    def told(event: Event) -> None:
        if isinstance(event, Log) and event.level == "warning" and not how.as_json:
            click.echo(f"warning: {clean(event.message)}", err=True)

    return told


def _name(name: str) -> str:
    """A name that somebody can have, told here as for a spec and a CSV; the head has the last word.

    Raises:
        UsageError: it is none.
    """
    from vcluster.people import person_name
    from vcluster.spec_checks import RefusedError

    try:
        return person_name(name)
    except RefusedError as refusal:
        trouble = refusal.troubles[0]
        raise UsageError(clean(trouble.message), remedy=trouble.remedy) from refusal


def _rows(file: Path) -> list[NewPerson]:
    """The people in a CSV.

    Raises:
        UsageError: it cannot be read, or names every wrong line.
    """
    from vcluster.hub import NewPerson
    from vcluster.people import parse_csv

    try:
        with file.open("rb") as source:
            text = source.read(MOST_CSV + 1)
        rows, wrong = parse_csv(text.decode("utf-8-sig").replace("\r\n", "\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}", remedy="a CSV file, UTF-8") from error
    if len(text) > MOST_CSV:
        raise UsageError(f"{file} is larger than {MOST_CSV // 1024} KiB", remedy="add people in several files")
    if wrong:
        lines = "".join(f"\n  {file}, line {line}: {what} ({remedy})" for line, what, remedy in wrong)
        raise UsageError(f"nobody was added:{lines}", remedy="mend these lines, and try again")
    keys = {row.name: (row.key,) if row.key else () for row in rows}
    return [NewPerson(row.name, email=row.email, login=row.login, keys=keys[row.name]) for row in rows]


@users_.command("remove")
@click.argument("people", metavar="PERSON...", nargs=-1, required=True)
@options(CLOUD, OWNER)
@click.pass_obj
def remove_(target: str, people: tuple[str, ...], how: How) -> None:
    """Their sessions, servers and jobs end at once. Their files stay on the head until it goes. Where not all of that
    could be done, the same command does the rest.
    """
    with open_cluster(target, how.cloud, how.owner) as cluster:
        gone = cluster.users_remove(people)
    text = f"{clean(cluster.name)}: {clean(', '.join(gone.names))} may not come in any more; files stay in " + clean(
        ", ".join(gone.homes)
    )
    if gone.before:
        text += f" (removed before: {clean(', '.join(gone.before))})"
    if gone.problem and not how.as_json:
        click.echo(f"warning: {clean(gone.problem)}", err=True)
    how.result("users remove", {"cluster": cluster.name, **asdict(gone)}, text)


@users_.command("password")
@click.argument("who", metavar="[class|admin|PERSON]", required=False)
@click.option("--new", is_flag=True, help="Make a new one; the old one is worth nothing then.")
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="Set the one in a file's first line.")
@options(CLOUD, OWNER)
@click.pass_obj
def password_(target: str, who: str | None, new: bool, file: Path | None, how: How) -> None:
    """Shows the class's password and the admins'. With --new or --file it changes that of class or admin, or that of
    a PERSON where people have their own (firstuse, pam). Who is logged in stays so.
    """
    if (new or file) and who is None:
        raise Misused("which password is to be changed?", "say class, admin, or a person's name")
    if new and file:
        raise Misused("--new makes a password, --file sets one", "say one of the two")
    if who not in (None, *SHARED) and not (new or file):
        raise Misused(f"nobody knows the password of {clean(who)}", "--new makes a new one")
    given = "" if file is None else _secret(file)
    with open_cluster(target, how.cloud, how.owner) as cluster:
        words = cluster.users_password((who or "") if new or file else "", given)
    if who is not None and who not in SHARED:
        text = f"{clean(who)}  {clean(words.own)}" if words.own else f"{clean(who)} chooses a new one at the next login"
        how.result("users password", {"cluster": cluster.name, "passwords": {who: words.own}}, text)
        return
    wanted = {"class": words.shared, "admin": words.admin}
    shown = {kind: word for kind, word in wanted.items() if word and who in (None, kind)}
    if not shown:
        raise UsageError(
            f"people log in by {words.method}: there is no password for the class",
            remedy=f"`vcluster users {cluster.name} password admin` shows the admins'",
        )
    lines = [f"{kind:5}  {clean(word)}" for kind, word in shown.items()]
    how.result("users password", {"cluster": cluster.name, "passwords": shown}, "\n".join(lines))


def _secret(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}", remedy="a text file with the password") from error
    if not lines or not lines[0].strip():
        raise UsageError(f"{file} is empty", remedy="its first line is the password")
    return lines[0].strip()
