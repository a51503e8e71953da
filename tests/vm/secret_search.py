"""Looks for secrets in the files of a machine."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
from collections.abc import Sequence

from vcluster import Cluster

SEARCH = r"""
import json, os, stat, sys
readable = sys.argv[1] == "readable"
needles = [bytes.fromhex(x) for x in json.load(sys.stdin)]
skip = {"/proc", "/sys", "/dev", "/run/user"}
found = []
for folder, folders, files in os.walk("/"):
    folders[:] = [f for f in folders if os.path.join(folder, f) not in skip]
    # Of the image, which knows no cluster; a Hub's programs, too.
    if folder.startswith(("/usr/share", "/usr/lib", "/lib", "/boot", "/usr/bin", "/opt/vcluster")):
        folders[:] = []
        continue
    for name in files:
        path = os.path.join(folder, name)
        try:
            mode = os.lstat(path)
            log = path.startswith("/var/log/")
            if not stat.S_ISREG(mode.st_mode) or mode.st_size > 64 * 2**20:
                continue
            if readable and not log and not mode.st_mode & 0o004:
                continue
            data = open(path, "rb").read()
        except OSError:
            continue
        if any(needle in data for needle in needles):
            found.append(path)
print("\n".join(found), end="")
"""


def forms(values: Sequence[bytes]) -> list[bytes]:
    """Each value raw, in hex and in base64; of a long one, a stretch that no line break can cut."""
    found: list[bytes] = []
    for value in values:
        if value.startswith(b"-----BEGIN"):
            # The two lines with the private half: the ones before hold only what is public.
            found += value.splitlines()[4:6]
        else:
            found += [value, value.hex().encode(), base64.b64encode(value)[:40]]
    return found


def search(cluster: Cluster, machine: str, needles: Sequence[bytes], *, readable: bool) -> str:
    """The paths of files in which one of them is, a line each.

    Args:
        readable: look only into logs and what everybody may read; else root looks into all.
    """
    argv = cluster.ssh_command(machine)
    mode = "readable" if readable else "any"
    command = f"sudo python3 -c {shlex.quote(SEARCH)} {mode}"
    payload = json.dumps([needle.hex() for needle in needles])
    done = subprocess.run([*argv, command], input=payload, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
