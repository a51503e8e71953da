"""What a cloud says whose machines need nothing around them: no routers, no security groups, no volumes, no quota."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vcluster.errors import PermanentError
from vcluster.model import Allowance, ClusterRef, Layout, Observed, Part, PartRequest, VolumeRequest, Wishes

__all__ = ["PlainCloud"]


class PlainCloud:
    """The part of :class:`vcluster.clouds.base.Cloud` that is the same for every such cloud."""

    name: str
    any_size = True

    def check_user_data(self, user_data: str) -> None:
        """Any size: a disk of its own holds it."""

    def zones(self) -> Sequence[str]:
        """There is one place."""
        return ()

    def allowances(self) -> Mapping[str, Allowance]:
        """No quota."""
        return {}

    def layout(self, ref: ClusterRef, wishes: Wishes, observed: Observed) -> Layout:
        """Nothing."""
        return Layout()

    def offspring(self, ref: ClusterRef) -> Sequence[Part]:
        """Nothing: there is no cloud to ask for load balancers and the like."""
        return ()

    def create_part(self, ref: ClusterRef, request: PartRequest, observed: Observed) -> Part:
        """Refuse.

        Raises:
            PermanentError: always.
        """
        raise self._has_no(request.kind)

    def create_volume(self, ref: ClusterRef, request: VolumeRequest) -> Part:
        """Refuse.

        Raises:
            PermanentError: always.
        """
        raise self._has_no("volume", remedy="leave root_disk out of the spec: a machine's disk is its flavor's")

    def delete_part(self, ref: ClusterRef, part: Part) -> None:
        """There is none: no error, as with every uuid that is unknown."""

    def keep_volumes(self, ref: ClusterRef, parts: Sequence[Part]) -> None:
        """Refuse, unless there is nothing to keep.

        Raises:
            PermanentError: this cloud has no volumes.
        """
        if parts:
            raise self._has_no("volume")

    def _has_no(self, kind: str, remedy: str = "") -> PermanentError:
        return PermanentError(f"the cloud {self.name} has no {kind}s", remedy=remedy)
