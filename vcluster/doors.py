"""The Hub's front door: from where it is reached, and under which address. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcluster.model import Endpoint

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["EVERYWHERE", "HTTP", "HTTPS", "http_from", "https_from", "url_of"]

HTTP, HTTPS = 80, 443

EVERYWHERE = ("0.0.0.0/0", "::/0")


def https_from(spec: ClusterSpec) -> tuple[str, ...]:
    """Networks from which the Hub is reached; none without a Hub."""
    return spec.jupyterhub.allow_from if spec.jupyterhub else ()


def http_from(spec: ClusterSpec) -> tuple[str, ...]:
    """Networks from which port 80 is reached: with a domain all, because Let's Encrypt looks there for its proof."""
    if spec.jupyterhub is None:
        return ()
    return EVERYWHERE if spec.jupyterhub.domain else spec.jupyterhub.allow_from


def url_of(spec: ClusterSpec, web: Endpoint) -> str:
    """The address that people type.

    Args:
        web: where the head's port 443 is reached.
    """
    if spec.jupyterhub is not None and spec.jupyterhub.domain:
        return f"https://{spec.jupyterhub.domain}/"
    host = f"[{web.host}]" if ":" in web.host else web.host
    return f"https://{host}/" if web.port == HTTPS else f"https://{host}:{web.port}/"
