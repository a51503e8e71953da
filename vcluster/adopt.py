"""The cluster's secret from its head, for a computer that has none: whoever has a key that the head knows may have it.

Nothing is believed before it is checked: the head shows the host key that its create call wrote down, and the secret
that it gives must be the one that this host key and the claim on the head's port come from.
"""

from __future__ import annotations

from collections.abc import Callable

from vcluster.errors import PermanentError, TemporaryError, UsageError
from vcluster.model import CommandResult, Machine, Observed, Role
from vcluster.plan import chosen_ports
from vcluster.remote import KEY_VARIABLE, NotAdmittedError
from vcluster.secrets import Keyring, decode
from vcluster.stacks.base import HEAD_SECRET, HEAD_SPEC

__all__ = ["FETCH_COMMAND", "claim_of", "fetch", "fits", "refused"]

FETCH_COMMAND = f"sudo -n cat {HEAD_SECRET} {HEAD_SPEC}"
"""What is run on the head; the first line of its output is the secret, the rest is the spec."""


def claim_of(observed: Observed) -> str:
    """The fingerprint of the secret that a cluster's head was made with; empty when nothing tells it."""
    chosen = chosen_ports(observed).get(str(Role.HEAD))
    return chosen.claim if chosen else ""


def fits(keyring: Keyring, observed: Observed) -> bool:
    """Whether these are the keys of the cluster that is there; True when nothing of it tells."""
    claim, head = claim_of(observed), observed.head
    if claim and claim != keyring.claim:
        return False
    return head is None or not head.host_key or _same_key(keyring.host(Role.HEAD).public, head.host_key)


def fetch(run: Callable[[str], CommandResult], head: Machine, claim: str) -> tuple[Keyring, str]:
    """The secret and the spec (YAML) that lie on a head.

    Args:
        run: runs a shell command there.
        claim: the fingerprint that the secret must have; empty where the cloud does not tell.

    Raises:
        TemporaryError: they are not there yet.
        PermanentError: the head gave what is not its cluster's secret.
    """
    result = run(FETCH_COMMAND)
    first, _, spec = result.stdout.partition("\n")
    if result.exit_code or not spec:
        # Nothing of standard output goes into the message: it may begin with the secret.
        said = (result.stderr.strip().splitlines() or ["no answer"])[-1]
        raise TemporaryError(f"the head does not give its secret yet: {said}")
    try:
        keyring = Keyring(decode(first))
    except ValueError as error:
        raise PermanentError(f"what the head gave is no secret: {error}") from None
    wrong_key = head.host_key and not _same_key(keyring.host(Role.HEAD).public, head.host_key)
    if wrong_key or (claim and claim != keyring.claim):
        raise PermanentError(
            "the head gave a secret that its own host key does not come from",
            remedy="somebody changed it there, or it is not this cluster's head: ask whoever made the cluster",
        )
    return keyring, spec


def refused(name: str, error: NotAdmittedError) -> UsageError:
    """The words for a person none of whose keys the head takes."""
    tried = "; ".join(error.tried) if error.tried else "none: no agent answers, and ~/.ssh has no usual key"
    return UsageError(
        f"the keys of {name} are not on this computer, and its head takes none of yours\n  tried: {tried}",
        remedy=f"use a computer that has them, or name the right private key in {KEY_VARIABLE}; the public keys in "
        "access.ssh_keys of the spec are those that a head knows from its first boot",
    )


def _same_key(one: str, other: str) -> bool:
    return one.split()[:2] == other.split()[:2]
