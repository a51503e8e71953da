"""vcluster: one YAML file, one command, a working cluster on cloud VMs; and it takes it all away again.

``from vcluster import Cluster, ClusterSpec`` loads what it needs then, so that ``vcluster --help`` stays quick.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for true; importing typing for it is a fifth of `vcluster --help`
if TYPE_CHECKING:
    from vcluster.cluster import Cluster, clusters
    from vcluster.reaper import reap
    from vcluster.spec import ClusterSpec
    from vcluster.sweeper import sweep

__all__ = ["Cluster", "ClusterSpec", "clusters", "reap", "sweep"]

_MODULES = {"Cluster": "cluster", "ClusterSpec": "spec", "clusters": "cluster", "reap": "reaper", "sweep": "sweeper"}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f"vcluster.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'vcluster' has no attribute {name!r}")
