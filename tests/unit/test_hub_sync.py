"""After a start of the proxy the Hub is asked to tell it its routes, with the token that root reads."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hub_head_kit import LIBRARY, TOKEN, PretendedHub, serving
from loopback import refusing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jupyterhub.env").write_text(f"CONFIGPROXY_AUTH_TOKEN=other\nVCLUSTER_SERVICE_TOKEN={TOKEN}\nX=1\n")
    return tmp_path


def sync(folder: Path, hub: int, api: int) -> subprocess.CompletedProcess[str]:
    facts = {"head": {"address": "127.0.0.1"}, "ports": {"hub": hub, "api": api}}
    (folder / "hub.json").write_text(json.dumps(facts))
    named = {"VCLUSTER_HUB_FOLDER": str(folder), "VCLUSTER_HUB_SECRETS": str(folder / "jupyterhub.env")}
    # No token in its environment: that is the proxy's, too.
    environment = {key: value for key, value in os.environ.items() if "TOKEN" not in key} | named
    argv = [sys.executable, "-I", LIBRARY / "hub-sync"]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_the_hub_is_asked_with_roots_token(folder: Path) -> None:
    hub = PretendedHub()
    with serving(hub), socket.create_server(("127.0.0.1", 0)) as proxy:
        done = sync(folder, hub.port, proxy.getsockname()[1])
    assert hub.asked == [("POST", "/hub/api/proxy")], "with a wrong token it is not heard"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_hub_that_is_down_is_no_failure(folder: Path) -> None:
    with refusing() as port, socket.create_server(("127.0.0.1", 0)) as proxy:
        done = sync(folder, port, proxy.getsockname()[1])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
