"""Kubernetes' API on this server, asked as its administrator."""

import json
from pathlib import Path

from vcluster_reports import Sorry

TLS = Path("/var/lib/rancher/k3s/server/tls")
HOST, PORT = "127.0.0.1", 6443
CALL_SECONDS = 20
# A kubelet renews its lease every ten seconds; Kubernetes itself waits for forty before it doubts the node.
LEASE_SECONDS = 45
MERGE = "application/merge-patch+json"
# What k3s has to do before a node that was deleted is gone: the first is any server's, the second its leader's.
_OF_ETCD, _OF_LEADER = "wrangler.cattle.io/managed-etcd-controller", "wrangler.cattle.io/node"


class Refused(Sorry):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def call(method, path, body=None, kind="application/json"):
    """The answer's JSON; of other text its words."""
    # Here and below, because loading these takes longest, and a head that boots is asked every few seconds.
    import http.client
    import ssl

    try:
        trust = ssl.create_default_context(cafile=str(TLS / "server-ca.crt"))
        trust.load_cert_chain(str(TLS / "client-admin.crt"), str(TLS / "client-admin.key"))
        link = http.client.HTTPSConnection(HOST, PORT, timeout=CALL_SECONDS, context=trust)
        try:
            link.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": kind})
            answer = link.getresponse()
            text = answer.read().decode(errors="replace")
        finally:
            link.close()
    except (OSError, http.client.HTTPException) as error:
        raise Sorry(f"Kubernetes does not answer: {error}") from None
    try:
        told = json.loads(text)
    except ValueError:
        told = {"message": text}
    if answer.status >= 400:
        raise Refused(answer.status, f"{method} {path}: {told.get('message') or answer.status}")
    return told


def seconds(text):
    """Kubernetes' time as seconds since the epoch."""
    from datetime import datetime

    return datetime.fromisoformat(text or "1970-01-01T00:00:00Z").timestamp()


def nodes():
    return {node["metadata"]["name"]: node for node in call("GET", "/api/v1/nodes")["items"]}


def heartbeats():
    """When each node's kubelet last said that it lives."""
    items = call("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")["items"]
    return {lease["metadata"]["name"]: seconds(lease["spec"].get("renewTime")) for lease in items}


def hanging(node):
    """The merge patch that lets a deleted node go which etcd holds no more and k3s' leader does not get to; else None.

    Where two servers take a member out of etcd at the same moment, etcd drops the second one's wish and never answers
    it. k3s waits for that answer for ever (seen with v1.21.2); if it is the leader, it comes to nothing else of this
    node. What it would do is little: to forget the node's password, which here the next machine of this name has, too.
    """
    meta = node.get("metadata") or {}
    holds = meta.get("finalizers") or []
    if not meta.get("deletionTimestamp") or _OF_ETCD in holds or _OF_LEADER not in holds:
        return None
    rest = [each for each in holds if each != _OF_LEADER]
    return {"metadata": {"finalizers": rest, "resourceVersion": meta.get("resourceVersion")}}


def says_ready(node):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions") or ())
