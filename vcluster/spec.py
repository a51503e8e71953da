"""What the user asks for: frozen pydantic models of one YAML file. A model that validated is self-contained:
files that it named (keys, scripts, certificates) have been read, so the same spec means the same cluster anywhere.

Whatever is wrong comes as one :class:`~vcluster.errors.SpecError` with every problem in it, from a file and from
Python alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, PrivateAttr, Tag

from vcluster import spec_checks as checks
from vcluster import spec_cross as cross
from vcluster.errors import Problem, SpecError
from vcluster.model import Flavor, Role, Slot
from vcluster.spec_base import (
    Count,
    Disk,
    Flag,
    JobMemory,
    Keys,
    Memory,
    Model,
    OptionalCount,
    Package,
    Pem,
    Script,
    SlurmTime,
    Text,
    Url,
    pattern,
)
from vcluster.spec_checks import NAME, Trouble
from vcluster.spec_file import Origin, Source, dump, read_bytes, read_text
from vcluster.spec_hub import HubSpec
from vcluster.spec_place import (
    AccessSpec,
    ImageName,
    ImageSpec,
    Lifetime,
    OptionalName,
    PriceSpec,
    RootDisk,
    Zone,
)
from vcluster.spec_words import BRANCHES, Kind

__all__ = [
    "NAME",
    "AccessSpec",
    "ClusterSpec",
    "FlavorSpec",
    "HeadSpec",
    "HubSpec",
    "ImageSpec",
    "MirrorSpec",
    "PriceSpec",
    "SetupSpec",
    "SlurmSpec",
    "UserSpec",
    "WorkerGroup",
    "schema_json",
]


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
    root_disk: RootDisk = Field(default=None, description=_ROOT_DISK, examples=["100G"])
    image: ImageName = Field(default=None, description=_IMAGE, examples=["Featured-Ubuntu24"])
    availability_zone: Zone = Field(default=None, description=_ZONE, examples=["nova"])


class WorkerGroup(Model):
    """A group of like workers; each group is a Slurm partition. Its machines are called `<name>-1`, `<name>-2`, …"""

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


class UserSpec(Model):
    """A user, with the same UID and home on every machine."""

    name: Annotated[Text, AfterValidator(checks.user_name), pattern(checks.USER), Kind("name")] = Field(
        description="Login name: lower-case letters, digits, `_` and `-`", examples=["alice"]
    )
    ssh_keys: Keys = Field(
        default=(),
        description="The user's public keys, as text or as names of `.pub` files. There are no passwords",
        examples=[["keys/alice.pub"]],
    )
    sudo: Flag = Field(default=False, description="Whether the user may become root with sudo", examples=[True])


class SetupSpec(Model):
    """The site's own steps: scripts that root runs once on each new machine, after vcluster's own."""

    head: Script = Field(
        default="", description="For the head, a file's name or the script itself", examples=["./head.sh"]
    )
    workers: Script = Field(
        default="", description="For every worker, likewise; at most 16 KiB each", examples=["./worker.sh"]
    )


class SlurmSpec(Model):
    """What users of the Slurm partitions find."""

    accounting: Flag = Field(default=True, description="Keep a record of jobs (`sacct`), in a database on the head")
    default_time: SlurmTime = Field(
        default="1:00:00", description="Time limit of a job that asks for none", examples=["30", "8:00:00"]
    )
    max_time: SlurmTime = Field(
        default="UNLIMITED", description="Longest time limit that a job may ask for", examples=["2-00:00:00"]
    )
    memory_per_cpu: JobMemory = Field(
        default=None,
        description="Memory for each processor of a job that asks for none. Default: its fair share of the machine's",
        examples=["900M"],
    )

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.times(data)


class MirrorSpec(Model):
    """For sites with mirrors or a certificate authority of their own."""

    apt: Url = Field(
        default="", description="Where Debian packages come from", examples=["https://mirror.example.org/debian"]
    )
    pypi: Url = Field(
        default="", description="Where Python packages come from", examples=["https://mirror.example.org/simple"]
    )
    ca: Pem = Field(
        default="", description="Certificate authority to trust, a file's name or PEM text", examples=["site-ca.pem"]
    )


class ClusterSpec(Model):
    """A whole cluster. The smallest one is `name` and `cloud`; everything else has a default."""

    name: Annotated[Text, AfterValidator(checks.cluster_name), pattern(NAME), Kind("name")] = Field(
        description="The cluster's name, lower-case letters, digits and hyphens", examples=["demo"]
    )
    cloud: Annotated[Text, AfterValidator(checks.cloud_name), pattern(checks.CLOUD), Kind("name")] = Field(
        description="`local`, or a cloud's name in clouds.yaml", examples=["local"]
    )
    scheduler: Annotated[Literal["slurm"], Kind("`slurm`", "slurm")] = Field(
        default="slurm", description="What runs the jobs", examples=["slurm"]
    )
    head: HeadSpec = Field(default=HeadSpec(), description="The head node")
    workers: Annotated[tuple[WorkerGroup, ...], Kind("list of worker groups")] = Field(
        default=(WorkerGroup(),), description="One or more groups of workers, each a partition"
    )
    access: AccessSpec = Field(default=AccessSpec(), description="Administrators' keys, and who may reach the head")
    users: Annotated[tuple[UserSpec, ...], Kind("list of users")] = Field(
        default=(), description="Users of the cluster"
    )
    packages: Annotated[tuple[Package, ...], Kind("list of packages")] = Field(
        default=(), description="Debian packages for every machine", examples=[["gfortran", "python3-numpy"]]
    )
    setup: SetupSpec = Field(default=SetupSpec(), description="The site's own steps, after vcluster's")
    slurm: SlurmSpec = Field(default=SlurmSpec(), description="Limits and defaults of jobs")
    jupyterhub: HubSpec | None = Field(
        default=None,
        description="JupyterHub on the head, for classes; `jupyterhub:` alone has all defaults. Default: no Hub",
    )
    mirrors: MirrorSpec = Field(default=MirrorSpec(), description="The site's mirrors and certificate authority")
    image: ImageSpec = Field(default=ImageSpec(), description="What the machines' disks start from")
    network: OptionalName = Field(
        default=None,
        description="A network of the project to use (OpenStack). Default: the one that suits, or a new one",
        examples=["auto_allocated_network"],
    )
    external_network: OptionalName = Field(
        default=None,
        description="Where floating IPs come from (OpenStack). Default: the only one that there is, or `public`",
        examples=["public"],
    )
    availability_zone: Zone = Field(
        default=None,
        description="Where machines and volumes are made (OpenStack). Default: the cloud's choice",
        examples=["nova"],
    )
    expires: Lifetime = Field(
        default=None,
        description="How long after its creation `vcluster reap` shelves the cluster. Default: never",
        examples=["8h"],
    )
    grace_period: Lifetime = Field(
        default=None,
        description="How long after that `vcluster reap` deletes it. Default: `1d`",
        examples=["2d"],
    )
    prices: Annotated[tuple[PriceSpec, ...], Kind("list of prices")] = Field(
        default=(), description="What flavors cost, before what is known already: Jetstream2's prices"
    )
    _origin: Origin = PrivateAttr(default=Origin(Source()))

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.cluster(data)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a spec file and the files it names (relative to its folder).

        Raises:
            SpecError: with every problem at once, each with its line and column.
        """
        file = Path(path)
        return cls._read(read_bytes(file), Source(str(path), file.parent))

    @classmethod
    def from_yaml(cls, text: str, *, file: str = "", folder: Path | None = None) -> Self:
        """Read a spec from a text.

        Args:
            text: YAML.
            file: what to call it in messages.
            folder: where the names of files in it begin; None refuses them, which is right for a text that came from
                somebody else: it cannot name files of this machine.

        Raises:
            SpecError: with every problem at once.
        """
        return cls._read(text, Source(file, folder))

    @classmethod
    def _read(cls, data: bytes | str, source: Source) -> Self:
        content = read_text(data, source)
        if content is None:
            raise SpecError(source.problems)
        if "jupyterhub" in content and content["jupyterhub"] is None:
            content["jupyterhub"] = {}  # who writes the key wants a Hub, whatever is commented out below it
        return cls.model_validate(content, context=source)

    def model_post_init(self, context: Any, /) -> None:
        """Keep where this came from, for :meth:`problem`."""
        if isinstance(context, Source):
            self._origin = Origin(context)

    def problem(self, at: checks.Path, message: str, remedy: str = "") -> Problem:
        """A problem with a value that only a cloud could find, with the line in the file that the spec came from.

        Args:
            at: keys and positions, as ``("workers", 0, "flavor")``; one that was left out has the place around it.
        """
        return self._origin.source.problem(Trouble(at, message, remedy))

    def canonical(self) -> dict[str, Any]:
        """The spec as plain JSON data, defaults included; ``model_validate`` of it gives an equal spec."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_yaml(self) -> str:
        """The spec as YAML that needs no other file, but for an image that is one."""
        return dump(self.canonical())

    @property
    def digest(self) -> str:
        """16 hex digits of SHA-256 over the canonical JSON, without the prices, which change no cluster."""
        data = {key: value for key, value in self.canonical().items() if key != "prices"}
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def slots(self, flavor_of: Callable[[str], Flavor]) -> tuple[Slot, ...]:
        """Every place for a machine: the head, then each group's workers up to its maximum.

        Args:
            flavor_of: looks a flavor up by name, :meth:`vcluster.clouds.base.Cloud.flavor`; its errors pass through.
        """

        def size(flavor: str | FlavorSpec) -> Flavor:
            return flavor.flavor() if isinstance(flavor, FlavorSpec) else flavor_of(flavor)

        def more(section: HeadSpec | WorkerGroup) -> dict[str, Any]:
            zone = section.availability_zone or self.availability_zone or ""
            return {"root_disk": section.root_disk or 0, "zone": zone, "image": section.image or ""}

        places = [Slot("head", Role.HEAD, "", size(self.head.flavor), **more(self.head))]
        for group in self.workers:
            flavor, rest = size(group.flavor), more(group)
            numbers = range(1, group.maximum + 1)
            places += (Slot(f"{group.name}-{n}", Role.WORKER, group.name, flavor, **rest) for n in numbers)
        return tuple(places)

    def with_count(self, group: str, count: int) -> Self:
        """The same cluster with another number of workers in one group; its room to grow stays as it is.

        Raises:
            SpecError: there is no such group, or ``count`` is outside of its ``min_count`` and ``max_count``.
        """
        data = self.canonical()
        for mine, section in zip(self.workers, data["workers"], strict=True):
            if mine.name != group:
                continue
            if count > mine.maximum:
                # Not as the file's mistake, which nobody wrote: it may be the cluster's own copy.
                room = f"group {group} has room for {mine.maximum}, not for {count}"
                remedy = "max_count is fixed when a cluster is made: take it down, and up again with a larger one"
                raise SpecError([Problem("workers", room, remedy)])
            section |= {"count": count, "max_count": mine.maximum}
            return self.model_validate(data, context=self._origin.source)
        names = ", ".join(mine.name for mine in self.workers)
        raise SpecError([Problem("workers", f"there is no group {checks.show(group)}", f"there is: {names}")])


def schema_json() -> str:
    """The JSON Schema of a spec file, as text; the package carries the same as ``vcluster/schema.json``."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ClusterSpec.model_json_schema(),
        "title": "vcluster spec",
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
