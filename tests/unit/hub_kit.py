"""The Hub's programs as they lie in ``templates/jupyterhub``, with a folder of data of their own."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

PROGRAMS = Path(__file__).resolve().parents[2] / "templates" / "jupyterhub"

FACTS: dict[str, Any] = {
    "cluster": "demo",
    "head": {"name": "head", "address": "127.0.0.1"},
    "nodes": {"cpu-1": "10.77.0.11", "cpu-2": "10.77.0.12"},
    "ports": {"hub": 8081, "proxy": 8000, "api": 8001},
    "class_size": 3,
    "capacity": 4,
    "profiles": [
        {"name": n, "description": "", "cpus": c, "memory_mib": 1024, "time": "8:00:00", "gpus": 0, "partition": "cpu"}
        for n, c in (("small", 1), ("large", 2))
    ],
    "idle": {"server": 3600, "kernel": 3600, "longest": 0},
    "auth": {
        "method": "shared-password",
        "client_id": None,
        "options": {},
        "allow": {"users": True, "organizations": [], "groups": [], "domains": []},
    },
    "domain": None,
    "email": None,
    "repository": {"url": None, "branch": None, "folder": None},
    "shared": "/srv/shared",
    "state": "/nonexistent",
    "user_python": "/opt/vcluster/user/bin/python",
    "helper": ["false"],
    "squeue": ["false"],
}


def person(uid: int, kind: str = "student", **given: Any) -> dict[str, Any]:
    return {"uid": uid, "kind": kind, "admin": False, "instructor": False, "email": "", "login": "", **given}


PEOPLE = {
    "ann": person(10001),
    "bob": person(10002, email="Bob@Example.org"),
    "cy": person(10003, login="octocat"),
    "teacher": person(10004, "instructor", instructor=True),
    "boss": person(10005, "instructor", instructor=True, admin=True),
    "rehearsal-001": person(60001, "rehearsal"),
}
PASSWORDS = {
    "class": "abcd-efgh-jkmn-pqrs",
    "admin": "0123456789abcdef0123456789abcdef",
    "rehearsal": "a-rehearsals-own",
}


def write(folder: Path, **changed: Any) -> None:
    """hub.json, people.json and passwords.json into a folder."""
    (folder / "hub.json").write_text(json.dumps({**FACTS, **changed}))
    (folder / "people.json").write_text(json.dumps({"people": PEOPLE, "next_uid": 20001}))
    (folder / "passwords.json").write_text(json.dumps(PASSWORDS))


@contextmanager
def programs(folder: Path, *names: str) -> Iterator[list[ModuleType]]:
    """Modules of the Hub, loaded anew as on a machine whose data is in a folder, and forgotten afterwards."""
    import os

    own = {path.stem for path in PROGRAMS.glob("*.py")}
    before = {name: sys.modules.pop(name) for name in own & set(sys.modules)}
    old = os.environ.get("VCLUSTER_HUB_FOLDER")
    os.environ["VCLUSTER_HUB_FOLDER"] = str(folder)
    sys.path.insert(0, str(PROGRAMS))
    # These are files that go to machines and into the wheel.
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(PROGRAMS))
        sys.dont_write_bytecode = writes
        for name in own & set(sys.modules):
            del sys.modules[name]
        sys.modules.update(before)
        if old is None:
            del os.environ["VCLUSTER_HUB_FOLDER"]
        else:
            os.environ["VCLUSTER_HUB_FOLDER"] = old
