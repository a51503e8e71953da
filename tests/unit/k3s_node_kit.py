"""The head's own program for Kubernetes, beside an API on the loopback that knows four nodes."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import SubprocessError
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from k3s_machines_kit import load, server_context, tls_folder
from kubernetes_kit import Kubernetes, Object, serving, stamp

NOW = time.time()
CLUSTER: dict[str, Any] = {
    "head": "head",
    "reports": 6815,
    "workers": {"head-2": "10.0.0.9", **{f"cpu-{n}": f"10.0.0.{n}" for n in (1, 2)}},
}
NAMES = ("head", "head-2", "cpu-1", "cpu-2")


def node_object(name: str, *, ready: str = "True", boot: str = "B00T-1") -> Object:
    return {
        "metadata": {"name": name},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": ready}], "nodeInfo": {"bootID": f"{boot}-{name}"}},
    }


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    data = tmp_path_factory.mktemp("server")
    return tls_folder(data), server_context(data)


@pytest.fixture
def kubernetes(certificates: tuple[Path, ssl.SSLContext]) -> Iterator[Kubernetes]:
    made = Kubernetes(
        nodes={name: node_object(name) for name in NAMES},
        leases=dict.fromkeys(NAMES, stamp(NOW)),
        becomes=dict.fromkeys(NAMES, "Running"),
    )
    with serving(made, certificates[1]) as running:
        yield running


@pytest.fixture
def node(
    kubernetes: Kubernetes,
    certificates: tuple[Path, ssl.SSLContext],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> ModuleType:
    module = load("vcluster-node", monkeypatch)
    monkeypatch.setattr("vcluster_kube.TLS", certificates[0])
    monkeypatch.setattr("vcluster_kube.PORT", kubernetes.port)
    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=kubernetes.command, SubprocessError=SubprocessError))
    for name in ("STATE", "PROOFS", "JOIN"):
        monkeypatch.setattr(module, name, tmp_path / name)
    (tmp_path / "JOIN").write_text(json.dumps({"servers": {"head": "10.0.0.8"}}))
    monkeypatch.setattr("vcluster_reports.REPORTS", tmp_path / "REPORTS")
    # Time stands still on a busy machine too. A probe is looked at once; a real one for some seconds.
    clock = SimpleNamespace(time=lambda: NOW, monotonic=time.monotonic, sleep=time.sleep)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr("vcluster_reports.time", clock)
    monkeypatch.setattr(module, "PROBE_SECONDS", 0)
    (tmp_path / "STATE").mkdir()
    (tmp_path / "STATE" / "configured").touch()
    (tmp_path / "STATE" / "pause-image").write_text("rancher/mirrored-pause:3.6\n")
    return module


def health(node: ModuleType, **started: float) -> dict[str, str]:
    answer = node.health(CLUSTER, {name.replace("_", "-"): at for name, at in started.items()})
    return dict(answer)


def probes(kubernetes: Kubernetes) -> list[Any]:
    """The pods that were asked for since the last look."""
    made = [body for path, body in kubernetes.bodies if path.endswith("/vcluster/pods") and body]
    kubernetes.bodies.clear()
    return made


READY = dict.fromkeys(NAMES, "ready")
