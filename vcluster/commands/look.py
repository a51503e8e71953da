"""Commands that only look: status, logs, render, schema."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcluster.commands.common import (
    CLOUD,
    OWNER,
    How,
    command,
    is_spec,
    machine_argument,
    open_cluster,
    open_spec,
    options,
    table,
    target_argument,
    unknown_cluster,
)
from vcluster.console import clean, cost_text, expiry_text
from vcluster.errors import UsageError

if TYPE_CHECKING:
    from vcluster.cluster import Status
    from vcluster.hub import HubStatus


@command("status")
@target_argument()
@options(CLOUD, OWNER)
def status_(target: str, how: How) -> None:
    """Works from any computer that reaches the cloud."""
    with open_cluster(target, how.cloud, how.owner) as cluster:
        status = cluster.status()
    if status.state == "absent" and not is_spec(target):
        raise unknown_cluster(target, how)
    how.result("status", status.to_dict(), _status_text(status))


def _status_text(status: Status) -> str:
    first = f"{clean(status.name)} on {clean(status.cloud)}: {clean(status.state)}"
    if status.owner:
        first += f", made by {clean(status.owner)}"
    if status.expires is not None:
        first += f", expires {expiry_text(status.expires, time.time())}"
    if status.cost is not None and status.machines:
        first += f", costs {cost_text(status.cost, status.unit)} an hour"
    if not status.machines:
        return first
    rows = []
    for machine in status.machines:
        way_in = f"{machine.endpoint.host}:{machine.endpoint.port}" if machine.endpoint else ""
        row = (
            machine.name,
            "server" if machine.is_server else machine.role,
            "" if machine.is_server else machine.group,
            machine.state,
            machine.health,
            machine.address,
        )
        rows.append((*row, machine.flavor, way_in, machine.uuid))
    headers = ("MACHINE", "ROLE", "GROUP", "STATE", "HEALTH", "ADDRESS", "FLAVOR", "SSH", "UUID")
    faults = [f"{clean(machine.name)}: {clean(machine.fault)}" for machine in status.machines if machine.fault]
    hub = [hub_line(status.hub)] if status.hub else []
    return "\n".join([first, *hub, "", table(headers, rows), *(["", *faults] if faults else [])])


def hub_line(hub: HubStatus) -> str:
    """How the Hub is, in a line."""
    if not hub.up:
        return f"JupyterHub is down: {clean(hub.problem)}"
    text = f"JupyterHub is up: {clean(hub.url)}, {hub.active} users active, {hub.servers} servers running"
    if hub.starting:
        text += f" and {hub.starting} starting"
    text += f", room for {hub.room} more of {hub.capacity}"
    if hub.problem:
        text += f"; {clean(hub.problem)}"
    if (provider := hub.provider) and not provider.reachable:
        text += (
            f"; nobody can log in: {clean(provider.host)} cannot be reached from the head ({clean(provider.problem)})"
        )
    return text


@command("logs")
@target_argument()
@machine_argument
@click.option("-n", "--lines", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many lines.")
@options(CLOUD, OWNER)
def logs_(target: str, machine: str, lines: int, how: How) -> None:
    """MACHINE is a name as `vcluster status` shows it; the head when left out. Also for machines that are off."""
    with open_cluster(target, how.cloud, how.owner) as cluster:
        text = cluster.logs(machine, lines)
    how.result("logs", {"machine": machine, "text": text}, clean(text, lines=True).rstrip("\n"))


@command("render")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="An empty folder."
)
@options()
def render_(spec: Path, output: Path, how: How) -> None:
    """The user data of every machine and the install script, readable by you alone: they hold the cluster's secrets."""
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"the folder '{output}' is not empty", remedy="name a new or an empty folder with -o")
    if not is_spec(str(spec)):
        raise UsageError(f"'{spec}' is no spec file", remedy="render takes a file, as vcluster up does")
    from vcluster.cluster import Cluster

    with Cluster(open_spec(str(spec))) as cluster:
        paths = cluster.render(output)
    how.result("render", {"files": [str(path) for path in paths]}, "\n".join(clean(path) for path in paths))


@command("schema")
def schema_() -> None:
    """For editors: `# yaml-language-server: $schema=vcluster.schema.json` in a spec gives completion and checks."""
    from vcluster.spec import schema_json

    click.echo(schema_json(), nl=False)
