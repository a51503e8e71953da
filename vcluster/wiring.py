"""Between a spec and the loop: what is wanted in the planner's words, and the maker of user data and images."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vcluster.actions import NOTE_SPEC, Goal, Power
from vcluster.changes import ChangeKind, remedies, spec_changes
from vcluster.clouds.base import Cloud, Notify
from vcluster.doors import doors_of, forwarded
from vcluster.errors import PermanentError, Problem, SpecError, UsageError, VclusterError
from vcluster.expiry import lifetime_notes
from vcluster.folder import Folder
from vcluster.model import ClusterRef, ImageRequest, Layout, Network, Observed, Port, Role, Slot, Wishes
from vcluster.ready import FAILED_LINE
from vcluster.reconcile import Renderer
from vcluster.spec_secrets import SpecSecrets
from vcluster.stacks import stack_for
from vcluster.stacks.base import Site

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec, FlavorSpec
    from vcluster.spec_checks import Path as Place

__all__ = ["check_changes", "explained", "goal_of", "image_of", "images_of", "renderer_of", "wanted_of"]


def goal_of(
    spec: ClusterSpec,
    cloud: Cloud,
    ref: ClusterRef,
    observed: Observed,
    *,
    claim: str = "",
    replace_uuids: frozenset[str] = frozenset(),
) -> Goal:
    """A running cluster as the spec says, in the planner's words.

    Args:
        observed: the cluster as last seen: the network that it has stays the one.
        claim: fingerprint of the secret that machines would be made with; empty where none will be made.

    Raises:
        SpecError: the cloud has no such flavor, network or address; names every field that asks for one.
    """
    _check_flavors(spec, cloud)
    slots = spec.slots(cloud.flavor)
    layout = _layout(spec, cloud, ref, observed, slots)
    known = (network.cidr for network in (*observed.networks, layout.network) if network)
    check_apart(spec, [*known, *(part.detail.get("cidr", "") for part in layout.parts), *cloud.guarded])
    notes = lifetime_notes(spec, observed.notes, cloud.now())
    return Goal(
        Power.RUNNING,
        slots=slots,
        wanted=wanted_of(spec),
        minimum=_minimum(spec),
        digest=spec.digest,
        replace=replace_uuids,
        boot_timeout=cloud.boot_timeout,
        network=layout.network,
        apart=_apart(spec),
        parts=layout.parts,
        claim=claim,
        notes={key: value for key, value in notes.items() if value and key not in observed.notes},
        doors=forwarded(spec),
        self_contained=stack_for(spec.scheduler).self_contained,
        peers=frozenset(spec.peers),
    )


def check_apart(spec: ClusterSpec, others: Iterable[str]) -> None:
    """Refuse networks of pods and services that machines take for the way to something else.

    Args:
        others: the machines' own network and addresses that only root may reach; empty ones are not known yet.

    Raises:
        SpecError: names the field.
    """
    networks = [ipaddress.ip_network(other, strict=False) for other in others if other]
    problems: list[Problem] = []
    for key, mine in _networks(spec).items():
        taken = next((other for other in networks if other.version == 4 and other.overlaps(mine)), None)
        if taken is not None:
            what = f"{mine} overlaps {taken}, which machines reach otherwise"
            problems.append(spec.problem(("k3s", key), what, "take another one"))
    if problems:
        raise SpecError(problems)


def _networks(spec: ClusterSpec) -> dict[str, ipaddress.IPv4Network]:
    """The networks that are inside the cluster's machines, by the key in its section that gives each."""
    if spec.scheduler != "k3s":
        return {}
    keys = ("pod_network", "service_network")
    return {key: ipaddress.IPv4Network(getattr(spec.kubernetes, key)) for key in keys}


def _apart(spec: ClusterSpec) -> tuple[str, ...]:
    return tuple(str(network) for network in _networks(spec).values())


