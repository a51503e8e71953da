"""What the proxy remembers of a request, and the class of requests that it belongs to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Moment", "Recorded", "template_of"]

_ID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}|\d+")
_ACTION = re.compile(rb'\s*\{\s*"([\w-]+)"')
# What follows one of these is an id or a name, unless it is one of the words below.
_PARENTS = {
    "auto-allocated-topology", "extensions", "flavors", "floatingips", "images", "metadata", "networks",
    "os-availability-zone", "os-keypairs", "os-quota-sets", "os-server-groups", "ports", "projects", "quotas",
    "routers", "security-groups", "servers", "snapshots", "subnets", "tags", "types", "users", "volumes",
}  # fmt: skip
_WORDS = {"detail", "details", "defaults", "summary", "default"}


class Moment(StrEnum):
    """A point in the life of a request at which a callback is called.

    ARRIVED: it came, the service knows nothing of it. ACTED: the service has answered, the client was not told.
    ANSWERED: the client was told.
    """

    ARRIVED = "arrived"
    ACTED = "acted"
    ANSWERED = "answered"


@dataclass(slots=True)
class Recorded:
    """One request. It is listed from its arrival on; what isn't known yet is zero or empty.

    Attributes:
        number: 1 for the first since the proxy was made or reset.
        service: as in the proxy's ``upstreams``.
        path: as asked, without the query.
        template: the path with ids and names replaced, see :func:`template_of`.
        query: what followed the question mark, undecoded.
        status: what the client was told; 0 when it was told nothing.
        acted: what the service answered; 0 when it was never asked, or never answered.
        fault: the fault's name, or ``shut`` (held back, see FaultProxy.shut), ``upstream`` (the service was away) or
            ``client`` (the client was); else empty.
        start: when it had come in whole, or its head if its body is long; seconds of a monotonic clock.
        end: when the last byte of the answer was passed on, by the same clock. The client may have that byte before
            this is noted: FaultProxy.settle waits for it.
        waited: of these, the seconds between the request's last byte to the service and the answer's head.
        sent: the request's body, if bodies are kept; never that of a request for a token.
        answer: the service's answer, if bodies are kept; the same exception.
    """

    number: int
    service: str
    method: str
    path: str
    template: str
    query: str
    start: float
    status: int = 0
    acted: int = 0
    fault: str = ""
    end: float = 0.0
    waited: float = 0.0
    sent: bytes = b""
    answer: bytes = b""

    @property
    def kind(self) -> str:
        """The class that faults are drawn by: ``compute POST /v2.1/servers``."""
        return f"{self.service} {self.method} {self.template}"

    def __str__(self) -> str:
        fault = f" [{self.fault}]" if self.fault else ""
        return f"{self.number:4} {self.kind} -> {self.status or 'nothing'}{fault}"


def template_of(path: str, body: bytes = b"") -> str:
    """The path with ids and names replaced: ``/v2.1/servers/{id}/action#os-stop``.

    ``body`` is looked at for the action's name only.
    """
    segments = path.rstrip("/").split("/")
    for at, segment in enumerate(segments):
        named = at > 0 and segments[at - 1] in _PARENTS and segment not in _WORDS | _PARENTS
        if named or _ID.fullmatch(segment):
            segments[at] = "{id}"
    template = "/".join(segments) or "/"
    if segments[-1] == "action" and (found := _ACTION.match(body)):
        template += "#" + found[1].decode()
    return template
