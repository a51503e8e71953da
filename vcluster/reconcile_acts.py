"""One action, carried out: the calls to the cloud and to the scheduler that it stands for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from vcluster.actions import NOTE_READY, Action, Goal, Power, Verb
from vcluster.chosen import chosen_network, chosen_ports
from vcluster.clouds.base import Cloud, Notify
from vcluster.errors import CloudError, ConflictError, DeadlineError, PermanentError, TemporaryError
from vcluster.ledger import Ledger
from vcluster.model import (
    ClusterRef,
    ImageRequest,
    MachineRequest,
    Network,
    Observed,
    PartKind,
    Port,
    PortRequest,
    Role,
    Slot,
    VolumeRequest,
)
from vcluster.plan_peers import is_peer
from vcluster.stacks.base import Control

__all__ = ["Acts", "Renderer"]

Renderer = Callable[[Slot, Network, dict[str, Port], bool], str]
"""Makes the user data of one machine, when every port is known; told whether the cluster was ready once."""

CONSOLE_LINES = 400


class Acts:
    """Carries actions out, from several threads, and writes what was made into the ledger.

    Args:
        control: asks the scheduler; None where there is no way to it.
        render: makes user data; None where nothing will be created.
        image: gives the id of the cluster's image.
        host_key: the head's public SSH host key, which goes with its create call.
        notify: told before anything that takes long.
        cancel: set to give up what takes long.
        keep_console: called with a machine's name and its console before a failed machine goes.
    """

    def __init__(
        self,
        cloud: Cloud,
        ref: ClusterRef,
        goal: Goal,
        ledger: Ledger,
        *,
        control: Control | None,
        render: Renderer | None,
        image: Callable[[], str],
        host_key: str,
        notify: Notify,
        cancel: threading.Event,
        keep_console: Callable[[str, str], None] | None,
    ) -> None:
        self._cloud, self._ref, self._goal, self._ledger = cloud, ref, goal, ledger
        self._control, self._render, self._image, self._host_key = control, render, image, host_key
        self._notify, self._cancel, self._keep_console = notify, cancel, keep_console
        self._images: dict[str, str] = {}
        self._lock = threading.Lock()
        self._by_uuid: Mapping[Verb, Callable[[ClusterRef, str], None]] = {
            Verb.START: cloud.start_machine,
            Verb.STOP: cloud.stop_machine,
            Verb.REBOOT: cloud.reboot_machine,
            Verb.SHELVE: cloud.shelve_machine,
            Verb.UNSHELVE: cloud.unshelve_machine,
            Verb.DELETE_MACHINE: cloud.delete_machine,
            Verb.DELETE_NETWORK: cloud.delete_network,
        }

    def carry_out(self, action: Action, observed: Observed) -> None:
        """Do it, notes first.

        Raises:
            CloudError: the cloud refused or failed the call; whether it acted is then not known.
        """
        if action.failed and action.verb in self._by_uuid:
            self._save_console(action)
        if action.verb is Verb.DELETE_MACHINE and not _has_twin(action, observed):
            # Before the note, which would count as an attempt what is not done where this is refused.
            self._release(action.names[0], leaves=self._may_be_needed(action, observed))
        if action.notes:
            self._cloud.annotate(self._ref, dict(action.notes))
            self._ledger.noted(action.notes)
        match action.verb:
            case Verb.DRAIN:
                self._scheduler().drain(action.names, action.why)
            case Verb.RESUME:
                self._scheduler().resume(action.names)
            case verb if verb in self._by_uuid:
                self._by_uuid[verb](self._ref, action.uuids[0])
            case verb if verb is not Verb.NOTE:
                self._make_or_free(action, observed)
        self._ledger.did(action)

    def _make_or_free(self, action: Action, observed: Observed) -> None:
        cloud, ref = self._cloud, self._ref
        match action.verb:
            case Verb.CREATE_NETWORK:
                self._ledger.created(cloud.create_network(ref, ref.tag(Role.NETWORK), self._goal.apart))
            case Verb.CREATE_PORTS:
                self._create_ports(action, observed)
            case Verb.CREATE_PART if action.part is not None:
                self._ledger.created(cloud.create_part(ref, action.part, self._with_network(observed)))
            case Verb.CREATE_VOLUME if action.slot is not None:
                self._create_volume(action.slot)
            case Verb.CREATE_MACHINE if action.slot is not None:
                self._create_machine(action, action.slot, observed)
            case Verb.DELETE_PORTS:
                cloud.delete_ports(ref, action.uuids)
            case Verb.DELETE_PART if action.old is not None:
                cloud.delete_part(ref, action.old)
            case Verb.KEEP_VOLUMES:
                cloud.keep_volumes(ref, action.kept)
            case _:
                raise PermanentError(f"{action}: nothing says what to do")

    def _network(self, observed: Observed) -> Network:
        network = self._goal.network or chosen_network(observed)
        if network is None:
            raise TemporaryError("the cluster's network is gone")
        return network

    def _with_network(self, observed: Observed) -> Observed:
        """A network that was there before is listed only when a port lies on it."""
        given = self._goal.network
        if given is None or any(network.uuid == given.uuid for network in observed.networks):
            return observed
        return replace(observed, networks=(*observed.networks, given))

    def _create_ports(self, action: Action, observed: Observed) -> None:
        head, network = self._goal.slots[0].name, self._network(observed)
        requests = [
            PortRequest(
                name=name,
                tag=self._ref.tag(Role.HEAD if name == head else Role.WORKER),
                network=network.uuid,
                claim=self._goal.claim if name == head else "",
            )
            for name in action.names
        ]
        self._ledger.created(*self._cloud.create_ports(self._ref, requests))

    def _create_volume(self, slot: Slot) -> None:
        request = VolumeRequest(
            name=slot.name,
            tag=self._ref.tag(PartKind.VOLUME),
            size=slot.root_disk,
            image=self._image_of(slot),
            zone=slot.zone,
        )
        self._ledger.created(self._cloud.create_volume(self._ref, request))

    def _create_machine(self, action: Action, slot: Slot, observed: Observed) -> None:
        if self._render is None:
            raise PermanentError(f"{action.subject}: nothing says what to make")
        ports = chosen_ports(observed)
        if slot.name not in ports or (slot.root_disk and not action.volume):
            raise TemporaryError(f"what {slot.name} is to be made of is gone")
        self._release(slot.name)
        user_data = self._render(slot, self._network(observed), ports, bool(observed.notes.get(NOTE_READY)))
        request = MachineRequest(
            name=slot.name,
            tag=self._ref.tag(slot.role),
            role=slot.role,
            group=slot.group,
            flavor=slot.flavor,
            port=ports[slot.name],
            image=self._image_of(slot),
            user_data=user_data,
            volume=action.volume,
            zone=slot.zone,
            host_key=self._host_key if slot.role is Role.HEAD else "",
            doors=self._goal.doors if slot.role is Role.HEAD else (),
            self_contained=self._goal.self_contained,
        )
        self._ledger.created(self._cloud.create_machine(self._ref, request))

    def _image_of(self, slot: Slot) -> str:
        if not slot.image:
            return self._image()
        with self._lock:
            if slot.image not in self._images:
                request = ImageRequest(source=slot.image)
                self._images[slot.image] = self._cloud.image(request, self._notify, self._cancel)
            return self._images[slot.image]

    def _scheduler(self) -> Control:
        if self._control is None:
            raise PermanentError("this run has no way to the scheduler")
        return self._control

    def _release(self, name: str, *, leaves: bool = False) -> None:
        """Tell the scheduler that this name's machine goes, or comes; it must not stop either if nobody listens.

        Args:
            leaves: it is a server that goes, which its database may refuse.

        Raises:
            ConflictError: a server goes on whose database the others cannot do without.
        """
        if self._control is None:
            return
        try:
            self._control.release([name])
        except ConflictError as error:
            if leaves:
                remedy = "mend the other servers first: `vcluster status` shows them; else `vcluster restore` helps"
                raise ConflictError(error.message, remedy=remedy) from error
        except (CloudError, DeadlineError):
            return

    def _may_be_needed(self, action: Action, observed: Observed) -> bool:
        """Whether a machine to delete is one of several servers, whose database the others must be able to do without.

        Not where all goes, or a person agreed to the loss. Before it was ever ready a cluster has nothing to lose, and
        no API that could be asked.
        """
        if self._goal.power is Power.ABSENT or action.destroys_data or not observed.notes.get(NOTE_READY):
            return False
        peers = self._goal.peers | {machine.name for machine in observed.machines if is_peer(machine)}
        return bool(peers) and action.names[0] in {str(Role.HEAD), *peers}

    def _save_console(self, action: Action) -> None:
        if self._keep_console is None:
            return
        # The console is for a person; not having it must not stop the repair.
        with suppress(CloudError, OSError):
            self._keep_console(action.names[0], self._cloud.console(self._ref, action.uuids[0], CONSOLE_LINES))


def _has_twin(action: Action, observed: Observed) -> bool:
    """Whether another machine bears the name of the one that is deleted: that one stays, and is known."""
    return any(m.name in action.names and m.uuid not in action.uuids for m in observed.machines)
