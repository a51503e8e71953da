"""The base image: mmdebstrap makes a tree of the host's own distribution, the install steps run in it, and an
ext4 file system is made of it, with its kernel beside it for direct boot. No root is needed, and no mount.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vcluster.clouds.base import Notify
from vcluster.clouds.local.image import DISK, INITRD, KERNEL, digest
from vcluster.errors import PermanentError
from vcluster.model import ImageRequest
from vcluster.resources import templates

__all__ = ["Plan", "build", "plan"]

VERSION = "1"
"""Raised when this builder makes another image of the same inputs."""

SIZE = "3G"
"""Of the file system as built; it grows to the machine's disk at first boot."""

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

_ARCHIVE = re.compile(r"(mirror\+)?[a-z]+:/\S*/(debian|ubuntu)(\.list)?/?(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Plan:
    """All that an image depends on; ``identity`` names it in the cache."""

    identity: str
    suite: str
    sources: str
    packages: tuple[str, ...]
    files: bytes
    ca: str


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
    sources = _sources(suite, request.apt_mirror)
    if not sources:
        raise PermanentError(
            f"no package source for {suite} in /etc/apt/sources.list or /etc/apt/sources.list.d",
            remedy="mirrors: {apt: …}, or an ordinary cloud image: image: {url: …, sha256: …}",
        )
    files = _tree(request.install)
    packages = (*BASE, KERNELS[kind])
    name = digest(VERSION, SIZE, suite, sources, " ".join(packages), files.hex(), request.ca)
    return Plan(f"{suite}-{name}", suite, sources, packages, files, request.ca)


def _release() -> dict[str, str]:
    text = Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else ""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key: value.strip("\"'") for key, value in pairs}


def _sources(suite: str, mirror: str) -> str:
    """The host's own package sources for its release, and no other's; the archive itself from a mirror if given."""
    found = []
    folder = Path("/etc/apt/sources.list.d")
    for path in (Path("/etc/apt/sources.list"), *sorted(folder.glob("*.list")), *sorted(folder.glob("*.sources"))):
        if path.is_file():
            text = path.read_text()
            found += list(_stanzas(text, suite) if path.suffix == ".sources" else _one_liners(text, suite))
    joined = "\n\n".join(dict.fromkeys(found))
    return _ARCHIVE.sub(mirror.rstrip("/"), joined) if mirror else joined


def _ours(suites: list[str], suite: str) -> list[str]:
    return [name for name in suites if re.fullmatch(rf"{re.escape(suite)}(-(updates|security))?/?", name)]


