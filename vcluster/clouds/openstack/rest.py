"""One request to one service: by the SDK's own adapters, with our errors, retries, paging and clock.

The SDK's REST layer (``conn.compute.get(...)``) and not its resource classes: what is sent is what the API reference
says, one call is one request, and the microversion is as low as the call allows rather than the newest there is, so
that old clouds work and new ones behave the same.
"""

from __future__ import annotations

import email.utils
import statistics
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from vcluster.clouds.openstack import errors
from vcluster.errors import CloudError, TemporaryError
from vcluster.retry import delay as backoff

if TYPE_CHECKING:
    from openstack.proxy import Proxy

__all__ = ["GONE", "NOT_HERE", "TIMEOUT", "Clock", "Json", "Params", "Service", "repeated"]

T = TypeVar("T")

Json = dict[str, Any]
"""An object as a service sent it."""

Params = Mapping[str, Any]

GONE = (404,)
"""What says that a thing, or a whole kind of them, is not there."""

NOT_HERE = (403, 404)
"""What says that a user has none of a kind: the cloud does not offer it, or not to this user."""

TRIES = 8
"""How often a call that may be repeated is tried here, before the loop above sees the failure.

What is asked before the loop begins (flavors, quota, the network) has these tries alone: where every fifth answer is
faulty, five of them lost one run in a hundred.
"""

NOT_DONE = 5
"""How often a call is made whose refusal says that it did nothing: too many requests, or a token that is not known."""

TRYING = 60.0
"""Seconds after which no further try begins: a service that answers nobody is told of sooner than one that stumbles."""

PATIENCE = 10.0
"""Seconds: a longer ``Retry-After`` to what changes something is the loop's matter, which can be cancelled meanwhile.

What only reads is waited for here as long as it is tried at all: layout, quota, `list` and others have no loop.
"""

TIMEOUT = 120.0
"""Seconds without a byte until a call counts as unanswered, where clouds.yaml has no ``api_timeout``."""


HEARD = 63
"""Of how many answers the cloud's clock is read."""

AGREE = 1.0
"""Seconds by which ``Date`` headers of one moment may differ, being cut to whole ones."""


class Clock:
    """The cloud's clock: the ``Date`` of its answers, and this computer's monotonic time since.

    ``Date`` is cut to whole seconds and the answer was some time under way: of the answers that agree, the one that
    says the latest is the nearest. One of several API hosts may have a clock that is wrong: the median is believed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: deque[float] = deque(maxlen=HEARD)
        self._ahead: float | None = None

    def now(self) -> float:
        """Seconds since the epoch; this computer's own clock before the first answer."""
        with self._lock:
            return time.time() if self._ahead is None else time.monotonic() + self._ahead

    def heard(self, date: str) -> None:
        """Take the ``Date`` header of an answer that came just now; one that cannot be read says nothing."""
        if not date:
            return
        try:
            ahead = email.utils.parsedate_to_datetime(date).timestamp() - time.monotonic()
        except ValueError:
            return
        with self._lock:
            self._heard.append(ahead)
            middle = statistics.median_low(self._heard)
            self._ahead = max(one for one in self._heard if one <= middle + AGREE)


def repeated(call: Callable[[], T], sleep: Callable[[float], None], *, tries: int = TRIES, until: float) -> T:
    """Run what changes nothing, or may be done twice, again for a while if the cloud is in trouble.

    Args:
        tries: how often at most.
        until: on the monotonic clock, in seconds: no further try begins after it.

    Raises:
        TemporaryError: it still is, or asks to be left alone for longer than this waits.
    """
    done = 0
    while True:
        done += 1
        try:
            return call()
        except TemporaryError as error:
            left = until - time.monotonic()
            if error.delay > max(left, 0.0):
                remedy = error.remedy or f"the cloud asks to be left alone that long: try again in {error.delay:.0f} s"
                raise TemporaryError(error.message, remedy=remedy, delay=error.delay) from error
            if done >= tries or left <= 0:
                raise
            sleep(max(error.delay, backoff(done) / 4))


