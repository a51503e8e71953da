"""Commands about all clusters of a project, and about their time: list, sweep, reap, extend."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from vcluster.commands.common import (
    CLOUD,
    OWNER,
    YES,
    Duration,
    How,
    Lifetime,
    cancelling,
    command,
    known_clusters,
    open_cluster,
    options,
    table,
    target_argument,
)
from vcluster.commands.remedies import cloud_words
from vcluster.connect import default_cloud
from vcluster.console import clean, cost_text, duration, expiry_text
from vcluster.errors import UsageError

if TYPE_CHECKING:
    from vcluster.reaper import Reaped
    from vcluster.sweeper import Leftovers


@command("list")
@click.option("--mine", is_flag=True, help="Only your own.")
@options(CLOUD)
def list_(mine: bool, how: How) -> None:
    """One line each: whose it is, its machines, how many of them run, its age, what it costs an hour, and when its time
    is up. Clusters of which only leftovers are there are marked; `vcluster sweep` deletes those.
    """
    cloud, now = how.cloud or default_cloud(), time.time()
    found = [info for info in known_clusters(how.cloud) if info.mine or not mine]
    if not found and not (how.as_json or how.quiet):
        click.echo(f"no clusters on {clean(cloud)}", err=True)
    rows = [
        (
            info.name + (" (leftovers)" if info.headless else ""),
            cloud,
            "you" if info.mine else info.owner,
            info.machines,
            info.active,
            duration(max(0.0, now - info.created)) if info.created else "",
            cost_text(info.cost, info.unit),
            expiry_text(info.expires, now),
            info.ref.id,
        )
        for info in found
    ]
    headers = ("NAME", "CLOUD", "OWNER", "MACHINES", "ACTIVE", "AGE", "COST/H", "EXPIRES", "ID")
    objects = [{"cloud": cloud, **info.to_dict()} for info in found]
    how.result("list", {"clusters": objects}, table(headers, rows) if found else "")


@command("extend")
@target_argument()
@click.argument("span", metavar="TIME", type=Lifetime())
@options(CLOUD, OWNER)
def extend_(target: str, span: float, how: How) -> None:
    """TIME is as 4h or 2d, counted from when the cluster would expire, or from now when that is past. One that was
    shelved already stays so until `vcluster unshelve`.
    """
    with open_cluster(target, how.cloud, how.owner) as cluster:
        name, expires = cluster.name, cluster.extend(span)
    text = f"{clean(name)} expires {expiry_text(expires, time.time())}"
    how.result("extend", {"cluster": name, "expires": expires}, text)


@command("sweep")
@click.option(
    "--older-than", type=Duration(), default="1h", show_default=True, help="Leave alone what has anything younger."
)
@click.option("-n", "--dry-run", is_flag=True, help="Only show what was found.")
@options(CLOUD, OWNER, YES)
def sweep_(older_than: float, dry_run: bool, how: How) -> None:
    """Only what carries vcluster's mark and is your own (or that of --owner), seen twice, and claimed by nobody. It is
    shown by UUID, and deleted when you agree.
    """
    from vcluster.sweeper import sweep

    with cancelling(how) as (shown, cancel):

        def agree(found: Sequence[Leftovers]) -> bool:
            if how.yes:
                return True
            if not sys.stdin.isatty():
                raise UsageError(
                    "this deletes what is left of clusters, and there is no terminal to ask at",
                    remedy="`vcluster sweep --dry-run` only shows it, --yes agrees beforehand; nothing was changed",
                )
            with shown.question():
                click.echo(_leftovers_text(found), err=True)
                click.echo("Delete all of this? [y/N] ", err=True, nl=False)
                return sys.stdin.readline().strip().lower() in {"y", "yes"}

        found = sweep(
            how.cloud,
            owner=how.owner,
            older_than=older_than,
            dry_run=dry_run,
            confirm=agree,
            on_event=shown.handle,
            cancel=cancel,
        )
    objects = [
        {
            "name": each.ref.name,
            "id": each.ref.id,
            "owner": each.ref.owner,
            "deleted": each.deleted,
            "things": [{"kind": t.kind, "name": t.name, "uuid": t.uuid, "created": t.created} for t in each.things],
        }
        for each in found
    ]
    how.result("sweep", {"clusters": objects}, _swept_text(found, dry_run=dry_run))


def _leftovers_text(found: Sequence[Leftovers]) -> str:
    lines = []
    for each in found:
        lines.append(f"left of cluster '{clean(each.ref.name)}' ({each.ref.id}):")
        words = ([thing.kind, thing.name, thing.uuid] for thing in each.things)
        lines += ["  - " + clean(" ".join(filter(None, line))) for line in words]
    return "\n".join(lines)


def _swept_text(found: Sequence[Leftovers], *, dry_run: bool) -> str:
    if not found:
        return "nothing is left over"
    if dry_run:
        return _leftovers_text(found)
    words = {True: "is swept away", False: "was left alone: it changed meanwhile"}
    return "\n".join(f"{clean(each.ref.name)} ({each.ref.id}) {words[each.deleted]}" for each in found)


@command("reap")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--wait-jobs", type=Duration(), help="Let running jobs end before shelving, for so long at most.")
@options(CLOUD, OWNER)
def reap_(dry_run: bool, wait_jobs: float | None, how: How) -> int:
    r"""For cron: what is past its `expires` is shelved, and deleted when it was on the shelf for its grace period. Your
    own clusters, or those of --owner.

    \b
    */10 * * * * vcluster reap --cloud jetstream2 --quiet
    """
    from vcluster.reaper import reap

    with cancelling(how) as (shown, cancel):
        done = reap(
            how.cloud,
            owner=how.owner,
            dry_run=dry_run,
            wait_jobs=wait_jobs or 0.0,
            on_event=shown.handle,
            cancel=cancel,
        )
    objects = [
        {
            "name": each.ref.name,
            "id": each.ref.id,
            "owner": each.ref.owner,
            "act": each.act,
            "done": each.done,
            "deletion": each.deletion,
            "error": each.error,
        }
        for each in done
    ]
    where = cloud_words(how.cloud or default_cloud())
    lines = [_reaped_text(each, time.time(), where) for each in done]
    # A cron line is quiet, and mails whatever is printed.
    nothing = "" if how.quiet else "no cluster's time is up"
    how.result("reap", {"clusters": objects}, "\n".join(lines) or nothing)
    return 1 if any(each.error for each in done) else 0


def _reaped_text(each: Reaped, now: float, where: str) -> str:
    name = clean(each.ref.name)
    if each.error:
        return f"{name}: failed: {clean(each.error)}"
    deletion = f"; it is deleted {expiry_text(each.deletion, now)}" if each.deletion else ""
    match each.act:
        case "shelve":
            return f"{name}: {'shelved' if each.done else 'would be shelved'}{deletion}"
        case "delete":
            return f"{name}: {'deleted' if each.done else 'would be deleted'}"
        case "sweep":
            return f"{name}: its head is gone; `vcluster sweep{where}` deletes what is left"
        case _:
            return f"{name}: is shelved{deletion}"
