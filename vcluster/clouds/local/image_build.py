"""The base image: mmdebstrap makes a tree of the host's own distribution, the install steps run in it, and an
ext4 file system is made of it, with its kernel beside it for direct boot. No root is needed, and no mount.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from vcluster.clouds.base import Notify
from vcluster.clouds.local.image import DISK, INITRD, KERNEL, digest
from vcluster.clouds.local.image_host import lend, lent
from vcluster.clouds.local.image_run import run, workshop
from vcluster.clouds.local.image_sources import answers, check_mirror, host_sources, mirror_sources
from vcluster.errors import CloudError, PermanentError, QuotaError
from vcluster.model import ImageRequest
from vcluster.resources import templates

__all__ = ["Plan", "build", "plan"]

VERSION = "2"
"""Raised when this builder makes another image of the same inputs."""

SIZE = "3G"
"""Of the file system as built, unless the install script asks for another by a line ``# disk: 6G``; it grows to the
machine's disk at first boot."""

PLACE = "var/lib/vcluster/build"
"""Where the build's own files lie in the tree while it is made."""

BASE = (
    "busybox-static",
    "ca-certificates",
    "cloud-init",
    "dbus",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "openssh-client",
    "openssh-server",
    "openssh-sftp-server",
    "procps",
    "python3",
    "rsync",
    "sudo",
    "systemd-sysv",
    "udev",
)
KERNELS = {"debian": "linux-image-cloud-amd64", "ubuntu": "linux-image-virtual"}
OLDEST = {"debian": 12, "ubuntu": 24}


@dataclass(frozen=True, slots=True)
class Plan:
    """All that an image depends on; ``identity`` names it in the cache.

    Attributes:
        sources: deb822 stanzas; of a mirror only its address, which is asked for what it has when the build begins.
    """

    identity: str
    suite: str
    sources: str
    packages: tuple[str, ...]
    files: bytes
    ca: str
    mirror: str = ""
    size: str = SIZE


def plan(request: ImageRequest) -> Plan:
    """What will be built on this host.

    Raises:
        PermanentError: this host is not one that an image can be built on.
    """
    release = _release()
    kind, suite = release.get("ID", ""), release.get("VERSION_CODENAME", "")
    version = release.get("VERSION_ID", "0").split(".")[0]
    if kind not in KERNELS or not version.isdigit() or int(version) < OLDEST[kind] or os.uname().machine != "x86_64":
        raise PermanentError(
            f"the base image is built on Debian 12, Ubuntu 24.04 or later, on x86-64; this host is "
            f"{release.get('PRETTY_NAME', 'something else')} on {os.uname().machine}",
            remedy="give an ordinary cloud image: image: {url: …, sha256: …}",
        )
    check_mirror(request.apt_mirror)
    sources = f"mirror {request.apt_mirror.rstrip('/')}" if request.apt_mirror else host_sources(suite)
    if not sources:
        raise PermanentError(
            f"no package source for {suite} in /etc/apt/sources.list or /etc/apt/sources.list.d",
            remedy="mirrors: {apt: …}, or an ordinary cloud image: image: {url: …, sha256: …}",
        )
    files = _tree(request.install)
    packages = (*BASE, KERNELS[kind])
    asked = re.search(r"(?m)^# disk: (\d+G)$", request.install)
    size = asked[1] if asked else SIZE
    name = digest(VERSION, size, suite, sources, " ".join(packages), files.hex(), request.ca)
    return Plan(f"{suite}-{name}", suite, sources, packages, files, request.ca, request.apt_mirror, size)


def _release() -> dict[str, str]:
    text = Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else ""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key: value.strip("\"'") for key, value in pairs}


def _tree(install: str) -> bytes:
    """The build's own files as a tar archive: the install steps, and the folder ``templates/image``."""
    out = io.BytesIO()
    folder = templates() / "image"
    with tarfile.open(fileobj=out, mode="w") as tar:
        entries = [(f"{PLACE}/{path.relative_to(folder)}", path) for path in sorted(folder.rglob("*"))]
        for name, path in entries:
            info = tarfile.TarInfo(name)
            if path.is_dir():
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            else:
                info.mode, info.size = (0o755 if path.suffix == ".sh" else 0o644), path.stat().st_size
                with path.open("rb") as file:
                    tar.addfile(info, file)
        script = tarfile.TarInfo(f"{PLACE}/install.sh")
        script.mode, script.size = 0o755, len(install.encode())
        tar.addfile(script, io.BytesIO(install.encode()))
    return out.getvalue()


