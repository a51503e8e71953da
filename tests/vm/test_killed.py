"""`up` and `down` killed with -9 after real side effects on real VMs, while another cluster stands beside them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli, on, wait_for

from vcluster import Cluster

pytestmark = pytest.mark.vm

SPEC = """
name: other
cloud: local
workers: [{name: cpu, count: 1}]
slurm: {accounting: false}
"""

DRIVER = """
import os, signal, sys
from vcluster import Cluster, ClusterSpec
from vcluster.events import StepFinished

done = 0
def strike(event):
    global done
    if isinstance(event, StepFinished) and not event.error:
        done += 1
        if done == int(sys.argv[3]):
            print(event.action, event.subject, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

getattr(Cluster(ClusterSpec.load(sys.argv[1]), on_event=strike), sys.argv[2])()
print("finished")
"""


def killed(spec: Path, verb: str, step: int) -> str:
    """Run ``up`` or ``down`` in a process of its own that dies after its n-th step; returns the step."""
    words = [sys.executable, "-c", DRIVER, str(spec), verb, str(step)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    return done.stdout.strip()


def test_killed_at_any_step_the_next_run_finishes_and_the_neighbour_notices_nothing(
    cli: Cli, demo: Cluster, tmp_path: Path, vm_home: Path, request: pytest.FixtureRequest
) -> None:
    spec = tmp_path / "other.yaml"
    spec.write_text(SPEC)
    request.addfinalizer(lambda: cli("down", "other", "--yes"))  # where the test ends early
    # Each run goes on from what the one before left: the network, the claim, the other port, a machine. What comes
    # next depends on how far the other machine was when the fourth died: not begun, half made (what is left of it
    # goes first), or made, so that the head's first note is next. The one that was made stays in any case.
    steps = [killed(spec, "up", 1) for _ in range(5)]
    assert [" ".join(step.split()[:2]) for step in steps[:4]] == [
        "create network",
        "create ports",
        "create ports",
        "create machine",
    ]
    made = steps[3].split()[2]
    missing = {"head": "cpu-1", "cpu-1": "head"}[made]
    assert steps[4] in (f"create machine {missing}", f"delete machine {missing}", "write note ready"), made
    cli("up", str(spec), "--yes")
    with Cluster("other") as other:
        wait_for("all are ready", lambda: {m.health for m in other.status().machines} == {"ready"})
        assert [m.name for m in other.status().machines] == ["head", "cpu-1"]
        assert on(other, "srun hostname").strip() == "cpu-1"
        the_two_do_not_see_each_other(demo, other)
    assert killed(spec, "down", 1).startswith("delete machine")
    assert killed(spec, "down", 1).startswith("delete")
    cli("down", "other", "--yes")
    assert "other" not in cli("list").stdout
    assert not [path for path in (vm_home / "clusters").iterdir() if path.name != demo.ref.id]
    names = subprocess.run(["ps", "-ww", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout
    assert "-name other/" not in names
    assert on(demo, "srun -N2 hostname").split()


def the_two_do_not_see_each_other(demo: Cluster, other: Cluster) -> None:
    """The same addresses in two private networks are two machines, and neither Slurm knows the other's workers."""
    theirs = {m.address for m in demo.status().machines} - {m.address for m in other.status().machines}
    for address in theirs:
        out = on(other, f"ping -c1 -W2 {address} >/dev/null 2>&1 && echo reached || echo silent")
        assert out.strip() == "silent", address
    keys = {on(cluster, "sudo sha256sum /etc/munge/munge.key").split()[0] for cluster in (demo, other)}
    assert len(keys) == 2
    names = {on(cluster, "scontrol show config | sed -n 's/^ClusterName *= //p'").strip() for cluster in (demo, other)}
    assert len(names) == 2
    ids = {on(cluster, "cat /etc/machine-id").strip() for cluster in (demo, other)}
    assert len(ids) == 2
