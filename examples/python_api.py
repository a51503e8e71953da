"""A cluster from Python: make it, run something on it, take it away.

Usage: ``python examples/python_api.py [CLOUD]``; CLOUD is "local" (real virtual machines on this computer, the
default), a cloud's name in clouds.yaml, or "memory" (machines that only pretend, for your own tests).
"""

from __future__ import annotations

import sys

from vcluster import Cluster, ClusterSpec
from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import VclusterError
from vcluster.events import Event, MachineChanged
from vcluster.spec import WorkerGroup


def watch(event: Event) -> None:
    """The library never prints: it tells what it does through events, from whichever thread does it."""
    if isinstance(event, MachineChanged):
        print(f"  {event.machine}: {event.state} {event.health}", file=sys.stderr)


def main(cloud: str) -> int:
    """Return an exit code, as the command line would."""
    # The same fields as in a YAML file; ClusterSpec.load("demo.yaml") reads one. Whatever is wrong with it comes as one
    # SpecError, here and not half-way through.
    spec = ClusterSpec(name="api-demo", cloud=cloud, workers=(WorkerGroup(name="cpu", count=2),))

    try:
        # One process may hold many of these, each in its own thread.
        # cloud=None connects to the cloud that the spec names; your own tests give a MemoryCloud instead.
        pretended = MemoryCloud() if cloud == "memory" else None
        with Cluster(spec, on_event=watch, cloud=pretended) as cluster:
            # up() returns when a job ran on every worker. A second up() would find nothing to do.
            result = cluster.up(timeout=1800)
            print(f"{cluster.name} is {result.status.state} after {result.seconds:.0f} s")
            for machine in result.status.machines:
                print(f"  {machine.name:8} {machine.address:12} {machine.uuid}")

            # run() is a command on the head; it raises when the command fails, unless check=False.
            print(cluster.run("srun --nodes=2 --label hostname").stdout, end="")

            # down() deletes what carries this cluster's tag, and nothing else. A person's program would ask first:
            # confirm= gets the plan, with every UUID, and says yes or no.
            cluster.down(confirm=lambda plan: len(plan.actions) > 0)
    except VclusterError as error:
        # Every error that vcluster raises on purpose says what is wrong, what to do about it, and an exit code.
        # What was made so far stays: the same program run again goes on from there.
        print(f"error: {error.message}\nremedy: {error.remedy or '-'}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "local"))
