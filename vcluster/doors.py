"""The head's doors for people beside SSH: from where each is reached, and under which address. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vcluster.model import Endpoint

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["EVERYWHERE", "HTTP", "HTTPS", "KUBERNETES", "doors_of", "forwarded", "url_of"]

HTTP, HTTPS, KUBERNETES = 80, 443, 6443

EVERYWHERE = ("0.0.0.0/0", "::/0")


def doors_of(spec: ClusterSpec) -> Mapping[int, tuple[str, ...]]:
    """The ports that people reach, each with the networks from which it is let in; none without a Hub or an API.

    With a domain port 80 is open to all, because Let's Encrypt looks there for its proof.
    """
    found: dict[int, tuple[str, ...]] = {}
    if hub := spec.jupyterhub:
        found |= {HTTPS: hub.allow_from, HTTP: EVERYWHERE if hub.domain else hub.allow_from}
    if spec.k3s and spec.k3s.api_from:
        found[KUBERNETES] = spec.k3s.api_from
    return found


def forwarded(spec: ClusterSpec) -> tuple[int, ...]:
    """Those of them that a cloud must bring to the head where it has no address of its own; port 80 only redirects."""
    return tuple(port for port in doors_of(spec) if port != HTTP)


def url_of(spec: ClusterSpec, web: Endpoint) -> str:
    """The address that people type.

    Args:
        web: where the head's port 443 is reached.
    """
    if spec.jupyterhub is not None and spec.jupyterhub.domain:
        return f"https://{spec.jupyterhub.domain}/"
    host = f"[{web.host}]" if ":" in web.host else web.host
    return f"https://{host}/" if web.port == HTTPS else f"https://{host}:{web.port}/"
