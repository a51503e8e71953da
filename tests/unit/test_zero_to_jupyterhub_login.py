"""What the chart's Hub runs at the end of its configuration, from the files that the chart's values bring."""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from traitlets.config import Config
from z2jh_kit import GIVEN, HUBS, hub_site, merged

from vcluster.stacks import zero_to_jupyterhub as chart
from vcluster.stacks.zero_to_jupyterhub_values import CONFIG


@contextmanager
def configured(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[tuple[Config, dict[str, Any]]]:
    """The configuration that comes of it, and the programs' names, as in the Hub's container."""
    site = hub_site(HUBS[name])
    values = merged(chart.values(site), chart.secret_values(site))
    own, facts, state = folder / "etc", folder / "facts", folder / "state"
    for each in (own, facts, state):
        each.mkdir()
    for file in values["hub"]["extraFiles"].values():
        path = Path(file["mountPath"])
        where = own if str(path.parent) == CONFIG else facts
        (where / path.name).write_text(file.get("stringData") or json.dumps(file["data"]))
    monkeypatch.setenv("VCLUSTER_HUB_FOLDER", str(facts))
    monkeypatch.setenv("VCLUSTER_CLIENT_SECRET", "")
    monkeypatch.syspath_prepend(str(own))
    programs = {path.stem for path in own.glob("*.py")}
    for module in programs:
        monkeypatch.delitem(sys.modules, module, raising=False)
    c = Config()

    def get_config(key: str) -> Any:
        found: Any = values
        for word in key.split("."):
            found = found.get(word, {})
        return found or None

    space = {"c": c, "get_config": get_config}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = values["hub"]["extraConfig"]["vcluster"].replace("/srv/jupyterhub", str(state))
            exec(compile(source, "hub_config", "exec"), space)
            yield c, space
    finally:
        if "_sqlite" in space:
            event.remove(Engine, "connect", space["_sqlite"])
        for module in programs:
            sys.modules.pop(module, None)


def ask(way: Any, name: str, password: str) -> dict[str, Any] | None:
    handler = SimpleNamespace(request=SimpleNamespace(remote_ip="192.0.2.7"))
    found: dict[str, Any] | None = asyncio.run(
        way.get_authenticated_user(handler, {"username": name, "password": password})
    )
    return found


@pytest.mark.parametrize("name", ["plain", "native", "firstuse", "github", "cilogon", "globus"])
def test_the_ways_to_log_in_are_those_of_a_slurm_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with configured(tmp_path, monkeypatch, name) as (c, _):
        chosen = c.JupyterHub.authenticator_class
        assert [base.__name__ for base in chosen.__mro__][1] == "People"
        own = c[chosen.__name__]
        if name in ("github", "cilogon", "globus"):
            assert own.oauth_callback_url == "https://hub.example.org/hub/oauth_callback"
            assert (own.client_id, own.client_secret) == ("hub", GIVEN["client_secret"])


def test_a_rank_takes_its_own_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(tmp_path, monkeypatch, "class-of-127") as (c, _):
        way = c.JupyterHub.authenticator_class()
        words = json.loads((tmp_path / "facts/passwords.json").read_text())
        student, teacher = ask(way, "student-127", words["class"]), ask(way, "teacher", words["admin"])
        assert student is not None
        assert teacher is not None
        assert (student["admin"], student["groups"]) == (False, [])
        assert (teacher["admin"], teacher["groups"]) == (False, ["instructors"])
        assert ask(way, "teacher", words["class"]) is None
        assert ask(way, "student-128", words["class"]) is None


def test_the_database_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(tmp_path, monkeypatch, "plain"):
        engine = create_engine(f"sqlite:///{tmp_path}/hub.sqlite")
        with engine.connect() as connection:
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        engine.dispose()
