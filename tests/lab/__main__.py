"""``python -m tests.lab up``: a lab in front, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from tests.lab.lab import Lab, LabClient, remove_stale_folders

USE = """A real OpenStack answers on this machine (ready after {seconds:.0f} s).

  export OS_CLIENT_CONFIG_FILE={clouds}
  export OS_CLOUD=demo            # or colleague (the same project), reader, stranger (another project), admin

Logs are in {log}. Ctrl-C ends it, and removes all of it."""


def up(root: Path | None, machines: str) -> None:
    start = time.monotonic()
    remove_stale_folders()
    # A terminal that goes away, a supervisor, and Ctrl-C where the shell has us ignore it: end in good order.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {text}", file=sys.stderr, flush=True)  # noqa: T201

    try:
        with Lab(root, machines=machines, say=say) as lab:
            seconds = time.monotonic() - start
            print(USE.format(seconds=seconds, clouds=lab.clouds_yaml, log=lab.root / "log"), flush=True)  # noqa: T201
            while True:
                signal.sigtimedwait([], 2.0)
                lab.check()
    except KeyboardInterrupt:
        print("\nThe lab is gone.", flush=True)  # noqa: T201


def install() -> None:
    """Make all that a start needs, so that the next start is quick."""
    lab = Lab(say=lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201
    try:
        lab.prepare()
    finally:
        lab.stop()


def status(root: Path) -> None:
    lab = LabClient.attach(root)
    for service in ("compute", "network", "image", "block-storage"):
        print(service, lab.admin().endpoint_for(service))  # noqa: T201
    for one in lab.admin().compute.services():
        print(one.binary, one.host, one.state)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("install", help="install and prepare what a start needs")
    starting = actions.add_parser("up", help="start a lab and stay in front")
    starting.add_argument("--root", type=Path, help="its folder, removed at the end (default: a new one in /tmp)")
    starting.add_argument("--machines", choices=["fake", "qemu"], default="fake")
    looking = actions.add_parser("status", help="what a running lab's services say")
    looking.add_argument("--root", type=Path, required=True)
    words = parser.parse_args()
    if words.action == "install":
        install()
    elif words.action == "up":
        up(words.root, words.machines)
    else:
        status(words.root)


if __name__ == "__main__":
    main()
