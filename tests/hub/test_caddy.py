"""The front door's files, read by the Caddy that a head has; no bed is needed, only its tree."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.hub.bed import DEFAULT
from tests.hub.tree import ensure_tree
from tests.lab.layout import free_ports
from vcluster.render import render
from vcluster.spec import ClusterSpec
from vcluster.stacks import stack_for

pytestmark = pytest.mark.hub

OWN = {"cluster": "demo", "domain": None, "email": None, "proxy_port": 8000}
DOMAIN = {**OWN, "domain": "hub.example.org", "email": "admin@example.org"}


@pytest.fixture(scope="module")
def caddy() -> Path:
    """Debian's, as it is on a head."""
    spec = ClusterSpec.model_validate(DEFAULT)
    return ensure_tree(stack_for(spec.scheduler).install_script(spec)) / "usr/bin/caddy"


def run(caddy: Path, folder: Path, *words: str) -> str:
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([str(caddy), *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def caddyfile(folder: Path, **values: Any) -> Path:
    """As it is on a head, but for where its certificate lies."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -days 2"
    subprocess.run([*command.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    path = folder / "Caddyfile"
    path.write_text(re.sub("/etc/vcluster/tls", str(folder), render("jupyterhub/Caddyfile.j2", **values)))
    return path


@pytest.mark.parametrize("values", [OWN, DOMAIN], ids=["own", "domain"])
def test_caddy_takes_what_it_is_given(caddy: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    path = caddyfile(tmp_path, **values)
    run(caddy, tmp_path, "validate", "--config", str(path), "--adapter", "caddyfile")
    config = json.loads(run(caddy, tmp_path, "adapt", "--config", str(path), "--adapter", "caddyfile"))
    assert config["admin"] == {"disabled": True}
    servers = config["apps"]["http"]["servers"].values()
    assert all(server["protocols"] == ["h1", "h2"] for server in servers)
    text = json.dumps(config)
    assert '"dial": "127.0.0.1:8000"' in text
    assert ("hub.example.org" in text) == ("admin@example.org" in text) == bool(values["domain"])
    assert ("load_files" in text) == ("disable_certificates" in text) == (not values["domain"])


@contextmanager
def proxied(caddy: Path, folder: Path) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """The front door at a port of the loopback's, and the headers of what came through."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({key.lower(): value for key, value in self.headers.items()})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    behind = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=behind.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    (port,) = free_ports(1)
    path = caddyfile(folder, **{**OWN, "proxy_port": behind.server_address[1]})
    config = json.loads(run(caddy, folder, "adapt", "--config", str(path), "--adapter", "caddyfile"))
    servers = config["apps"]["http"]["servers"]
    [door] = [server for server in servers.values() if ":443" in server["listen"]]
    config["apps"]["http"]["servers"] = {"door": {**door, "listen": [f"127.0.0.1:{port}"]}}
    (folder / "door.json").write_text(json.dumps(config))
    process = subprocess.Popen(
        [str(caddy), "run", "--config", str(folder / "door.json")],
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port, seen
    finally:
        process.terminate()
        process.wait(120)
        behind.shutdown()
        thread.join()
        behind.server_close()


def test_nobody_says_where_they_are_but_the_door(caddy: Path, tmp_path: Path) -> None:
    trust = ssl._create_unverified_context()
    lies = {"X-Real-Ip": "192.0.2.1", "x-real-ip": "192.0.2.2", "X-Forwarded-For": "192.0.2.3", "Host": "localhost"}
    with proxied(caddy, tmp_path) as (port, seen):
        end = time.monotonic() + 120
        while not seen:
            link = http.client.HTTPSConnection("127.0.0.1", port, context=trust, timeout=10)
            try:
                link.request("GET", "/hub/login", headers=lies)
                assert link.getresponse().status == 204
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.1)
            finally:
                link.close()
    assert "x-real-ip" not in seen[0]
    assert seen[0]["x-forwarded-for"] == "127.0.0.1"
