"""Switching machines on and off, on the shelf and back, and their consoles."""

from __future__ import annotations

from collections.abc import Collection

from vcluster.clouds.openstack import pictures
from vcluster.clouds.openstack.connect import Services
from vcluster.clouds.openstack.delete import Remover
from vcluster.clouds.openstack.known import Known
from vcluster.clouds.openstack.rest import Json
from vcluster.errors import ConflictError, PermanentError
from vcluster.model import ClusterRef, MachineState

__all__ = ["Switch"]


class Switch:
    """Acts on servers.

    Args:
        services: the cloud.
        known: is told when a server boots.
        remover: knows whose a server is.
    """

    def __init__(self, services: Services, known: Known, remover: Remover) -> None:
        self._services = services
        self._known = known
        self._remover = remover

    def start(self, ref: ClusterRef, uuid: str) -> None:
        done = {MachineState.ACTIVE, MachineState.BUILD}
        try:
            self._act(ref, uuid, {"os-start": None}, "start", done, boots=True)
        except ConflictError:
            # Nova starts only what is shut off.
            told = self._services.compute.find(f"/servers/{uuid}", doing=f"look at server {uuid}")
            word = pictures.ASLEEP.get(str((told or {}).get("server", {}).get("status", "")).upper())
            if word is None:
                raise
            # Nothing boots: what the scheduler proved of this machine is still true of it.
            self._act(ref, uuid, {word: None}, word, done)

    def stop(self, ref: ClusterRef, uuid: str) -> None:
        self._act(ref, uuid, {"os-stop": None}, "stop", {MachineState.SHUTOFF}, task="powering-off")

    def reboot(self, ref: ClusterRef, uuid: str) -> None:
        self._act(ref, uuid, {"reboot": {"type": "HARD"}}, "reboot", (), task="reboot_started_hard", boots=True)

    def shelve(self, ref: ClusterRef, uuid: str) -> None:
        self._act(ref, uuid, {"shelve": None}, "shelve", {MachineState.SHELVED}, task="shelving")

    def unshelve(self, ref: ClusterRef, uuid: str) -> None:
        done = {MachineState.ACTIVE, MachineState.BUILD}
        self._act(ref, uuid, {"unshelve": None}, "unshelve", done, task="unshelving", boots=True)

    def console(self, ref: ClusterRef, uuid: str, lines: int) -> str:
        """The last lines; empty before there are any."""
        if not self._own(ref, uuid):
            return ""
        body = {"os-getConsoleOutput": {"length": lines}}
        try:
            told = self._services.compute.post(f"/servers/{uuid}/action", body, doing="read the console", safe=True)
        except ConflictError:
            return ""  # it is not on any host yet, or is gone
        return str(told.get("output") or "")

    # Inside ----------------------------------------------------------------------------------------------------

    def _own(self, ref: ClusterRef, uuid: str) -> bool:
        return self._known.is_own(ref, uuid) or self._remover.is_own_server(ref, uuid)

    def _act(
        self,
        ref: ClusterRef,
        uuid: str,
        body: Json,
        word: str,
        done: Collection[MachineState],
        *,
        task: str = "",
        boots: bool = False,
    ) -> None:
        if not self._own(ref, uuid):
            raise ConflictError(f"{word} server {uuid}: it is gone")
        now = self._services.clock.now()
        try:
            self._services.compute.post(f"/servers/{uuid}/action", body, doing=f"{word} server {uuid}")
        except (ConflictError, PermanentError) as error:
            if isinstance(error, PermanentError) and "HTTP 4" not in error.message:
                raise
            # Nova refuses what is done already with the same words as what cannot be done now.
            told = self._services.compute.find(f"/servers/{uuid}", doing=f"look at server {uuid}")
            server: Json = (told or {}).get("server", {})
            under_way = bool(task) and task in str(server.get("OS-EXT-STS:task_state") or "")
            if told is None or not (under_way or pictures.state_of(server) in done):
                raise
        if boots:
            self._known.booted([uuid], now)
