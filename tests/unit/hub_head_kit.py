"""The head's own Hub programs in a folder of this computer, with a Hub that pretends and no scheduler."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from loopback import Quiet, listening

LIBRARY = Path(__file__).parents[2] / "templates/jupyterhub"
MODULES = (
    "hub_state",
    "hub_queue",
    "hub_api",
    "hub_quota",
    "hub_people",
    "hub_front",
    "hub_passwords",
    "hub_rehearsal",
    "hub_probe",
)
TOKEN = "service-token"


class PretendedHub:
    """What the Hub's interface answers: users with their servers, and what was asked of it."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.busy: dict[str, int] = {}
        self.broken: set[str] = set()
        self.up = True
        self.port = 0
        self.start: Callable[[dict[str, Any]], tuple[int, Any]] = self._started
        self.failure = ""

    def answer(self, method: str, path: str) -> tuple[int, Any]:  # noqa: PLR0911 - a table
        self.asked.append((method, path))
        if not self.up:
            return 503, {"message": "starting"}
        match [method, *path.partition("?")[0].strip("/").split("/")[2:]]:
            case ["GET"]:
                return 200, {"version": "6.1.1"}
            case ["POST", "proxy"]:
                return 200, None
            case ["GET", "info"]:
                return 200, {"version": "6.1.1"}
            case ["GET", "users"]:
                offset = int(path.partition("offset=")[2].partition("&")[0] or 0)
                items = [{"name": name, **user} for name, user in self.users.items() if user.get("servers")]
                following = {"offset": offset + 2} if offset + 2 < len(items) else None
                return 200, {"items": items[offset : offset + 2], "_pagination": {"next": following}}
            case ["DELETE", "users", name] if name in self.broken:
                return 500, {"message": "the server did not stop"}
            case ["DELETE", "users", name]:
                if self.busy.get(name, 0):
                    self.busy[name] -= 1
                    return 400, {"message": "stopping"}
                return (204, None) if self.users.pop(name, None) is not None else (404, {"message": "who?"})
            case ["POST", "users", name]:
                return (409, {"message": "exists"}) if name in self.users else self._made(name)
            case ["POST", "users", name, "server"]:
                return self.start(self.users[name])
            case ["GET", "users", _, "server", "progress"]:
                events = [{"progress": 30, "message": "Asking Slurm"}, {"failed": True, "message": self.failure}]
                return 200, "".join(f"data: {json.dumps(event)}\n\n" for event in events)
            case ["GET", "users", name]:
                return 200, {"name": name, **self.users[name]}
        return 404, {"message": f"no {path}"}

    def _started(self, user: dict[str, Any]) -> tuple[int, Any]:
        user["servers"] = {"": {"ready": True}}
        return 201, None

    def _made(self, name: str) -> tuple[int, Any]:
        self.users[name] = {"servers": {}, "last_activity": None}
        return 201, {"name": name}


@contextmanager
def serving(hub: PretendedHub) -> Iterator[PretendedHub]:
    class Handler(Quiet):
        def answer(self) -> None:
            if self.path != "/hub/api/" and self.headers["Authorization"] != f"token {TOKEN}":
                status, body = 403, {"message": "no token"}
            else:
                status, body = hub.answer(self.command, self.path)
            text = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - named by the library

    with listening(Handler) as port:
        hub.port = port
        yield hub


class Head:
    """A head's files under ``root``; modules are imported afresh, because they read where things lie only once."""

    def __init__(self, root: Path, hub: PretendedHub, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.hub, self._patch = root, hub, monkeypatch
        self.folder = root / "etc/vcluster/hub"
        for folder in (self.folder, root / "etc/vcluster/secrets", root / "home", root / "bin"):
            folder.mkdir(parents=True)
        (root / "etc/vcluster/secrets/jupyterhub.env").write_text(f"OTHER=1\nVCLUSTER_SERVICE_TOKEN={TOKEN}\n")
        self.facts()
        self.write("people.initial.json", {"people": {}, "next_uid": 20001})
        self.write("passwords.initial.json", {"class": "class-word-1", "admin": "a" * 32, "rehearsal": None})
        self.calls = root / "calls"
        for program in ("pkill", "scancel", "systemctl", "squeue"):
            self.program(program)
        rows = "printf 'cpu-1|idle|none\\ncpu-2|mixed|none\\n'"
        self.program("sinfo", says=f'case "$*" in *%D*) echo 2;; *) {rows};; esac')
        self.booted("first-boot")
        monkeypatch.setenv("PATH", f"{root / 'bin'}:/usr/bin:/bin")
        monkeypatch.setenv("VCLUSTER_HUB_FOLDER", str(self.folder))
        monkeypatch.setenv("VCLUSTER_HUB_ROOT", str(root))
        monkeypatch.setenv("VCLUSTER_HUB_LIBRARY", str(LIBRARY))
        monkeypatch.syspath_prepend(str(LIBRARY))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        for name in MODULES:
            monkeypatch.delitem(sys.modules, name, raising=False)

    def program(self, name: str, says: str = "") -> None:
        """Let a program note its words and do what a line of shell says."""
        script = self.root / "bin" / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.calls}\n{says}\n')
        script.chmod(0o755)

    def booted(self, boot: str) -> None:
        """Boot it, a minute ago."""
        known = self.root / "proc/sys/kernel/random"
        known.mkdir(parents=True, exist_ok=True)
        (known / "boot_id").write_text(f"{boot}\n")
        (self.root / "proc/uptime").write_text("60.0 100.0\n")

    def facts(self, **changed: Any) -> None:
        port = self.hub.port
        known = {
            "cluster": "demo",
            "head": {"name": "head", "address": "127.0.0.1"},
            "ports": {"hub": port, "proxy": port, "api": 1},
            "capacity": 12,
            "fits": {"cpu": 4},
            "auth": {"method": "shared-password", "options": {}},
            "domain": None,
            "profiles": [{"name": "standard", "partition": "cpu"}],
        }
        self.write("hub.json", {**known, **changed})

    def write(self, name: str, data: Any) -> None:
        (self.folder / name).write_text(json.dumps(data))

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def module(self, name: str) -> ModuleType:
        return importlib.import_module(name)

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    with serving(PretendedHub()) as hub:
        yield Head(tmp_path, hub, monkeypatch)
        for name in MODULES:
            sys.modules.pop(name, None)
