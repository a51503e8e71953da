"""JupyterHub on k3s: the zero-to-jupyterhub chart, by k3s' own HelmChart object. Pure: spec and site in, text out.

k3s applies what lies in its server's ``manifests``, and again when that changes; its helm-controller then installs or
upgrades the chart. Values with secrets are in a Secret that the HelmChart names (``valuesSecrets``), beside it in
``kube-system``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from vcluster.stacks import hub_storage, jupyterhub
from vcluster.stacks.hub_certificate import front_certificate
from vcluster.stacks.hub_storage import wants_nfs
from vcluster.stacks.k3s_cloud import MANIFESTS
from vcluster.stacks.userdata import File
from vcluster.stacks.zero_to_jupyterhub_values import HOMES_CLAIM, SERVER_LABEL, needs_url, values

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec
    from vcluster.stacks.base import Site

__all__ = [
    "CHART",
    "CHART_FILE",
    "INPUTS",
    "NAMESPACE",
    "RELEASE",
    "SYSTEM",
    "VERSION",
    "files",
    "secret_values",
    "values",
    "wants_nfs",
]

CHART, VERSION = "jupyterhub", "4.4.0"
REPOSITORY = "https://hub.jupyter.org/helm-chart/"

RELEASE = NAMESPACE = "jupyterhub"
SYSTEM = "kube-system"
"""Where k3s' HelmCharts and what belongs to them are."""

VALUES_SECRET, FRONT_SECRET = "vcluster-jupyterhub-values", "vcluster-jupyterhub-front"

_FILES = f"{MANIFESTS}/vcluster-jupyterhub"
CHART_FILE = f"{_FILES}.yaml"
INPUTS = (f"{_FILES}-values.yaml", CHART_FILE)
"""Files of which k3s' helm-controller takes a hash: when that changes, it ends the helm that runs and begins anew."""


def secret_values(site: Site) -> dict[str, Any]:
    """What is secret of the chart's values, and who the people are; to be merged with :func:`values`, as helm does."""
    hub, ring = site.spec.jupyterhub, site.keyring
    assert hub is not None
    secret = site.secrets["client_secret"] if hub.auth.client_secret is not None else None
    known = {"people.json": jupyterhub.people_list(site.spec), "passwords.json": json.dumps(jupyterhub.passwords(site))}
    return {
        "hub": {
            "config": {
                "JupyterHub": {"cookie_secret": ring.key("jupyterhub-cookie").hex()},
                "ConfigurableHTTPProxy": {"auth_token": ring.password("jupyterhub-proxy")},
                "CryptKeeper": {"keys": [ring.key("jupyterhub-crypt").hex()]},
            },
            "extraFiles": {
                name: {"mountPath": f"{jupyterhub.FOLDER}/{name}", "stringData": text} for name, text in known.items()
            },
        },
        **({"custom": {"clientSecret": secret}} if secret else {}),
    }