class Service:
    """A service of the cloud. Threads may share it: the session below has its own locks and connections.

    Args:
        name: for messages: "Nova".
        proxy: gives the SDK's adapter; called at the first request, so that a service that is not needed is not asked.
        clock: told of every answer.
        microversion: for every call that does not say another; empty for none.
        sleep: waits so many seconds between tries.
    """

    def __init__(
        self,
        name: str,
        proxy: Callable[[], Proxy],
        clock: Clock,
        microversion: str = "",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self._make = proxy
        self._clock = clock
        self._microversion = microversion
        self._sleep = sleep
        self._lock = threading.Lock()
        self._proxy: Proxy | None = None

    # Reads -----------------------------------------------------------------------------------------------------

    def get(self, path: str, *, doing: str, params: Params | None = None, none: Collection[int] = ()) -> Json:
        """One object, repeated while the cloud is in trouble.

        Args:
            none: statuses that mean that there is nothing: the answer is empty then.

        Raises:
            CloudError: as the answer says.
        """
        return self._repeat(lambda: self._call("GET", path, doing=doing, params=params, none=none))

    def find(self, path: str, *, doing: str) -> Json | None:
        """As :meth:`get`; None where there is no such thing."""
        return self._repeat(lambda: self._call("GET", path, doing=doing, none=GONE)) or None

    def listing(
        self, path: str, key: str, *, doing: str, params: Params | None = None, none: Collection[int] = ()
    ) -> list[Json]:
        """Every page of a listing.

        Args:
            key: under which the services put the list: ``servers``.
            none: statuses that mean that there are none: 404 where a cloud may lack the extension, 403 where its
                policy may keep users from having any.
        """
        found: list[Json] = []
        seen: set[str] = set()
        asked = dict(params or {})
        while True:
            page = self.get(path, doing=doing, params=asked, none=none)
            fresh = [item for item in page.get(key, []) if str(item.get("id", item.get("name"))) not in seen]
            found += fresh
            seen |= {str(item.get("id", item.get("name"))) for item in fresh}
            # Glance has `next` at the top, the others a list of links. A page without anything new ends it as well:
            # the marker was not understood.
            more = page.get("next") or any(link.get("rel") == "next" for link in page.get(f"{key}_links", []))
            if not more or not fresh:
                return found
            asked["marker"] = fresh[-1]["id"]

    # Writes ----------------------------------------------------------------------------------------------------

    def post(self, path: str, body: Json, *, doing: str, microversion: str = "", safe: bool = False) -> Json:
        """Make or do something, once: whether a failed call was done is not known here.

        Args:
            safe: it changes nothing, so it is repeated as a read is.
        """
        run = self._repeat if safe else self._once
        return run(lambda: self._call("POST", path, doing=doing, body=body, microversion=microversion))

    def put(
        self,
        path: str,
        body: Json | None = None,
        *,
        doing: str,
        microversion: str = "",
        safe: bool = False,
        revision: int | None = None,
    ) -> Json:
        """Change something, once; or until it is done where ``safe`` says that doing it twice is the same.

        Args:
            revision: Neutron's ``revision_number`` of the thing as it was seen. One that has changed since is left as
                it is. None, as from an old Neutron, asks for no such care.

        Raises:
            ConflictError: it has changed since.
        """
        run = self._repeat if safe else self._once
        return run(
            lambda: self._call("PUT", path, doing=doing, body=body, microversion=microversion, revision=revision)
        )

    def delete(self, path: str, *, doing: str, revision: int | None = None) -> None:
        """Delete by UUID. That is safe to repeat; what is gone already is as well.

        Args:
            revision: as in :meth:`put`.
        """
        self._repeat(lambda: self._call("DELETE", path, doing=doing, none=GONE, revision=revision))

    # Inside ----------------------------------------------------------------------------------------------------

    def _repeat(self, call: Callable[[], Json]) -> Json:
        until = time.monotonic() + TRYING
        return repeated(lambda: self._once(call, until), self._sleep, until=until)

    def _once(self, call: Callable[[], Json], until: float | None = None) -> Json:
        """The call, again only where the cloud said that it did nothing: it counts calls, or mistrusts our token.

        keystoneauth gets a new token after the first 401. A second one, to a token of this very second, is the
        service's trouble with Keystone more often than ours.

        Args:
            until: on the monotonic clock: how long the cloud may ask to be left alone; None: for :data:`PATIENCE`.
        """
        tries = 0
        while True:
            tries += 1
            try:
                return call()
            except _NotDoneError as refused:
                patience = PATIENCE if until is None else until - time.monotonic()
                if tries >= NOT_DONE or refused.delay > patience:
                    raise refused.error from None
                self._sleep(max(refused.delay, backoff(tries) / 4))

    def _call(
        self,
        method: str,
        path: str,
        *,
        doing: str,
        params: Params | None = None,
        body: Json | None = None,
        microversion: str = "",
        none: Collection[int] = (),
        revision: int | None = None,
    ) -> Json:
        headers = {"Accept": "application/json"}
        if revision is not None:
            headers["If-Match"] = f"revision_number={revision}"
        try:
            answer = self._adapter().request(
                path,
                method,
                params=params or None,
                json=body,
                microversion=microversion or self._microversion or None,
                headers=headers,
                raise_exc=False,
                # Said here, since a profile in clouds.yaml may ask for some, and a POST must not be repeated.
                connect_retries=0,
                status_code_retries=0,
                # keystoneauth's debug log has whole requests, and a server's user data holds secrets.
                log=body is None,
            )
        except Exception as error:
            if _lost_token(error):
                again = TemporaryError(f"{doing}: the token was taken back in this very moment")
                raise _NotDoneError(again, 0.0) from error
            raise errors.from_exception(error, doing=doing) from error
        self._clock.heard(answer.headers.get("Date", ""))
        status = answer.status_code
        if status in none:
            return {}
        if status >= 400:
            delay = errors.retry_after(answer.headers, self._clock.now())
            failed = errors.from_answer(status, answer.text, doing=doing, reading=method == "GET", delay=delay)
            if status == 401:
                raise _NotDoneError(errors.from_mistrust(self.name, method, path, doing=doing), delay)
            if status == 429 or (status == 413 and isinstance(failed, TemporaryError)):
                raise _NotDoneError(failed, delay)
            raise failed
        if not answer.content or method == "DELETE":
            return {}
        try:
            told = answer.json()
        except ValueError as error:
            raise TemporaryError(f"{doing}: {self.name}'s answer is cut off, or no JSON") from error
        if told is None:
            return {}  # Neutron, to a tag
        if not isinstance(told, dict):
            raise TemporaryError(f"{doing}: {self.name}'s answer is no JSON object")
        return told

    def _adapter(self) -> Proxy:
        with self._lock:
            if self._proxy is None:
                self._proxy = self._make()
            return self._proxy


def _lost_token(error: Exception) -> bool:
    """Whether another thread gave the token up while keystoneauth was about to return it to this one.

    Its ``get_access`` lets go of its lock before it asserts that there is a token. It is called before a request is
    sent, and after one that was refused with 401: nothing was done.
    """
    return isinstance(error, AssertionError) and traceback.extract_tb(error.__traceback__)[-1].name == "get_access"


class _NotDoneError(Exception):
    """Inside this file: the cloud did nothing, and says so.

    Args:
        error: what it is for the caller, if it stays so.
        delay: seconds to wait.
    """

    def __init__(self, error: CloudError, delay: float) -> None:
        super().__init__(error.message)
        self.error = error
        self.delay = delay
