"""A cluster with JupyterHub on this host without VMs: vcluster's own user data, run on machines of namespaces.

What is real: every file and every step that vcluster renders, Debian's Slurm, munge and Caddy, JupyterHub, the proxy,
users with their numbers, sudo. What is not: see README.md here.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from tests.hub.machine import END_WITH, INSIDE, Hall, Machine
from tests.hub.tree import ensure_tree
from tests.hub.visitors import visitors
from vcluster.cloudinit import files_in
from vcluster.hub import Hub
from vcluster.model import ClusterRef, CommandResult, Flavor, Network, Port, Role, Slot
from vcluster.rehearsal.report import Report
from vcluster.rehearsal.run import Script, guests, rehearse
from vcluster.secrets import Keyring
from vcluster.spec import ClusterSpec
from vcluster.stacks import stack_for
from vcluster.stacks.base import Site

FIRST = ipaddress.ip_address("10.77.0.10")
BRIDGE = "10.77.0.1/16"
CONFIGURE = "/usr/local/sbin/vcluster-configure"

CHANGES = {
    # Control groups are the host's; whoever runs the tests may have none to give away.
    "/etc/slurm/slurm.conf": {
        r"ProctrackType=.*": "ProctrackType=proctrack/linuxproc",
        r"TaskPlugin=.*": "TaskPlugin=task/none",
        r"JobAcctGatherType=.*": "JobAcctGatherType=jobacct_gather/none",
        r"PrologFlags=Contain.*\n": "",
        r"JobContainerType=.*\n": "",
    },
    # Nothing uses it, but slurmd does not begin before it knows which kind there is.
    "/etc/slurm/cgroup.conf": {r"CgroupPlugin=.*": "CgroupPlugin=cgroup/v1"},
}
"""All that a bed changes in what vcluster rendered; a test may ask for more."""

Changes = Mapping[str, Mapping[str, str]]
"""Patterns at the beginning of lines, and what stands there instead, by the file's path."""

LOOKS_OFTEN: Changes = {
    "/usr/local/lib/vcluster/jupyterhub/jupyterhub_config.py": {
        r"(c\.Spawner\.http_timeout = .*)": r"\1\nc.Spawner.poll_interval = 3"
    }
}
"""For tests that wait until the Hub sees that a server is gone: by itself it looks each half minute."""

DEFAULT: dict[str, Any] = {
    "name": "bed",
    "cloud": "local",
    "head": {"flavor": {"cpus": 2, "memory": "4G", "disk": "8G"}},
    "workers": [{"name": "cpu", "count": 2, "flavor": {"cpus": 4, "memory": "4G", "disk": "8G"}}],
    "slurm": {"accounting": False},
    "jupyterhub": {
        "people": {"count": 4, "prefix": "student"},
        "instructors": ["teacher"],
        "profiles": [{"name": "standard", "memory": "512M"}],
        "cpu_oversubscribe": 4,
        "environment": {"packages": ["numpy"]},
    },
}


def own_folder() -> Path:
    """A new folder that others know to be in use: it is named after this process."""
    folder = Path(tempfile.mkdtemp(prefix=f"bed-{os.getpid()}-", dir="/tmp"))
    folder.chmod(0o755)
    return folder


