"""What an application credential's access rules must allow: with one call too few, a cluster would be half made.

Rules name services, methods and paths. Only that a method is allowed at all is checked here; a path that is not is said
when a service refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vcluster.errors import PermanentError

__all__ = ["CHANGES", "LOOKS", "allow", "check"]

LOOKS = (("compute", "GET"), ("network", "GET"))
"""What every command asks: service and method."""

CHANGES = (
    *LOOKS,
    ("image", "GET"),
    ("compute", "POST"),
    ("compute", "DELETE"),
    ("network", "POST"),
    ("network", "PUT"),
    ("network", "DELETE"),
)
"""What it takes to bring a cluster up, and away again."""


def allow(rules: Iterable[Mapping[str, str]], service: str, method: str) -> bool:
    """Whether rules allow a method at all; a service answers one that they do not as if the token were none."""
    return any((rule.get("service"), rule.get("method")) == (service, method) for rule in rules)


def check(cloud: str, rules: Iterable[Mapping[str, str]], needed: Iterable[tuple[str, str]]) -> None:
    """Refuse a credential that cannot do what is needed.

    Args:
        cloud: its name, for the message.
        rules: as Keystone tells them with a token.

    Raises:
        PermanentError: names all that its rules must allow and do not.
    """
    allowed = {(rule.get("service"), rule.get("method")) for rule in rules}
    lacking = [f"{method} to {service}" for service, method in needed if (service, method) not in allowed]
    if lacking:
        raise PermanentError(
            f"cloud `{cloud}`: the application credential has access rules, and they do not allow {', '.join(lacking)}",
            remedy="make one without access rules (`openstack application credential create NAME`), or one whose rules "
            "allow these methods for the path `/**`",
        )
