"""Between a spec and the loop: what is wanted in the planner's words, and the maker of user data and images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vcluster.actions import NOTE_SPEC, Goal, Power
from vcluster.changes import ChangeKind, spec_changes
from vcluster.clouds.base import Cloud, Notify
from vcluster.errors import PermanentError, Problem, SpecError, UsageError, VclusterError
from vcluster.folder import Folder
from vcluster.model import ClusterRef, ImageRequest, Network, Observed, Port, Role, Slot
from vcluster.ready import FAILED_LINE
from vcluster.reconcile import Renderer
from vcluster.stacks import stack_for
from vcluster.stacks.base import Site

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["check_changes", "explained", "goal_of", "image_of", "renderer_of"]


def goal_of(
    spec: ClusterSpec, cloud: Cloud, *, replace_uuids: frozenset[str] = frozenset(), keep_failed: bool = False
) -> Goal:
    """A running cluster as the spec says, in the planner's words.

    Raises:
        SpecError: the cloud has no such flavor; names every field that asks for one.
    """
    counts = {group.name: group.count for group in spec.workers}
    _check_flavors(spec, cloud)
    slots = spec.slots(cloud.flavor)
    wanted = {s.name for s in slots if s.role is Role.HEAD or int(s.name.rpartition("-")[2]) <= counts[s.group]}
    return Goal(
        Power.RUNNING,
        slots=slots,
        wanted=frozenset(wanted),
        minimum={group.name: group.minimum for group in spec.workers},
        digest=spec.digest,
        replace=replace_uuids,
        boot_timeout=cloud.boot_timeout,
        keep_failed=keep_failed,
    )


def _check_flavors(spec: ClusterSpec, cloud: Cloud) -> None:
    asked = {"head.flavor": spec.head.flavor} | {f"workers[{n}].flavor": g.flavor for n, g in enumerate(spec.workers)}
    problems = []
    for where, flavor in asked.items():
        if isinstance(flavor, str):
            try:
                cloud.flavor(flavor)
            except PermanentError as error:
                problems.append(Problem(where, error.message, error.remedy))
    if problems:
        raise SpecError(problems)


def check_changes(spec: ClusterSpec, observed: Observed, folder: Folder) -> None:
    """Refuse what a cluster that exists cannot become.

    Raises:
        UsageError: the name is used by another spec; names the fields.
    """
    if observed.empty or observed.notes.get(NOTE_SPEC) == spec.digest:
        return
    old = folder.read_spec()
    if old is None:
        return
    refused = [change for change in spec_changes(old, spec) if change.kind is not ChangeKind.IN_PLACE]
    if refused:
        lines = "".join(f"\n  {change}" for change in refused)
        raise UsageError(
            f"{spec.name} exists already, made from another spec:{lines}",
            remedy=refused[0].remedy or "take the cluster down and up again, or give the new one another name",
        )


def image_of(
    spec: ClusterSpec, cloud: Cloud, notify: Notify, cancel: threading.Event | None = None
) -> Callable[[], str]:
    """Gives the image's id; asks the cloud once, when it is first needed, whatever thread asks."""
    lock = threading.Lock()
    known: list[str] = []

    def image() -> str:
        with lock:
            if not known:
                request = ImageRequest(
                    source=spec.image.source,
                    sha256=spec.image.sha256,
                    install=stack_for(spec.scheduler).install_script(spec),
                    apt_mirror=spec.mirrors.apt,
                    ca=spec.mirrors.ca,
                )
                known.append(cloud.image(request, notify, cancel))
            return known[0]

    return image


def renderer_of(spec: ClusterSpec, slots: tuple[Slot, ...], ref: ClusterRef, folder: Folder, cloud: Cloud) -> Renderer:
    """Makes user data; machines that see the same ports share one :class:`Site`, which stacks render once."""
    stack, keyring, lock = stack_for(spec.scheduler), folder.keyring(), threading.Lock()
    last: list[tuple[dict[str, Port], Site]] = []

    def render(slot: Slot, network: Network, ports: dict[str, Port]) -> str:
        identities = {name: Port(p.uuid, p.tag, p.name, p.address, p.mac) for name, p in ports.items()}
        with lock:
            if not last or last[0][0] != identities:
                site = Site(ref, spec, network, slots, identities, keyring, cloud.guarded)
                last[:] = [(identities, site)]
            site = last[0][1]
        return stack.user_data(site, slot)

    return render


def explained(error: VclusterError, kept: Sequence[Path]) -> VclusterError:
    """The same error with what a failed machine's console said last.

    Args:
        error: any; only one that says that a machine failed for good is made longer.
        kept: the consoles that this run kept, oldest first.
    """
    if not isinstance(error, PermanentError) or not kept:
        return error
    text = kept[-1].read_text(errors="replace")
    said = FAILED_LINE.search(text)
    tail = said.group(0) if said else "\n    ".join(text.splitlines()[-8:])
    message = f"{error.message}\n  its console ended with:\n    {tail}\n  the whole console is in {kept[-1]}"
    return type(error)(message, remedy=error.remedy)
