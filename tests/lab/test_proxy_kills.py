"""Clients that are killed at a request, before a tiny service: real sockets and processes, no lab."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.lab.proxy import FaultProxy
from tests.lab.proxy_http import Head
from tests.lab.proxy_record import Moment
from tests.lab.proxy_talk import Conversation
from tests.lab.tiny_service import Service, ask, connect, tiny_proxy, tiny_service

CLIENT = """
import http.client, sys
sys.stdin.readline()
connection = http.client.HTTPConnection(sys.argv[1])
for number in range(3):
    connection.request("POST", "/v2.1/servers", b"{}")
    answer = connection.getresponse()
    answer.read()
    print(number + 1, flush=True)
"""


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    """A proxy before a tiny service."""
    with tiny_service() as service, tiny_proxy(service) as made:
        yield made


@pytest.mark.parametrize(
    ("moment", "told", "acts"), [(Moment.ARRIVED, "1\n", 1), (Moment.ACTED, "1\n", 2), (Moment.ANSWERED, "1\n", 2)]
)
def test_kill_at_a_request(proxy: FaultProxy, moment: Moment, told: str, acts: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, urlsplit(proxy.urls["compute"]).netloc],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    proxy.kill_after(2, process.pid, moment)
    output, _ = process.communicate("go\n", timeout=120)
    assert process.returncode == -signal.SIGKILL
    # After ANSWERED, whether the client still printed before it died is the kernel's business.
    assert output == told or (moment is Moment.ANSWERED and "1\n2\n".startswith(output))
    proxy.drain()
    assert len(Service.acts) == acts
    assert [request.acted for request in proxy.requests if request.acted] == [202] * acts
    assert [request.fault for request in proxy.requests[1:]][:1] == ["" if moment is Moment.ANSWERED else "shut"]
    proxy.reset()
    connection = connect(proxy)
    assert ask(connection, "GET", "/")[0] == 200
    connection.close()


def test_nothing_that_a_client_sent_before_it_was_killed_gets_through_later(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = Conversation._serve

    def slowly(self: Conversation, head: Head) -> bool:
        time.sleep(0.5)  # its thread gets no processor before it has noted the request
        return serve(self, head)

    monkeypatch.setattr(Conversation, "_serve", slowly)
    proxy.shut()
    client = connect(proxy)
    client.request("POST", "/v2.1/servers", b"{}")
    client.close()
    proxy.drain()
    assert [(request.fault, request.acted) for request in proxy.requests] == [("shut", 0)]
    proxy.reset()
    assert Service.acts == []


def test_drain_tells_of_a_client_that_is_there(proxy: FaultProxy) -> None:
    client = connect(proxy)
    assert ask(client, "GET", "/")[0] == 200
    try:
        with pytest.raises(TimeoutError, match=r"\d connections are open"):
            proxy.drain(0.2)
    finally:
        client.close()


def test_kill_later_than_the_last_request(proxy: FaultProxy) -> None:
    proxy.kill_after(4, os.getpid())
    subprocess.run(
        [sys.executable, "-c", CLIENT, urlsplit(proxy.urls["compute"]).netloc],
        input=b"go\n",
        stdout=subprocess.DEVNULL,
        timeout=120,
        check=True,
    )
    assert [request.status for request in proxy.requests] == [202] * 3
