"""The machines that a spec asks for: their sizes, the head, groups of workers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from vcluster import k3s_checks as k3s
from vcluster import spec_checks as checks
from vcluster import spec_cross as cross
from vcluster.model import Flavor
from vcluster.spec_base import Count, Disk, Memory, Model, OptionalCount, Text, pattern
from vcluster.spec_checks import NAME, Trouble
from vcluster.spec_place import ImageName, RootDisk, Zone
from vcluster.spec_words import BRANCHES, Kind

__all__ = ["FlavorSpec", "HeadSpec", "WorkerGroup"]


class FlavorSpec(Model):
    """An explicit machine size, in the place of a flavor's name. The local cloud takes any; others have their own."""

    cpus: Annotated[int, Field(strict=True, ge=1, le=1024), Kind("whole number")] = Field(
        description="Virtual processors", examples=[2]
    )
    memory: Memory = Field(
        description="Memory, `512M`, `1G`, `1.5G`; a bare number is MiB. Sizes are powers of 1024", examples=["1G"]
    )
    disk: Disk = Field(default=8, description="Disk in whole GiB, `6G`, `1T`; a bare number is GiB", examples=["6G"])

    def flavor(self) -> Flavor:
        """The size with a name made of it, as ``2c-1024m-6g``."""
        return Flavor(f"{self.cpus}c-{self.memory}m-{self.disk}g", self.cpus, self.memory, self.disk)


def _branch(value: Any) -> str | None:
    if isinstance(value, str):
        return BRANCHES[0]
    return BRANCHES[1] if isinstance(value, dict | FlavorSpec) else None


AnyFlavor = Annotated[
    Annotated[str, AfterValidator(checks.flavor_name), pattern(checks.FLAVOR), Tag(BRANCHES[0])]
    | Annotated[FlavorSpec, Tag(BRANCHES[1])],
    Discriminator(_branch),
    Kind("flavor", "a flavor's name, or a size such as {cpus: 2, memory: 1G, disk: 6G}"),
]
_FLAVOR = "A flavor's name (on the local cloud `small`, `medium` or `large`), or an explicit size"
_ROOT_DISK = "Boot from a volume of this size, deleted with its machine (OpenStack). Default: the flavor's own disk"
_IMAGE = "An image that the cloud has, by name or id (OpenStack). Default: the cluster's"
_ZONE = "Availability zone (OpenStack). Default: the cluster's"


class HeadSpec(Model):
    """The head node: the one machine that is reached from outside; it holds `/home` and the scheduler."""

    flavor: AnyFlavor = Field(default="small", description=_FLAVOR, examples=["medium", {"cpus": 2, "memory": "2G"}])
    count: Annotated[int | None, Field(strict=True), AfterValidator(k3s.head_count), Kind("1 or 3", "1 or 3")] = Field(
        default=None,
        description="With `scheduler: k3s` there can be 3 servers, so that any one of them may be lost: `head`, "
        "`head-2` and `head-3`. Default: 1",
        examples=[3],
    )
    root_disk: RootDisk = Field(default=None, description=_ROOT_DISK, examples=["100G"])
    image: ImageName = Field(default=None, description=_IMAGE, examples=["Featured-Ubuntu24"])
    availability_zone: Zone = Field(default=None, description=_ZONE, examples=["nova"])


class WorkerGroup(Model):
    """A group of like workers, in Slurm a partition. Its machines are called `<name>-1`, `<name>-2`, …"""

    name: Annotated[Text, AfterValidator(checks.group_name), pattern(NAME), Kind("name")] = Field(
        default="cpu",
        description="The group's name, also the partition's: lower-case letters, digits, hyphens",
        examples=["cpu"],
    )
    count: Count = Field(default=2, description="How many workers to have", examples=[4])
    min_count: OptionalCount = Field(
        default=None, description="How many are enough to go on with when others fail. Default: `count`", examples=[3]
    )
    max_count: OptionalCount = Field(
        default=None, description="How far the group can grow later without a restart. Default: `count`", examples=[16]
    )
    flavor: AnyFlavor = Field(
        default="small", description=_FLAVOR, examples=["large", {"cpus": 1, "memory": "1G", "disk": "6G"}]
    )
    gpus: Annotated[
        int | None, Field(strict=True, ge=0, le=64), AfterValidator(lambda value: value or None), Kind("whole number")
    ] = Field(
        default=None,
        description="How many NVIDIA GPUs each machine has; jobs ask with `--gres=gpu:1`. The image brings the driver. "
        "Default: none",
        examples=[1],
    )
    labels: Annotated[dict[str, str] | None, BeforeValidator(k3s.labels), Kind("mapping of texts")] = Field(
        default=None,
        description="Labels of the group's Kubernetes nodes, beside `vcluster/group`, its name (k3s). Default: none",
        examples=[{"example.org/disk": "fast"}],
    )
    taints: Annotated[
        tuple[Annotated[Text, AfterValidator(k3s.taint)], ...] | None, Kind("list of taints", "a list of taints")
    ] = Field(
        default=None,
        description="Taints of the group's Kubernetes nodes, as `key=value:Effect` (k3s). `nvidia.com/gpu` is set "
        "where a group has GPUs. Default: none",
        examples=[["dedicated=classes:NoSchedule"]],
    )
    root_disk: RootDisk = Field(default=None, description=_ROOT_DISK, examples=["60G"])
    image: ImageName = Field(default=None, description=_IMAGE, examples=["Featured-Ubuntu24"])
    availability_zone: Zone = Field(default=None, description=_ZONE, examples=["nova"])

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.counts(data)

    @property
    def minimum(self) -> int:
        """``min_count``, or ``count`` where it is not set."""
        return self.count if self.min_count is None else self.min_count

    @property
    def maximum(self) -> int:
        """``max_count``, or ``count`` where it is not set."""
        return self.count if self.max_count is None else self.max_count
