"""The schedulers: files, install steps and configuration of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcluster.errors import UsageError

if TYPE_CHECKING:
    from vcluster.stacks.base import Stack

__all__ = ["stack_for"]


def stack_for(scheduler: str) -> Stack:
    """The stack of a scheduler.

    Raises:
        UsageError: there is none of this name.
    """
    if scheduler == "slurm":
        from vcluster.stacks.slurm import SlurmStack

        return SlurmStack()
    if scheduler == "k3s":
        from vcluster.stacks.k3s import K3sStack

        return K3sStack()
    raise UsageError(f"there is no scheduler {scheduler!r}", remedy="take slurm or k3s")
