"""``python -m tests.hub up``: a cluster with JupyterHub on this host, without VMs, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

import yaml

from tests.hub.bed import DEFAULT, Bed
from tests.hub.tree import ensure_tree
from vcluster.spec import ClusterSpec
from vcluster.stacks import stack_for

USE = """JupyterHub answers (ready after {seconds:.0f} s).

  {url}
  student: {student}    password: {password}
  certificate authority: {ca}

A shell on a machine: nsenter -t {pid} -a --root --wd bash    (the head; others: {others})
What units wrote is in /var/log/bed there. Ctrl-C ends it, and removes all of it."""


def say(text: str) -> None:
    print(f"{time.monotonic() - START:6.1f} s  {text}", file=sys.stderr, flush=True)  # noqa: T201


def up(spec: Path | None) -> None:
    # A terminal that goes away, a supervisor, and Ctrl-C where the shell has us ignore it: end in good order.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        with Bed(yaml.safe_load(spec.read_text()) if spec else None, say=say) as bed:
            ca = bed.root / "ca.pem"
            ca.write_text(bed.ca)
            others = ", ".join(f"{m.name} {m.pid}" for m in bed.machines.values() if m is not bed.head)
            seconds = time.monotonic() - START
            password = bed.passwords().get("class")
            words = USE.format(
                seconds=seconds,
                url=bed.url,
                student="student-1 …",
                password=password,
                ca=ca,
                pid=bed.head.pid,
                others=others,
            )
            print(words, flush=True)  # noqa: T201
            while True:
                signal.sigtimedwait([], 3600.0)
    except KeyboardInterrupt:
        print("\nThe bed is gone.", flush=True)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("install", help="make the machines' files, so that the next start is quick")
    starting = actions.add_parser("up", help="start a bed and stay in front")
    starting.add_argument("--spec", type=Path, help="a spec's file (default: two workers and four students)")
    words = parser.parse_args()
    if words.action == "install":
        spec = ClusterSpec.model_validate(DEFAULT)
        say(str(ensure_tree(stack_for(spec.scheduler).install_script(spec))))
    else:
        up(words.spec)


START = time.monotonic()

if __name__ == "__main__":
    main()
