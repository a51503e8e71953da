"""What a cluster's own software made on the cloud: load balancers, volumes and the like that a Kubernetes asked for.

Nobody looks for it but who takes the cluster down: to all others it is people's work on the cluster, as files are.
A run that found the cluster without its head, as another one left it, does not know whether there is any, and looks.
"""

from __future__ import annotations

from dataclasses import replace

from vcluster.chosen import own
from vcluster.clouds.base import Cloud
from vcluster.errors import CloudError
from vcluster.model import ClusterRef, Observed

__all__ = ["Offspring", "without_offspring"]

LOOKS = 6
"""How often a run looks again at its end, where all else is gone, before it says that it does not know."""


class Offspring:
    """Looks for it. A service for load balancers that does not answer must not keep machines running, which cost.

    Args:
        cloud: where it is.
        ref: whose it is.

    Attributes:
        unseen: why the last look shows nothing of it; empty when it shows what there is.
    """

    def __init__(self, cloud: Cloud, ref: ClusterRef) -> None:
        self._cloud, self._ref = cloud, ref
        self._more = 0
        self._none = False
        self.unseen = ""

    def looks_again(self) -> bool:
        """Whether a run that has nothing else to do should look once more for what the last look did not show."""
        self._more = self._more + 1 if self.unseen else 0
        return 0 < self._more <= LOOKS

    def learn(self, observed: Observed) -> None:
        """Remember of a picture whether there can be any: a later one may show no head any more."""
        self._none = self._none or (observed.head is not None and observed.head.self_contained)

    def beside(self, observed: Observed) -> Observed:
        """The same picture of the cluster with it. Where the head says that there is none, the cloud is not asked."""
        self.learn(observed)
        if self._none:
            return observed
        try:
            found = tuple(self._cloud.offspring(self._ref))
        except CloudError as error:
            self.unseen = error.message
            return observed
        self.unseen = ""
        return own(replace(observed, parts=(*observed.parts, *found)), self._ref)


def without_offspring(observed: Observed) -> Observed:
    """The same picture as all see it who let the cluster live."""
    return replace(observed, parts=tuple(part for part in observed.parts if not part.maker))
