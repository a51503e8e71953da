"""NVIDIA GPUs for Kubernetes: who tells it of them. Pure: spec and site in, text out.

The image brings driver and container runtime. k3s finds the runtime by its binary on its PATH when it starts
(from v1.22; k3s documentation, "Alternative Container Runtime Support"); pods take it by ``runtimeClassName: nvidia``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vcluster.render import render
from vcluster.stacks.k3s_cloud import KUBELET, MANIFESTS
from vcluster.stacks.userdata import File

if TYPE_CHECKING:
    from vcluster.stacks.base import Site

__all__ = ["IMAGE", "gpu_files"]

IMAGE = "nvcr.io/nvidia/k8s-device-plugin:v0.20.0"

RUNTIME_CLASS = (1, 29)
"""From here on k3s makes the runtime classes itself (k3s-io/k3s#8936). The last patches of v1.26 to v1.28 do so too:
theirs and ours are the same."""


def gpu_files(site: Site) -> Iterator[File]:
    """Manifests for every server; none where no group has GPUs.

    They count on the label ``vcluster/gpu=true`` on the nodes of groups with GPUs.
    """
    if not any(group.gpus for group in site.spec.workers):
        return
    values = {
        "image": IMAGE,
        "kubelet": KUBELET,
        "name": "nvidia-device-plugin",
        "runtime_class": site.spec.kubernetes.numbers < RUNTIME_CLASS,
    }
    yield File(f"{MANIFESTS}/vcluster-nvidia.yaml", render("k3s/gpu/nvidia.yaml.j2", **values), 0o600)
