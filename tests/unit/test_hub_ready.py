"""The head is ready only when its Hub answers, as people reach it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_head_kit import PretendedHub, serving
from loopback import refusing
from test_slurm_node import Slurm, health, slurm

__all__ = ["slurm"]


@pytest.fixture
def hub(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedHub]:
    with serving(PretendedHub()) as hub, socket.create_server(("127.0.0.1", 0)) as front:
        (tmp_path / "hub.json").write_text(json.dumps({"ports": {"proxy": hub.port}}))
        monkeypatch.setattr(slurm.node, "HUB", tmp_path / "hub.json")
        monkeypatch.setattr(slurm.node, "FRONT_PORT", front.getsockname()[1])
        yield hub


def test_a_hub_that_answers(slurm: Slurm, hub: PretendedHub) -> None:
    assert health(slurm)["head"] == "ready"
    assert hub.asked == [("GET", "/hub/api/")]


def test_a_hub_that_starts_or_fell_over(slurm: Slurm, hub: PretendedHub) -> None:
    hub.up = False
    found = health(slurm)
    assert found["head"] == "booting"
    assert found["cpu-1"] == "ready"  # workers prove themselves meanwhile


def test_a_hub_that_left_word_why_it_does_not_start(
    slurm: Slurm, hub: PretendedHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.up = False
    (tmp_path / "hub.json").write_text(json.dumps({"ports": {"proxy": hub.port}, "state": str(tmp_path)}))
    (tmp_path / "problem").write_text("nobody can log in:\n no answer")
    assert health(slurm)["head"] == "booting"
    assert capsys.readouterr().err == "JupyterHub does not start: nobody can log in: no answer\n"
    hub.up = True
    assert health(slurm)["head"] == "ready"
    assert capsys.readouterr().err == ""


def test_a_front_door_that_is_shut(slurm: Slurm, hub: PretendedHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing() as port:
        monkeypatch.setattr(slurm.node, "FRONT_PORT", port)
        assert health(slurm)["head"] == "booting"


def test_with_a_domain_the_door_opens_later(
    slurm: Slurm, hub: PretendedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm.node, "FRONT_PORT", 1)
    (tmp_path / "hub.json").write_text(json.dumps({"ports": {"proxy": hub.port}, "domain": "hub.example.org"}))
    assert health(slurm)["head"] == "ready"
    (tmp_path / "front.json").write_text("{}")
    assert health(slurm)["head"] == "booting"


def test_a_proxy_that_is_away(slurm: Slurm, hub: PretendedHub, tmp_path: Path) -> None:
    (tmp_path / "hub.json").write_text(json.dumps({"ports": {"proxy": 1}}))
    assert health(slurm)["head"] == "booting"


def test_a_head_that_failed_stays_so(slurm: Slurm, hub: PretendedHub) -> None:
    hub.up = False
    (slurm.node.STATE / "configured").unlink()
    (slurm.node.STATE / "failed").touch()
    assert health(slurm)["head"] == "failed"
