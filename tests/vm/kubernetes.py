"""A Kubernetes cluster on real VMs, with the k3s that ``VCLUSTER_TEST_K3S`` names, and what its tests ask of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pod_images
import pytest
import yaml
from conftest import Cli, on

from vcluster import Cluster

PROGRAM = os.environ.get("VCLUSTER_TEST_K3S", "")

needs_k3s = pytest.mark.skipif(
    not PROGRAM, reason="VCLUSTER_TEST_K3S names no k3s binary: none is in a registry that tests may need"
)


class Kubernetes:
    """One cluster that is up."""

    def __init__(self, cli: Cli, spec: Path, name: str) -> None:
        self.cli, self.spec, self.name = cli, spec, name
        self.cluster = Cluster(name)

    @classmethod
    def up(cls, cli: Cli, folder: Path, **changed: Any) -> Kubernetes:
        """The example with the lines that name the program, the images, and that no other components run."""
        said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"v1\.[0-9.]+\+k3s[0-9]+", said)
        assert found, said
        example = yaml.safe_load((Path(__file__).parents[2] / "examples/local-k3s.yaml").read_text())
        images = str(pod_images.archive(folder))
        example["k3s"] = {"version": found[0], "binary": PROGRAM, "images": [images], "components": []}
        example |= changed
        spec = folder / "spec.yaml"
        spec.write_text(yaml.safe_dump(example))
        made = cls(cli, spec, example["name"])
        cli("up", str(spec), "--yes", "--json", timeout=3600)
        return made

    def down(self) -> None:
        self.cluster.close()
        self.cli("down", self.name, "--yes")

    def kubectl(self, *words: str, machine: str = "head", stdin: str = "", check: bool = True) -> str:
        """What kubectl prints on a server."""
        argv = [*self.cluster.ssh_command(machine), f"sudo k3s kubectl {shlex.join(words)}"]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=300, check=False)
        if check:
            assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout + ("" if check else done.stderr)

    def get(self, *words: str, machine: str = "head") -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json", machine=machine))

    def nodes(self, machine: str = "head") -> dict[str, bool]:
        """Name to whether it is Ready."""
        return {
            node["metadata"]["name"]: any(
                c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"]
            )
            for node in self.get("nodes", machine=machine)["items"]
        }

    def run_pod(self, name: str, node: str, command: str) -> None:
        """A pod from our own image on one node."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "restartPolicy": "Never",
                "containers": [
                    {
                        "name": "main",
                        "image": pod_images.TOOLS,
                        "command": ["sh", "-c", command],
                        "imagePullPolicy": "Never",
                    }
                ],
            },
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(pod))

    def phase(self, pod: str, *wanted: str, seconds: float = 300.0) -> dict[str, Any]:
        """The pod once it is in one of these phases."""
        end = time.monotonic() + seconds
        while (seen := self.get("pod", pod))["status"].get("phase") not in wanted:
            assert time.monotonic() < end, seen["status"]
            time.sleep(3)
        found: dict[str, Any] = seen
        return found

    def on(self, machine: str, command: str, *, check: bool = True) -> str:
        return on(self.cluster, command, machine, check=check)

    def told(self, machine: str, command: str, secret: str) -> str:
        """What a command prints that reads a secret, which is in nobody's arguments."""
        argv = [*self.cluster.ssh_command(machine), command]
        done = subprocess.run(argv, input=secret, capture_output=True, text=True, timeout=300, check=False)
        return done.stdout
