"""Ports freed of servers that are gone.

Nova takes a server from its port before it forgets it, and where Neutron does not answer then, it only logs that. The
port names a server for ever that nobody has, Nova refuses it to every other, and its place in the cluster stays empty.
"""

from __future__ import annotations

import time
from collections.abc import Container, Mapping
from dataclasses import replace

from vcluster.clouds.openstack import marks
from vcluster.clouds.openstack.connect import Services
from vcluster.errors import CloudError
from vcluster.model import ClusterRef, Port

__all__ = ["StalePorts"]

PATIENCE = 60.0
"""Seconds for which Nova must have said that there is no such server: less than a plan waits for a head that is not
listed, so that it goes on with a port that is free."""


class StalePorts:
    """Remembers since when a port names a server that is gone.

    Args:
        services: the cloud.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._since: dict[tuple[str, str], float] = {}

    def freed(self, ref: ClusterRef, ports: Mapping[str, Port], gone: Container[str]) -> dict[str, Port]:
        """The same ports, those freed that named a server that is gone for long enough.

        Args:
            ports: the cluster's, by uuid.
            gone: servers of which Nova says now that there are none.
        """
        return {uuid: self._freed(ref, port, port.device in gone) for uuid, port in ports.items()}

    def _freed(self, ref: ClusterRef, port: Port, gone: bool) -> Port:
        key = (port.uuid, port.device)
        if not gone:
            self._since.pop(key, None)
            return port
        now = time.monotonic()
        if now - self._since.setdefault(key, now) < PATIENCE:
            return port
        try:
            done = self._clear(ref, port)
        except CloudError:
            return port  # who only looks must not fail for it, and perhaps may not change anything
        self._since.pop(key, None)
        return replace(port, device="") if done else port

    def _clear(self, ref: ClusterRef, port: Port) -> bool:
        """Another run may have put a new server on the port meanwhile: then Neutron refuses this."""
        found = self._services.network.find(f"/ports/{port.uuid}", doing=f"look at port {port.name}")
        told = (found or {}).get("port", {})
        if str(told.get("device_id") or "") != port.device or not ref.owns(marks.tag_in(told.get("description"))):
            return False
        body = {"port": {"device_id": "", "device_owner": ""}}
        doing = f"free port {port.name} of a server that is gone"
        self._services.network.put(f"/ports/{port.uuid}", body, doing=doing, revision=told.get("revision_number"))
        return True
