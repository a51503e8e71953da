"""Commands for a Kubernetes cluster: kubeconfig, backup, restore, upgrade."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcluster.commands.common import (
    CLOUD,
    OWNER,
    TIMEOUT,
    YES,
    How,
    Misused,
    command,
    confirmation,
    open_cluster,
    options,
    running,
    target_argument,
)
from vcluster.commands.remedies import cloud_words
from vcluster.console import clean, duration

if TYPE_CHECKING:
    from vcluster.kubeconfig import Kubeconfig

FILE = click.Path(path_type=Path, dir_okay=True)
API_PORT = 6443


@command("kubeconfig")
@target_argument()
@click.option("--merge", is_flag=True, help="Merge it into $KUBECONFIG's first file, or ~/.kube/config.")
@click.option("--use", is_flag=True, help="With --merge: make it the current context, also where there is another.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write a file for it alone.")
@click.option(
    "-p",
    "--port",
    type=click.IntRange(1, 65535),
    default=API_PORT,
    show_default=True,
    help="The port of this computer at which `vcluster forward` ends, where the head has no open API.",
)
@options(CLOUD, OWNER)
def kubeconfig_(target: str, *, merge: bool, use: bool, output: Path | None, port: int, how: How) -> None:
    r"""It makes one an administrator of the cluster: files are written for their owner alone. The context is called as
    the cluster. Other entries of a file stay as they are.

    \b
    vcluster kubeconfig demo --merge
    """
    if merge and output:
        raise Misused("--merge and --output are two ways", "say one of them")
    if use and not merge:
        raise Misused("--use goes with --merge", "add --merge")
    with open_cluster(target, how.cloud, how.owner) as cluster:
        found = cluster.kubeconfig(port)
        forward = _forward(found, cluster.cloud.name, how.owner)
    fields = {"cluster": found.name, "context": found.name, "server": found.server, "forward": forward}
    if merge or output:
        from vcluster import kubeconfig_file

        file = kubeconfig_file.write(found, output) if output else kubeconfig_file.merge(found, use=use)
        text = f"context {clean(found.name)} is in {clean(file)}"
        how.result("kubeconfig", {**fields, "file": str(file)}, text)
    else:
        how.result("kubeconfig", {**fields, "kubeconfig": found.text}, found.text.rstrip("\n"))
    if forward and not how.as_json and not how.quiet:
        click.echo(f"kubectl reaches it while this runs: {forward}", err=True)


def _forward(found: Kubeconfig, cloud: str, owner: str) -> str:
    """The command that makes the way; empty where none is needed."""
    if not found.port:
        return ""
    local = "" if found.port == API_PORT else f" -l {found.port}"
    whose = f" --owner {clean(owner)}" if owner else ""
    return f"vcluster forward {clean(found.name)} {API_PORT}{local}{cloud_words(cloud)}{whose}"


@command("backup")
@target_argument()
@click.argument("file", type=FILE, required=False)
@click.option("--keep", is_flag=True, help="Leave the snapshot on the head as well.")
@options(CLOUD, OWNER, TIMEOUT)
def backup_(target: str, file: Path | None, keep: bool, how: How) -> None:
    """FILE is a new file, or a folder for one with a name of the cluster's and the time. In it are a snapshot of etcd,
    the server token and the spec: who has it has the cluster. What is on the nodes' disks is not: volumes, images.
    """
    with running(target, how) as run:
        made = run.cluster.backup(file, keep=keep, timeout=how.timeout, cancel=run.cancel)
    size = made.facts.size / (1 << 20)
    text = f"{clean(made.path)}: {clean(made.facts.cluster)} at {clean(made.facts.time)}, {size:.1f} MiB"
    fields = {**asdict(made.facts), "file": str(made.path), "seconds": round(made.seconds, 3)}
    how.result("backup", fields, text)


@command("restore")
@target_argument()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@options(CLOUD, OWNER, YES, TIMEOUT)
def restore_(target: str, file: Path, how: How) -> None:
    """FILE is what `vcluster backup` wrote of this very cluster. It asks for the cluster's name. Where it was
    interrupted, the same command again mends it.
    """
    with running(target, how) as run:
        confirm = confirmation(run, how, typed=True)
        done = run.cluster.restore(file, timeout=how.timeout, confirm=confirm, cancel=run.cancel)
    facts = done.facts
    text = f"{clean(facts.cluster)} is as it was at {clean(facts.time)} ({duration(done.seconds)})"
    fields = {**asdict(facts), "machines": list(done.machines), "seconds": round(done.seconds, 3)}
    how.result("restore", fields, text)


@command("upgrade")
@target_argument("SPEC")
@options(OWNER, TIMEOUT)
def upgrade_(target: str, how: How) -> None:
    """SPEC is the cluster's file with another `k3s.version`, `k3s.binary` or `k3s.images`. Servers come first; an agent
    is drained before, and taken back after. It stops at the first machine that fails: the same command again goes on
    there. The cluster works all the time, but for the API of one that has a single server.
    """
    with running(target, how) as run:
        done = run.cluster.upgrade(timeout=how.timeout, cancel=run.cancel)
        name = clean(run.cluster.name)
    if done.machines:
        text = f"{name} runs {clean(done.version)}: {len(done.machines)} changed, in {duration(done.seconds)}"
    else:
        text = f"{name} runs {clean(done.version)}: nothing to do"
    fields = {
        "cluster": name,
        "version": done.version,
        "changed": list(done.machines),
        "before": list(done.before),
        "seconds": round(done.seconds, 3),
    }
    how.result("upgrade", fields, text)
