"""Runs vcluster in processes that can be killed: imports all once, then forks one for each task.

A task is a line of JSON on standard input; for each, two lines come back: the process's number when it has begun, and
how it ended. What the child did is in the file that the task names.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from vcluster.errors import VclusterError

PATIENCE = 20_000.0
"""Seconds of the fast clock that a run may take, by default: with the library's own a busy lab would run out of time,
since the requests' real time counts ten times."""


def perform(task: dict[str, Any]) -> dict[str, Any]:
    """Do one thing; what came of it as plain data."""
    import openstack

    from tests.lab.sweep.ready_cloud import ReadyCloud
    from vcluster import Cluster, ClusterSpec
    from vcluster.clouds.openstack import OpenStackCloud

    admin = openstack.connect(cloud="admin")
    cloud = ReadyCloud(OpenStackCloud.connect(task["cloud"]), admin, task.get("speed", 10.0))
    spec = ClusterSpec.from_yaml(task["spec"])
    try:
        with Cluster(spec, cloud=cloud, home=Path(task["home"])) as cluster:
            result: Any = getattr(cluster, task["verb"])(**{"timeout": PATIENCE, **task.get("with", {})})
            return {"ok": True, "changed": getattr(result, "changed", None)}
    except VclusterError as error:
        return {"ok": False, "error": type(error).__name__, "message": str(error)}
    finally:
        cloud.close()


def child(task: dict[str, Any]) -> None:
    out = Path(task["out"])
    try:
        answer = perform(task)
    except BaseException:  # noqa: BLE001  whatever it is, the test shall see it
        answer = {"ok": False, "error": "crash", "message": traceback.format_exc()}
    draft = out.with_suffix(".new")
    draft.write_text(json.dumps(answer))
    draft.replace(out)


def main() -> None:
    # What takes long to import, once for all children.
    import fabric  # noqa: F401
    import openstack  # noqa: F401

    import vcluster.cluster
    import vcluster.spec
    import vcluster.stacks.slurm  # noqa: F401

    for line in sys.stdin:
        task = json.loads(line)
        pid = os.fork()
        if not pid:
            os.close(0)
            child(task)
            os._exit(0)
        print(json.dumps({"pid": pid}), flush=True)  # noqa: T201
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"status": status}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
