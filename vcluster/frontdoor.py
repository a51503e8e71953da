"""Whether a Hub's domain points at its head: asked before Let's Encrypt is, which counts failures and then refuses."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

from vcluster.errors import Problem, SpecError, TemporaryError

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec

__all__ = ["check_domain", "domain_problem", "records"]

_NOT_THERE = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


def records(domain: str) -> tuple[str, ...]:
    """The addresses that a host name has for this computer's resolver; none for a name that is not there.

    Raises:
        TemporaryError: the resolver gave no answer.
    """
    try:
        found = socket.getaddrinfo(domain, 443, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NOT_THERE:
            return ()
        raise TemporaryError(f"{domain} could not be looked up: {error.strerror}") from error
    return tuple(dict.fromkeys(str(each[4][0]) for each in found))


def domain_problem(domain: str, address: str) -> tuple[str, str] | None:
    """What is wrong with a domain that shall point at ``address``, and what would be right; None when it does.

    Every record must: Let's Encrypt takes any of them, and an IPv6 one first.

    Raises:
        TemporaryError: it could not be looked up.
    """
    right = f"make an A record: {domain} → {address}"
    found = records(domain)
    if not found:
        return f"{domain} has no address", right
    here = ipaddress.ip_address(address)
    others = [each for each in found if ipaddress.ip_address(each.partition("%")[0]) != here]
    if not others:
        return None
    if len(others) == len(found):
        return f"{domain} points at {', '.join(others)}, not at the head's {address}", right
    return f"{domain} points at {', '.join(others)} as well as at the head", "remove the other records"


def check_domain(spec: ClusterSpec, address: str) -> None:
    """Refuse a domain that does not point at the head; nothing where there is none.

    Args:
        address: the head's public address.

    Raises:
        SpecError: with the line of the domain, and the record that is needed.
        TemporaryError: it could not be looked up.
    """
    domain = spec.jupyterhub.domain if spec.jupyterhub else None
    if domain is None:
        return
    if wrong := domain_problem(domain, address):
        where = ("jupyterhub", "domain")
        problem: Problem = spec.problem(where, *wrong)
        raise SpecError([problem])
