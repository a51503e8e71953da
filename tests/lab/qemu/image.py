"""The image that the lab's machines start from: the one that the local cloud builds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

__all__ = ["baked_image"]


def baked_image(spec: Path | None = None) -> dict[str, str]:
    """What the driver behind Nova must have in its environment: where the image lies, built if it is not there yet.

    Args:
        spec: the local cluster whose image it is; None is the smallest.

    Raises:
        subprocess.CalledProcessError: it cannot be built; what is wrong was printed.
    """
    from vcluster.places import cache_root

    vcluster = Path(sys.executable).with_name("vcluster")
    done = subprocess.run(
        [vcluster, "image", "build", *([spec] if spec else []), "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    identity = json.loads(done.stdout.splitlines()[-1])["id"]
    return {"LAB_IMAGE": str(cache_root() / "images" / identity)}
