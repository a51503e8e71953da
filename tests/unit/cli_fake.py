"""A stand-in for vcluster.cluster that notes what the command line asks of it, and fails when told to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

from vcluster.errors import CancelledError, UsageError
from vcluster.events import MachineChanged
from vcluster.model import ClusterRef, Endpoint
from vcluster.views import ClusterInfo


@dataclass
class PlannedAction:
    verb: str
    kind: str
    name: str
    uuid: str = ""
    detail: str = ""
    destroys_data: bool = False


@dataclass
class PlanView:
    actions: list[PlannedAction] = field(default_factory=list)
    waiting: tuple[str, ...] = ()
    problem: str = ""
    place: str = ""
    quota: tuple[Any, ...] = ()
    cost: Any = None
    notebooks: Any = None

    @property
    def empty(self) -> bool:
        return not (self.actions or self.waiting or self.problem)

    def to_dict(self) -> dict[str, Any]:
        return {"actions": [asdict(action) for action in self.actions], "waiting": list(self.waiting)}


@dataclass
class MachineStatus:
    name: str
    role: str
    group: str
    state: str = "ACTIVE"
    health: str = "ready"
    address: str = "10.77.0.2"
    uuid: str = ""
    flavor: str = "small"
    endpoint: Endpoint | None = None
    fault: str = ""
    web: Endpoint | None = None
    is_server: ClassVar[bool] = False


@dataclass
class Status:
    name: str
    id: str = "0123456789"
    cloud: str = "local"
    state: str = "ready"
    machines: tuple[MachineStatus, ...] = ()
    owner: str = ""
    expires: float | None = None
    cost: float | None = None
    unit: str = ""
    hub: Any = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Result:
    changed: bool
    degraded: tuple[str, ...]
    seconds: float
    status: Status
    hub: Any = None
    scheduler: str = "slurm"


def machines() -> tuple[MachineStatus, ...]:
    return (
        MachineStatus("head", "head", "", uuid="u-head", endpoint=Endpoint("127.0.0.1", 40022)),
        MachineStatus("cpu-1", "worker", "cpu", uuid="u-1", address="10.77.0.3"),
        MachineStatus("cpu-2", "worker", "cpu", uuid="u-2", address="10.77.0.4"),
    )


LOSS = PlanView(
    [
        PlannedAction("delete", "machine", "cpu-1", "u-1"),
        PlannedAction("delete", "machine", "head", "u-head", "with the homes", destroys_data=True),
        PlannedAction("delete", "network", "demo", "u-net"),
    ]
)


class World:
    """What the stand-in does, and what was asked of it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.error: BaseException | None = None
        self.changed = True
        self.degraded: tuple[str, ...] = ()
        self.loss: PlanView | None = None
        self.view = PlanView()
        self.state = "ready"
        self.names = ["demo", "other"]
        self.during: Callable[[threading.Event], None] | None = None
        self.ssh = ["true"]
        self.console = "login:"

    def module(self) -> ModuleType:
        """What takes the place of vcluster.cluster."""
        world = self
        module = ModuleType("vcluster.cluster")

        class Cluster(FakeCluster):
            def __init__(
                self, spec: Any, *, on_event: Any = None, cloud_name: str | None = None, owner: str = ""
            ) -> None:
                super().__init__(world, spec, on_event, cloud_name or "local", owner)

        module.Cluster = Cluster  # type: ignore[attr-defined]
        module.clusters = self.clusters  # type: ignore[attr-defined]
        return module

    def clusters(self, cloud_name: str | None = None) -> list[ClusterInfo]:
        if cloud_name not in {None, "local", "jetstream2"}:
            raise UsageError(f"there is no cloud '{cloud_name}'", remedy="clouds: local, jetstream2")
        mine = [ClusterInfo(ClusterRef(name, "p", "c"), "c", True, 3, 2, 1000.0) for name in self.names]
        return [*mine, ClusterInfo(ClusterRef("theirs", "p", "d"), "dora", False, 3, 2, 1000.0, 2000.0, 18.0, "SU")]


class FakeCluster:
    def __init__(self, world: World, spec: Any, on_event: Any, cloud_name: str, owner: str) -> None:
        self.world = world
        self.owner = owner
        self.on_event = on_event
        self.spec = spec
        self.cloud_name = cloud_name
        self.cloud = SimpleNamespace(name=cloud_name)
        self.name = spec if isinstance(spec, str) else spec.name
        self.closed = False

    def __enter__(self) -> FakeCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def _note(self, call: str, **given: Any) -> None:
        whose = {"owner": self.owner} if self.owner else {}
        self.world.calls.append((call, {"name": self.name, "cloud": self.cloud_name, **whose, **given}))
        if self.world.error:
            raise self.world.error

    def _run(self, call: str, *, confirm: Any = None, cancel: Any = None, **given: Any) -> Result:
        self._note(call, **given)
        self.on_event(
            MachineChanged(cluster=self.name, time=1.0, machine="cpu-1", state="ACTIVE", health="ready", detail="")
        )
        if self.world.during:
            self.world.during(cancel)
        if cancel.is_set():
            raise CancelledError("stopped before the end", remedy="run the same command again")
        if self.world.loss and confirm and not confirm(self.world.loss):
            raise CancelledError("not agreed to: nothing was changed")
        return Result(self.world.changed, self.world.degraded, 142.0, self.status())

    def up(self, **given: Any) -> Result:
        return self._run("up", **given)

    def down(self, **given: Any) -> Result:
        return self._run("down", **given)

    def stop(self, **given: Any) -> Result:
        return self._run("stop", **given)

    def shelve(self, **given: Any) -> Result:
        return self._run("shelve", **given)

    def unshelve(self, **given: Any) -> Result:
        return self._run("unshelve", **given)

    def extend(self, seconds: float) -> float:
        self._note("extend", seconds=seconds)
        return 1_700_000_000.0 + seconds

    def start(self, **given: Any) -> Result:
        return self._run("start", **given)

    def scale(self, group: str, count: int, **given: Any) -> Result:
        return self._run("scale", group=group, count=count, **given)

    def replace(self, machine: str, **given: Any) -> Result:
        return self._run("replace", machine=machine, **given)

    def plan(self) -> PlanView:
        self._note("plan")
        return self.world.view

    def status(self) -> Status:
        if self.world.error:
            raise self.world.error
        absent = self.world.state == "absent"
        return Status(self.name, cloud=self.cloud_name, state=self.world.state, machines=() if absent else machines())

    def logs(self, machine: str, lines: int) -> str:
        self._note("logs", machine=machine, lines=lines)
        return self.world.console

    def ssh_command(self, machine: str = "head") -> list[str]:
        self._note("ssh", machine=machine)
        return list(self.world.ssh)

    def scp_command(self, sources: list[str], target: str) -> list[str]:
        self._note("scp", sources=sources, target=target)
        return ["scp", *sources, target]

    def forward_command(self, port: int, local_port: int) -> list[str]:
        self._note("forward", port=port, local_port=local_port)
        return ["ssh", "-N"]

    def ssh_config(self) -> str:
        self._note("ssh-config")
        return "Host demo\n  Port 40022\n"

    def render(self, folder: Path) -> list[Path]:
        self._note("render", folder=folder)
        return [folder / "head.yaml"]
