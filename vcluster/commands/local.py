"""Commands for the local cloud's host: doctor, and the base images."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import click

from vcluster.commands import summary_of
from vcluster.commands.common import How, command, nearest, open_spec, options, table
from vcluster.console import clean
from vcluster.errors import UsageError
from vcluster.events import Log


@command("doctor")
@options()
def doctor_(how: How) -> int:
    """Exit code 0 when it can (if slowly), else 1, and each thing that is missing with how to get it."""
    from vcluster.clouds.local.doctor import checks

    found = checks()
    lines = []
    for check in found:
        lines.append(f"{'ok     ' if check.ok else 'MISSING'}  {clean(check.name)}: {clean(check.detail)}")
        if check.remedy:
            lines.append(f"         {clean(check.remedy)}")
    able = all(check.ok for check in found)
    lines += ["", "This computer can run the local cloud." if able else "Something is missing for the local cloud."]
    how.result("doctor", {"ok": able, "checks": [asdict(check) for check in found]}, "\n".join(lines))
    return 0 if able else 1


image_ = click.Group(
    "image",
    short_help=summary_of("image"),
    help=f"""{summary_of("image")}

The local cloud's machines start from copies of a base image. `vcluster up` builds what is missing by itself; these
commands are for doing it ahead of time, and for making room.""",
    no_args_is_help=False,
)


@image_.command("build")
@click.argument("spec", required=False)
@options()
def build(spec: str | None, how: How) -> None:
    """Build or fetch the image that a SPEC's machines start from (default: the smallest spec's), if it is not there.

    An image is known by the hash of what went into it: the same inputs give the same image, from the cache.
    """
    from vcluster.cluster import Cluster
    from vcluster.spec import ClusterSpec
    from vcluster.wiring import image_of

    wanted = open_spec(spec) if spec else ClusterSpec(name="image", cloud="local")
    shown = how.reporter()
    begin = time.monotonic()

    def notify(message: str) -> None:
        shown.handle(Log(cluster=wanted.name, time=time.time(), level="info", message=message))

    try:
        with Cluster(wanted) as cluster:
            identity = image_of(wanted, cluster.cloud, notify)()
    finally:
        shown.close()
    seconds = time.monotonic() - begin
    how.result("image build", {"id": identity, "seconds": round(seconds, 3)}, f"{identity} is there")


@image_.command("list")
@options()
def list_images_(how: How) -> None:
    """List the images in the cache, and how much of the disk each takes."""
    from vcluster.clouds.local.image import list_images
    from vcluster.places import cache_root

    root = cache_root()
    found = [(image.id, str(image.disk), _used(image.disk)) for image in list_images(root)]
    images = [{"id": name, "path": path, "bytes": size} for name, path, size in found]
    if not images and not (how.as_json or how.quiet):
        click.echo(f"no images in {clean(root)}", err=True)
    rows = [(name, f"{size / 2**20:.0f} MiB", path) for name, path, size in found]
    how.result("image list", {"images": images}, table(("ID", "SIZE", "PATH"), rows) if rows else "")


def _used(path: Path) -> int:
    """Bytes on the disk; an image is mostly holes."""
    return path.stat().st_blocks * 512


@image_.command("remove")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@options()
def remove(ids: tuple[str, ...], how: How) -> None:
    """Remove images from the cache; one that a cluster's machines stand on is kept."""
    from vcluster.clouds.local.image import list_images, remove_image
    from vcluster.places import cache_root

    root = cache_root()
    known = [image.id for image in list_images(root)]
    for identity in ids:
        if identity not in known:
            hint = nearest(identity, known)
            remedy = f"did you mean {hint}?" if hint else "`vcluster image list` shows those that there are"
            raise UsageError(f"there is no image '{identity}'", remedy=remedy)
    for identity in ids:
        remove_image(root, identity)
    how.result("image remove", {"removed": list(ids)}, "\n".join(f"{clean(identity)} is removed" for identity in ids))