def build(plan: Plan, folder: Path, notify: Notify, cancel: threading.Event | None = None) -> None:
    """Make the image in a folder. Minutes; the log lies beside the folder until the image is whole.

    Raises:
        PermanentError: a tool is missing, or a step failed; the log's last lines are in the message.
        TemporaryError: the mirror does not answer.
        QuotaError: the disk is full.
        CancelledError: ``cancel`` was set.
    """
    missing = [tool for tool in ("mmdebstrap", "mke2fs", "qemu-img") if not shutil.which(tool, path=_PATH)]
    if missing:
        raise PermanentError(
            f"not installed: {', '.join(missing)}", remedy="apt-get install mmdebstrap e2fsprogs qemu-utils uidmap"
        )
    notify(f"building the base image {plan.identity}; this is done once, and takes some minutes")
    sources = plan.sources
    if plan.mirror:
        sources = mirror_sources(plan.suite, plan.mirror, lambda address: answers(address, plan.ca))
    work = folder.parent
    log = work / "build.log"
    (work / "tree.tar").write_bytes(plan.files)
    (work / "apt.sources").write_text(sources + "\n")
    lend(work, plan.ca)
    # The disk has no name, so nobody comes to it but by the descriptor that the builder inherits.
    with tempfile.TemporaryFile(dir=work) as disk, log.open("wb") as out, workshop() as shop:
        os.truncate(disk.fileno(), _bytes(plan.size))
        if os.geteuid() != 0:  # in a user namespace the tree's owner is another user of this host
            os.fchmod(disk.fileno(), 0o666)
        environment = {**_environment(), "TMPDIR": str(shop)}
        command = _argv(plan, work, folder, disk.fileno())
        if run(command, log=out, environment=environment, folder=work, handles=[disk.fileno()], cancel=cancel):
            raise _failure(f"the base image {plan.identity} could not be built", log)
        whole = f"/proc/self/fd/{disk.fileno()}"
        command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", whole, str(folder / DISK)]
        if run(command, log=out, environment=environment, folder=work, handles=[disk.fileno()], cancel=cancel):
            raise _failure(f"the base image {plan.identity} could not be packed", log)
    for name in (DISK, KERNEL, INITRD):
        (folder / name).chmod(0o600)


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _bytes(size: str) -> int:
    return int(size[:-1]) << 30


def _environment() -> dict[str, str]:
    """The host's, with the proxy that its apt uses, if any."""
    environment = {**os.environ, "PATH": _PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    for scheme, proxy in re.findall(r'(?m)^Acquire::(https?)::Proxy "([^"]+)";', dump):
        if proxy != "DIRECT":
            environment.setdefault(f"{scheme}_proxy", proxy)
    return environment


def _argv(plan: Plan, work: Path, result: Path, disk: int) -> list[str]:
    chroot = f'chroot "$1" bash /{PLACE}'
    bring, seeing = lent(work)
    # apt runs outside of the tree but, in a user namespace, cannot enter the work folder: it reads the tree's copy.
    trust = """echo "Acquire::https::CAInfo \\"$1/tmp/vcluster-ca.pem\\";" >> "$MMDEBSTRAP_APT_CONFIG\""""
    hooks = {
        "setup": [*bring, trust] if plan.ca else bring,
        # The image boots with an initramfs of its own making; the distribution's takes a minute to make.
        "essential": [
            'chroot "$1" dpkg-divert --quiet --local --rename --add /usr/sbin/update-initramfs',
            'ln -s /bin/true "$1/usr/sbin/update-initramfs"',
        ],
        "customize": [
            f"tar-in {quote(str(work / 'tree.tar'))} /",
            'rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap',
            f"{seeing} {chroot}/install.sh",
            f"{chroot}/customize.sh",
            f"{chroot}/initramfs.sh",
            f"download /boot/vcluster-kernel {quote(str(result / KERNEL))}",
            f"download /boot/vcluster-initrd {quote(str(result / INITRD))}",
            f'rm -rf "$1/{PLACE}" "$1"/boot/* "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$1"/var/lib/apt/lists/* '
            '"$1"/var/cache/apt/*.bin',
            # A plain bind shows the tree without what is mounted in it; the builder's own things lie in /tmp.
            'unshare --mount sh -ec \'mount --bind "$1" /mnt; mount -t tmpfs -o mode=1777 none /mnt/tmp; '
            "mount -t tmpfs -o mode=755 none /mnt/dev; "
            "mke2fs -q -t ext4 -L vcluster -m 1 -E lazy_itable_init=0,lazy_journal_init=0 "
            f'-d /mnt /proc/self/fd/{disk}\' sh "$1"',
        ],
    }
    argv = ["mmdebstrap", "--mode=root" if os.geteuid() == 0 else "--mode=unshare", "--variant=apt", "--verbose"]
    argv += [f"--aptopt={option}" for option in _APT_OPTIONS]
    argv += [f"--dpkgopt={option}" for option in _DPKG_OPTIONS]
    argv.append(f"--include={','.join(plan.packages)}")
    argv += [f"--{stage}-hook={hook}" for stage, steps in hooks.items() for hook in steps]
    return [*argv, plan.suite, "/dev/null", str(work / "apt.sources")]


_APT_OPTIONS = ('Apt::Install-Recommends "false"', 'Acquire::Languages "none"', 'Acquire::Retries "5"')
_DPKG_OPTIONS = (
    # Nothing of a half-built tree is kept, so nothing needs to be safe on the disk before the end.
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)


def _failure(what: str, log: Path) -> CloudError:
    lines = log.read_text(errors="replace").splitlines()
    kept = log.parent.with_name(f"{log.parent.name.removeprefix('.work-')}.log")
    log.replace(kept)
    text = "\n".join([f"{what}; its log ends:", *lines[-15:]])
    if any(os.strerror(errno.ENOSPC) in line for line in lines[-50:]):
        return QuotaError(text, remedy=f"make room, or point VCLUSTER_CACHE and TMPDIR elsewhere; the log is {kept}")
    return PermanentError(text, remedy=f"the whole log is {kept}")
