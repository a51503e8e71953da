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

from pydantic import AfterValidator, Field, PrivateAttr

from vcluster import spec_checks as checks
from vcluster import spec_cross as cross
from vcluster.errors import Problem, SpecError
from vcluster.model import Flavor, Role, Slot
from vcluster.spec_base import (
    Flag,
    Keys,
    Model,
    Package,
    Pem,
    Script,
    Text,
    Url,
    pattern,
)
from vcluster.spec_checks import NAME, Trouble
from vcluster.spec_file import Origin, Source, dump, read_bytes, read_text
from vcluster.spec_hub import HubSpec
from vcluster.spec_k3s import K3sSpec
from vcluster.spec_machines import FlavorSpec, HeadSpec, WorkerGroup
from vcluster.spec_place import (
    AccessSpec,
    ImageSpec,
    Lifetime,
    OptionalName,
    PriceSpec,
    Zone,
)
from vcluster.spec_slurm import SlurmSpec
from vcluster.spec_words import Kind

__all__ = [
    "NAME",
    "AccessSpec",
    "ClusterSpec",
    "FlavorSpec",
    "HeadSpec",
    "HubSpec",
    "ImageSpec",
    "K3sSpec",
    "MirrorSpec",
    "PriceSpec",
    "SetupSpec",
    "SlurmSpec",
    "UserSpec",
    "WorkerGroup",
    "schema_json",
]


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
    scheduler: Annotated[Literal["slurm", "k3s"], Kind("`slurm` or `k3s`", "slurm or k3s")] = Field(
        default="slurm", description="What runs the jobs: Slurm, or Kubernetes by k3s", examples=["k3s"]
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
    k3s: K3sSpec | None = Field(
        default=None, description="The Kubernetes cluster, with `scheduler: k3s`. Default: every key's own"
    )
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

    @property
    def peers(self) -> tuple[str, ...]:
        """The machines that are servers beside the head; none where the head is alone."""
        return tuple(f"{Role.HEAD}-{n}" for n in range(2, (self.head.count or 1) + 1))

    @property
    def kubernetes(self) -> K3sSpec:
        """``k3s``, with every default where it is left out."""
        return self.k3s or K3sSpec()

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

        flavor, rest = size(self.head.flavor), more(self.head)
        places = [Slot("head", Role.HEAD, "", flavor, **rest)]
        # Cattle like the workers: the engine makes them anew where they are lost.
        places += (Slot(name, Role.WORKER, str(Role.HEAD), flavor, **rest) for name in self.peers)
        for group in self.workers:
            flavor, rest = size(group.flavor), more(group)
            numbers = range(1, group.maximum + 1)
            places += (Slot(f"{group.name}-{n}", Role.WORKER, group.name, flavor, **rest) for n in numbers)
        return tuple(places)

    def with_counts_of(self, other: ClusterSpec | None) -> Self:
        """The same cluster with as many workers as another spec says, in groups that are in both and have the room."""
        counts = {group.name: group.count for group in other.workers} if other else {}
        same = self
        for group in self.workers:
            count = counts.get(group.name, group.count)
            if count != group.count and (group.min_count or 0) <= count <= group.maximum:
                same = same.with_count(group.name, count)
        return same

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
