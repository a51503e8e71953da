"""The lab's processes: MariaDB and one process for each service, all of which end with the one that started them."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.lab.layout import COMPUTES, Layout

__all__ = ["Processes", "environment", "runs", "wait_until_answering"]

INSIDE = Path(__file__).parent / "inside"
QEMU = Path(__file__).parent / "qemu"
REPOSITORY = Path(__file__).parents[2]

# The kernel kills the child when its parent is gone, however that ended; "parent" is the thread that started it. If
# that was before the child had asked for it, another has adopted the child by then, and it does not begin.
_END_WITH = ("setpriv", "--pdeathsig", "KILL", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"')


def environment(lab: Layout, venv: Path) -> dict[str, str]:
    """What every process of the lab has in its environment. No secret: those are in the configuration."""
    mine = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    python = [lab.path("python"), INSIDE, QEMU]
    if lab.machines == "qemu":
        python.append(REPOSITORY)  # the driver makes machines as vcluster's local cloud does
    mine.update({f"OS_{name.upper()}_CONFIG_DIR": str(lab.path("etc", name)) for name in _WITH_FOLDER})
    return mine | {
        "OS_NEUTRON_CONFIG_FILES": "neutron.conf;ml2_conf.ini",
        "OS_NOVA_DISABLE_EVENTLET_PATCHING": "1",
        "OS_CINDER_DISABLE_EVENTLET_PATCHING": "1",
        "LAB_ROOT": str(lab.root),
        "LAB_COMPUTES": " ".join(COMPUTES),
        "LAB_VOLUMES": str(lab.path("state/volumes")),
        "LAB_QEMU_DIR": str(lab.path("qemu")),
        "PYTHONPATH": os.pathsep.join(map(str, python)),
        "PATH": f"{venv}/bin:{os.environ['PATH']}",
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
        "no_proxy": "127.0.0.1,localhost",
    }


_WITH_FOLDER = ("keystone", "glance", "placement", "neutron", "nova", "cinder")


@dataclass
class Processes:
    """Starts processes, and stops them in the reverse order."""

    log: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        """Start a process that ends with this one; its output goes to ``<log>/<name>.out``.

        Must be called in a thread that lives as long as the lab does: the kernel looks at the thread.
        """
        with (self.log / f"{name}.out").open("ab") as out:
            self.running[name] = subprocess.Popen(
                [*_END_WITH, str(os.getpid()), *command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the one in front, who then stops these in order
            )

    def check(self, name: str) -> None:
        """Raises ``RuntimeError`` with the end of its output when the process is gone."""
        code = self.running[name].poll()
        if code is not None:
            raise RuntimeError(f"{name} ended with status {code}:\n{self.tail(name)}")

    def tail(self, name: str, lines: int = 30) -> str:
        text = (self.log / f"{name}.out").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self, name: str, grace: float = 10.0) -> None:
        """Ask it to end, and kill it when it has not after ``grace`` seconds."""
        process = self.running.pop(name)
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        """End all. Their state is thrown away, so the services needn't end in order; the last, MariaDB, may be kept."""
        for process in self.running.values():
            process.terminate()
        for name in reversed(list(self.running)):
            self.stop(name)


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked for its status does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_answering(processes: Processes, name: str, url: str, timeout: float = 300.0) -> None:
    """Return when ``url`` answers, with whatever status.

    Raises:
        RuntimeError: the process ended, or there was no answer within ``timeout`` seconds.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + timeout
    while True:
        processes.check(name)
        try:
            opener.open(url, timeout=10).close()
        except urllib.error.HTTPError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name}: no answer at {url} in {timeout:.0f} s: {error}") from error
            time.sleep(0.1)
        else:
            return
