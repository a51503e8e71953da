"""Flavors, images and quota: what a project offers. Each is asked once and kept for a while."""

from __future__ import annotations

import contextlib
import difflib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar
from urllib.parse import quote

from vcluster.clouds.openstack.connect import Services
from vcluster.clouds.openstack.rest import NOT_HERE, Json
from vcluster.errors import PermanentError, QuotaError
from vcluster.model import Allowance, Flavor, ImageRequest

__all__ = ["DEFAULT_IMAGES", "Lookups", "nearest"]

T = TypeVar("T")

FRESH = 600.0
"""Seconds for which an answer is kept: longer than any run asks, shorter than a science gateway's process lives."""

DEFAULT_IMAGES = ("Featured-Ubuntu24", "debian-12", "Debian 12", "ubuntu-24.04", "Ubuntu 24.04")
"""Names under which clouds offer an image that the stacks know (Jetstream2's first), tried in this order."""

_NOVA = {
    "instances": ("maxTotalInstances", "totalInstancesUsed"),
    "cores": ("maxTotalCores", "totalCoresUsed"),
    "ram": ("maxTotalRAMSize", "totalRAMUsed"),
    "server_groups": ("maxServerGroups", "totalServerGroupsUsed"),
    "server_group_members": ("maxServerGroupMembers", ""),
}
_CINDER = {
    "volumes": ("maxTotalVolumes", "totalVolumesUsed"),
    "gigabytes": ("maxTotalVolumeGigabytes", "totalGigabytesUsed"),
}
_NEUTRON = {
    "ports": "port",
    "networks": "network",
    "subnets": "subnet",
    "routers": "router",
    "security_groups": "security_group",
    "security_group_rules": "security_group_rule",
    "floating_ips": "floatingip",
}


def nearest(name: str, known: Iterable[str]) -> str:
    """For a remedy: the names that look most like a wrong one, or those there are."""
    names = sorted(set(known))
    if not names:
        return "there is none at all in this project"
    folded = {n.lower(): n for n in names}
    near = [folded[n] for n in difflib.get_close_matches(name.lower(), list(folded), n=5, cutoff=0.4)]
    if near:
        return "did you mean " + " or ".join(f"`{n}`" for n in near) + "?"
    shown = ", ".join(names[:12])
    return f"there is {shown}" + (f" and {len(names) - 12} more" if len(names) > 12 else "")


class Kept(Generic[T]):
    """An answer, asked for once however many threads want it."""

    def __init__(self, ask: Callable[[], T], seconds: float = FRESH) -> None:
        self._ask = ask
        self._seconds = seconds
        self._lock = threading.Lock()
        self._answers: list[tuple[float, T]] = []

    def get(self) -> T:
        with self._lock:
            if not self._answers or time.monotonic() - self._answers[0][0] > self._seconds:
                self._answers = [(time.monotonic(), self._ask())]
            return self._answers[0][1]


