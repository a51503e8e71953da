"""What vcluster-k3s and our kubeconfig do with a real k3s: a server without an agent, on this computer's loopback."""

from __future__ import annotations

import base64
import importlib.machinery
import importlib.util
import io
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from vcluster import kubeconfig_file
from vcluster.kubeconfig import taken
from vcluster.resources import templates

pytestmark = pytest.mark.vm

BINARY = os.environ.get("VCLUSTER_TEST_K3S", "")
PORT = 16443
PATIENCE = 120


def taken_ports() -> list[int]:
    """Those of etcd cannot be chosen."""
    busy = []
    for port in (2379, 2380, 2381, PORT, PORT + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                busy.append(port)
    return busy


class Server:
    """A server in a folder, started and stopped in the place of systemd."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self.program = folder / "bin/k3s"  # a copy, because it is changed
        self.program.parent.mkdir()
        shutil.copy(BINARY, self.program)
        self.config = folder / "config.yaml"
        self.process: subprocess.Popen[bytes] | None = None
        lines = [
            f"data-dir: {self.data}",
            "cluster-init: true",
            "disable-agent: true",
            f"https-listen-port: {PORT}",
            "bind-address: 127.0.0.1",
            f"write-kubeconfig: {folder / 'k3s.yaml'}",
            "node-name: head",
            "token: 00112233445566778899aabbccddeeff",
            "tls-san: [head]",
            "disable: [coredns, servicelb, traefik, local-storage, metrics-server]",
        ]
        self.config.write_text("\n".join([*lines, ""]))

    def run(self, *command: str, timeout: float = 60, path: str | None = None) -> str:
        """In the place of the helper's own."""
        if command[0] == "systemctl":
            {"stop": self.stop, "restart": self.restart}[command[1]]()
            return ""
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, f"{path or command}: {done.stderr[-2000:]}"
        return done.stdout

    def restart(self) -> None:
        self.stop()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([self.program, "server"], stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            if (
                self.kubectl("--kubeconfig", str(self.folder / "k3s.yaml"), "get", "namespaces", "default").returncode
                == 0
            ):
                return
            time.sleep(0.5)
        raise AssertionError((self.folder / "log").read_text()[-3000:])

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=60)
            self.process = None

    def kubectl(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        # k3s unpacks itself there, unless another one has in its usual place.
        places = (self.data, Path("/var/lib/rancher/k3s"))
        program = next((path for place in places if (path := place / "data/current/bin/kubectl").exists()), None)
        if program is None:
            return subprocess.CompletedProcess(words, 1, "", "k3s has not unpacked it yet")
        environment = {**os.environ, **environment}
        return subprocess.run(
            [program, *words], capture_output=True, text=True, check=False, env=environment, timeout=60
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not BINARY:
        pytest.skip("VCLUSTER_TEST_K3S names no k3s to try this with")
    if busy := taken_ports():
        pytest.skip(f"another program has ports that etcd and k3s need: {busy}")
    made = Server(tmp_path_factory.mktemp("k3s"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("K3S_CONFIG_FILE", str(made.config))
        try:
            made.restart()
            yield made
        finally:
            made.stop()


@pytest.fixture
def helper(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("vcluster_k3s", str(templates() / "k3s" / "vcluster-k3s"))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    for folder in ("machine", "k3s"):  # where the modules are that lie beside it on a machine
        monkeypatch.syspath_prepend(templates() / folder)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / "k3s.service").touch()
    there = {
        "PROGRAM": server.program,
        "CONFIG": server.config,
        "KUBECONFIG": server.folder / "k3s.yaml",
        "DATA": server.data,
        "STATE": tmp_path / "state",
        "LOCK": tmp_path / "lock",
        "UNITS": tmp_path / "units",
        "run": server.run,
    }
    for name, value in there.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module.kube, "PORT", PORT)
    monkeypatch.setattr(module.kube, "TLS", server.data / "server/tls")
    return module


def test_kubectl_takes_the_merged_file_and_proves_the_server(
    server: Server, helper: ModuleType, tmp_path: Path
) -> None:
    own = taken(helper.kubeconfig(), "demo", f"https://127.0.0.1:{PORT}", PORT)
    mine = tmp_path / "config"
    mine.write_text("apiVersion: v1\nkind: Config\nusers: [{name: me, user: {username: '0123', password: '007'}}]\n")
    kubeconfig_file.merge(own, mine)
    asked = server.kubectl("get", "namespaces", "-o", "name", KUBECONFIG=str(mine))
    assert "namespace/kube-system" in asked.stdout.split(), asked.stderr
    view = json.loads(server.kubectl("config", "view", "--raw", "-o", "json", KUBECONFIG=str(mine)).stdout)
    users = {user["name"]: user["user"] for user in view["users"]}
    assert (users.keys(), users["me"]) == ({"me", "demo-admin"}, {"username": "0123", "password": "007"})
    # It is the authority that is checked, not whoever answers.
    stranger = base64.b64encode((server.data / "server/tls/client-ca.crt").read_bytes()).decode()
    mine.write_text(mine.read_text().replace(own.authority, stranger))
    refused = server.kubectl("get", "namespaces", KUBECONFIG=str(mine))
    assert refused.returncode != 0
    assert "unknown authority" in refused.stderr


def test_nodes_are_asked_for_at_the_api(helper: ModuleType) -> None:
    """There is none, because there is no agent; the answer comes from the API all the same."""
    assert helper.nodes() == {}


def test_a_snapshot_brings_back_what_was_there_twice_and_nothing_else(
    server: Server, helper: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = ("--kubeconfig", str(server.folder / "k3s.yaml"))

    def words() -> list[str]:
        names = "jsonpath={.items[*].metadata.name}"
        said = server.kubectl(*mine, "get", "configmaps", "-n", "default", "-o", names)
        assert said.returncode == 0, said.stderr
        return [name for name in said.stdout.split() if name != "kube-root-ca.crt"]

    def make(name: str) -> None:
        """A server that has just started takes nothing for a moment."""
        end = time.monotonic() + PATIENCE
        while (done := server.kubectl(*mine, "create", "configmap", name)).returncode:
            assert time.monotonic() < end, done.stderr
            time.sleep(0.5)

    make("before")
    told = helper.snapshot(keep=False)
    file = Path(told["file"])
    content = file.read_bytes()
    assert (len(content), helper.checksum(file), file.stat().st_mode & 0o777) == (told["size"], told["sha256"], 0o600)
    assert Path(told["token"]).read_text().strip().endswith("::server:00112233445566778899aabbccddeeff")
    helper.forget(file)
    assert not file.exists()
    # Once, and again as after an interrupted run; the second time as a server that had joined another.
    for joined in ("", "server: https://192.0.2.1:6443\n"):
        make("after")
        assert words() == ["after", "before"]
        server.config.write_text(
            server.config.read_text().replace("cluster-init: true\n", joined or "cluster-init: true\n")
        )
        monkeypatch.setattr(helper.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        helper.receive(told["sha256"])
        helper.restore(told["sha256"])
        assert words() == ["before"]
        assert helper.status()["restoring"]
    helper.settle()
    assert not helper.status()["restoring"]


def test_another_program_is_staged_while_the_old_one_runs_and_then_runs_itself(
    server: Server, helper: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same release with another checksum: what stands behind a program's end does not change what it does."""
    other = tmp_path / "other"
    other.write_bytes(server.program.read_bytes() + b"\0")
    other.chmod(0o755)
    fetch = tmp_path / "fetch"
    fetch.write_text(f'#!/bin/sh\nmkdir -p "$(dirname "$3")"; cp -p {other} "$3"\n')
    fetch.chmod(0o755)
    monkeypatch.setattr(helper, "FETCH", str(fetch))
    before, sha256 = helper.status(), helper.checksum(other)
    assert server.process
    began = server.process.pid
    program = {"source": "head:", "sha256": sha256, "name": "k3s"}
    helper.stage({"version": before["version"], "program": program, "images": [], "drop": []})
    assert (server.process.pid, helper.status()) == (began, before)
    helper.upgrade(sha256)
    assert server.process.pid != began
    after = helper.status()
    assert (after["sha256"], after["version"], after["pending"]) == (sha256, before["version"], False)
