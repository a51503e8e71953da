"""What the user asks for: frozen pydantic models of one YAML file. A model that validated is self-contained:
files that it named (keys, scripts, certificates) have been read, so the same spec means the same cluster anywhere."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[a-z][a-z0-9-]{0,29}$"


class Model(BaseModel):
    """Base of every section: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FlavorSpec(Model):
    """An explicit machine size."""

    cpus: Annotated[int, Field(ge=1)]
    memory: str  # "1G", "512M": canonical MiB int after validation
    disk: str = "8G"


class HeadSpec(Model):
    flavor: str | FlavorSpec = "small"


class WorkerGroup(Model):
    """A group of like workers; each is a Slurm partition."""

    name: str = "cpu"
    count: int = 2
    min_count: int | None = None  # default: count
    max_count: int | None = None  # default: count
    flavor: str | FlavorSpec = "small"


class AccessSpec(Model):
    ssh_keys: tuple[str, ...] = ()
    allow_from: tuple[str, ...] = ("0.0.0.0/0",)


class UserSpec(Model):
    name: str
    ssh_keys: tuple[str, ...] = ()
    sudo: bool = False


class SetupSpec(Model):
    head: str = ""  # script text after validation
    workers: str = ""


class SlurmSpec(Model):
    accounting: bool = True
    default_time: str = "1:00:00"
    max_time: str = "UNLIMITED"
    memory_per_cpu: str | None = None


class MirrorSpec(Model):
    apt: str = ""
    pypi: str = ""
    ca: str = ""  # PEM text after validation


class ImageSpec(Model):
    source: str = ""  # path, url or cloud's name
    sha256: str = ""


class ClusterSpec(Model):
    name: str = Field(pattern=NAME)
    cloud: str
    scheduler: Literal["slurm"] = "slurm"
    head: HeadSpec = HeadSpec()
    workers: tuple[WorkerGroup, ...] = (WorkerGroup(),)
    access: AccessSpec = AccessSpec()
    users: tuple[UserSpec, ...] = ()
    packages: tuple[str, ...] = ()
    setup: SetupSpec = SetupSpec()
    slurm: SlurmSpec = SlurmSpec()
    mirrors: MirrorSpec = MirrorSpec()
    image: ImageSpec = ImageSpec()
