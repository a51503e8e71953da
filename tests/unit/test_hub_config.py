"""The Hub's settings as traitlets reads them, for classes of several sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hub_kit import FACTS, PROGRAMS, write
from hub_process import ENVIRONMENT

LOAD = """\
import asyncio, json, sys
from pathlib import Path
from traitlets.config.loader import PyFileConfigLoader

async def loaded(facts):
    Path(sys.argv[2], "hub.json").write_text(json.dumps(facts))
    c = PyFileConfigLoader(sys.argv[1]).load_config()
    hub, spawner = c.JupyterHub, c.Spawner
    return {
        "at once": hub.concurrent_spawn_limit,
        "most": hub.active_server_limit,
        "start": spawner.start_timeout,
        "failures": spawner.consecutive_failure_limit,
        "http": spawner.http_timeout,
        "activity": int(spawner.environment["JUPYTERHUB_ACTIVITY_INTERVAL"]),
        "cleanup": [hub.cleanup_servers, c.ConfigurableHTTPProxy.should_start],
        "allow": [c.Authenticator.any_allow_config, c.Authenticator.allow_existing_users],
        "services": hub.services,
        "roles": hub.load_roles,
    }

async def all_of_them():
    print(json.dumps([await loaded(facts) for facts in json.loads(sys.stdin.read())]))

asyncio.run(all_of_them())
"""

SIZES = (1, 127, 500)
IDLE = {
    "usual": {"server": 3600, "kernel": 3600, "longest": 0},
    "short": {"server": 600, "kernel": 0, "longest": 7200},
    "longest": {"server": 0, "kernel": 0, "longest": 7200},
    "never": {"server": 0, "kernel": 600, "longest": 0},
}
Settings = dict[str, Any]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], Settings]:
    """What the file sets, by the class's size and by what is idle."""
    folder = tmp_path_factory.mktemp("hub")
    write(folder)
    keys = [(size, idle) for size in SIZES for idle in IDLE]
    given = [
        {**FACTS, "state": str(folder), "class_size": size, "capacity": size + 5, "idle": IDLE[idle]}
        for size, idle in keys
    ]
    command = [sys.executable, "-c", LOAD, str(PROGRAMS / "jupyterhub_config.py"), str(folder)]
    environment = {**ENVIRONMENT, "VCLUSTER_HUB_FOLDER": str(folder)}
    done = subprocess.run(
        command, input=json.dumps(given), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(keys, json.loads(done.stdout), strict=True))


def test_limits_are_those_of_the_class(settings: dict[tuple[int, str], Settings]) -> None:
    found = [settings[size, "usual"] for size in SIZES]
    # All at once, and some who come again; JupyterHub's own 100 would send a class of 127 away.
    assert [each["at once"] for each in found] == [11, 137, 510]
    assert [each["most"] for each in found] == [6, 132, 505]
    # A server that waits for others' has done nothing wrong: three seconds for each, and five minutes at least.
    assert [each["start"] for each in found] == [300, 441, 1560]
    # Never does the whole Hub end because some servers did not start.
    assert {each["failures"] for each in found} == {0}
    assert {each["http"] for each in found} == {120}
    assert all(each["cleanup"] == [False, False] for each in found)
    assert all(each["allow"] == [True, False] for each in found)


def role(found: Settings, name: str) -> Settings | None:
    return next((each for each in found["roles"] if each["name"] == name), None)


def culler(found: Settings) -> list[str] | None:
    return next((each["command"] for each in found["services"] if each["name"] == "idle-culler"), None)


@pytest.mark.parametrize("size", SIZES)
def test_idle_servers_end_and_the_culler_may_do_no_more(settings: dict[tuple[int, str], Settings], size: int) -> None:
    usual, short, longest, never = (settings[size, idle] for idle in IDLE)
    start = [sys.executable, "-m", "jupyterhub_idle_culler", "--api-page-size=200"]
    assert culler(usual) == [*start, "--cull-every=300", "--timeout=3600", "--max-age=0"]
    assert culler(short) == [*start, "--cull-every=150", "--timeout=600", "--max-age=7200"]
    assert culler(longest) == [*start, "--cull-every=300", "--timeout=1000000000", "--max-age=7200"]
    assert culler(never) is role(never, "idle-culler") is None
    # What a server says of its use comes at least as often as somebody looks.
    assert [each["activity"] for each in (usual, short, never)] == [300, 150, 300]
    for each in (usual, short, longest):
        own = role(each, "idle-culler")
        assert own is not None
        assert own["scopes"] == ["list:users", "read:users:activity", "read:servers", "delete:servers"]
        assert own["services"] == ["idle-culler"]


def test_no_rank_may_do_what_it_has_no_use_for(settings: dict[tuple[int, str], Settings]) -> None:
    found = settings[127, "usual"]
    teacher = role(found, "instructor")
    assert teacher is not None
    assert teacher["groups"] == ["instructors"]
    assert "access:servers" in teacher["scopes"]
    assert not any(scope.startswith(("admin:", "tokens", "groups", "shares")) for scope in teacher["scopes"])
    assert {each["name"] for each in found["services"]} == {"vcluster", "idle-culler"}
