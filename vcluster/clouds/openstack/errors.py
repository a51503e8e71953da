"""What a cloud answered, as one of our error classes.

The class decides what happens next (see :mod:`vcluster.errors`), so this is the one place where statuses and the
services' English are interpreted. Nova, Neutron, Cinder, Glance and Keystone each wrap their words differently, and
each has its own status for "no room": Nova 403, Cinder 413, Neutron 409.
"""

from __future__ import annotations

import email.utils
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from vcluster.errors import CloudError, ConflictError, PermanentError, QuotaError, TemporaryError

__all__ = [
    "NO_WAY_OUT",
    "POOL_IS_EMPTY",
    "Entry",
    "from_answer",
    "from_exception",
    "from_login",
    "from_mistrust",
    "retry_after",
    "words",
]

_QUOTA = re.compile(r"quota exceeded|exceeds? (?:allowed|available)|over limit of|allowed\) exceeded|overquota", re.I)
_POOL = re.compile(r"no more ip addresses available|no more addresses available|ipaddressgenerationfailure", re.I)
_NO_WAY_OUT = re.compile(r"is not reachable from subnet", re.I)
# Nova answers 400 where what a new server shall use went away or is held; a new look tells which.
_GONE = re.compile(
    r"(?:port|volume|security group)(?: id)? '?[\w.-]+'? (?:could not be found|not found|is not found|is still in use)"
    r"|failed to get volume|overlaps with (?:another subnet|cidr)|router already has a port on subnet",
    re.I,
)
_NO_DISK = re.compile(r"volume-backed servers are allowed", re.I)
# A service that finds a field wrong quotes it, and a server's user data holds secrets.
_QUOTED = re.compile(r"\S{100,}")
_OVERLOAD = (408, 425, 500, 502, 503, 504)

_MORE_ROOM = "delete what is not needed, ask for less in the spec, or ask the cloud's operator for more quota"
_TAKEN = "token issue` (of the package python-openstackclient) shows whether the cloud takes it"
_LOGIN_AGAIN = f"get a new credential (or token) and try again; `openstack --os-cloud NAME {_TAKEN}"
_NETWORK = "is this computer's network up?"
NO_WAY_OUT = "the network needs a router with a gateway to the external network; or set access.public_ip"
POOL_IS_EMPTY = "the network's pool of addresses is empty: wait for somebody to give one back, or name another"
"""The remedy where a network has no address left."""

_ADDRESS = "check auth_url (OS_AUTH_URL): http or https, host and port"
_NO_TLS = re.compile(r"wrong.version.number|http.request|record layer failure|unexpected.eof|eof occurred", re.I)


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the user wrote what a log-in needs, for its remedies. No secret is in it.

    Args:
        name: of the entry in clouds.yaml; empty for the ``OS_*`` variables.
        file: the clouds.yaml; may be empty.
        auth_url: as written, and perhaps with a user in it, which is left out.
    """

    name: str
    file: str = ""
    auth_url: str = ""

    def __str__(self) -> str:
        return f"entry `{self.name}` of {self.file or 'clouds.yaml'}" if self.name else "the OS_* variables"

    def check(self) -> str:
        """What to look at when nobody answers, or the wrong one."""
        url = f" ({shown})" if (shown := _public(self.auth_url)) else ""
        return (
            f"check auth_url{url} in {self}: http or https, host, port; "
            "then this computer's network, and whether a firewall or a VPN is between"
        )

    def again(self) -> str:
        """What to look at when the credential is refused."""
        client = f"openstack --os-cloud {self.name}" if self.name else "openstack"
        return f"check user, password, project and their domains in {self}, or get a new credential; `{client} {_TAKEN}"

    def add(self, word: str) -> str:
        """How to write what is missing."""
        if self.name:
            return f"write `{word}: …` under `auth:` in {self}"
        return f"set OS_{word.upper()}: `source` the project's openrc file again"


def _public(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else ""


def words(body: str) -> str:
    """The sentence in an error's body, whatever the service wraps it in; empty when there is none."""
    try:
        told = json.loads(body)
    except ValueError:
        text = re.sub(r"<(?:head|title|style).*?</(?:head|title|style)>|<[^>]+>", " ", body, flags=re.S | re.I)
        return _short(text)
    return _short(next(_messages(told), ""))


def _short(text: str) -> str:
    return " ".join(_QUOTED.sub("…", text).split())[:600]


