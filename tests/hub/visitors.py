"""A rehearsal's users in a process of their own, in the bed's network: nothing that is measured goes through Python
but their browsers. ``python -m tests.hub.visitors`` reads and writes pickles; only :func:`visitors` calls it.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.hub.machine import Hall
from vcluster.rehearsal.client import Account, Door
from vcluster.rehearsal.run import Rehearsal, Script, rehearse

REPOSITORY = Path(__file__).parents[2]


def visitors(hall: Hall, door: Door, accounts: Sequence[Account], script: Script) -> Rehearsal:
    """Send them in and wait until all have left."""
    argv = hall.within([sys.executable, "-m", "tests.hub.visitors"])
    given = pickle.dumps((door, tuple(accounts), script))
    done = subprocess.run(argv, input=given, stdout=subprocess.PIPE, cwd=REPOSITORY, check=True)
    rehearsal: Rehearsal = pickle.loads(done.stdout)
    return rehearsal


def main() -> None:
    door, accounts, script = pickle.loads(sys.stdin.buffer.read())

    def told(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    sys.stdout.buffer.write(pickle.dumps(rehearse(door, accounts, script, told=told)))


if __name__ == "__main__":
    main()
