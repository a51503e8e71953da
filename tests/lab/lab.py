"""The lab: one real control plane, started, furnished and ended."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tests.lab import clouds, config, database, furnish, identity, install, prepare
from tests.lab.layout import DIRECT, SERVICES, Layout, free_ports
from tests.lab.operator import Operator
from tests.lab.processes import INSIDE, Processes, environment, wait_until_answering

if TYPE_CHECKING:
    from openstack.connection import Connection

__all__ = ["Lab", "LabClient"]

NOVA_NEEDS = ("identity", "placement")


class LabClient(clouds.Access, Operator):
    """A lab that runs, whoever started it: how to log in, and what its operator can do."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._connections: dict[tuple[str, str], Connection] = {}

    @classmethod
    def attach(cls, root: Path) -> LabClient:
        """The lab that another process runs in ``root``; raises ``FileNotFoundError`` when there is none."""
        return LabClient(Layout.load(root))

    @property
    def root(self) -> Path:
        return self.layout.root

    @property
    def upstreams(self) -> dict[str, str]:
        """Where each service listens: ``http://127.0.0.1:PORT`` by service."""
        return {service: self.layout.url(service) for service in SERVICES}

    @property
    def proxy_ports(self) -> dict[str, int]:
        """The port by service that region ``Faulty`` names: for a proxy, which a test starts when it wants one."""
        return dict(self.layout.proxy_ports)

    def connection(self, user: str = "demo", region: str = DIRECT) -> Connection:
        """A connection of this user, made once and then shared: by one thread at a time."""
        import openstack
        from openstack.config import OpenStackConfig

        if (user, region) not in self._connections:
            config_file = OpenStackConfig(config_files=[str(self.clouds_yaml)], load_envvars=False)
            name = clouds.cloud_name(user, region)
            self._connections[user, region] = openstack.connection.Connection(config=config_file.get_one(name))
        return self._connections[user, region]

    def admin(self) -> Connection:
        return self.connection("admin")

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


class Lab(LabClient):
    """A lab that this process runs, and that ends with it, however that ends.

    Start it in a thread that lives as long as the lab is wanted (the main thread is one).

    Args:
        root: A folder that does not exist or is empty; without one, a new folder below the temporary ones, with a
            short path as sockets need. It is removed at the end.
        machines: What stands behind Nova: ``fake`` (Nova's fake driver), or ``qemu`` (real VMs, except in ``zone-b``).
        proxied: Port by service that region ``Faulty`` is to name; free ones are chosen for those not in it.
        extra_env: What the drivers get in their environment on top (the QEMU driver's settings).
        say: Told what happens, step by step.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        machines: str = "fake",
        proxied: Mapping[str, int] | None = None,
        extra_env: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        if root is None:
            root = Path(tempfile.mkdtemp(prefix="vc-lab-", dir="/tmp"))
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)
        ports = free_ports(2 * len(SERVICES))
        super().__init__(
            Layout(
                root=root.resolve(),
                ports=dict(zip(SERVICES, ports, strict=False)),
                proxy_ports=dict(zip(SERVICES, ports[len(SERVICES) :], strict=True)) | dict(proxied or {}),
                password=secrets.token_urlsafe(12),
                machines=machines,
            )
        )
        self._say = say
        self.layout.save()  # at once, so that a later lab can tell whose folder this is, and that its owner is gone
        self._extra_env = dict(extra_env or {})
        self._processes = Processes(self.root / "log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all and return when all answer. The first start ever also installs and prepares, which takes minutes.

        Raises:
            RuntimeError: something failed or did not answer in time; nothing is left running.
        """
        venv = self.prepare()
        try:
            self.layout = replace(self.layout, password=prepare.kept_password())
            config.write(self.layout, venv)
            prepare.copy(self.layout)
            self._say("database")
            database.start(self.layout, self._processes)
            prepare.restore(self.layout)
            self._start_services(venv)
            clouds.write(self.layout)
            self.layout.save()
        except BaseException:
            self.stop()
            raise

    def prepare(self) -> Path:
        """Make what every start needs and later starts find: the virtual environment, whose folder it returns, and
        databases with all tables and accounts. Raises ``RuntimeError`` when that failed.
        """
        self._say("virtual environment")
        venv = install.ensure_venv()
        if not prepare.state_folder().exists():
            self._prepare(venv)
        return venv

    def stop(self) -> None:
        """End all and remove the folder."""
        self.close()
        self._processes.stop_all()
        shutil.rmtree(self.root, ignore_errors=True)

    def check(self) -> None:
        """Raises ``RuntimeError`` when a process of the lab has ended."""
        for name in self._processes.running:
            self._processes.check(name)

    def _start_services(self, venv: Path) -> None:
        env = environment(self.layout, venv) | self._extra_env
        ports = self.layout.ports
        python = venv / "bin/python"
        nova_needs = [self.layout.url(name) for name in NOVA_NEEDS]
        programs = {
            "identity": ["lab_serve.py", "identity", str(ports["identity"])],
            "compute": ["lab_nova_one.py", str(ports["compute"]), *nova_needs],
            "network": ["lab_serve.py", "network", str(ports["network"])],
            "volume": ["lab_cinder_one.py", str(ports["volume"])],
            "placement": ["lab_serve.py", "placement", str(ports["placement"])],
            "image": ["lab_serve.py", "image", str(ports["image"])],
        }
        for name, (script, *words) in programs.items():
            self._processes.start(name, [python, INSIDE / script, *words], env)
        for name in programs:
            wait_until_answering(self._processes, name, self.layout.url(name))
            self._say(f"{name} answers")

    def _prepare(self, venv: Path) -> None:
        """Make the state that every later start copies, in a lab of its own."""
        with install.locked("state"):
            if prepare.state_folder().exists():
                return
            maker = Lab(say=self._say)
            try:
                maker._make_state(venv)
            finally:
                maker.stop()

    def _make_state(self, venv: Path) -> None:
        config.write(self.layout, venv)
        self._say("databases, once for all later starts")
        database.install(self.layout)
        database.start(self.layout, self._processes)
        prepare.databases(self.layout, venv)
        self._say("accounts")
        clouds.write(self.layout)
        self._processes.start(
            "identity",
            [venv / "bin/python", INSIDE / "lab_serve.py", "identity", str(self.layout.ports["identity"])],
            environment(self.layout, venv),
        )
        wait_until_answering(self._processes, "identity", self.layout.url("identity"))
        identity.furnish(self.layout, self.admin())
        self.close()  # its token's catalogue is from before
        self._processes.stop("identity")
        self._start_services(venv)
        self._say("flavors, images, networks")
        furnish.furnish(self.admin())
        for name in SERVICES:
            self._processes.stop(name)
        prepare.save(self.layout)
        self._processes.stop("mariadb", grace=60)
        prepare.keep(self.layout)


def stale_folders() -> list[Path]:
    """Folders of labs whose process was killed: nothing of theirs runs any more, they are only in the way."""
    found = []
    for folder in Path("/tmp").glob("vc-lab-*"):
        try:
            owner = Layout.load(folder).owner
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        if not Path(f"/proc/{owner}").exists():
            found.append(folder)
    return found


def remove_stale_folders() -> None:
    for folder in stale_folders():
        shutil.rmtree(folder, ignore_errors=True)


def running_lab() -> LabClient | None:
    """The lab that ``VCLUSTER_LAB`` names by its folder, for work on tests: it stays up between runs."""
    given = os.environ.get("VCLUSTER_LAB")
    return LabClient.attach(Path(given)) if given else None