def _messages(told: object) -> Iterator[str]:
    if isinstance(told, Mapping):
        for key in ("message", "detail", "title", "faultstring"):  # the last is Octavia's
            if isinstance(told.get(key), str) and told[key]:
                # Neutron's type says "OverQuota" where its sentence need not.
                kind = told.get("type")
                yield f"{told[key]} ({kind})" if isinstance(kind, str) and kind else told[key]
        for value in told.values():
            yield from _messages(value)
    elif isinstance(told, list):
        for value in told:
            yield from _messages(value)
    elif isinstance(told, str) and told:
        yield told


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """Seconds that ``Retry-After`` asks for (a number or a date); 0 when it does not."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.fromtimestamp(now, UTC)).total_seconds())


def from_answer(  # noqa: PLR0911 (a table, as a chain of conditions)
    status: int, body: str, *, doing: str, reading: bool = False, delay: float = 0.0
) -> CloudError:
    """The error for an answer of 400 or more.

    Args:
        doing: what was asked, in words ("create port demo-head").
        reading: the call changes nothing, so nothing that it needs can have gone away meanwhile.
        delay: seconds that the answer asked us to wait.
    """
    said = words(body)
    text = f"{doing}: {said or 'no reason given'} (HTTP {status})"
    if status == 429 or (status == 413 and delay and not _QUOTA.search(said)):
        return TemporaryError(f"{doing}: the cloud limits how fast it may be asked (HTTP {status})", delay=delay)
    if status in _OVERLOAD:
        return TemporaryError(text, delay=delay)
    if status in (400, 403, 409, 413) and (_QUOTA.search(said) or status == 413):
        return QuotaError(text, remedy=_MORE_ROOM)
    if status in (400, 404, 409, 412):
        return _refused(status, said, text, reading=reading)
    if _NO_DISK.search(said):
        return PermanentError(text, remedy="this flavor has no disk of its own: set `root_disk` (GiB)")
    if status == 401:  # from Keystone; for a service's see from_mistrust
        return PermanentError(f"{doing}: the cloud does not accept the credential (HTTP 401)", remedy=_LOGIN_AGAIN)
    if status == 403:
        return PermanentError(
            f"{doing}: the credential may not do this: {said or 'forbidden'} (HTTP 403)",
            remedy="the user needs the role `member` in this project (`reader` may only look); an application "
            "credential needs it among its own roles, and no access rules that forbid this",
        )
    if status == 406:
        return PermanentError(text, remedy="this cloud's service is too old for that")
    return PermanentError(text)


def from_mistrust(service: str, method: str, path: str, *, doing: str) -> CloudError:
    """The error where a service does not accept a token that Keystone has just given.

    So it answers also to an application credential whose access rules do not allow the call, not by 403.

    Args:
        service: its name: "Nova".
        path: below the service's endpoint.
    """
    return PermanentError(
        f"{doing}: {service} does not accept the credential's token, which Keystone has just given (HTTP 401)",
        remedy=f"an application credential with access rules needs one that allows {method} of {path}: make one "
        "without such rules (`openstack application credential create NAME`). If it has none, "
        f"{service} has trouble with Keystone: try again later, or tell the cloud's operator",
    )


def _refused(status: int, said: str, text: str, *, reading: bool) -> CloudError:
    if _POOL.search(said):
        return QuotaError(text, remedy=POOL_IS_EMPTY)
    if _NO_WAY_OUT.search(said):
        return PermanentError(text, remedy=NO_WAY_OUT)
    if status in (409, 412) or _GONE.search(said) or (status == 404 and not reading):
        return ConflictError(text)
    return PermanentError(text)


def from_exception(error: Exception, *, doing: str) -> CloudError:  # noqa: PLR0911 (a table, as above)
    """The error for a call that got no answer to be used: no connection, no token, no such service.

    Raises:
        Exception: ``error`` itself, when it is none of the SDK's.
    """
    from keystoneauth1 import exceptions as ks
    from openstack import exceptions as sdk

    if isinstance(error, CloudError):
        return error
    if isinstance(error, ks.HttpError):
        # Keystone's own answer, to the request for a token that goes before ours.
        body = error.response.text if error.response is not None else str(error)
        if error.http_status == 404 and not body.lstrip().startswith("{"):
            return PermanentError(f"{doing}: what answers there is no OpenStack: {words(body)}", remedy=_ADDRESS)
        if error.http_status in (401, 403, 404):  # 404: an application credential that was deleted
            said = words(body)
            return PermanentError(f"{doing}: the cloud does not accept the credential: {said}", remedy=_LOGIN_AGAIN)
        return from_answer(error.http_status or 500, body, doing=f"{doing}: asking for a token", reading=True)
    if isinstance(error, ks.SSLError):
        if _NO_TLS.search(str(error)):
            where = _why_not(str(error)).removeprefix(" from ")
            return PermanentError(f"{doing}: the server speaks no https: {where}", remedy=_ADDRESS)
        return PermanentError(
            f"{doing}: the server's certificate is not trusted: {error}",
            remedy="name the certificate authority's file with `cacert:` in clouds.yaml, or OS_CACERT",
        )
    if isinstance(error, (ks.ConnectionError, ks.ConnectFailure)):
        return TemporaryError(f"{doing}: no answer{_why_not(str(error))}", remedy=_NETWORK)
    if isinstance(error, (ks.EndpointNotFound, ks.CatalogException, sdk.ServiceDisabledException)):
        return PermanentError(
            f"{doing}: the cloud's catalogue has no such service here: {_first_line(error)}",
            remedy="check `region_name` and `interface` in clouds.yaml (or OS_REGION_NAME, OS_INTERFACE)",
        )
    if isinstance(error, (sdk.ServiceDiscoveryException, sdk.NotSupported)):
        # The catalogue has the service, so it is there; it could not say which versions it speaks.
        return TemporaryError(f"{doing}: {_first_line(error)}")
    if isinstance(error, ks.DiscoveryFailure):
        if (reason := next(_reasons(error), None)) is not None:
            return from_exception(reason, doing=doing)
        return PermanentError(f"{doing}: what answers there is no OpenStack: {_first_line(error)}", remedy=_ADDRESS)
    if isinstance(error, (ks.ClientException, sdk.SDKException)) or type(error) is Exception:
        return PermanentError(f"{doing}: {_first_line(error)}")
    raise error


def from_login(error: Exception, *, doing: str, entry: Entry) -> CloudError:
    """As :func:`from_exception`, for a log-in: the remedy names what the user wrote, and where.

    Raises:
        Exception: ``error`` itself, when it is none of the SDK's.
    """
    from keystoneauth1 import exceptions as ks

    told = from_exception(error, doing=doing)
    if told.remedy == _LOGIN_AGAIN:
        return PermanentError(told.message, remedy=entry.again())
    if isinstance(told, TemporaryError):
        remedy = entry.check() if told.remedy == _NETWORK else told.remedy
        return TemporaryError(told.message, remedy=remedy, delay=told.delay)
    if missing := re.search(r"(\w+) is a required attribute", told.message):
        return PermanentError(told.message, remedy=entry.add(missing.group(1)))
    if isinstance(error, ks.HttpError) and not told.remedy and error.response is not None:
        keystone = error.response.text.lstrip().startswith("{")
        return PermanentError(told.message, remedy=entry.again() if keystone else entry.check())
    if told.remedy == _ADDRESS:
        return PermanentError(told.message, remedy=entry.check())
    return told


def _reasons(error: BaseException) -> Iterator[Exception]:
    """What kept a service from saying which versions it speaks, where that says nothing of what answers there.

    keystoneauth makes a refused connection and a server's trouble into the same discovery failure as a wrong address.
    """
    from keystoneauth1 import exceptions as ks

    seen = error.__cause__ or error.__context__
    while seen is not None:
        troubled = isinstance(seen, ks.HttpError) and (seen.http_status == 429 or (seen.http_status or 0) >= 500)
        if troubled or isinstance(seen, (ks.SSLError, ks.ConnectionError, ks.ConnectFailure)):
            assert isinstance(seen, Exception)
            yield seen
        seen = seen.__cause__ or seen.__context__


def _why_not(text: str) -> str:
    """From whom, and why, out of four libraries' words about it."""
    address = re.search(r"https?://[^/\s'\"]+", text)
    reason = re.search(r"\[Errno -?\d+\] ([^\"')]+)", text)
    if reason is None:
        reason = re.search(r"(timed out|reset by peer|[Cc]onnection aborted|closed connection without response)", text)
    return (f" from {address.group(0)}" if address else "") + (f": {reason.group(1).strip()}" if reason else "")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