def _minimum(spec: ClusterSpec) -> dict[str, int]:
    """Workers that each group needs; of several servers most must be there: the head and half of the others."""
    servers = {str(Role.HEAD): len(spec.peers) // 2} if spec.peers else {}
    return {**servers, **{group.name: group.minimum for group in spec.workers}}


def wanted_of(spec: ClusterSpec) -> frozenset[str]:
    """The names of the machines that a spec wants to run now."""
    workers = (f"{group.name}-{n}" for group in spec.workers for n in range(1, group.count + 1))
    return frozenset({str(Role.HEAD), *spec.peers, *workers})


def _check_flavors(spec: ClusterSpec, cloud: Cloud) -> None:
    asked: dict[Place, str | FlavorSpec] = {("head", "flavor"): spec.head.flavor}
    asked |= {("workers", n, "flavor"): group.flavor for n, group in enumerate(spec.workers)}
    problems = []
    for where, flavor in asked.items():
        own = not isinstance(flavor, str)
        if own and cloud.any_size:
            continue
        try:
            cloud.flavor(flavor if isinstance(flavor, str) else flavor.flavor().name)
        except PermanentError as error:
            what = f"{cloud.name} has no machines of any size, only its flavors" if own else error.message
            problems.append(spec.problem(where, what, error.remedy))
    if problems:
        raise SpecError(problems)


def _layout(spec: ClusterSpec, cloud: Cloud, ref: ClusterRef, observed: Observed, slots: Sequence[Slot]) -> Layout:
    access = spec.access
    wishes = Wishes(
        network=spec.network or "",
        external_network=spec.external_network or "",
        public_ip=access.public,
        floating_ip=access.floating_ip or "",
        allow_from=access.allow_from,
        doors=doors_of(spec),
        slots=len(slots),
        zones=tuple(sorted({slot.zone for slot in slots if slot.zone})),
        apart=_apart(spec),
    )
    try:
        return cloud.layout(ref, wishes, observed)
    except PermanentError as error:
        named: dict[Place, str] = {
            ("network",): wishes.network,
            ("external_network",): wishes.external_network,
            ("access", "floating_ip"): wishes.floating_ip,
            ("availability_zone",): spec.availability_zone or "",
            ("head", "availability_zone"): spec.head.availability_zone or "",
        }
        named |= {("workers", n, "availability_zone"): g.availability_zone or "" for n, g in enumerate(spec.workers)}
        raise _at(spec, named, error) from error


def _at(spec: ClusterSpec, named: Mapping[Place, str], error: PermanentError) -> VclusterError:
    """An error about something that the spec names, with the line that names it: its message repeats the name."""
    problems: list[Problem] = [
        spec.problem(place, error.message, error.remedy)
        for place, name in named.items()
        if name and name in error.message
    ]
    return SpecError(problems[:1]) if problems else error


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
            remedy=remedies(refused) or "take the cluster down and up again, or give the new one another name",
        )


def image_of(
    spec: ClusterSpec, cloud: Cloud, notify: Notify, cancel: threading.Event | None = None
) -> Callable[[], str]:
    """Gives the image's id; asks the cloud once, when it is first needed, whatever thread asks.

    The callable raises :class:`~vcluster.errors.SpecError` where the cloud does not know the image that the spec names.
    """
    lock = threading.Lock()
    known: list[str] = []

    def image() -> str:
        with lock:
            if not known:
                known.append(_ask_image(spec, cloud, _Named(spec.image.source, ("image", "source")), notify, cancel))
            return known[0]

    return image


def images_of(
    spec: ClusterSpec, cloud: Cloud, slots: Sequence[Slot], notify: Notify, cancel: threading.Event | None = None
) -> tuple[Slot, ...]:
    """The same slots, each image of their own by its id.

    Raises:
        SpecError: the cloud does not know an image; names the field.
    """
    named: dict[str, Place] = {g.image: ("workers", n, "image") for n, g in enumerate(spec.workers) if g.image}
    if spec.head.image:
        named[spec.head.image] = ("head", "image")
    ids = {name: _ask_image(spec, cloud, _Named(name, place), notify, cancel) for name, place in named.items()}
    return tuple(replace(slot, image=ids[slot.image]) if slot.image else slot for slot in slots)


@dataclass(frozen=True, slots=True)
class _Named:
    """An image as the spec names it, and where."""

    source: str
    place: Place


def _ask_image(spec: ClusterSpec, cloud: Cloud, named: _Named, notify: Notify, cancel: threading.Event | None) -> str:
    source = named.source
    request = ImageRequest(
        source=source,
        sha256=spec.image.sha256 if source == spec.image.source else "",
        install=stack_for(spec.scheduler).install_script(spec),
        apt_mirror=spec.mirrors.apt,
        ca=spec.mirrors.ca,
    )
    try:
        return cloud.image(request, notify, cancel)
    except PermanentError as error:
        # What is wrong with a file or an address is no matter of its name.
        raise _at(spec, {named.place: "" if "/" in source else source}, error) from error


def renderer_of(spec: ClusterSpec, slots: tuple[Slot, ...], ref: ClusterRef, folder: Folder, cloud: Cloud) -> Renderer:
    """Makes user data; machines that see the same ports share one :class:`Site`, which stacks render once."""
    stack, keyring, lock = stack_for(spec.scheduler), folder.keyring(), threading.Lock()
    last: list[tuple[tuple[dict[str, Port], bool], Site]] = []
    secrets = SpecSecrets(spec)

    def render(slot: Slot, network: Network, ports: dict[str, Port], founded: bool) -> str:
        identities = {name: Port(p.uuid, p.tag, p.name, p.address, p.mac) for name, p in ports.items()}
        with lock:
            if not last or last[0][0] != (identities, founded):
                check_apart(spec, [network.cidr])  # made by the cloud a moment ago, perhaps
                site = Site(ref, spec, network, slots, identities, keyring, cloud.guarded, secrets, founded)
                last[:] = [((identities, founded), site)]
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
    if not text.strip():  # it never booted
        return error
    said = FAILED_LINE.search(text)
    tail = said.group(0) if said else "\n    ".join(text.splitlines()[-8:])
    message = f"{error.message}\n  its console ended with:\n    {tail}\n  the whole console is in {kept[-1]}"
    return type(error)(message, remedy=error.remedy)
