"""Commands that change a cluster: up, plan, stop, start, shelve, unshelve, down, scale, replace."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from vcluster.commands.common import (
    CLOUD,
    OWNER,
    TIMEOUT,
    YES,
    Duration,
    How,
    action_lines,
    command,
    confirmation,
    is_spec,
    known_clusters,
    meant,
    open_cluster,
    options,
    running,
    target_argument,
)
from vcluster.commands.remedies import cloud_words, forgotten_cloud
from vcluster.connect import DEFAULT_CLOUD
from vcluster.console import clean, cost_text, duration

if TYPE_CHECKING:
    from vcluster.cluster import PlanView, Result

CHANGES = 10
"""Exit code of ``plan`` when there is something to do, so that scripts need not read its text."""


@command("up")
@target_argument("SPEC|NAME")
@click.option("--keep-on-failure", is_flag=True, help="Leave machines that failed for good, for a look at them.")
@options(CLOUD, OWNER, YES, TIMEOUT)
def up_(target: str, keep_on_failure: bool, how: How) -> None:
    """Safe to repeat: it does what is left to do, and says so when that is nothing. It asks only when it would delete
    or replace something that holds data. With the NAME of a cluster that is there, it mends it.
    """
    with running(target, how) as run:
        result = run.cluster.up(
            timeout=how.timeout,
            keep_on_failure=keep_on_failure,
            confirm=confirmation(run, how),
            cancel=run.cancel,
        )
    _report("up", result, how, _ready_text(result))


@command("plan")
@target_argument("SPEC|NAME")
@options(CLOUD, OWNER)
def plan_(target: str, how: How) -> int:
    """Nothing is changed. It says in which project all this would be done, what it needs of the quota and what is left
    of that, and what it costs. Exit code 0: nothing to do, 10: changes, as with `terraform plan -detailed-exitcode`.
    """
    with open_cluster(target, how.cloud, how.owner) as cluster:
        name, view, priced = cluster.name, cluster.plan(), cluster.cloud.name != DEFAULT_CLOUD
    how.result("plan", view.to_dict(), _plan_text(name, view, priced))
    return 0 if view.empty else CHANGES


def _plan_text(name: str, view: PlanView, priced: bool) -> str:
    what = "nothing to do" if view.empty else _count(len(view.actions), "action")
    lines = [f"{clean(name)}: {what}", *action_lines(view)]
    lines += [f"  … waiting for {clean(phrase)}" for phrase in view.waiting]
    if view.problem:
        lines.append(f"  ! {clean(view.problem)}")
    if view.place:
        lines.append(f"  place: {clean(view.place)}")
    lines += [f"  quota: {clean(need)}{'' if need.fits else '  DOES NOT FIT'}" for need in view.quota]
    if not all(need.fits for need in view.quota):
        lines.append("  ! `vcluster up` would refuse this, unless what min_count asks for fits")
    if (found := view.notebooks) is not None:
        lines.append(f"  notebooks: {found}")
        lines += [f"    {clean(group)}" for group in found.groups]
        lines += [f"    or {clean(group)}" for group in found.others]
        lines += [f"    {clean(told)}" for told in (found.homes, *found.warnings) if told]
        lines += [f"  placeholders: {clean(found.placeholders)}"] if found.placeholders else []
    if (cost := view.cost) is not None:
        now = "" if cost.now == cost.per_hour else f" (now {cost_text(cost.now, cost.unit)})"
        total = "" if cost.total is None else f", {cost_text(cost.total, cost.unit)} until it expires"
        lines.append(f"  cost: {cost_text(cost.per_hour, cost.unit)} an hour{now}{total}")
    elif priced:
        lines.append("  cost: unknown: a flavor has no known price; `prices:` in the spec sets one")
    return "\n".join(lines)


@command("down")
@target_argument()
@click.option(
    "--keep-volumes", is_flag=True, help="Keep volumes with files: the head's, if it boots from one, and a Kubernetes'."
)
@options(CLOUD, OWNER, YES, TIMEOUT)
def down_(target: str, keep_volumes: bool, how: How) -> None:
    """Shows by UUID what goes, and asks for the cluster's name. The home directories go with the head, and the load
    balancers and volumes that a Kubernetes made with its cluster. What was there before the cluster stays.
    """
    with running(target, how) as run:
        confirm = confirmation(run, how, typed=True)
        result = run.cluster.down(keep_volumes=keep_volumes, timeout=how.timeout, confirm=confirm, cancel=run.cancel)
    name = clean(result.status.name)
    took = duration(result.seconds)
    _report("down", result, how, f"{name} is gone ({took})" if result.changed else f"nothing is there of '{name}'")
    if not result.changed and not is_spec(target):
        sys.stdout.flush()  # the answer first, then the hint, where both go to one file
        hints = (meant(name, known_clusters(how.cloud), how.owner, how.cloud), forgotten_cloud(how.cloud))
        click.echo("; ".join(filter(None, hints)), err=True)


WAIT_JOBS = click.option(
    "--wait-jobs", type=Duration(), help="Let running jobs end, for so long at most; no new ones start meanwhile."
)


@command("stop")
@target_argument()
@WAIT_JOBS
@options(CLOUD, OWNER, TIMEOUT)
def stop_(target: str, wait_jobs: float | None, how: How) -> None:
    """Jobs that still run are lost, files are not. `vcluster start` brings it back."""
    with running(target, how) as run:
        result = run.cluster.stop(wait_jobs=wait_jobs or 0.0, timeout=how.timeout, cancel=run.cancel)
    name = clean(result.status.name)
    _report("stop", result, how, f"{name} is stopped; next: vcluster start {name}{cloud_words(result.status.cloud)}")


@command("shelve")
@target_argument()
@WAIT_JOBS
@options(CLOUD, OWNER, TIMEOUT)
def shelve_(target: str, wait_jobs: float | None, how: How) -> None:
    """A cluster on the shelf takes no processors: on Jetstream2 it costs nothing. Workers are deleted and made anew
    later; the head, or each of three servers, keeps its disk and everybody's files. Jobs that still run are lost.
    """
    with running(target, how) as run:
        result = run.cluster.shelve(wait_jobs=wait_jobs or 0.0, timeout=how.timeout, cancel=run.cancel)
    name = clean(result.status.name)
    _report(
        "shelve", result, how, f"{name} is shelved; next: vcluster unshelve {name}{cloud_words(result.status.cloud)}"
    )


@command("unshelve")
@target_argument()
@options(CLOUD, OWNER, TIMEOUT)
def unshelve_(target: str, how: How) -> None:
    """Done when a job ran on every worker."""
    with running(target, how) as run:
        result = run.cluster.unshelve(timeout=how.timeout, cancel=run.cancel)
    _report("unshelve", result, how, _ready_text(result))


@command("start")
@target_argument()
@options(CLOUD, OWNER, TIMEOUT)
def start_(target: str, how: How) -> None:
    """Also after the local cloud's host was rebooted. Done when a job ran on every worker."""
    with running(target, how) as run:
        result = run.cluster.start(timeout=how.timeout, cancel=run.cancel)
    _report("start", result, how, _ready_text(result))


