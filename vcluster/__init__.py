"""vcluster: one YAML file, one command, a working cluster on cloud VMs; and it takes it all away again.

``from vcluster import Cluster, ClusterSpec`` loads what it needs then, so that ``vcluster --help`` stays quick.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for true; importing typing for it is a fifth of `vcluster --help`
if TYPE_CHECKING:
    from vcluster.cluster import Cluster
    from vcluster.spec import ClusterSpec

__all__ = ["Cluster", "ClusterSpec"]


def __getattr__(name: str) -> object:
    if name == "Cluster":
        from vcluster.cluster import Cluster

        return Cluster
    if name == "ClusterSpec":
        from vcluster.spec import ClusterSpec

        return ClusterSpec
    raise AttributeError(f"module 'vcluster' has no attribute {name!r}")
