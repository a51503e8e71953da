"""What counts as the use of a notebook server: doing and computing, not looking. The bed has the real one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hub_kit import programs, write

NOW, LONG_AGO = 1000, 1


class Handler:
    """As the server's: it notes each answer."""

    def __init__(self, method: str) -> None:
        self.request = SimpleNamespace(method=method)
        self.counted = 0

    def update_api_activity(self) -> None:
        self.counted += 1


class Application:
    """As the server's: it tells when it last did something."""

    def __init__(self, **states: str) -> None:
        kernels = SimpleNamespace(
            list_kernel_ids=lambda: list(states), get_kernel=lambda each: SimpleNamespace(execution_state=states[each])
        )
        self.settings = {"kernel_manager": kernels}

    def last_activity(self) -> int:
        return LONG_AGO


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The server's classes, watched."""
    handler, application = type("APIHandler", (Handler,), {}), type("ServerWebApplication", (Application,), {})
    stubs: dict[str, Any] = {name: ModuleType(name) for name in ("", "._tz", ".base", ".base.handlers", ".serverapp")}
    stubs["._tz"].utcnow = lambda: NOW
    stubs[".base.handlers"].APIHandler = handler
    stubs[".serverapp"].ServerWebApplication = application
    for name, stub in stubs.items():
        monkeypatch.setitem(sys.modules, f"jupyter_server{name}", stub)
    write(tmp_path)
    with programs(tmp_path, "vcluster_activity") as [module]:
        module.watch()
        yield SimpleNamespace(handler=handler, application=application)


@pytest.mark.parametrize(
    ("method", "counted"),
    [("GET", 0), ("HEAD", 0), ("OPTIONS", 0), ("PUT", 1), ("POST", 1), ("PATCH", 1), ("DELETE", 1)],
)
def test_looking_is_no_use(server: SimpleNamespace, method: str, counted: int) -> None:
    handler = server.handler(method)
    handler.update_api_activity()
    assert handler.counted == counted


@pytest.mark.parametrize(
    ("states", "last"),
    [({}, LONG_AGO), ({"a": "idle"}, LONG_AGO), ({"a": "idle", "b": "busy"}, NOW), ({"a": "starting"}, LONG_AGO)],
)
def test_computing_is(server: SimpleNamespace, states: dict[str, str], last: int) -> None:
    assert server.application(**states).last_activity() == last
