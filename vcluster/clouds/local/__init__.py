"""Real machines on this host, under QEMU."""

from vcluster.clouds.local.cloud import LocalCloud

__all__ = ["LocalCloud"]