class Lookups:
    """What a project offers.

    Args:
        services: the cloud.
        pool: for questions that do not wait for each other.
    """

    def __init__(self, services: Services, pool: Executor) -> None:
        self._services = services
        self._pool = pool
        self._flavors = Kept(self._ask_flavors)
        self._zones = Kept(self._ask_zones)
        self._lock = threading.Lock()
        self._images: dict[str, Kept[Json]] = {}

    # Flavors ---------------------------------------------------------------------------------------------------

    def flavor(self, name: str) -> Flavor:
        """A flavor by name.

        Raises:
            PermanentError: there is none; names those that look alike.
        """
        told = self._flavor(name)
        return Flavor(name, int(told["vcpus"]), int(told["ram"]), int(told["disk"]))

    def flavor_id(self, name: str) -> str:
        """Its id, which a create call wants."""
        return str(self._flavor(name)["id"])

    def _flavor(self, name: str) -> Json:
        flavors = self._flavors.get()
        if name not in flavors:
            raise PermanentError(f"the cloud has no flavor {name!r}", remedy=nearest(name, flavors))
        return flavors[name]

    def _ask_flavors(self) -> Mapping[str, Json]:
        told = self._services.compute.listing("/flavors/detail", "flavors", doing="list flavors")
        return {str(flavor["name"]): flavor for flavor in told}

    # Zones -----------------------------------------------------------------------------------------------------

    def check_zones(self, zones: Iterable[str]) -> None:
        """Refuse zones that Nova does not have; one may name a host as well, as ``zone:host``.

        Raises:
            PermanentError: names those that there are.
        """
        for asked in zones:
            zone, known = asked.partition(":")[0], self._zones.get()
            if known and zone not in known:
                there = ", ".join(sorted(known))  # few, and seldom alike
                raise PermanentError(f"the cloud has no availability zone {zone!r}", remedy=f"there is {there}")

    def zones(self) -> list[str]:
        """Those of Nova's zones that are available, in the order of their names."""
        return sorted(name for name, available in self._zones.get().items() if available)

    def _ask_zones(self) -> Mapping[str, bool]:
        """Which there are, and whether a machine can be made there."""
        told = self._services.compute.get("/os-availability-zone", doing="list Nova's zones", none=NOT_HERE)
        zones: list[Json] = told.get("availabilityZoneInfo", [])
        return {str(zone["zoneName"]): bool((zone.get("zoneState") or {}).get("available", True)) for zone in zones}

    # Images ----------------------------------------------------------------------------------------------------

    def image(self, request: ImageRequest) -> str:
        """An image's id, by name or id.

        Raises:
            PermanentError: none, or several of that name; or something that this cloud cannot do with an image.
        """
        source = request.source
        if "://" in source or source.startswith(("/", "./", "~")):
            raise PermanentError(
                f"an image on OpenStack is given by its name or id, not as {source!r}",
                remedy=f"upload it first: openstack image create --file {source or 'FILE'} --disk-format qcow2 NAME",
            )
        if request.sha256:
            raise PermanentError(
                "image.sha256 is for images that vcluster fetches itself", remedy="leave it out on OpenStack"
            )
        names = [source] if source else list(DEFAULT_IMAGES)
        for name in names:
            with self._lock:
                kept = self._images.setdefault(name, Kept(lambda name=name: self._ask_image(name)))  # type: ignore[misc]
            if found := kept.get():
                return str(found["id"])
        every = [str(i["name"]) for i in self._ask_images({"status": "active"})]
        if source:
            raise PermanentError(f"the cloud has no image {source!r}", remedy=nearest(source, every))
        raise PermanentError(
            "the cloud has no image of a usual name", remedy=f"set image.source; {nearest(DEFAULT_IMAGES[0], every)}"
        )

    def _ask_image(self, name: str) -> Json:
        found = [i for i in self._ask_images({"name": name}) if i.get("name") == name]
        ready = [i for i in found if i.get("status") == "active"]
        if len(ready) > 1:
            mine = [i for i in ready if i.get("owner") == self._services.identity.project]
            if len(mine) != 1:
                ids = ", ".join(sorted(i["id"] for i in ready))
                raise PermanentError(f"{len(ready)} images are named {name!r}", remedy=f"give the id: {ids}")
            ready = mine
        if not ready and found:
            raise PermanentError(
                f"image {name!r} cannot be used: it is {found[0].get('status')}", remedy="wait until it is active"
            )
        if ready:
            return ready[0]
        by_id = self._services.image.find(f"/images/{quote(name, safe='')}", doing=f"find image {name}")
        return by_id if by_id and by_id.get("status") == "active" else {}

    def _ask_images(self, params: Mapping[str, str]) -> Sequence[Json]:
        return self._services.image.listing("/images", "images", doing="list images", params=params)

    # Quota -----------------------------------------------------------------------------------------------------

    def allowances(self) -> dict[str, Allowance]:
        """What may be used and what is; a service that does not tell is left out. Never kept: it changes."""
        asked = [self._pool.submit(ask) for ask in (self.nova_quota, self.neutron_quota, self._cinder)]
        told: dict[str, Allowance] = {}
        for answer in asked:
            with contextlib.suppress(PermanentError):  # a policy may keep it from users
                told |= answer.result()
        return told

    def nova_quota(self) -> dict[str, Allowance]:
        """What Nova tells of the quota."""
        limits = self._services.compute.get("/limits", doing="ask for Nova's quota")["limits"]["absolute"]
        return {name: _allowance(name, limits, keys) for name, keys in _NOVA.items() if keys[0] in limits}

    def _cinder(self) -> dict[str, Allowance]:
        if not self._services.has_volumes:
            return {}
        limits = self._services.volume.get("/limits", doing="ask for Cinder's quota")["limits"]["absolute"]
        return {name: _allowance(name, limits, keys) for name, keys in _CINDER.items() if keys[0] in limits}

    def neutron_quota(self) -> dict[str, Allowance]:
        """What Neutron tells of the quota; nothing where it does not."""
        project = self._services.identity.project
        path, doing = f"/quotas/{project}/details", "ask for Neutron's quota"
        told = self._services.network.get(path, doing=doing, none=NOT_HERE)
        quota: Mapping[str, Json] = told.get("quota", {})
        return {
            name: Allowance(name, int(quota[key]["used"]), int(quota[key]["limit"]))
            for name, key in _NEUTRON.items()
            if key in quota
        }

    def check_room(self, flavors: Sequence[Flavor]) -> None:
        """Refuse machines that cannot fit.

        Raises:
            QuotaError: with what was asked, used and allowed.
        """
        if not flavors:
            return
        asked = {
            "instances": len(flavors),
            "cores": sum(f.cpus for f in flavors),
            "ram": sum(f.memory for f in flavors),
        }
        try:
            allowed = self.nova_quota()
        except PermanentError:
            return  # a cloud that does not tell
        for name, wanted in asked.items():
            room = allowed.get(name)
            if room is not None and 0 <= room.limit < room.used + wanted:
                raise QuotaError(
                    f"quota for {name}: {wanted} asked, {room.used} used, {room.limit} allowed",
                    remedy="lower the counts in the spec, or ask for more quota",
                )


def _allowance(name: str, limits: Mapping[str, int], keys: tuple[str, str]) -> Allowance:
    return Allowance(name, int(limits.get(keys[1], 0)), int(limits[keys[0]]))
