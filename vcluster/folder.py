"""A cluster's folder on the user's disk: keys, known hosts, consoles, the spec as last applied.

``status`` and ``down`` work without it. Everything in it is 0600 in a folder of 0700.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vcluster.errors import disk_errors
from vcluster.jump import proxy_command
from vcluster.model import ClusterRef, Endpoint, Machine
from vcluster.secrets import Keyring, load_or_create
from vcluster.stacks.base import ADMIN_USER

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["Folder"]


class Folder:
    """The folder of one cluster, made when something is first written.

    Args:
        home: vcluster's own folder.
        ref: the cluster.
    """

    def __init__(self, home: Path, ref: ClusterRef) -> None:
        self.path = home / "clusters" / ref.id
        self._ref = ref
        self.cluster = ref.name

    @property
    def known(self) -> bool:
        """Whether this computer holds the cluster's secret."""
        return (self.path / "secret").exists()

    def keyring(self) -> Keyring:
        """The cluster's keys; the secret is made here when there is none.

        Raises:
            QuotaError: the disk is full.
            PermanentError: the folder cannot be written.
        """
        with disk_errors(f"cannot make {self.path}"):
            self._make(self.path)
        return Keyring(load_or_create(self.path / "secret"))

    @property
    def claim(self) -> str:
        """The fingerprint of the secret that lies here; empty when there is none. Makes nothing."""
        return self.keyring().claim if self.known else ""

    def adopt(self, keyring: Keyring, spec: str) -> Path | None:
        """Take over the secret and the spec of a cluster that another computer made.

        Args:
            keyring: the cluster's own.
            spec: its YAML; empty leaves the one that lies here.

        Returns:
            Where a different secret that lay here was moved to, or None.

        Raises:
            QuotaError: the disk is full.
            PermanentError: the folder cannot be written.
        """
        aside = None
        if self.known and self.claim != keyring.claim:
            aside = self.path / f"secret.old-{self.claim}"
            with disk_errors(f"cannot keep {aside}"):
                # By link and rename, so that at no moment there is no secret here: another process would make one.
                aside.unlink(missing_ok=True)
                os.link(self.path / "secret", aside)
        if self.claim != keyring.claim:
            self.write("secret", keyring.secret)
        if spec:
            self.write_spec(spec)
        return aside

    def read_spec(self) -> ClusterSpec | None:
        """The spec as last applied, if it lies here.

        Raises:
            SpecError: somebody edited it.
        """
        from vcluster.spec import ClusterSpec

        path = self.path / "spec.yaml"
        return ClusterSpec.load(path) if path.exists() else None

    def write_spec(self, text: str) -> None:
        """Keep the spec as applied."""
        self.write("spec.yaml", text)

    def keep_console(self, name: str, text: str) -> Path:
        """Keep a failed machine's console; returns where."""
        return self.write(f"consoles/{name}-{time.strftime('%Y%m%d-%H%M%S')}.log", text)

    def consoles(self, name: str) -> list[Path]:
        """A machine's kept consoles, newest last."""
        return sorted((self.path / "consoles").glob(f"{name}-*.log"))

    def write(self, name: str, text: str | bytes) -> Path:
        """Write a file whole or not at all (0600).

        Raises:
            QuotaError: the disk is full.
            PermanentError: the folder cannot be written.
        """
        target = self.path / name
        with disk_errors(f"cannot write {target}"):
            self._make(target.parent)
            handle, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(text.encode() if isinstance(text, str) else text)
                Path(draft).replace(target)
            except BaseException:
                Path(draft).unlink(missing_ok=True)
                raise
        return target

    def _make(self, folder: Path) -> None:
        # mkdir(parents=True) would give the folders in between the umask's mode, not 0700.
        for place in (self.path.parent.parent, self.path.parent, self.path, folder):
            place.mkdir(mode=0o700, exist_ok=True, parents=place == self.path.parent.parent)

    def remove(self) -> None:
        """Forget the cluster, and leave no empty folder behind."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()  # refused while another cluster's folder lies in it

    # Plain ssh -----------------------------------------------------------------------------------------------

    def ssh_config(self, head: Endpoint, machines: list[Machine]) -> Path:
        """Write what plain ssh needs to reach every machine: configuration, key, pinned host keys."""
        keyring = self.keyring()
        key = self.write("id_ed25519", keyring.admin.private)
        names = [machine.name for machine in machines]
        lines = [f"{self._alias(name)} {' '.join(keyring.host(name).public.split()[:2])}\n" for name in names]
        known = self.write("known_hosts", "".join(lines))
        return self.write("ssh_config", self._config(head, machines, key, known))

    def _alias(self, machine: str) -> str:
        return f"vcluster-{self._ref.id}-{machine}"

    def _config(self, head: Endpoint, machines: list[Machine], key: Path, known: Path) -> str:
        name = self._ref.name
        blocks = []
        for machine in machines:
            is_head = machine.role == "head"
            hosts = f"{name} {name}-{machine.name}" if is_head else f"{name}-{machine.name}"
            way = [f"HostName {head.host}", f"Port {head.port}"] if is_head else [f"HostName {machine.address}"]
            jump = [] if is_head else [f'ProxyCommand ssh -F "{self.path / "ssh_config"}" -W %h:%p {name}']
            if is_head and head.jump:
                # Without -F: for the jump host the user's own configuration and known hosts hold.
                jump = [f"ProxyCommand {shlex.join(proxy_command(head.jump, '%h:%p', batch=False))}"]
            common = [
                f"User {ADMIN_USER}",
                f'IdentityFile "{key}"',
                "IdentitiesOnly yes",
                f'UserKnownHostsFile "{known}"',
                "GlobalKnownHostsFile /dev/null",
                f"HostKeyAlias {self._alias(machine.name)}",
                "StrictHostKeyChecking yes",
            ]
            blocks.append(f"Host {hosts}\n" + "".join(f"  {line}\n" for line in (*way, *jump, *common)))
        return "\n".join(blocks)
