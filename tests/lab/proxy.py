"""A reverse proxy in front of the lab's services that counts requests, and spoils some of them on demand.

Each service has a port of its own. The catalogue that a client reads through the proxy names the proxy's addresses, as
do all links, so that a client given the proxy's ``identity`` address as ``auth_url`` never leaves it::

    with FaultProxy(lab.upstreams) as proxy:
        proxy.script(Rule(failing(503, after=True), method="POST", path="/servers$"))
        ...  # a client on proxy.urls["identity"]
        assert proxy.count(method="POST", path="/servers$") == 1
"""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

from tests.lab.proxy_faults import TEMPORARY, Fault, How, Rule, Script, Seeded, expired
from tests.lab.proxy_record import Moment, Recorded, template_of
from tests.lab.proxy_talk import Conversation

__all__ = ["FaultProxy", "Watcher"]

Watcher = Callable[[Recorded, Moment], None]
"""Called in the thread that serves the request, which goes on when it returns."""

_BACKLOG = 256
_HELD = Fault("shut", How.SILENCE, seconds=600.0)


class FaultProxy:
    """Listens from its making on, on the loopback addresses of the upstreams. All calls may come from any thread.

    Args:
        upstreams: service name to base URL (``{"compute": "http://127.0.0.1:8774/v2.1"}``), no two on one port.
        ports: service name to the port to listen on; a free one for services not named here.
        keep_bodies: whether bodies are kept, for a test that wants to read them. Tokens and passwords never are.

    Raises:
        ValueError: an upstream isn't on loopback, or two share one address.
        OSError: a port is taken.
    """

    def __init__(
        self, upstreams: Mapping[str, str], ports: Mapping[str, int] | None = None, *, keep_bodies: bool = False
    ) -> None:
        self.keep_bodies = keep_bodies
        self._seeded: Seeded | None = None
        self.urls: dict[str, str] = {}
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._conversations: set[Conversation] = set()
        self._listeners: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._served: list[threading.Thread] = []
        self._closed = False
        self._renamed: list[tuple[bytes, bytes]] = []
        self._forget()
        try:
            for service, url in upstreams.items():
                self._listen(service, url, (ports or {}).get(service, 0))
        except BaseException:
            self.close()
            raise
        # Not a prefix of a longer port number.
        self._origins = re.compile(b"(?:%b)(?!\\d)" % b"|".join(re.escape(old) for old, _ in self._renamed))

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, cut every connection, end every thread. A second call does nothing."""
        with self._lock:
            self._closed = True
            listeners, self._listeners = self._listeners, []
            conversations = list(self._conversations)
            threads = [*self._threads, *self._served]
        for listener in listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for conversation in conversations:
            conversation.close()
        for thread in threads:
            thread.join(60)

    # What befalls the requests.

    def script(self, *rules: Rule) -> None:
        """Add rules; the first one that is due decides, and all go before the seed."""
        with self._lock:
            self._script.add(rules)

    def seed(
        self, seed: int, rate: float, kinds: Sequence[Fault] = TEMPORARY, *, streak: int = 3, spare: str = ""
    ) -> None:
        """Spoil a share of the requests at random, in place of an earlier seed; see :class:`Seeded`."""
        with self._lock:
            self._seeded = Seeded(seed, rate, kinds, streak, spare)

    def on_request(self, watcher: Watcher) -> None:
        """Have this called at every moment of every request, until :meth:`reset`."""
        with self._lock:
            self._watchers.append(watcher)

    def kill_after(self, number: int, victim: int | Callable[[], object], moment: Moment = Moment.ACTED) -> None:
        """Kill -9 the process that asks, at a moment of its request number so-and-so (from 1, since the last reset).

        From that moment on nothing of the process gets through any more, so nothing depends on how fast it dies. After
        ACTED, the service has acted and the process never learns of it; after ANSWERED, it has its answer, and what it
        asks next is lost; at ARRIVED, it had all the answers before, and time to use them. The gate is opened again
        by :meth:`open` or :meth:`reset`.

        Args:
            number: which request; later than the last one: nothing happens.
            victim: a process id, or a function that does the killing.
            moment: when.
        """

        def strike(request: Recorded, now: Moment) -> None:
            if request.number != number:
                return
            if moment is Moment.ANSWERED and now is Moment.ACTED:
                self.shut(let=number)
            if now is moment:
                self.shut(let=number if moment is Moment.ANSWERED else 0)
                if callable(victim):
                    victim()
                else:
                    os.kill(victim, signal.SIGKILL)

        self.on_request(strike)

    def shut(self, let: int = 0) -> None:
        """Hold back all requests and answers from now on but those of request ``let``: the client hears nothing."""
        with self._lock:
            self._shut, self._let = True, let

    def open(self) -> None:
        """Let requests through again."""
        with self._lock:
            self._shut = False

    def settle(self, seconds: float = 300.0) -> None:
        """Wait until no request is under way, for example those that a killed client left behind.

        Raises:
            TimeoutError: one still is.
        """
        with self._idle:
            if not self._idle.wait_for(lambda: not self._busy, seconds):
                raise TimeoutError(f"still under way: {[str(request) for request in self._busy.values()]}")

    def drain(self, seconds: float = 300.0) -> None:
        """Wait until nothing of its clients is left here, once all of them have ended or closed their connections.

        What a killed one sent may lie in a socket that nobody has read yet: :meth:`settle` does not know of it, and
        after :meth:`reset` it would get through.

        Raises:
            TimeoutError: a client is there still.
        """
        with self._lock:
            addresses = [listener.getsockname() for listener in self._listeners]
        for address in addresses:
            # Connections are accepted in turn: once this one was, those before it are known.
            with socket.create_connection(address, 300.0) as last:
                last.shutdown(socket.SHUT_WR)
                last.recv(1)
        with self._idle:
            if not self._idle.wait_for(lambda: not self._conversations, seconds):
                raise TimeoutError(f"{len(self._conversations)} connections are open still")

    def reset(self) -> None:
        """Forget requests, rules, seed and watchers, and open the gate, once no request is under way.

        Raises:
            TimeoutError: one still is.
        """
        self.settle()
        with self._lock:
            self._forget()

    # What was seen.

    @property
    def requests(self) -> list[Recorded]:
        """All requests since the last reset, by arrival."""
        with self._lock:
            return list(self._requests)

    def count(self, service: str = "", method: str = "", path: str = "", fault: str | None = None) -> int:
        """How many requests fit: ``path`` is searched in the template; ``fault`` is a name, or "" for none."""
        return sum(
            service in ("", request.service)
            and method in ("", request.method)
            and re.search(path, request.template) is not None
            and fault in (None, request.fault)
            for request in self.requests
        )

    def tally(self) -> dict[str, int]:
        """Number of requests by kind (``compute POST /v2.1/servers``), in order of the first of each."""
        return dict(Counter(request.kind for request in self.requests))

    # For the conversations.

    def arrive(
        self, service: str, method: str, target: str, body: bytes, token: bytes
    ) -> tuple[Recorded, Fault | None]:
        """Note a request; return it with the fault that it meets."""
        path, _, query = target.partition("?")
        template = template_of(path, body)
        with self._lock:
            number = len(self._requests) + 1
            request = Recorded(number, service, method, path, template, query, time.monotonic())
            if self.keep_bodies and not path.endswith("/auth/tokens"):
                request.sent = body
            self._requests.append(request)
            self._busy[number] = request
            fault = self._draw(request, token) if not self._shut else None
        self.tell(request, Moment.ARRIVED)
        return request, fault

    def held(self, request: Recorded) -> Fault | None:
        """The fault of a request that came to a shut gate."""
        with self._lock:
            return _HELD if self._shut and request.number != self._let else None

    def tell(self, request: Recorded, moment: Moment) -> None:
        """Call the watchers."""
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher(request, moment)

    def done(self, request: Recorded) -> None:
        """Note that nothing more will happen to a request."""
        with self._idle:
            request.end = time.monotonic()
            self._busy.pop(request.number, None)
            self._idle.notify_all()

    def left(self, conversation: Conversation) -> None:
        """Forget a conversation that has ended."""
        with self._idle:
            self._conversations.discard(conversation)
            self._idle.notify_all()

    def renamed(self, text: bytes) -> bytes:
        """A body or header with every upstream's address replaced by the proxy's."""
        if not any(old in text for old, _ in self._renamed):
            return text
        names = dict(self._renamed)
        return self._origins.sub(lambda found: names[found[0]], text)

    def _draw(self, request: Recorded, token: bytes) -> Fault | None:
        # A keyed hash of this process, so no token is kept.
        mark = hash(token) if token else 0
        drawn = self._seeded.draw(request, self._used[mark]) if self._seeded else None
        fault = self._script.draw(request) or drawn
        if fault is not None and fault.how is How.EXPIRED:
            self._expired.update({mark} - {0})
        if mark in self._expired:
            return expired()
        if fault is not None and fault.how is How.EXPIRED:
            return None
        self._used[mark] += bool(mark)
        return fault

    def _forget(self) -> None:
        self._requests: list[Recorded] = []
        self._busy: dict[int, Recorded] = {}
        self._script = Script()
        self._seeded = None
        self._watchers: list[Watcher] = []
        self._shut, self._let = False, 0
        self._used: Counter[int] = Counter()
        self._expired: set[int] = set()

    def _listen(self, service: str, url: str, port: int) -> None:
        parts = urlsplit(url)
        host, there = parts.hostname or "", parts.port or 80
        address = socket.gethostbyname(host)
        if parts.scheme != "http" or not ipaddress.ip_address(address).is_loopback:
            raise ValueError(f"{service}: {url} is not plain HTTP on a loopback address")
        origin = f"http://{host}:{there}".encode()
        if any(origin == old for old, _ in self._renamed):
            raise ValueError(f"{service}: {url} is also another service's address")
        listener = socket.create_server((address, port), backlog=_BACKLOG)
        self._listeners.append(listener)
        netloc = f"{host}:{listener.getsockname()[1]}"
        self.urls[service] = urlunsplit(parts._replace(netloc=netloc))
        self._renamed.append((origin, f"http://{netloc}".encode()))
        thread = threading.Thread(
            target=self._accept, args=(service, listener, (address, there)), name=f"proxy-{service}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _accept(self, service: str, listener: socket.socket, upstream: tuple[str, int]) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                if self._closed:
                    return
                raise
            conversation = Conversation(self, service, client, upstream)
            with self._lock:
                if self._closed:
                    conversation.close()
                    return
                self._conversations.add(conversation)
                conversation.thread.start()
                # A conversation is forgotten shortly before its thread ends.
                self._served = [thread for thread in self._served if thread.is_alive()] + [conversation.thread]
