"""What a browser does that a rehearsal needs: cookies, redirects, and the token against forged requests.

The only module beside :mod:`vcluster.rehearsal.kernel` that knows aiohttp.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import aiohttp

__all__ = ["Answer", "Browser", "Failed", "trust"]

HOPS = 12
"""Redirects that are followed; a log-in to a server takes five."""

REQUEST_TIMEOUT = 120.0
"""Seconds for one answer. A front door that is busy is slow, and a person would wait that long, not longer."""

AGENT = "vcluster-rehearsal"
"""JupyterHub's token for those who have not logged in hangs on it, so it is the same in all requests."""


class Failed(Exception):  # noqa: N818 - a result of the rehearsal, not a mistake in a program
    """A user could not do what users do; ``reason`` is short, equal for equal trouble, so that it can be counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is no redirect. ``path`` is where the redirects ended."""

    status: int
    path: str
    body: bytes

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            Failed: it is none.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise Failed(f"no JSON from {plain(self.path)}") from None


def trust(ca: str) -> ssl.SSLContext:
    """What to trust: the certificate authority whose PEM this is, and no other; with ``""`` what this system trusts."""
    return ssl.create_default_context(cadata=ca or None)


def plain(path: str) -> str:
    """A path without what differs from user to user, for counting."""
    path = re.sub(r"^(/user|/hub/api/users|/hub/spawn-pending|/hub/spawn)/[^/?]+", r"\1/NAME", path.partition("?")[0])
    return re.sub(r"/[0-9a-f]{8}-[0-9a-f-]{27}", "/ID", path)


class Browser:
    """One user's browser.

    Args:
        url: the Hub's public address, ending in a slash.
        tls: from :func:`trust`.
    """

    def __init__(self, url: str, tls: ssl.SSLContext) -> None:
        self.url = url
        self.origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=0),
            cookie_jar=aiohttp.CookieJar(unsafe=True),  # an address without a name may have cookies too
            headers={"User-Agent": AGENT},
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._session.close()

    def cookie(self, name: str, path: str) -> str:
        """A cookie's value as it would be sent to ``path``; empty when there is none."""
        from yarl import URL

        found = self._session.cookie_jar.filter_cookies(URL(self._at(path))).get(name)
        return found.value if found else ""

    async def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        form: Mapping[str, str] | None = None,
        data: Any = None,
        until: Callable[[str], bool] | None = None,
    ) -> Answer:
        """Ask, and follow redirects.

        Args:
            token: the path whose ``_xsrf`` cookie goes with the request, as the page there would send it.
            form: sent as a form.
            data: sent as JSON.
            until: a redirect to such a path is not followed; the answer has its path and the redirect's status.

        Raises:
            Failed: no answer, too many redirects, or one that leads away.
        """
        headers = self._headers(token)
        for _ in range(HOPS):
            try:
                async with self._session.request(
                    method, self._at(path), data=form, json=data, headers=headers, allow_redirects=False
                ) as answer:
                    body = await answer.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise Failed(f"{method} {plain(path)}: {said(error)}") from error
            if answer.status not in {301, 302, 303, 307, 308}:
                return Answer(answer.status, path, body)
            path = self._hop(path, answer.headers.get("Location", ""))
            if until is not None and until(path):
                return Answer(answer.status, path, body)
            method, form, data = "GET", None, None
        raise Failed(f"more than {HOPS} redirects, the last to {plain(path)}")

    async def want(self, method: str, path: str, *good: int, **how: Any) -> Answer:
        """As :meth:`request`.

        Raises:
            Failed: also when the status is none of ``good``.
        """
        answer = await self.request(method, path, **how)
        if answer.status not in good:
            raise Failed(f"{method} {plain(answer.path)}: {answer.status}{_because(answer.body)}")
        return answer

    async def events(self, path: str, token: str) -> AsyncGenerator[dict[str, Any], None]:
        """A stream of events as the Hub's page of a starting server reads it; ends when the stream does.

        Raises:
            Failed: the Hub refused.
        """
        headers = {**self._headers(token), "Accept": "text/event-stream"}
        endless = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_TIMEOUT)
        try:
            async with self._session.get(self._at(path), headers=headers, timeout=endless) as answer:
                if answer.status != 200:
                    raise Failed(f"GET {plain(path)}: {answer.status}{_because(await answer.read())}")
                async for line in answer.content:
                    if line.startswith(b"data:"):
                        yield dict(json.loads(line.removeprefix(b"data:")))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return  # the Hub restarted, or the proxy: a page would connect again

    @asynccontextmanager
    async def socket(self, path: str, protocol: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A websocket.

        Raises:
            Failed: it was refused.
        """
        address = "ws" + self._at(path).removeprefix("http")
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                socket = await self._session.ws_connect(
                    address, protocols=(protocol,), origin=self.origin, max_msg_size=0, heartbeat=None
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Failed(f"websocket {plain(path)}: {said(error)}") from error
        try:
            yield socket
        finally:
            await socket.close()

    def _at(self, path: str) -> str:
        return urljoin(self.url, path)

    def _headers(self, token: str | None) -> dict[str, str]:
        if token is None:
            return {}
        return {"X-XSRFToken": self.cookie("_xsrf", token), "Referer": self._at(token), "Origin": self.origin}

    def _hop(self, path: str, location: str) -> str:
        target = urljoin(self._at(path), location)
        if not location or not target.startswith(f"{self.origin}/"):
            raise Failed(f"{plain(path)} leads away, to {urlsplit(target).netloc or 'nowhere'}")
        return target.removeprefix(self.origin)


def said(error: BaseException) -> str:
    """What went wrong on the way, without addresses and ports, so that it can be counted."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return str(error.status)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"certificate: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        if number in {errno.EMFILE, errno.ENFILE}:
            return "this computer allows too few open files (ulimit -n); the Hub is not to blame"
        return f"cannot connect: {os.strerror(number) if number else type(error.os_error).__name__}"
    return type(error).__name__


_WHY = (
    re.compile(rb'"message"\s*:\s*"([^"]{1,200})'),
    re.compile(rb'<p class="login_error">\s*([^<]{1,200})'),
    re.compile(rb'<div class="error">.*?<p>\s*([^<]{1,200})', re.DOTALL),
    re.compile(rb'<p[^>]*class="[^"]*alert[^"]*"[^>]*>\s*([^<]{1,200})', re.DOTALL),
)


def _because(body: bytes) -> str:
    found = next((match[1] for pattern in _WHY if (match := pattern.search(body))), b"")
    text = " ".join(unescape(found.decode(errors="replace")).split())
    return f" ({text})" if text else ""
