"""One booted cluster that the tests share, made by the command line as a person would."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import yaml

from vcluster import Cluster

if TYPE_CHECKING:
    from workshop import Workshop

VCLUSTER = str(Path(sys.executable).with_name("vcluster"))
MINUTE = 60.0

ALICE_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIaB4mpWaNlebwCMuRIdnQSTdf/ZGy6r864Yr3IMTdw7 alice"


@dataclass
class Watch:
    """Samples every process's arguments, and keeps all that vcluster printed: where a secret must never be."""

    seen: set[str] = field(default_factory=set)
    printed: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(0.5):
            for process in psutil.process_iter(["cmdline"]):
                self.seen.add("\0".join(process.info["cmdline"] or ()))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@dataclass
class Cli:
    """Runs the command line and keeps what it printed."""

    watch: Watch

    def __call__(
        self, *words: str, code: int | None = 0, timeout: float = 25 * MINUTE
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [VCLUSTER, *words], capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL
        )
        self.watch.printed += [done.stdout, done.stderr]
        if code is not None:
            assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *words: str, code: int = 0) -> dict[str, object]:
        """The final object of a command with --json."""
        last = self(*words, "--json", code=code).stdout.strip().splitlines()[-1]
        result: dict[str, object] = json.loads(last)
        return result


@pytest.fixture(scope="session")
def watch() -> Iterator[Watch]:
    watching = Watch()
    yield watching
    watching.stop()


@pytest.fixture(scope="session")
def cli(watch: Watch, vm_home: Path) -> Cli:
    return Cli(watch)


@pytest.fixture(scope="session")
def demo(cli: Cli, vm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The example of the README with a user and room to grow: one head, two workers, up."""
    example = yaml.safe_load((Path(__file__).parents[2] / "examples/local-slurm.yaml").read_text())
    example["users"] = [{"name": "alice", "ssh_keys": [ALICE_KEY]}, {"name": "bob"}]
    example["workers"][0]["max_count"] = 3
    spec = tmp_path_factory.mktemp("demo") / "demo.yaml"
    spec.write_text(yaml.safe_dump(example))
    cli("up", str(spec), "--yes", "--json")
    with Cluster("demo") as cluster:
        cluster.spec_path = spec  # type: ignore[attr-defined]
        yield cluster
    cli("down", "demo", "--yes")
    assert not (vm_home / "local").exists() or not list((vm_home / "local").iterdir())


@pytest.fixture(scope="session")
def workshop(cli: Cli, vm_home: Path) -> Iterator[Workshop]:
    """The workshop's example with its Hub, as it stands there."""
    from workshop import Workshop

    made = Workshop.up(cli)
    yield made
    made.close()
    assert not (vm_home / "local" / made.cluster.ref.id).exists()


def wait_for(what: str, look: Callable[[], bool], seconds: float = 5 * MINUTE) -> None:
    """Return once it is so."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, what
        time.sleep(1.0)


def on(cluster: Cluster, command: str, machine: str = "head", *, check: bool = True) -> str:
    """Run a shell command on a machine through plain ssh, as `vcluster ssh` does; returns what it printed."""
    argv: Sequence[str] = [*cluster.ssh_command(machine), command]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=5 * MINUTE, check=False)
    if check:
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + ("" if check else done.stderr)
