"""HTTP/1.1 on sockets, as much of it as a reverse proxy on loopback needs, and no more.

A library would parse every message twice as slowly as the services' own clients do, and the proxy must not be
what a benchmark measures. Bodies pass as they come; nothing is held but what the caller asks to hold.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus

__all__ = ["CHUNKED", "TO_END", "BrokenError", "Head", "Stream", "answer_framing", "simple_answer"]

CHUNKED = -1
"""A framing: the body comes in chunks."""
TO_END = -2
"""A framing: the body ends with the connection."""

_PIECE = 65536
_LARGEST_HEAD = 1 << 20


class BrokenError(ConnectionError):
    """The other side closed the connection, or sent what is no HTTP, in the middle of a message."""


@dataclass(slots=True)
class Head:
    """The first line and the headers of a message, as they came."""

    first: bytes
    headers: list[tuple[bytes, bytes]]

    def get(self, name: bytes) -> bytes:
        """The header's value, empty where there is none; ``name`` in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), b"")

    def drop(self, *names: bytes) -> None:
        """Take headers away; names in lower case."""
        self.headers = [pair for pair in self.headers if pair[0].lower() not in names]

    def closes(self) -> bool:
        """Whether the sender ends the connection after this message."""
        connection = self.get(b"connection").lower()
        return connection == b"close" or (b"HTTP/1.0" in self.first and connection != b"keep-alive")

    def framing(self) -> int:
        """Length of a request's body in bytes, or CHUNKED."""
        if self.get(b"transfer-encoding").lower().endswith(b"chunked"):
            return CHUNKED
        return int(self.get(b"content-length") or 0)

    def encode(self) -> bytes:
        """The bytes on the wire, with the empty line at their end."""
        lines = [self.first, *(name + b": " + value for name, value in self.headers), b"", b""]
        return b"\r\n".join(lines)


def answer_framing(head: Head, status: int, method: str) -> int:
    """Length of an answer's body in bytes, or CHUNKED, or TO_END."""
    if method == "HEAD" or status in (204, 304):
        return 0
    if head.get(b"transfer-encoding").lower().endswith(b"chunked"):
        return CHUNKED
    length = head.get(b"content-length")
    return int(length) if length else TO_END


def simple_answer(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """A whole answer on the wire; its headers must name the type of the body."""
    phrase = HTTPStatus(status).phrase
    lines = [
        f"HTTP/1.1 {status} {phrase}",
        *(f"{name}: {value}" for name, value in headers),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Stream:
    """A socket with a buffer. Calls block; closing it from another thread ends them."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._buffer = b""

    def head(self) -> Head | None:
        """The next message's head; None when the other side closed instead of sending one.

        Raises:
            BrokenError: it closed within the head, or what came is no head.
        """
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _LARGEST_HEAD:
                raise BrokenError("no end to the headers")
            if not self._more():
                if self._buffer:
                    raise BrokenError("closed within the headers")
                return None
        lines = self._buffer[:end].split(b"\r\n")
        self._buffer = self._buffer[end + 4 :]
        headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon:
                raise BrokenError(f"no header: {line[:80]!r}")
            headers.append((name, value.strip()))
        return Head(lines[0], headers)

    def body(self, framing: int) -> Iterator[bytes]:
        """The body's pieces as they come, without framing.

        Raises:
            BrokenError: it ended too early.
        """
        if framing == TO_END:
            while piece := self._take(_PIECE):
                yield piece
        elif framing == CHUNKED:
            while size := int(self._line().partition(b";")[0], 16):
                yield from self._exactly(size)
                self._line()
            while self._line():  # trailers: none of the services sends any that matters
                pass
        else:
            yield from self._exactly(framing)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._socket.sendall(data)

    def send_body(self, pieces: Iterable[bytes], framing: int) -> None:
        """Send a body piece by piece, framed."""
        if framing != CHUNKED:
            for piece in pieces:
                self.send(piece)
            return
        for piece in pieces:
            self.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.send(b"0\r\n\r\n")

    def usable(self) -> bool:
        """Whether an idle connection still stands: nothing has come, not even its end."""
        return not self._buffer and not self._readable(0)

    def wait_closed(self, seconds: float) -> None:
        """Wait until the other side gives up, at most so long."""
        if self._readable(seconds):
            with contextlib.suppress(OSError):
                self._socket.recv(_PIECE)

    def close(self, *, reset: bool = False) -> None:
        """End the connection; with ``reset``, as if a firewall had cut it."""
        with contextlib.suppress(OSError):
            if reset:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                # Wakes a thread that waits in recv, which close() alone doesn't.
                self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _readable(self, seconds: float) -> bool:
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLIN)
        except ValueError as error:
            raise BrokenError("closed by this side") from error
        return bool(poll.poll(seconds * 1000))

    def _more(self) -> bool:
        piece = self._socket.recv(_PIECE)
        self._buffer += piece
        return bool(piece)

    def _take(self, most: int) -> bytes:
        if not self._buffer:
            return self._socket.recv(min(most, _PIECE))
        piece, self._buffer = self._buffer[:most], self._buffer[most:]
        return piece

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._take(size)
            if not piece:
                raise BrokenError(f"closed {size} bytes before the end of a body")
            size -= len(piece)
            yield piece

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if not self._more():
                raise BrokenError("closed between two chunks")
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line