@command("scale", context_settings={"ignore_unknown_options": True})  # so that -1 is a wrong number, not an option
@target_argument()
@click.argument("group")
@click.argument("count", metavar="N", type=click.IntRange(min=0))
@options(CLOUD, OWNER, YES, TIMEOUT)
def scale_(target: str, group: str, count: int, how: How) -> None:
    """GROUP is a worker group's name, N how many it shall have, up to its max_count. Workers that go are drained
    first: their jobs end in peace.
    """
    with running(target, how) as run:
        confirm = confirmation(run, how)
        result = run.cluster.scale(group, count, timeout=how.timeout, confirm=confirm, cancel=run.cancel)
    name = clean(result.status.name)
    now = sum(machine.group == group for machine in result.status.machines)
    verb = "has now" if result.changed else "has already"
    _report("scale", result, how, f"{name}: group {clean(group)} {verb} {_count(now, 'worker')}")


@command("replace")
@target_argument()
@click.argument("machine")
@options(CLOUD, OWNER, YES, TIMEOUT)
def replace_(target: str, machine: str, how: How) -> None:
    """MACHINE is a worker, or one of three servers, by its name as `vcluster status` shows it. It is drained first: its
    jobs end in peace. The number of workers stays, also where SPEC has another one.
    """
    with running(target, how) as run:
        confirm = confirmation(run, how)
        result = run.cluster.replace(machine, timeout=how.timeout, confirm=confirm, cancel=run.cancel)
    _report("replace", result, how, f"{clean(result.status.name)}: {clean(machine)} is new")


def _report(name: str, result: Result, how: How, text: str) -> None:
    if result.degraded and not how.as_json:
        missing = ", ".join(clean(machine) for machine in result.degraded)
        where = cloud_words(result.status.cloud)
        again = f"vcluster replace {clean(result.status.name)} {clean(result.degraded[0])}{where}"
        click.echo(f"warning: degraded, it goes on without {missing}; `{again}` tries anew", err=True)
    fields = {
        "cluster": result.status.name,
        "changed": result.changed,
        "degraded": list(result.degraded),
        "seconds": round(result.seconds, 3),
        "status": result.status.to_dict(),
        **({"hub": result.hub.to_dict()} if result.hub else {}),
    }
    how.result(name, fields, text)


def _ready_text(result: Result) -> str:
    status = result.status
    name = clean(status.name)
    heads = sum("head" in (machine.role, machine.group) for machine in status.machines)
    workers = len(status.machines) - heads
    if result.changed:
        what = f"{_count(heads, 'server') if heads > 1 else 'a head'} and {_count(workers, 'worker')}"
        first = f"{name} is {status.state}: {what}, in {duration(result.seconds)}"
    else:
        first = f"{name} is {status.state}: nothing to do"
    where = cloud_words(status.cloud)
    usable = max(1, workers - len(result.degraded))
    work = ("run a job", f"vcluster ssh {name}{where} -- srun -N{usable} -l hostname")
    if result.scheduler == "k3s":
        look = "-n jupyterhub get pods -o wide" if result.hub else "get nodes"
        work = ("look", f"vcluster ssh {name}{where} -- sudo k3s kubectl {look}")
    elif result.hub:  # the workers may be full of notebooks, and the job would wait
        work = ("rehearse", f"vcluster rehearse {name}{where} --users 2")
    steps = [
        *_hub_steps(result, where),
        ("log in", f"vcluster ssh {name}{where}"),
        work,
        ("take it away", f"vcluster down {name}{where}"),
    ]
    return "\n".join([first, *(f"  {what:14} {how}" for what, how in steps)])


def _hub_steps(result: Result, where: str) -> list[tuple[str, str]]:
    """The front door, for people; the passwords are shown once, and after that only when they are asked for."""
    if (door := result.hub) is None:
        return []
    steps = [("JupyterHub", clean(door.url))]
    if door.fingerprint:
        steps.append(("its authority", f"SHA-256 {clean(door.fingerprint)}"))
    ask = f"vcluster users {clean(result.status.name)} password{where}"
    if (words := door.passwords) is None:
        return [*steps, ("passwords", ask)]
    if words.shared:
        steps.append(("class password", clean(words.shared)))
    if words.admin:
        steps.append(("admin password", clean(words.admin)))
    return [*steps, ("again", ask)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
