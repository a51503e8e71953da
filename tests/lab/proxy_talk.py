"""One client's connection to the proxy, and the connection to the service behind it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable
from typing import Protocol

from tests.lab.proxy_answers import balancer_page, error_body, quota_refusal
from tests.lab.proxy_faults import Fault, How
from tests.lab.proxy_http import CHUNKED, TO_END, BrokenError, Head, Stream, answer_framing, simple_answer
from tests.lab.proxy_record import Moment, Recorded

__all__ = ["Conversation", "Desk"]

_LARGEST_WHOLE = 1 << 20
"""Request bodies up to so many bytes are read before the request counts as arrived; larger ones stream."""
_HOP_BY_HOP = (b"connection", b"keep-alive", b"proxy-connection")


class Desk(Protocol):
    """What a conversation asks of the proxy that it belongs to; see FaultProxy."""

    keep_bodies: bool

    def arrive(
        self, service: str, method: str, target: str, body: bytes, token: bytes
    ) -> tuple[Recorded, Fault | None]: ...
    def held(self, request: Recorded) -> Fault | None: ...
    def tell(self, request: Recorded, moment: Moment) -> None: ...
    def done(self, request: Recorded) -> None: ...
    def left(self, conversation: Conversation) -> None: ...
    def renamed(self, text: bytes) -> bytes: ...


class Conversation:
    """Serves the requests of one connection, one after another, in a thread of its own."""

    def __init__(self, desk: Desk, service: str, client: socket.socket, upstream: tuple[str, int]) -> None:
        self._desk = desk
        self._service = service
        self._client = Stream(client)
        self._address = upstream
        self._upstream: Stream | None = None
        self._reset = False
        self.thread = threading.Thread(target=self._run, name=f"proxy-{service}-client", daemon=True)

    def close(self) -> None:
        """Cut both connections; the thread ends."""
        self._client.close(reset=self._reset)
        self._hang_up()

    def _run(self) -> None:
        try:
            # An error means that the client went away, or that the proxy is being closed; a request that this cost says
            # so in its record.
            with contextlib.suppress(OSError):
                while (head := self._client.head()) and self._serve(head):
                    pass
        finally:
            self.close()
            self._desk.left(self)

    def _serve(self, head: Head) -> bool:
        """Serve one request; return whether another may follow on this connection."""
        method, target, _ = (word.decode("latin-1") for word in head.first.split(b" ", 2))
        if head.get(b"expect"):
            self._client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            head.drop(b"expect")
        framing = head.framing()
        whole = framing != CHUNKED and framing <= _LARGEST_WHOLE
        pieces: Iterable[bytes] = self._client.body(framing)
        body = b""
        if whole:
            body = b"".join(pieces)
            pieces = [body]
        request, fault = self._desk.arrive(self._service, method, target, body, head.get(b"x-auth-token"))
        try:
            fault = self._desk.held(request) or fault
            if fault is not None and not fault.after:
                for _ in pieces:  # a client listens to the answer only when it has sent all
                    pass
                more = self._spoil(request, fault)
            else:
                more = self._pass(head, pieces, framing, request, fault)
        except OSError:
            request.fault = request.fault or "client"
            raise
        finally:
            self._desk.done(request)
        return more and not head.closes()

    def _pass(self, head: Head, pieces: Iterable[bytes], framing: int, request: Recorded, fault: Fault | None) -> bool:
        """Pass the request on and the answer back."""
        head.drop(*_HOP_BY_HOP, b"accept-encoding")
        try:
            answer, upstream = self._ask(head, pieces, framing, request)
        except (BrokenError, ConnectionError) as error:
            request.fault, request.status = "upstream", 502
            self._hang_up()
            self._client.send(simple_answer(502, [("Content-Type", "text/plain")], f"{error}\n".encode()))
            return True
        size = answer_framing(answer, request.acted, request.method)
        is_json = b"json" in answer.get(b"content-type")
        content: Iterable[bytes] = upstream.body(size)
        if size and (is_json or fault is not None or self._desk.keep_bodies):
            text = self._desk.renamed(b"".join(content)) if is_json else b"".join(content)
            if self._desk.keep_bodies and not request.path.endswith("/auth/tokens"):
                request.answer = text
            answer.drop(b"content-length", b"transfer-encoding")
            answer.headers.append((b"Content-Length", b"%d" % len(text)))
            content, size = [text], len(text)
        gone = answer.closes() or size == TO_END
        answer.headers = [
            (name, self._desk.renamed(value)) for name, value in answer.headers if name.lower() not in _HOP_BY_HOP
        ]
        if size == TO_END:
            answer.headers.append((b"Connection", b"close"))
        self._desk.tell(request, Moment.ACTED)
        fault = self._desk.held(request) or fault
        if fault is not None:
            request.fault = fault.name
        if fault is not None and fault.how is How.SLOW:
            self._client.wait_closed(fault.seconds)
        elif fault is not None:
            for piece in content:
                if fault.how is How.CUT:
                    self._client.send(answer.encode() + piece[: len(piece) // 2])
            return self._spoil(request, fault)
        self._answer(answer, content, size, request)
        self._desk.tell(request, Moment.ANSWERED)
        if gone:
            self._hang_up()
        return size != TO_END

    def _ask(self, head: Head, pieces: Iterable[bytes], framing: int, request: Recorded) -> tuple[Head, Stream]:
        """Send the request to the service; return its answer's head, and where the body comes from."""
        upstream = self._upstream  # another thread may close it, and then it is None here
        if upstream is not None and not upstream.usable():
            self._hang_up()
            upstream = None
        if upstream is None:
            upstream = self._upstream = Stream(socket.create_connection(self._address))
        if isinstance(pieces, list):
            upstream.send(head.encode() + pieces[0])
        else:
            upstream.send(head.encode())
            upstream.send_body(pieces, framing)
        asked = time.monotonic()
        while (answer := upstream.head()) is not None:
            request.waited = time.monotonic() - asked
            status = int(answer.first.split(b" ", 2)[1])
            if status >= 200:
                request.acted = status
                return answer, upstream
        raise BrokenError("the service closed the connection without an answer")

    def _answer(self, answer: Head, content: Iterable[bytes], size: int, request: Recorded) -> None:
        # Before it is: a test may look as soon as its client has the answer.
        request.status = request.acted
        if isinstance(content, list):
            self._client.send(answer.encode() + content[0])
        else:
            self._client.send(answer.encode())
            self._client.send_body(content, size)

    def _spoil(self, request: Recorded, fault: Fault) -> bool:
        """Give the client what the fault gives it; return whether the connection lives on."""
        request.fault = fault.name
        match fault.how:
            case How.SILENCE:
                self._client.wait_closed(fault.seconds)
                return False
            case How.DROP | How.CUT:
                self._reset = fault.reset
                return False
            case How.QUOTA:
                status, kind, body = quota_refusal(self._service)
            case _:
                status = fault.status
                kind, body = (
                    balancer_page(status) if fault.balancer else error_body(self._service, status, fault.message)
                )
        headers = [("Content-Type", kind)]
        # Cinder says so although waiting does not help, and many a client then tries for ever.
        retry_after = "0" if fault.how is How.QUOTA and status == 413 else fault.retry_after
        if retry_after:
            headers.append(("Retry-After", retry_after))
        if status == 401:
            headers.append(("WWW-Authenticate", "Keystone"))
        request.status = status
        self._client.send(simple_answer(status, headers, b"" if request.method == "HEAD" else body))
        return True

    def _hang_up(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()
