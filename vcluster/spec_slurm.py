"""What a spec says of Slurm."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from vcluster import spec_cross as cross
from vcluster.spec_base import Flag, JobMemory, Model, SlurmTime
from vcluster.spec_checks import Trouble

__all__ = ["SlurmSpec"]


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
