"""What every machine of a spec would get, written to a folder for a person to read. Makes nothing else."""

from __future__ import annotations

import os
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from vcluster.folder import Folder
from vcluster.model import ClusterRef, Network, Observed, Port, Role, Slot
from vcluster.plan import chosen_network, chosen_ports
from vcluster.secrets import SECRET_BYTES, Keyring
from vcluster.spec_secrets import SpecSecrets
from vcluster.stacks import stack_for
from vcluster.stacks.base import Site

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["preview", "samples"]

EXAMPLE_NETWORK = "198.18.0.0/15"
"""Addresses that no real machine has (RFC 2544, benchmarks): room for as many slots as a spec may ask for."""


def preview(
    spec: ClusterSpec,
    *,
    slots: tuple[Slot, ...],
    observed: Observed,
    ref: ClusterRef,
    guarded: tuple[str, ...],
    known: Folder,
    target: Path,
) -> list[Path]:
    """Write the install script and each machine's user data (0600, they hold keys).

    Args:
        known: the cluster's own folder; without a secret there, throw-away keys are shown.
        observed: the cluster where it exists: its real addresses are used; else examples.
        target: the folder to write to, made when it is missing.

    Raises:
        OSError: the folder cannot be written.
        SpecError: a secret that the spec names cannot be found.
    """
    stack = stack_for(spec.scheduler)
    keyring = known.keyring() if known.known else Keyring(os.urandom(SECRET_BYTES))
    network, ports = chosen_network(observed), chosen_ports(observed)
    if network is None or any(slot.name not in ports for slot in slots):
        network, ports = _examples(ref, slots)
    site = Site(ref, spec, network, slots, ports, keyring, guarded, SpecSecrets(spec))
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    written = [_write(target / "install.sh", stack.install_script(spec))]
    written += [_write(target / f"{slot.name}.user-data.yaml", stack.user_data(site, slot)) for slot in slots]
    return written


def samples(
    spec: ClusterSpec, slots: tuple[Slot, ...], ref: ClusterRef, guarded: tuple[str, ...], groups: frozenset[str]
) -> dict[str, str]:
    """User data by machine, with addresses and keys for show.

    Args:
        groups: of each the first machine; the head's is the empty text.

    Raises:
        SpecError: the head is among them, and a secret that the spec names cannot be found.
    """
    stack, (network, ports) = stack_for(spec.scheduler), _examples(ref, slots)
    site = Site(ref, spec, network, slots, ports, Keyring(os.urandom(SECRET_BYTES)), guarded, SpecSecrets(spec))
    firsts = {slot.group: slot for slot in reversed(slots)}
    return {slot.name: stack.user_data(site, slot) for group, slot in firsts.items() if group in groups}


def _examples(ref: ClusterRef, slots: tuple[Slot, ...]) -> tuple[Network, dict[str, Port]]:
    network = Network("example", ref.tag(Role.NETWORK), EXAMPLE_NETWORK)
    hosts = IPv4Network(EXAMPLE_NETWORK).hosts()
    ports = {
        slot.name: Port("example", ref.tag(slot.role), slot.name, str(address), "52:54:00:00:00:00")
        for slot, address in zip(slots, hosts, strict=False)
    }
    return network, ports


def _write(path: Path, text: str) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return path
