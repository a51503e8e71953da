"""A service of two dozen lines for the tests of the proxy, which need no lab."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

from tests.lab.proxy import FaultProxy

__all__ = ["LARGE", "Service", "ask", "connect", "tiny_proxy", "tiny_service"]

LARGE = 3 << 20
"""Bytes of ``/large``."""


class Service(BaseHTTPRequestHandler):
    """Answers as an OpenStack service does, and remembers what it was asked to do."""

    protocol_version = "HTTP/1.1"
    acts: ClassVar[list[str]] = []
    tokens: ClassVar[set[str]] = set()

    def log_message(self, *args: object) -> None:
        """Nothing: tests read ``acts``."""

    def do_GET(self) -> None:
        """A discovery document, a large download, chunks, or an answer without length."""
        self.acts.append(f"GET {self.path}")
        match urlsplit(self.path).path:
            case "/large":
                self._answer(200, b"x" * LARGE, "application/octet-stream")
            case "/chunks":
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.send_header("Content-Type", "text/plain")
                self.end_headers()
                for piece in (b"one", b"two" * 30000):
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
            case "/endless":
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(b"until the end")
                self.close_connection = True
            case "/die":
                self.close_connection = True
            case _:
                host, port = self.connection.getsockname()
                here = f"http://{host}:{port}"
                links = [{"rel": "self", "href": f"{here}/v2.1/"}, {"rel": "x", "href": f"{here}9/"}]
                content = {"links": links, "host": self.headers["Host"]}
                self._answer(200, json.dumps(content).encode(), location=f"{here}/v2.1/servers/1")

    def do_POST(self) -> None:
        """An act, with its body's size as the answer."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            size = 0
            while piece := int(self.rfile.readline(), 16):
                size += len(self.rfile.read(piece))
                self.rfile.readline()
            self.rfile.readline()
        else:
            size = len(self.rfile.read(int(self.headers["Content-Length"])))
        self.acts.append(f"POST {self.path} {size}")
        self._answer(202, json.dumps({"size": size}).encode())

    def do_DELETE(self) -> None:
        """An act without a body in its answer."""
        self.acts.append(f"DELETE {self.path}")
        self.send_response(204)
        self.end_headers()

    def do_HEAD(self) -> None:
        """The same without a body."""
        self.do_GET()

    def _answer(self, status: int, body: bytes, kind: str = "application/json", location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def tiny_service() -> Iterator[str]:
    """The base URL of a running service that has seen nothing yet."""
    Service.acts.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v2.1"
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def tiny_proxy(service: str) -> Iterator[FaultProxy]:
    """A proxy before it, as ``compute``; no thread of it is left."""
    with FaultProxy({"compute": service}) as proxy:
        yield proxy
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("proxy-")]


def connect(proxy: FaultProxy, timeout: float = 120) -> http.client.HTTPConnection:
    """A connection through the proxy, not opened yet; ``timeout`` in seconds."""
    return http.client.HTTPConnection(urlsplit(proxy.urls["compute"]).netloc, timeout=timeout)


def ask(
    client: http.client.HTTPConnection, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, bytes]:
    """Status and body of the answer."""
    client.request(method, path, body, headers)  # type: ignore[arg-type]  # its stub forgets generators
    answer = client.getresponse()
    return answer.status, answer.read()
