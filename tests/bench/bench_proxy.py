"""What the fault proxy adds to a request: it must not be what the OpenStack benchmark measures."""

from __future__ import annotations

import http.client
import statistics
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection

import pytest

from tests.lab.proxy import FaultProxy

REQUESTS = 2000
BODY = b'{"servers": [' + b'{"id": "11111111-2222-3333-4444-555555555555"},' * 40 + b"{}]}"


class Quick(BaseHTTPRequestHandler):
    """The same 2 kB of JSON to everybody."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        """Answer in one write."""
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
        )


def serve(port: Connection) -> None:
    """A service in a process of its own, as the lab's are."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Quick)
    server.daemon_threads = True
    port.send(server.server_address[1])
    server.serve_forever()


@pytest.fixture
def service() -> Iterator[int]:
    """Its port."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,))
    process.start()
    yield ours.recv()
    process.kill()
    process.join()


def asking(port: int) -> tuple[float, float]:
    """Median milliseconds of a request over one connection, and CPU milliseconds of this process for each."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    took = []
    began = time.process_time()
    for _ in range(REQUESTS):
        start = time.perf_counter()
        client.request("GET", "/v2.1/servers/detail", headers={"X-Auth-Token": "x" * 180})
        assert client.getresponse().read() == BODY
        took.append(time.perf_counter() - start)
    client.close()
    return statistics.median(took) * 1000, (time.process_time() - began) / REQUESTS * 1000


def test_what_the_proxy_adds(service: int, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultProxy({"compute": f"http://127.0.0.1:{service}"}) as proxy:
        port = int(proxy.urls["compute"].rpartition(":")[2])
        asking(service)
        direct, alone = asking(service)
        through, both = asking(port)
        assert proxy.count(path="/servers/detail$") == REQUESTS
    with capsys.disabled():
        sys.stdout.write(
            f"\nproxy: a request takes {direct:.2f} ms without it and {through:.2f} ms through it,"
            f" {through - direct:.2f} ms more (target at most 1); CPU {both - alone:.2f} ms more\n"
        )
