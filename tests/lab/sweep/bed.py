"""What the long tests share: a worker process, a cluster's spec, and the picture of a project before and after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from tests.lab.lab import LabClient

__all__ = ["Task", "Worker", "colleagues_cluster", "spec_of"]


FAKE_ZONE = "zone-b"
"""The availability zone in which no lab boots a machine."""


def spec_of(name: str, count: int = 1, cloud: str = "demo-faulty", **more: Any) -> str:
    """A small cluster's spec as YAML (JSON is YAML)."""
    group = {"name": "cpu", "count": count, "flavor": "m3.tiny"}
    data = {"name": name, "cloud": cloud, "image": "debian-12", "head": {"flavor": "m3.tiny"}, "workers": [group]}
    return json.dumps(data | more)


@dataclass
class Task:
    """One run of vcluster in a process of its own.

    Attributes:
        answer: what came of it; empty when the process was killed.
    """

    pid: int = 0
    answer: dict[str, Any] = field(default_factory=dict)
    began: threading.Event = field(default_factory=threading.Event)

    @property
    def ok(self) -> bool:
        return bool(self.answer.get("ok"))

    @property
    def killed(self) -> bool:
        return not self.answer


class Worker:
    """The process of ``tests.lab.sweep.worker``.

    Args:
        home: vcluster's folder for its runs.
        env: how it logs in to the lab.
        cloud: the entry of clouds.yaml.
    """

    def __init__(self, home: Path, env: dict[str, str], cloud: str) -> None:
        self._cloud = cloud
        self.move(home)
        self._log = home / "worker.log"
        log = self._log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.sweep.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=env | {"PYTHONWARNINGS": "ignore"},
            cwd=Path(__file__).parents[3],
            text=True,
        )
        log.close()
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def move(self, home: Path) -> None:
        """Let further runs be on another computer, as far as vcluster can tell."""
        home.mkdir(parents=True, exist_ok=True)
        self.home = home

    def start(self, verb: str, spec: str, task: Task | None = None, **arguments: Any) -> threading.Thread:
        """Begin a run; the thread ends with it."""
        thread = threading.Thread(target=self.run, args=(verb, spec, task), kwargs=arguments)
        thread.start()
        return thread

    def run(self, verb: str, spec: str, task: Task | None = None, **arguments: Any) -> Task:
        """Run one of :class:`vcluster.Cluster`'s methods to its end, or until somebody kills it."""
        task = task or Task()
        self._number += 1
        out = self.home / f"answer-{self._number}.json"
        order = {"verb": verb, "spec": spec, "home": str(self.home), "cloud": self._cloud, "out": str(out)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order | {"with": arguments}) + "\n")
        self._process.stdin.flush()
        task.pid = json.loads(self._process.stdout.readline())["pid"]
        task.began.set()
        status = json.loads(self._process.stdout.readline())["status"]
        if out.exists():
            task.answer = json.loads(out.read_text())
        else:
            assert os.WIFSIGNALED(status), self._log.read_text()
        return task


@contextmanager
def colleagues_cluster(lab: LabClient, home: Path, name: str) -> Iterator[None]:
    """A whole cluster of that name which a colleague in the same project made with vcluster itself.

    Its machines are of Nova's fake driver, in a lab with real ones as well.
    """
    spec = spec_of(name, cloud="colleague", availability_zone=FAKE_ZONE)
    with Worker(home, lab.cloud_env("colleague"), "colleague") as colleague:
        made = colleague.run("up", spec)
        assert made.ok, made.answer
        yield
        gone = colleague.run("down", spec)
        assert gone.ok, gone.answer
