"""The command line and the Hub, on the memory cloud: what up and status say of it, and `vcluster users`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vcluster.cluster
from vcluster.cli import main
from vcluster.clouds.memory import MemoryCloud
from vcluster.clouds.memory_hub import PretendedHub
from vcluster.commands.look import hub_line
from vcluster.hub import HubProvider, HubStatus

SPEC = """\
name: demo
cloud: memory
head: {flavor: medium}
workers:
  - {name: cpu, count: 2, flavor: large}
jupyterhub: {people: {count: 4}}
"""
ON_MEMORY = ["--cloud", "memory"]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryCloud:
    made, real = MemoryCloud(), vcluster.cluster.connect
    monkeypatch.setattr(vcluster.cluster, "connect", lambda name, home: made if name == "memory" else real(name, home))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(tmp_path)
    Path("demo.yaml").write_text(SPEC)
    return made


@pytest.fixture
def hub(cloud: MemoryCloud, capsys: pytest.CaptureFixture[str]) -> PretendedHub:
    """The Hub of a cluster that is up."""
    assert main(["up", "demo.yaml"]) == 0
    capsys.readouterr()
    head = next(entry.head for entry in cloud.entries(cloud.ref("demo")) if entry.head)
    return head.hub


def result(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert main([*words, *ON_MEMORY, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_up_shows_the_door_and_the_passwords_once(cloud: MemoryCloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "demo.yaml"]) == 0
    out, err = capsys.readouterr()
    words = {line[2:17].strip(): line[17:].strip() for line in out.splitlines()[1:]}
    assert words["JupyterHub"] == "https://127.0.0.1:20443/"
    assert words["its authority"] == "SHA-256 AB:CD"
    assert words["class password"] == "class-password"
    assert words["admin password"] == "admin-password"
    assert words["again"] == "vcluster users demo password --cloud memory"
    assert words["rehearse"] == "vcluster rehearse demo --cloud memory --users 2"
    assert "run a job" not in words
    assert "class-password" not in err
    assert main(["up", "demo.yaml"]) == 0
    out, _ = capsys.readouterr()
    assert "https://127.0.0.1:20443/" in out
    assert "class-password" not in out
    assert "vcluster users demo password --cloud memory" in out


def test_json_never_has_the_passwords(cloud: MemoryCloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "demo.yaml", "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out.splitlines()[-1])
    assert told["hub"] == {"url": "https://127.0.0.1:20443/", "fingerprint": "AB:CD", "ca": "PEM"}
    assert "-password" not in out + err


def test_status_has_a_line_for_the_hub(hub: PretendedHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "demo", *ON_MEMORY]) == 0
    line = "JupyterHub is up: https://127.0.0.1:20443/, 0 users active, 0 servers running, room for 8 more of 8"
    assert line in capsys.readouterr().out.splitlines()
    assert result(capsys, "status", "demo")["hub"]["room"] == 8
    hub.down = "the Hub does not answer"
    assert main(["status", "demo", *ON_MEMORY]) == 0
    assert "JupyterHub is down: the Hub does not answer" in capsys.readouterr().out.splitlines()


def test_the_line_says_what_is_wrong() -> None:
    status = HubStatus(up=True, url="https://a/", starting=3, room=1, capacity=9, problem="caddy is off")
    status_of_provider = HubStatus(up=True, provider=HubProvider("idp.example", reachable=False, problem="time-out"))
    assert "and 3 starting, room for 1 more of 9; caddy is off" in hub_line(status)
    assert "nobody can log in: idp.example cannot be reached from the head (time-out)" in hub_line(status_of_provider)


def test_users_come_and_go(hub: PretendedHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["users", "demo", "list", *ON_MEMORY]) == 0
    assert capsys.readouterr().out == "demo has nobody\n"
    assert main(["users", "demo", "add", "ann", "bob", "--rank", "instructor", *ON_MEMORY]) == 0
    assert capsys.readouterr().out == "demo: ann, bob may come in\n"
    assert [p["instructor"] for p in result(capsys, "users", "demo", "list")["people"]] == [True, True]
    assert main(["users", "demo", "list", *ON_MEMORY]) == 0
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()][1] == ["ann", "student", "instructor"]
    assert main(["users", "demo", "remove", "ann", *ON_MEMORY]) == 0
    assert capsys.readouterr().out == "demo: ann may not come in any more; files stay in /home/ann\n"
    assert main(["users", "demo", "remove", "ann", *ON_MEMORY]) == 0
    assert capsys.readouterr().out.endswith("files stay in /home/ann (removed before: ann)\n")
    assert main(["users", "demo", "remove", "ann", "zoe", *ON_MEMORY]) == 2
    assert "error: not known here: zoe" in capsys.readouterr().err


def test_a_rehearsals_name_is_nobodys(hub: PretendedHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["users", "demo", "add", "ann", "rehearsal-001", *ON_MEMORY]) == 2
    err = capsys.readouterr().err
    assert "rehearsal-001: names that begin with rehearsal belong to rehearsals" in err
    assert "choose another name" in err
    assert hub.people == {}


def test_what_was_not_done_for_new_people_is_told(
    hub: PretendedHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"added": ["ann"], "problem": "new people are held to no quota: setquota: no"}
    monkeypatch.setattr(hub, "_people", lambda *_: told)
    assert main(["users", "demo", "add", "ann", *ON_MEMORY]) == 0
    found = capsys.readouterr()
    assert found.out == "demo: ann may come in\n"
    assert "held to no quota: setquota: no" in found.err


def test_a_class_is_added_from_a_file(hub: PretendedHub, capsys: pytest.CaptureFixture[str]) -> None:
    Path("class.csv").write_text("\ufeffname,email\r\nann,ann@example.org\r\nbob,\r\n")
    assert main(["users", "demo", "add", "--csv", "class.csv", "--rank", "admin", *ON_MEMORY]) == 0
    assert {name: (p["email"], p["admin"]) for name, p in hub.people.items()} == {
        "ann": ("ann@example.org", True),
        "bob": ("", True),
    }
    Path("class.csv").write_text("name\nzoe\nZoe\nzoe\n")
    assert main(["users", "demo", "add", "--csv", "class.csv", *ON_MEMORY]) == 2
    err = capsys.readouterr().err
    assert "class.csv, line 3: " in err
    assert "class.csv, line 4: " in err
    assert "zoe" not in hub.people
    assert main(["users", "demo", "add", "--csv", "none.csv", *ON_MEMORY]) == 2


def test_passwords_are_shown_made_and_set(hub: PretendedHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["users", "demo", "password", *ON_MEMORY]) == 0
    assert capsys.readouterr().out == "class  class-password\nadmin  admin-password\n"
    assert main(["users", "demo", "password", "class", "--new", *ON_MEMORY]) == 0
    assert capsys.readouterr().out == "class  new-class-password\n"
    Path("secret").write_text("given-by-me\n")
    assert main(["users", "demo", "password", "admin", "--file", "secret", *ON_MEMORY]) == 0
    assert hub.words == {"class": "new-class-password", "admin": "given-by-me"}
    assert result(capsys, "users", "demo", "password", "admin")["passwords"] == {"admin": "given-by-me"}


def test_a_persons_own_password(hub: PretendedHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["users", "demo", "password", "ann", "--new", *ON_MEMORY]) == 0
    assert capsys.readouterr().out == "ann  new-ann-password\n"
    hub.down = "chosen by themselves"
    assert main(["users", "demo", "password", "ann", "--new", *ON_MEMORY]) == 0
    assert capsys.readouterr().out == "ann chooses a new one at the next login\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add"], "nobody was named"),
        (["remove"], "Missing argument"),
        (["password", "--new"], "which password"),
        (["password", "class", "--new", "--file", "x"], "say one of the two"),
        (["password", "ann"], "nobody knows the password of ann"),
        (["password", "class", "--file", "empty"], "is empty"),
        (["password", "class", "--file", "nowhere"], "cannot be read"),
        (["dance"], "No such command"),
    ],
)
def test_wrong_words(hub: PretendedHub, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    Path("empty").write_text("\n")
    assert main(["users", "demo", *words, *(ON_MEMORY if words != ["dance"] else [])]) == 2
    assert said in capsys.readouterr().err
    assert hub.words["class"] == "class-password"


def test_where_a_provider_has_the_passwords(hub: PretendedHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.words["class"] = ""
    assert main(["users", "demo", "password", "class", *ON_MEMORY]) == 2
    assert "there is no password for the class" in capsys.readouterr().err