def _stanzas(text: str, suite: str) -> Iterator[str]:
    """The stanzas of a deb822 file that are about this release."""
    for stanza in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        fields = dict(re.findall(r"(?m)^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza))
        suites = _ours(fields.get("Suites", "").split(), suite)
        if suites and "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes").strip() != "no":
            fields |= {"Types": "deb", "Suites": " ".join(suites)}
            yield "\n".join(f"{key}: {value.strip()}" for key, value in fields.items())


def _one_liners(text: str, suite: str) -> Iterator[str]:
    """The same of a file in the old style, as stanzas."""
    for options, uri, name, components in re.findall(r"(?m)^deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)\s*([^#\n]*)", text):
        if _ours([name], suite):
            stanza = f"Types: deb\nURIs: {uri}\nSuites: {name}\nComponents: {components.strip()}"
            signed = re.search(r"signed-by=(\S+)", options)
            yield f"{stanza}\nSigned-By: {signed[1]}" if signed else stanza


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


def build(plan: Plan, folder: Path, notify: Notify) -> None:
    """Make the image in a folder. Minutes; the log lies beside the folder until the image is whole.

    Raises:
        PermanentError: a tool is missing, or a step failed; the log's last lines are in the message.
    """
    missing = [tool for tool in ("mmdebstrap", "mke2fs", "qemu-img") if not shutil.which(tool, path=_PATH)]
    if missing:
        raise PermanentError(
            f"not installed: {', '.join(missing)}", remedy="apt-get install mmdebstrap e2fsprogs qemu-utils uidmap"
        )
    notify(f"building the base image {plan.identity}; this is done once, and takes some minutes")
    work = folder.parent
    log = work / "build.log"
    (work / "tree.tar").write_bytes(plan.files)
    (work / "apt.sources").write_text(plan.sources + "\n")
    raw = work / "disk.raw"
    with raw.open("wb") as disk, log.open("wb") as out:
        disk.truncate(_bytes(SIZE))
        # In a user namespace the tree's owner is another user of this host. It comes to this file by an open
        # descriptor; by its path it cannot, because the folder is closed to it.
        raw.chmod(0o666)
        done = subprocess.run(
            _argv(plan, work, folder, disk.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            pass_fds=(disk.fileno(),),
            env=_environment(),
            cwd=work,
            check=False,
        )
    if done.returncode:
        raise _failure(f"the base image {plan.identity} could not be built", log)
    with log.open("ab") as out:
        command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(folder / DISK)]
        if subprocess.run(command, stdout=out, stderr=out, check=False).returncode:
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
    hooks = {
        # The image boots with an initramfs of its own making; the distribution's takes a minute to make.
        "essential": [
            'chroot "$1" dpkg-divert --quiet --local --rename --add /usr/sbin/update-initramfs',
            'ln -s /bin/true "$1/usr/sbin/update-initramfs"',
        ],
        "customize": [
            f"tar-in {work / 'tree.tar'} /",
            'rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap',
            f"{chroot}/install.sh",
            f"{chroot}/customize.sh",
            f"{chroot}/initramfs.sh",
            f"download /boot/vcluster-kernel {result / KERNEL}",
            f"download /boot/vcluster-initrd {result / INITRD}",
            f'rm -rf "$1/{PLACE}" "$1"/boot/* "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$1"/var/lib/apt/lists/*',
            # A plain bind shows the tree without what is mounted in it.
            'mkdir "$1/mnt/tree"; mount --bind "$1" "$1/mnt/tree"; rmdir "$1/mnt/tree/mnt/tree" 2>/dev/null; '
            "mke2fs -q -t ext4 -L vcluster -m 1 -E lazy_itable_init=0,lazy_journal_init=0 "
            f'-d "$1/mnt/tree" /proc/self/fd/{disk} && umount "$1/mnt/tree"',
        ],
    }
    argv = ["mmdebstrap", "--mode=root" if os.geteuid() == 0 else "--mode=unshare", "--variant=apt", "--verbose"]
    argv += [f"--aptopt={option}" for option in _apt_options(plan, work)]
    argv += [f"--dpkgopt={option}" for option in _DPKG_OPTIONS]
    argv.append(f"--include={','.join(plan.packages)}")
    argv += [f"--{stage}-hook={hook}" for stage, steps in hooks.items() for hook in steps]
    return [*argv, plan.suite, "/dev/null", str(work / "apt.sources")]


_DPKG_OPTIONS = (
    # Nothing of a half-built tree is kept, so nothing needs to be safe on the disk before the end.
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)


def _apt_options(plan: Plan, work: Path) -> list[str]:
    options = ['Apt::Install-Recommends "false"', 'Acquire::Languages "none"', 'Acquire::Retries "5"']
    if plan.ca:
        bundle = work / "ca.pem"
        system = Path("/etc/ssl/certs/ca-certificates.crt")
        bundle.write_text((system.read_text() if system.is_file() else "") + "\n" + plan.ca)
        bundle.chmod(0o644)
        options.append(f'Acquire::https::CAInfo "{bundle}"')
    return options


def _failure(what: str, log: Path) -> PermanentError:
    kept = log.with_name(f"{log.parent.name.lstrip('.')}.log")
    lines = log.read_text(errors="replace").splitlines()
    kept = log.parent.parent / kept.name
    log.replace(kept)
    return PermanentError("\n".join([f"{what}; its log ends:", *lines[-15:]]), remedy=f"the whole log is {kept}")
