"""What ``vcluster-k3s`` answers in a cloud without guests: on the head, and on the other machines of its cluster."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vcluster.model import CommandResult

__all__ = ["HELPER", "PretendedK3s"]

HELPER = "sudo -n /usr/local/sbin/vcluster-k3s "
SPEC = "/var/lib/vcluster/spec.yaml"
TOKEN = "/var/lib/rancher/k3s/server/token"  # noqa: S105 - a path
SNAPSHOTS = "/var/lib/rancher/k3s/server/db/snapshots"
KUBECONFIG = """\
apiVersion: v1
clusters: [{name: default, cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: QVVUSE9SSVRZ}}]
contexts: [{name: default, context: {cluster: default, user: default}}]
current-context: default
kind: Config
preferences: {}
users: [{name: default, user: {client-certificate-data: Q0VSVElGSUNBVEU=, client-key-data: U0VDUkVULUtFWQ==}}]
"""


@dataclass
class _Machine:
    version: str
    sha256: str
    running: str
    images: dict[str, str] = field(default_factory=dict)
    staged: dict[str, Any] = field(default_factory=dict)
    pending: bool = False


class PretendedK3s:
    """A Kubernetes that holds a few words and can be brought back to those that it held.

    Args:
        files: gives the head's disk.

    Attributes:
        objects: what is in Kubernetes.
        machines: what lies on each machine; one that was never asked has what the spec on the head says.
        faults: what a machine answers instead, by its name and the verb, as ``cpu-1 upgrade``; each once.
        asked: every call, as ``cpu-1 upgrade …``.
        restoring: whether a restore was begun and not ended.
        cordoned: nodes that take no new pods.
    """

    def __init__(self, files: Callable[[], dict[str, bytes]]) -> None:
        self._files = files
        self.objects = ["before"]
        self.machines: dict[str, _Machine] = {}
        self.faults: dict[str, str] = {}
        self.asked: list[str] = []
        self.halted: set[str] = set()
        self.cordoned: set[str] = set()
        self.restoring = False

    def execute(self, machine: str, command: str, stdin: str, names: Sequence[str]) -> CommandResult:
        """One call; what it does not know is an error, as on a machine."""
        words = shlex.split(command.removeprefix(HELPER))
        self.asked.append(" ".join([machine, *words]))
        self._files().setdefault(TOKEN, b"K10cafe::server:t0ken-of-the-servers\n")
        try:
            if fault := self.faults.pop(f"{machine} {words[0]}", ""):
                raise LookupError(fault)
            if words == ["kubeconfig"]:
                return CommandResult(KUBECONFIG, "", 0)
            told = self._answer(machine, words, stdin, names)
        except LookupError as error:
            return CommandResult("", f"vcluster-k3s: {error.args[0]}\n", 1)
        return CommandResult(json.dumps(told), "", 0)

    def on(self, machine: str) -> _Machine:
        """What lies on a machine."""
        if machine not in self.machines:
            from vcluster.spec import ClusterSpec

            spec = ClusterSpec.from_yaml(self._files()[SPEC].decode()).kubernetes
            self.machines[machine] = _Machine(spec.version, spec.program[1], spec.version)
        return self.machines[machine]

    def _answer(self, machine: str, words: list[str], stdin: str, names: Sequence[str]) -> Any:
        here = self.on(machine)
        match words:
            case ["status"]:
                keys = ("version", "sha256", "images", "pending")
                return {"role": "", "restoring": self.restoring, **{key: getattr(here, key) for key in keys}}
            case ["nodes"]:
                return {name: self._node(name) for name in names}
            case ["snapshot", *_] | ["forget", _] | ["receive", _] | ["restore", _]:
                return self._keep(words, stdin)
            case ["halt"]:
                self.halted.add(machine)
            case ["rejoin"]:
                self.halted.discard(machine)
            case ["settle"]:
                self.restoring = False
            case ["stage"]:
                here.staged = json.loads(stdin)
            case ["upgrade", wanted]:
                self._upgrade(here, wanted)
            case _:
                raise LookupError(f"usage: {words}")
        return None

    def _node(self, name: str) -> dict[str, Any]:
        ready, schedulable = name not in self.halted, name not in self.cordoned
        return {"ready": ready, "version": self.on(name).running, "schedulable": schedulable}

    def _keep(self, words: list[str], stdin: str) -> Any:
        files = self._files()
        match words:
            case ["snapshot", *keep]:
                content = json.dumps(self.objects).encode()
                file = f"{SNAPSHOTS}/{'vcluster-kept' if keep else 'vcluster-passing'}-{len(self.asked)}"
                files[file] = content
                sha256 = hashlib.sha256(content).hexdigest()
                told = {"file": file, "token": TOKEN, "size": len(content), "sha256": sha256}
                return {**told, "version": self.on("head").running, "time": "2026-11-27T22:49:11Z"}
            case ["forget", file]:
                del files[file]
            case ["receive", wanted]:
                if hashlib.sha256(stdin.encode()).hexdigest() != wanted:
                    raise LookupError("its checksum is another")
                files[f"restore/{wanted}"] = stdin.encode()
            case ["restore", wanted]:
                self.restoring = True
                self.objects = json.loads(files[f"restore/{wanted}"])
        return None

    def _upgrade(self, here: _Machine, wanted: str) -> None:
        program = here.staged.get("program", {})
        if wanted not in (program.get("sha256"), here.sha256):
            raise LookupError("the new program is not here: stage it first")
        here.sha256, here.version = wanted, here.staged["version"]
        here.images = {image["name"]: image["sha256"] for image in here.staged["images"]}
        here.running, here.pending = here.version, False