def files(site: Site, url: str = "") -> Iterator[File]:
    """The manifests for the head; none without a Hub on k3s. In the order in which k3s takes them.

    Args:
        url: the address that people type, where it is known: a head's own first boot does not know it. A Hub that
            needs it has no HelmChart before: the address would come in the midst of the chart's install, and end it.
    """
    hub = site.spec.jupyterhub
    if hub is None or site.spec.scheduler != "k3s":
        return
    yield _file("front", *_front(site, urlsplit(url).hostname or ""))
    yield _file("namespace", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    if wants_nfs(site.spec):
        yield _file("storage", *_homes(site))
    yield _file("values", _secret(VALUES_SECRET, {"values.yaml": _text(secret_values(site))}))
    if url or not needs_url(hub):
        yield _file("", _chart(site, url))


def _file(name: str, *documents: Mapping[str, Any]) -> File:
    ending = f"-{name}" if name else ""
    text = "---\n".join(_text(document) for document in documents)
    return File(f"{_FILES}{ending}.yaml", text, 0o600)


class _Dumper(yaml.SafeDumper):
    """Long texts as they are, line by line; no aliases, which are a reader's trap."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent)


def _text(data: Mapping[str, Any]) -> str:
    return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _secret(name: str, texts: Mapping[str, str], kind: str = "Opaque") -> dict[str, Any]:
    metadata = {"name": name, "namespace": SYSTEM}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "stringData": dict(texts)}


def _chart(site: Site, url: str) -> dict[str, Any]:
    spec = site.spec
    return {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChart",
        "metadata": {"name": RELEASE, "namespace": SYSTEM},
        "spec": {
            "repo": REPOSITORY,
            "chart": CHART,
            "version": VERSION,
            "targetNamespace": NAMESPACE,
            # The default takes all of it away when time is up: the proxy, and so everybody's notebooks' way, and who
            # was there.
            "failurePolicy": "abort",
            # Every worker pulls the notebooks' image before the first notebook.
            "timeout": "30m",
            # A chart's job runs where notebooks do; where no worker takes it, on a server.
            **({"bootstrap": True} if _all_tainted(spec) else {}),
            "valuesContent": _text(values(site, url)),
            "valuesSecrets": [{"name": VALUES_SECRET, "keys": ["values.yaml"]}],
        },
    }


def _all_tainted(spec: ClusterSpec) -> bool:
    return all(group.taints or group.gpus for group in spec.workers if group.maximum)


def _front(site: Site, host: str) -> Iterator[dict[str, Any]]:
    """Traefik's settings: it has ports 80 and 443, the certificate, and sends everybody to https."""
    spec, hub = site.spec, site.spec.jupyterhub
    assert hub is not None
    redirect = "--entrypoints.web.http.redirections.entrypoint"
    settings: dict[str, Any] = {
        "additionalArguments": [f"{redirect}.to=:443", f"{redirect}.scheme=https"],
        # What it keeps is on the server's disk, and servers are not cattle.
        "nodeSelector": dict(SERVER_LABEL),
    }
    if hub.domain:
        resolver = "--certificatesresolvers.letsencrypt.acme"
        settings["additionalArguments"] += [
            *([f"{resolver}.email={hub.email}"] if hub.email else []),
            f"{resolver}.storage=/data/acme.json",
            f"{resolver}.httpchallenge.entrypoint=web",
        ]
        if storage := hub_storage.database_class(spec):
            # Kept, because Let's Encrypt gives a name few certificates a week.
            settings["persistence"] = {"enabled": True, "size": "128Mi", "storageClass": storage}
            settings["podSecurityContext"] = {"fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch"}
            # A volume is on one machine at a time.
            settings["updateStrategy"] = {"type": "Recreate", "rollingUpdate": None}
    else:
        chain, key = front_certificate(site.keyring, _names(site, host))
        yield _secret(FRONT_SECRET, {"tls.crt": chain, "tls.key": key}, "kubernetes.io/tls")
        # For who types an address: that has no name by which to choose a certificate.
        settings["tlsStore"] = {"default": {"defaultCertificate": {"secretName": FRONT_SECRET}}}
    yield {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChartConfig",
        "metadata": {"name": "traefik", "namespace": SYSTEM},
        "spec": {"valuesContent": _text(settings)},
    }


def _names(site: Site, host: str) -> list[str]:
    head = site.slots[0].name
    return [host, site.spec.access.floating_ip or "", head, site.ports[head].address, "localhost", "127.0.0.1"]


def _homes(site: Site) -> Iterator[dict[str, Any]]:
    """The head's export as a volume, and the claim on it; their sizes say nothing."""
    address = site.ports[site.slots[0].name].address
    size = {"storage": "1Gi"}
    yield {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": HOMES_CLAIM},
        "spec": {
            "capacity": size,
            "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "mountOptions": ["nfsvers=4.2", "hard", "noatime"],
            "nfs": {"server": address, "path": hub_storage.NFS_FOLDER},
            "claimRef": {"namespace": NAMESPACE, "name": HOMES_CLAIM},
        },
    }
    yield {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": HOMES_CLAIM, "namespace": NAMESPACE},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": size},
            "storageClassName": "",
            "volumeName": HOMES_CLAIM,
        },
    }
