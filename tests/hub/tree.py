"""The files of the bed's machines: Debian's packages, and all that vcluster's own install script puts on a machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.hub.machine import SBIN
from vcluster.clouds.local.image_sources import host_sources

VERSION = "1"
BASE = "ca-certificates,e2fsprogs,iproute2,iputils-ping,less,openssh-client,procps,python3,sudo,systemd"
APT = ('Apt::Install-Recommends "false"', 'Acquire::Languages "none"', 'Acquire::Retries "5"')
DPKG = ("force-unsafe-io", *(f"path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")))
HOST_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/resolv.conf", "/etc/hosts")
"""What a program in the tree must have of this host to reach its package servers, while it is made."""

# In its own mount namespace: nothing of this is left when the script ends, however it ends.
INSTALL = """
set -eu
mount --make-rprivate /
tree=$1
mount --bind /dev "$tree/dev"
mount -t proc proc "$tree/proc"
shift
for file in "$@"; do
  if [ -e "$file" ]; then
    mkdir -p "$tree$(dirname "$file")"
    [ -e "$tree$file" ] || : > "$tree$file"
    mount --bind "$file" "$tree$file"
  fi
done
exec chroot "$tree" bash /usr/local/lib/vcluster/install.sh
"""


def cache_folder() -> Path:
    """Where trees stay between runs: ``VCLUSTER_HUB_CACHE``, or the user's cache."""
    given = os.environ.get("VCLUSTER_HUB_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(home) / "vcluster-hub"


def ensure_tree(install: str) -> Path:
    """The tree for an install script, made unless it is there; an older one goes.

    ``VCLUSTER_HUB_TREE`` names one to take as it is.

    Raises:
        RuntimeError: a package could not be fetched or installed; the log's last lines are in the message.
    """
    if given := os.environ.get("VCLUSTER_HUB_TREE"):
        return Path(given)
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256("\0".join([VERSION, BASE, install, host_sources(_suite())]).encode()).hexdigest()[:12]
    tree = cache / f"tree-{name}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.is_dir():
            _make(tree, install)
            for old in cache.glob("tree-*"):
                if old != tree and not _in_use(old):
                    shutil.rmtree(old)
    return tree


def _suite() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME="))


def _in_use(tree: Path) -> bool:
    """Whether some bed has it under its machines now."""
    return any(str(tree) in mounts.read_text() for mounts in _mounts())


def _mounts() -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/mounts") if os.access(path, os.R_OK) and _readable(path)]


def _readable(path: Path) -> bool:
    try:
        path.read_text()
    except OSError:
        return False  # the process is gone, or is none of ours
    return True


def _make(tree: Path, install: str) -> None:
    cache = tree.parent
    half = cache / f"half-{tree.name}"
    if half.exists():
        shutil.rmtree(half)
    sources, log = cache / "apt.sources", cache / "install.log"
    sources.write_text(host_sources(_suite()) + "\n")
    argv = ["mmdebstrap", "--mode=root", "--variant=apt", "--format=directory", f"--include={BASE}"]
    argv += [f"--aptopt={option}" for option in APT] + [f"--dpkgopt={option}" for option in DPKG]
    environment = {**os.environ, "PATH": SBIN, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    with log.open("wb") as out:
        _run([*argv, _suite(), str(half), str(sources)], out, environment, log)
        script = half / "usr/local/lib/vcluster/install.sh"
        script.parent.mkdir(parents=True)
        script.write_text(install)
        _run(["unshare", "--mount", "sh", "-c", INSTALL, "sh", str(half), *HOST_FILES], out, environment, log)
    half.rename(tree)


def _run(argv: list[str], out: object, environment: dict[str, str], log: Path) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, check=False)  # type: ignore[call-overload]
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise RuntimeError(f"{argv[0]} failed while the bed's files were made; {log} ends:\n{tail}")
