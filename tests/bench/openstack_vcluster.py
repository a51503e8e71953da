"""vcluster's side of the OpenStack benchmark, a program as the bare script is.

::

    python openstack_vcluster.py up|status|down CLOUD COUNT HOME

Nova's fake machines have no guest, so that a machine counts as ready when it is ACTIVE; all else is as for a person.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.lab.sweep.ready_cloud import ReadyCloud
from vcluster import Cluster, ClusterSpec
from vcluster.clouds.openstack import OpenStackCloud

SPEC = """
name: bench
cloud: {cloud}
image: debian-12
head: {{flavor: m3.tiny}}
workers: [{{name: cpu, count: {count}, flavor: m3.tiny}}]
"""


def main() -> None:
    """Run ``up``, ``status`` or ``down``."""
    verb, name, count, home = sys.argv[1:]
    spec = ClusterSpec.from_yaml(SPEC.format(cloud=name, count=count))
    cloud = ReadyCloud(OpenStackCloud.connect(name), speed=1.0)
    try:
        with Cluster(spec, cloud=cloud, home=Path(home)) as cluster:
            getattr(cluster, verb)()
    finally:
        cloud.close()


if __name__ == "__main__":
    main()
