"""Floating IPs, bound and let go only while no port of somebody else holds them.

Neutron binds an address anew without a word to whoever has it, and a person may have given it to another machine since
it was listed. So it is looked at just before, and what is then asked holds only for that moment: Neutron refuses it
(``If-Match``) when the address has changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from vcluster.clouds.openstack import marks
from vcluster.clouds.openstack.connect import Services
from vcluster.clouds.openstack.known import Known
from vcluster.clouds.openstack.rest import Json
from vcluster.errors import ConflictError, PermanentError
from vcluster.model import ClusterRef

__all__ = ["Addresses"]


class Addresses:
    """Acts on floating IPs that are there.

    Args:
        services: the cloud.
        known: which ports are the cluster's.
    """

    def __init__(self, services: Services, known: Known) -> None:
        self._services = services
        self._known = known

    def bind(self, ref: ClusterRef, uuid: str, port: str, *, own: bool) -> Json:
        """Bind an address to the head's port, and return it as Neutron tells it.

        Args:
            own: the cluster made it; else the spec names it.

        Raises:
            PermanentError: another's port holds it, or what the spec names is gone.
            ConflictError: it changed while this ran, or what the cluster made is gone.
        """
        told = self._look(uuid)
        if told is None and own:
            raise ConflictError(f"bind the floating IP: {uuid} is gone")
        if told is None:
            raise PermanentError(
                f"floating IP {uuid} went away while this ran",
                remedy=f"`vcluster down {ref.name}`, then bring it up with another access.floating_ip, or with none",
            )
        address, holder = told["floating_ip_address"], self._stranger(ref, told)
        if holder:
            leave = (
                f"`openstack floating ip set --description '' {address}` leaves it there, and `up` makes a new one"
                if own
                else "leave access.floating_ip out for a new one"
            )
            raise PermanentError(
                f"floating IP {address} is in use by {holder}, which is not this cluster's",
                remedy=f"`openstack floating ip unset --port {address}` frees it; or {leave}",
            )
        if told.get("port_id") == port:
            return told
        body = {"floatingip": {"port_id": port}}
        bound: Json = self._services.network.put(
            f"/floatingips/{uuid}", body, doing="bind the floating IP", revision=told.get("revision_number")
        )["floatingip"]
        return bound

    def delete(
        self,
        ref: ClusterRef,
        uuid: str,
        *,
        own: Callable[[Json], bool] | None = None,
        ours: Callable[[Json], bool] = lambda _: False,
    ) -> None:
        """Delete an address that the cluster made; gone already: no error.

        Args:
            own: whether an address is the cluster's, where the software on it made it; else its mark tells.
            ours: whether a port without the cluster's mark is the cluster's all the same.

        Raises:
            PermanentError: another's port holds it, or it carries the cluster's mark no more.
            ConflictError: it changed while this ran.
        """
        told = self._look(uuid)
        if told is None:
            return
        if not (own(told) if own is not None else ref.owns(marks.tag_in(told.get("description")))):
            raise PermanentError(f"{uuid} does not carry the tag of cluster {ref.name}: it is not touched")
        if holder := self._stranger(ref, told, ours):
            # All in the message: what `down` could not delete is listed without remedies.
            address = told["floating_ip_address"]
            raise PermanentError(
                f"floating IP {address} was given to {holder}, which is not this cluster's "
                f"(`openstack floating ip unset --port {address}` frees it, "
                f"`openstack floating ip set --description '' {address}` lets it stay there)"
            )
        self._services.network.delete(
            f"/floatingips/{uuid}", doing=f"delete floating IP {uuid}", revision=told.get("revision_number")
        )

    def _look(self, uuid: str) -> Json | None:
        found = self._services.network.find(f"/floatingips/{uuid}", doing=f"look at floating IP {uuid}")
        told: Json | None = found["floatingip"] if found is not None else None
        return told

    def _stranger(self, ref: ClusterRef, told: Json, ours: Callable[[Json], bool] = lambda _: False) -> str:
        """Who holds the address, in words, when it is nobody of the cluster's; else an empty string.

        Raises:
            ConflictError: its port went just now.
        """
        holder = str(told.get("port_id") or "")
        if not holder or self._known.is_own(ref, holder):
            return ""
        # A port that was made after the last look is perhaps the cluster's all the same.
        found = self._services.network.find(f"/ports/{holder}", doing=f"look at port {holder}")
        if found is None:
            raise ConflictError(f"floating IP {told['floating_ip_address']} was bound to port {holder}, which is gone")
        if ref.owns(marks.tag_in(found["port"].get("description"))) or ours(found["port"]):
            return ""
        device = str(found["port"].get("device_id") or "")
        return f"port {holder}" + (f" of {device}" if device else "")
