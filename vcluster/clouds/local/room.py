"""Whether what is asked for fits on this host, told before anything starts.

Memory: a machine needs its flavor's memory and QEMU's own; what running machines were promised and have not touched
yet counts as used, and a reserve stays with the host. Disk: overlays start empty and seldom fill. The worst case
(every disk full) would refuse clusters that run well, so each machine is reckoned with ``USUAL_DISK`` of growth, or
its whole disk where that is smaller; a disk that fills all the same pauses its machine, and says so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from vcluster.clouds.local import state
from vcluster.clouds.local.accel import Accel
from vcluster.clouds.local.argv import EMULATION_OVERHEAD, OVERHEAD
from vcluster.clouds.local.records import ClusterFolder
from vcluster.errors import QuotaError
from vcluster.model import Flavor

__all__ = ["FLAVORS", "USUAL_DISK", "check", "free_disk", "free_memory"]

FLAVORS = {
    # The least on which slurmctld, slurmdbd, MariaDB and NFS live together, with room for a job.
    "small": Flavor("small", cpus=1, memory=1536, disk=8),
    "medium": Flavor("medium", cpus=2, memory=4096, disk=16),
    "large": Flavor("large", cpus=4, memory=8192, disk=32),
}

USUAL_DISK = 2
"""GiB that a machine's overlay is expected to grow to."""

MEMORY_RESERVE = 512
DISK_RESERVE = 1
_MIB = 1 << 20
_GIB = 1 << 30


def free_memory() -> int | None:
    """MiB that the host can give without swapping, or None where that cannot be told."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return int(fields["MemAvailable"].split()[0]) // 1024


def free_disk(path: Path) -> float:
    """GiB free where ``path`` lies, or will lie."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free / _GIB


def check(clouds: Path, folders: Iterable[ClusterFolder], flavors: Sequence[Flavor], accel: Accel) -> None:
    """Refuse what does not fit beside what runs already.

    Raises:
        QuotaError: with what was asked, used and allowed.
    """
    if not flavors:
        return
    own = OVERHEAD + (0 if accel.native else EMULATION_OVERHEAD)
    promised_memory = promised_disk = 0.0
    count = 0
    for folder in folders:
        records = folder.machines()
        count += len(records)
        for record in records:
            path = folder.machine_path(record.uuid) / "disk.qcow2"
            promised_disk += max(0.0, min(USUAL_DISK, record.disk) - _allocated(path) / _GIB)
        alive = state.live(folder, records)
        for record in records:
            if record.uuid in alive:
                promised_memory += max(0, record.memory + own - _resident(alive[record.uuid].pid))
    asked = sum(flavor.memory + own for flavor in flavors)
    free = free_memory()
    if free is not None:
        allowed = free - MEMORY_RESERVE - promised_memory
        if asked > allowed:
            raise QuotaError(
                f"no room in memory: {len(flavors)} machines ask for {asked} MiB (QEMU's own {own} MiB each included), "
                f"{max(0, int(allowed))} MiB are left ({free} MiB available, {int(promised_memory)} MiB promised to "
                f"{count} machines there are, {MEMORY_RESERVE} MiB kept for the host)",
                remedy="fewer machines, a smaller flavor, or `vcluster down` of another cluster",
            )
    disk = sum(min(USUAL_DISK, flavor.disk) for flavor in flavors)
    space = free_disk(clouds)
    left = space - DISK_RESERVE - promised_disk
    if disk > left:
        raise QuotaError(
            f"no room on the disk of {clouds}: {len(flavors)} machines ask for {disk} GiB ({USUAL_DISK} GiB each), "
            f"{max(0.0, left):.1f} GiB are left ({space:.1f} GiB free, {promised_disk:.1f} GiB promised to {count} "
            f"machines there are, {DISK_RESERVE} GiB kept for the host)",
            remedy="make room, or set VCLUSTER_HOME to a folder on a larger disk",
        )


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _resident(pid: int) -> int:
    """MiB that a process holds in memory."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // _MIB