def remove_stale_folders() -> None:
    """Remove what beds left whose process was killed; their machines ended with it."""
    for folder in Path("/tmp").glob("bed-[0-9]*-*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            shutil.rmtree(folder, ignore_errors=True)


class Bed:
    """A running bed; a context manager.

    Args:
        spec: as in a file; None takes ``DEFAULT``.
        say: takes a word on what is being done.
        forward: make the head's 443 reachable at this host's loopback, as a local cluster does; else the Hub's address
            is the head's, and only what runs :meth:`Hall.within` comes there.
        changes: as ``CHANGES``, and made after them.
        files: programs that lie on every machine, by path.

    Attributes:
        url: the Hub's public address.
        ca: the PEM of its certificate authority.
    """

    def __init__(
        self,
        spec: Mapping[str, Any] | None = None,
        *,
        say: Callable[[str], None] = lambda _: None,
        forward: bool = True,
        changes: Changes = MappingProxyType({}),
        files: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        if os.geteuid() != 0:
            raise RuntimeError("the bed needs root: users with numbers of their own, and a network")
        self.spec = ClusterSpec.model_validate(dict(spec or DEFAULT))
        remove_stale_folders()
        self.root = own_folder()
        self._say, self._forward = say, forward
        self._changes, self._more = (CHANGES, changes), files
        self._forwarder: subprocess.Popen[str] | None = None
        self._hall: Hall | None = None
        self.machines: dict[str, Machine] = {}
        self.slots = self.spec.slots(lambda name: Flavor(name, 2, 4096, 8))
        self.site = self._site()
        self.stack = stack_for(self.spec.scheduler)
        self.tree = Path()
        self.url, self.ca = "", ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    # Its life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the machines and configure them as cloud-init would."""
        self._say("the machines' files")
        self.tree = ensure_tree(self.stack.install_script(self.spec))
        shared = self.root / "shared"
        for name in ("home", "shared"):
            (shared / name).mkdir(parents=True, exist_ok=True)
        self._hall = Hall.open(BRIDGE)
        for slot in self.slots:
            port = self.site.ports[slot.name]
            machine = Machine(slot.name, port.address, self.root / "machines" / slot.name, self._hall)
            self.machines[slot.name] = machine
            machine.boot(self.tree, shared)
            machine.write(self._files(slot))
        self._say("the head")
        self._configure("head")
        for slot in self.slots[1:]:
            self._say(slot.name)
            self._configure(slot.name)
        self.wait_for_workers()
        if self.spec.jupyterhub is not None:
            self._say("the front door")
            self._open_door()
        self._say("ready")

    def stop(self) -> None:
        """End every process and remove every file."""
        if self._forwarder is not None:
            self._forwarder.kill()
            self._forwarder.communicate()
            self._forwarder = None
        for machine in self.machines.values():
            machine.kill()
        if self._hall is not None:
            self._hall.close()
            self._hall = None
        shutil.rmtree(self.root, ignore_errors=False)

    def reboot(self, name: str) -> None:
        """Kill a machine as a power cut would and boot it again; its disk is as it was."""
        machine = self.machines[name]
        machine.kill()
        machine.boot(self.tree, self.root / "shared")
        self.start_units(name)

    def start_units(self, name: str) -> None:
        """What systemd starts at boot."""
        units = (
            ["munge", "slurmctld", "jupyterhub-proxy", "jupyterhub", "caddy"] if name == "head" else ["munge", "slurmd"]
        )
        self.machines[name].run("systemctl", "start", *units)

    def wait_for_workers(self) -> None:
        """Return when Slurm takes jobs on all of them."""
        self._wait("every worker in Slurm", self._all_idle)

    # What one asks of it ---------------------------------------------------------------------------------------

    @property
    def hall(self) -> Hall:
        """The network; only while the bed runs."""
        assert self._hall is not None
        return self._hall

    @property
    def head(self) -> Machine:
        return self.machines["head"]

    @contextmanager
    def hub(self) -> Iterator[Hub]:
        """The Hub as the launcher asks it, but without SSH between."""

        def run(command: str, stdin: str, timeout: float) -> CommandResult:
            done = self.head.run("sh", "-c", command, stdin=stdin, check=False, timeout=timeout)
            return CommandResult(done.stdout, done.stderr, done.returncode)

        yield Hub(run)

    def rehearse(self, users: int, script: Script, told: Callable[[str], None] = lambda _: None) -> Report:
        """As ``vcluster rehearse``; without a forwarded port the users come from the bed's own network."""
        with guests(self.hub, users, told) as (door, accounts):
            if self._forward:
                return Report.of(rehearse(door, accounts, script, told=told))
            return Report.of(visitors(self.hall, door, accounts, script))

    def passwords(self) -> dict[str, str]:
        """The class's and the administrators' password."""
        text = self.head.run("cat", "/etc/vcluster/hub/passwords.json").stdout
        found: dict[str, str] = json.loads(text)
        return found

    def jobs(self) -> list[tuple[str, str, str, str]]:
        """Slurm's jobs: number, user, state and machine."""
        lines = self.head.run("squeue", "-h", "-o", "%i|%u|%T|%B").stdout.splitlines()
        return [(n, user, state, host) for n, user, state, host in (line.split("|") for line in lines)]

    def log(self, unit: str, machine: str = "head") -> str:
        """What a unit wrote."""
        return self.machines[machine].run("cat", f"/var/log/bed/{unit}.service.log", check=False).stdout

    # How it is made --------------------------------------------------------------------------------------------

    def _site(self) -> Site:
        ref = ClusterRef(self.spec.name, "bed", "0")
        ports = {
            slot.name: Port(f"p{i}", "tag", slot.name, str(FIRST + i), f"52:54:00:00:00:{i:02x}")
            for i, slot in enumerate(self.slots)
        }
        network = Network("net", ref.tag(Role.NETWORK), "10.77.0.0/16")
        return Site(ref, self.spec, network, self.slots, ports, Keyring(secrets.token_bytes(32)), ())

    def _files(self, slot: Slot) -> dict[str, tuple[bytes, int]]:
        import yaml

        text = self.stack.user_data(self.site, slot)
        modes = {
            entry["path"]: int(entry.get("permissions", "0644"), 8) for entry in yaml.safe_load(text)["write_files"]
        }
        files = {path: (content, modes[path]) for path, content in files_in(text).items()}
        for path, changes in (item for each in self._changes for item in each.items()):
            if path in files:
                words, made = files[path][0].decode(), 0
                for pattern, instead in changes.items():
                    words, times = re.subn(rf"(?m)^{pattern}", instead, words)
                    made += times
                assert made, f"nothing is changed in {path}"
                files[path] = (words.encode(), files[path][1])
        files |= {path: (text.encode(), 0o755) for path, text in self._more.items()}
        return files | {"/etc/hostname": (f"{slot.name}\n".encode(), 0o644)}

    def _configure(self, name: str) -> None:
        machine = self.machines[name]
        done = machine.run(CONFIGURE, check=False, timeout=900)
        if done.returncode:
            log = machine.run("tail", "-n", "40", "/var/log/vcluster-configure.log", check=False).stdout
            raise RuntimeError(f"{name} could not be configured: {done.stdout}{done.stderr}\n{log}")

    def _all_idle(self) -> bool:
        done = self.head.run("sinfo", "-h", "-N", "-o", "%N %T", check=False)
        states = dict(line.split() for line in done.stdout.splitlines())
        return bool(states) and all(state in {"idle", "mixed", "allocated"} for state in states.values())

    def _open_door(self) -> None:
        port = 443
        self.url = f"https://{self.head.address}/"
        if self._forward:
            forward = [sys.executable, str(INSIDE / "forward.py"), str(self.hall.process.pid), "0", self.head.address]
            self._forwarder = subprocess.Popen([*END_WITH, *forward, str(port)], stdout=subprocess.PIPE, text=True)
            assert self._forwarder.stdout is not None
            self.url = f"https://127.0.0.1:{int(self._forwarder.stdout.readline())}/"
        with self.hub() as hub:
            self.ca = hub.front(self.url)[0].ca

    def _wait(self, what: str, look: Callable[[], bool], seconds: float = 300.0) -> None:
        end = time.monotonic() + seconds
        while not look():
            if time.monotonic() > end:
                raise RuntimeError(f"waited {seconds:.0f} s for {what}")
            time.sleep(0.2)
