"""``cloud: NAME``: the protocol of :mod:`vcluster.clouds.base` on a real OpenStack."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from vcluster.clouds.base import ClusterSummary, Notify
from vcluster.clouds.openstack.clusters import summaries
from vcluster.clouds.openstack.connect import THREADS, Services, connect
from vcluster.clouds.openstack.create import Maker, packed
from vcluster.clouds.openstack.delete import Remover
from vcluster.clouds.openstack.known import Known
from vcluster.clouds.openstack.layout import LayoutMaker
from vcluster.clouds.openstack.lookups import Lookups
from vcluster.clouds.openstack.networks import Foreign
from vcluster.clouds.openstack.notes import Notes
from vcluster.clouds.openstack.observe import Observer
from vcluster.clouds.openstack.offspring import Offspring
from vcluster.clouds.openstack.parts import PartMaker
from vcluster.clouds.openstack.power import Switch
from vcluster.errors import CancelledError
from vcluster.model import (
    Allowance,
    ClusterRef,
    Endpoint,
    Flavor,
    ImageRequest,
    Layout,
    Machine,
    MachineRequest,
    Network,
    Observed,
    Part,
    PartRequest,
    Port,
    PortRequest,
    VolumeRequest,
    Wishes,
)

__all__ = ["OpenStackCloud"]


class OpenStackCloud:
    """The :class:`vcluster.clouds.base.Cloud` of one user in one project.

    Args:
        services: from :func:`vcluster.clouds.openstack.connect.connect`.
        name: what the spec calls the cloud.
    """

    boot_timeout = 900.0
    any_size = False
    """Seconds. The install steps at a plain image's first boot take minutes on one core."""

    listing_lag = 2.0
    """Seconds. Nova answers a create before the server is in its cell's database, and Cinder is as easy-going."""

    guarded = ("169.254.169.254/32", "fe80::a9fe:a9fe/128")
    """The metadata service, by its IPv4 and its IPv6 address."""

    def __init__(self, services: Services, name: str) -> None:
        self._services = services
        self._name = name
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="openstack")
        self._known = known = Known()
        foreign = Foreign(services, known)
        self._lookups = Lookups(services, self._pool)
        self._observer = Observer(services, known, foreign, self._pool)
        self._layouts = LayoutMaker(services, self._lookups, foreign, self._pool)
        self._maker = Maker(services, self._lookups, known)
        self._parts = PartMaker(services, known)
        self._offspring = Offspring(services, known, self._pool)
        self._remover = Remover(services, known, self._offspring, self._pool)
        self._switch = Switch(services, known, self._remover)
        self._notes = Notes(services, known)

    @classmethod
    def connect(cls, name: str) -> OpenStackCloud:
        """The cloud of that name in clouds.yaml; ``openstack`` and ``envvars`` also mean the ``OS_*`` variables.

        Nobody is asked yet: a wrong credential shows at the first call.

        Raises:
            UsageError: there is no such entry; names those that look alike.
            PermanentError: the entry lacks something.
        """
        return cls(connect(name), name)

    # What the cloud is -----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._name

    @property
    def place(self) -> str:
        """The project's name and id, the region, and who asks."""
        return str(self._services.identity)

    def ref(self, name: str) -> ClusterRef:
        who = self._services.identity
        return ClusterRef(name=name, project=who.project, creator=who.user, owner=who.user_name)

    def now(self) -> float:
        return self._services.clock.now()

    def flavor(self, name: str) -> Flavor:
        return self._lookups.flavor(name)

    def image(self, request: ImageRequest, notify: Notify, cancel: threading.Event | None = None) -> str:
        if cancel is not None and cancel.is_set():
            raise CancelledError("interrupted while looking for the image")
        return self._lookups.image(request)

    def zones(self) -> Sequence[str]:
        return self._lookups.zones()

    def check_room(self, ref: ClusterRef, flavors: Sequence[Flavor]) -> None:
        self._lookups.check_room(flavors)

    def check_user_data(self, user_data: str) -> None:
        packed(user_data)

    def allowances(self) -> Mapping[str, Allowance]:
        return self._lookups.allowances()

    def layout(self, ref: ClusterRef, wishes: Wishes, observed: Observed) -> Layout:
        return self._layouts.layout(ref, wishes, observed)

    # What is there ---------------------------------------------------------------------------------------------

    def observe(self, ref: ClusterRef, since: Observed | None = None) -> Observed:
        return self._observer.whole(ref) if since is None else self._observer.machines(ref, since)

    def offspring(self, ref: ClusterRef) -> Sequence[Part]:
        return self._offspring.listed(ref)

    def clusters(self) -> Sequence[ClusterSummary]:
        return summaries(self._services, self._pool)

    def console(self, ref: ClusterRef, uuid: str, lines: int) -> str:
        return self._switch.console(ref, uuid, lines)

    def forward(self, ref: ClusterRef, uuid: str) -> Endpoint | None:
        machines = self._observer.whole(ref).machines
        return next((m.endpoint for m in machines if m.uuid == uuid), None)

    # What is made ----------------------------------------------------------------------------------------------

    def create_network(self, ref: ClusterRef, tag: str, apart: Sequence[str] = ()) -> Network:  # see layout
        return self._maker.network(ref, tag)

    def create_part(self, ref: ClusterRef, request: PartRequest, observed: Observed) -> Part:
        return self._parts.make(ref, request, observed)

    def create_volume(self, ref: ClusterRef, request: VolumeRequest) -> Part:
        return self._maker.volume(ref, request)

    def create_ports(self, ref: ClusterRef, requests: Sequence[PortRequest]) -> Sequence[Port]:
        return self._maker.ports(ref, requests)

    def create_machine(self, ref: ClusterRef, request: MachineRequest) -> Machine:
        return self._maker.machine(ref, request)

    # What changes ----------------------------------------------------------------------------------------------

    def start_machine(self, ref: ClusterRef, uuid: str) -> None:
        self._switch.start(ref, uuid)

    def stop_machine(self, ref: ClusterRef, uuid: str) -> None:
        self._switch.stop(ref, uuid)

    def reboot_machine(self, ref: ClusterRef, uuid: str) -> None:
        self._switch.reboot(ref, uuid)

    def shelve_machine(self, ref: ClusterRef, uuid: str) -> None:
        self._switch.shelve(ref, uuid)

    def unshelve_machine(self, ref: ClusterRef, uuid: str) -> None:
        self._switch.unshelve(ref, uuid)

    def annotate(self, ref: ClusterRef, notes: dict[str, str]) -> None:
        self._notes.write(ref, notes)

    def keep_volumes(self, ref: ClusterRef, parts: Sequence[Part]) -> None:
        self._remover.keep(ref, parts)

    # What goes -------------------------------------------------------------------------------------------------

    def delete_machine(self, ref: ClusterRef, uuid: str) -> None:
        self._remover.machine(ref, uuid)

    def delete_ports(self, ref: ClusterRef, uuids: Sequence[str]) -> None:
        self._remover.ports(ref, uuids)

    def delete_network(self, ref: ClusterRef, uuid: str) -> None:
        self._remover.network(ref, uuid)

    def delete_part(self, ref: ClusterRef, part: Part) -> None:
        self._remover.part(ref, part)

    def close(self) -> None:
        """Close the connections; requests that are under way end first, waits between two tries at once."""
        self._services.stop()
        self._pool.shutdown(cancel_futures=True)
        self._services.close()
