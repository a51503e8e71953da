"""The way by SSH is for those whose key a teacher knows, to the head alone: no notebook opens another one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub.bed import Bed
from tests.hub.machine import Machine
from vcluster.hub import NewPerson

pytestmark = pytest.mark.hub

OPTIONS = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-q")
# PAM wants more of a machine than a namespace has; who is let in with which key is not its matter.
SERVE = """
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key <<< y
mkdir -p /run/sshd
/usr/sbin/sshd -o UsePAM=no
"""
OWN = """
umask 077
mkdir -p ~/.ssh
ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
cat ~/.ssh/id_ed25519.pub > ~/.ssh/authorized_keys
"""


@pytest.fixture
def open_bed(bed: Bed) -> Iterator[Bed]:
    machines = (bed.head, bed.machines["cpu-2"])
    for machine in machines:
        machine.run("bash", "-ec", SERVE)
    yield bed
    for machine in machines:
        machine.run("pkill", "-x", "sshd", check=False)


def comes(at: Machine, to: str, key: str) -> bool:
    """Whether the walker comes from one machine to another with a key of theirs."""
    words = ("ssh", *OPTIONS, "-o", "IdentitiesOnly=yes", "-i", key, to, "id", "-un")
    done = at.run("runuser", "-u", "walker", "--", *words, check=False)
    assert (done.returncode, done.stdout.strip()) in {(0, "walker"), (255, "")}, done.stderr
    return done.returncode == 0


def test_no_notebook_opens_a_way_around_slurm(open_bed: Bed) -> None:
    bed, worker = open_bed, open_bed.machines["cpu-1"]
    bed.head.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/tmp/laptop")
    public = bed.head.run("cat", "/tmp/laptop.pub").stdout.strip()
    with bed.hub() as hub:
        hub.add([NewPerson("walker", keys=(public,))])
    bed.head.run("chown", "walker", "/tmp/laptop")
    for machine in bed.machines.values():
        machine.run("/usr/local/lib/vcluster/jupyterhub/prolog" if machine is not bed.head else "true")
    worker.run("runuser", "-u", "walker", "--", "sh", "-ec", OWN)
    own = "/home/walker/.ssh/id_ed25519"
    assert comes(bed.head, "head", "/tmp/laptop")
    assert not comes(bed.head, "head", own)
    assert not comes(bed.head, "cpu-2", "/tmp/laptop")
    for to in ("head", "cpu-2"):
        assert not comes(worker, to, own)
    with bed.hub() as hub:
        hub.remove(["walker"])
        hub.add([NewPerson("walker")])
    assert not comes(bed.head, "head", "/tmp/laptop")
    with bed.hub() as hub:
        assert hub.remove(["walker"]).problem == ""
