"""A Kubernetes API on the loopback: TLS as k3s has it, its objects in memory, and as slow or strict as a test wants."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from loopback import Quiet

Object = dict[str, Any]
Answer = tuple[int, Any]
_ONE_NODE = re.compile(r"/api/v1/nodes/([^/]+)")
_ONE_POD = re.compile(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)(/eviction)?")
_PODS = re.compile(r"/api/v1/namespaces/([^/]+)/pods")


def stamp(when: float) -> str:
    """A time as Kubernetes writes a lease's."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def pod(
    name: str, node: str, owner: str = "", *, phase: str = "Running", namespace: str = "class", **meta: Any
) -> Object:
    """A pod on a node that something of this kind controls."""
    owners = [{"kind": owner, "name": "x", "controller": True}] if owner else []
    metadata = {"name": name, "namespace": namespace, "ownerReferences": owners, **meta}
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": phase}}


@dataclass
class Kubernetes:
    """What it knows, and how it behaves.

    Attributes:
        status: what every request gets in the place of its answer, where it is not 0.
        active: whether systemd says that k3s serves; ``help`` is what k3s says of its flags.
        unready: what ``/readyz`` says where it is not 200.
        becomes: the phase of a pod once it was looked at, by its node; else it stays Pending.
        policies: versions of the eviction that it knows; others are refused with ``no_policy``.
        protected: pods whose disruption budget allows no eviction now; others that are refused for good.
        lingers: how often a deleted node is still there.
        asked: method and path of each request, in their order.
        after: called after each request.
    """

    nodes: dict[str, Object] = field(default_factory=dict)
    leases: dict[str, str | None] = field(default_factory=dict)
    pods: dict[tuple[str, str], Object] = field(default_factory=dict)
    accounts: set[str] = field(default_factory=lambda: {"vcluster"})
    status: int = 0
    active: bool = True
    help: str = ""
    unready: int = 200
    becomes: dict[str, str] = field(default_factory=dict)
    policies: tuple[str, ...] = ("v1",)
    no_policy: int = 404
    protected: dict[str, int] = field(default_factory=dict)
    lingers: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[tuple[str, Any]] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)
    after: Callable[[], None] | None = None
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def command(self, command: list[str], **_: Any) -> SimpleNamespace:
        """What the head's own commands say."""
        if command[0] == "systemctl":
            return SimpleNamespace(returncode=0 if self.active else 3)
        return SimpleNamespace(returncode=0, stdout=self.help)

    def answer(self, method: str, target: str, body: Any, client: str) -> Answer:
        """One request."""
        with self.lock:
            self.asked.append((method, target))
            self.bodies.append((target, body))
            self.clients.append(client)
            if self.status:
                return self.status, {"message": "apiserver not ready"}
            if target == "/ping":
                return 200, "pong"
            if client != "system:masters":
                return 401, {"message": "Unauthorized"}
            found = self._answer(method, urlsplit(target).path, urlsplit(target).query, body)
            if self.after is not None:
                self.after()
            return found

    def said(self, method: str, begin: str = "/") -> list[str]:
        """The paths that were asked with a method."""
        return [path for verb, path in self.asked if verb == method and path.startswith(begin)]

    def _answer(self, method: str, path: str, query: str, body: Any) -> Answer:  # noqa: PLR0911 - a table
        if path == "/readyz":
            return self.unready, "ok" if self.unready == 200 else {"message": "etcd failed"}
        if path == "/api/v1/nodes":
            return 200, {"items": list(self.nodes.values())}
        if path.endswith("/kube-node-lease/leases"):
            times = self.leases.items()
            return 200, {"items": [{"metadata": {"name": n}, "spec": {"renewTime": t} if t else {}} for n, t in times]}
        if path == "/api/v1/pods":
            node = parse_qs(query)["fieldSelector"][0].removeprefix("spec.nodeName=")
            return 200, {"items": [each for each in self.pods.values() if each["spec"]["nodeName"] == node]}
        if path.endswith("/serviceaccounts/default"):
            return (200, {}) if path.split("/")[-3] in self.accounts else (404, {"message": "not found"})
        if path == "/api/v1/namespaces":
            self.accounts.add(body["metadata"]["name"])
            return 201, body
        if one := _ONE_NODE.fullmatch(path):
            return self._node(method, one[1], body)
        if one := _ONE_POD.fullmatch(path):
            return self._evict((one[1], one[2]), body) if one[3] else self._pod(method, (one[1], one[2]))
        if method == "POST" and (many := _PODS.fullmatch(path)):
            key = (many[1], body["metadata"]["name"])
            if key in self.pods:
                return 409, {"message": "already exists"}
            body["metadata"]["namespace"] = many[1]
            self.pods[key] = {**body, "status": {"phase": "Pending"}}
            return 201, body
        return 404, {"message": f"nothing is at {path}"}

    def _node(self, method: str, name: str, body: Any) -> Answer:
        if name not in self.nodes:
            return 404, {"message": f'nodes "{name}" not found'}
        node = self.nodes[name]
        if method == "DELETE":
            self.lingers -= 1
            if self.lingers < 0:
                del self.nodes[name]
        elif method == "PATCH":
            self.nodes[name] = _merged(node, body)
        return 200, node

    def _pod(self, method: str, key: tuple[str, str]) -> Answer:
        if key not in self.pods:
            return 404, {"message": "not found"}
        found = self.pods[key]
        if method == "DELETE":
            del self.pods[key]
        elif phase := self.becomes.get(found["spec"]["nodeName"]):
            found["status"]["phase"] = phase
        return 200, found

    def _evict(self, key: tuple[str, str], body: Any) -> Answer:
        if body["apiVersion"].removeprefix("policy/") not in self.policies:
            return self.no_policy, {"message": "no kind Eviction is registered for this version"}
        if key not in self.pods:
            return 404, {"message": "not found"}
        if refused := self.protected.get(key[1]):
            return refused, {"message": "Cannot evict pod as it would violate the pod's disruption budget."}
        del self.pods[key]
        return 201, {"status": "Success"}


def _merged(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _merged(found.get(key), value)
    return found


@contextmanager
def serving(kubernetes: Kubernetes, context: ssl.SSLContext) -> Iterator[Kubernetes]:
    """Serve until the block ends."""

    class Handler(Quiet):
        def answer(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            shown: Any = self.connection.getpeercert() or {}
            words = dict(pair for part in shown.get("subject", ()) for pair in part)
            body = json.loads(text) if text else None
            status, told = kubernetes.answer(self.command, self.path, body, words.get("organizationName", ""))
            answer = told.encode() if isinstance(told, str) else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - named by the library

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    kubernetes.port = int(server.server_address[1])
    try:
        yield kubernetes
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
