"""The launcher's side of a Hub, on the memory cloud: its door, its state, who may use it, and no secret astray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vcluster import Cluster, ClusterSpec
from vcluster.clouds.memory import MemoryCloud
from vcluster.clouds.memory_hub import PretendedHub
from vcluster.errors import PermanentError, SpecError, TemporaryError, UsageError
from vcluster.events import Event
from vcluster.hub import Hub, NewPerson
from vcluster.model import CommandResult, Endpoint

RAW: dict[str, Any] = {"name": "demo", "cloud": "memory", "head": {"flavor": "medium"}}
RAW["workers"] = [{"name": "cpu", "count": 2, "flavor": "large"}]
SPEC = ClusterSpec.model_validate({**RAW, "jupyterhub": {"people": {"count": 4}}})


@pytest.fixture
def cloud() -> MemoryCloud:
    return MemoryCloud()


def demo(cloud: MemoryCloud, home: Path, what: ClusterSpec | str = SPEC, **more: Any) -> Cluster:
    return Cluster(what, cloud=cloud, home=home, **more)


def pretended(cloud: MemoryCloud) -> PretendedHub:
    head = next(entry.head for entry in cloud.entries(cloud.ref("demo")) if entry.head)
    return head.hub


def test_up_tells_the_hub_its_address_and_shows_passwords_once(cloud: MemoryCloud, tmp_path: Path) -> None:
    events: list[Event] = []
    cluster = demo(cloud, tmp_path, on_event=events.append)
    first = cluster.up()
    assert first.hub is not None
    assert pretended(cloud).url == first.hub.url == "https://127.0.0.1:20443/"
    assert first.hub.fingerprint == "AB:CD"
    assert first.hub.passwords is not None
    assert (first.hub.passwords.shared, first.hub.passwords.admin) == ("class-password", "admin-password")
    again = cluster.up()
    assert not again.changed
    assert again.hub is not None
    assert again.hub.passwords is None
    kept = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    for text in (json.dumps([event.to_dict() for event in events]), repr(first), json.dumps(first.hub.to_dict()), kept):
        assert "class-password" not in text
        assert "admin-password" not in text


def test_an_address_that_changed_is_told_anew(cloud: MemoryCloud, tmp_path: Path) -> None:
    cluster = demo(cloud, tmp_path)
    cluster.up()
    cluster.stop()
    pretended(cloud).url = "https://127.0.0.1:1/"
    found = cluster.start()
    assert found.hub is not None
    assert pretended(cloud).url == found.hub.url == "https://127.0.0.1:20443/"


def test_without_a_hub_there_is_no_door(cloud: MemoryCloud, tmp_path: Path) -> None:
    plain = demo(cloud, tmp_path, ClusterSpec.model_validate(RAW))
    result = plain.up()
    assert result.hub is None
    assert result.status.machines[0].web is None
    assert plain.status().hub is None
    assert pretended(cloud).url == ""


def test_status_shows_the_hub(cloud: MemoryCloud, tmp_path: Path) -> None:
    cluster = demo(cloud, tmp_path)
    cluster.up()
    hub = cluster.status().hub
    assert hub is not None
    assert (hub.up, hub.room, hub.capacity, hub.url) == (True, 8, 8, "https://127.0.0.1:20443/")
    assert cluster.hub_status() == hub
    pretended(cloud).down = "the Hub does not answer"
    found = cluster.status()
    assert found.hub is not None
    assert (found.hub.up, found.hub.problem) == (False, "the Hub does not answer")
    assert json.loads(json.dumps(found.to_dict()))["hub"]["up"] is False
    cluster.stop()
    assert cluster.status().hub is None


def test_people_come_and_go(cloud: MemoryCloud, tmp_path: Path) -> None:
    cluster = demo(cloud, tmp_path)
    cluster.up()
    by_name = demo(cloud, tmp_path, "demo")
    assert by_name.users_add(["ann", NewPerson("tom", instructor=True, email="t@x.org")]) == ("ann", "tom")
    assert [(each.name, each.instructor, each.email) for each in by_name.users()] == [
        ("ann", False, ""),
        ("tom", True, "t@x.org"),
    ]
    with pytest.raises(UsageError, match="already there: ann"):
        by_name.users_add(["ann"])
    gone = by_name.users_remove(["ann"])
    assert (gone.names, gone.homes, gone.problem) == (("ann",), ("/home/ann",), "")
    assert gone.before == ()
    again = by_name.users_remove(["ann"])
    assert (again.names, again.before) == (("ann",), ("ann",))
    with pytest.raises(UsageError, match="not known here: bob"):
        by_name.users_remove(["bob"])


def test_passwords_are_changed_one_at_a_time(cloud: MemoryCloud, tmp_path: Path) -> None:
    cluster = demo(cloud, tmp_path)
    cluster.up()
    assert cluster.users_password("class").shared == "new-class-password"
    words = cluster.users_password("admin", "a much longer one")
    assert (words.shared, words.admin) == ("new-class-password", "a much longer one")


def test_what_is_not_there_is_said(cloud: MemoryCloud, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no cluster 'demo'"):
        demo(cloud, tmp_path, "demo").users()
    cluster = demo(cloud, tmp_path)
    cluster.up()
    cluster.stop()
    with pytest.raises(UsageError, match="the head of demo is SHUTOFF"):
        cluster.users_add(["ann"])


def test_the_hub_is_asked_again_before_up_gives_up(
    cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []
    real = Hub.front

    def front(self: Hub, url: str, people: Any) -> Any:
        tries.append(url)
        if len(tries) < 3:
            raise TemporaryError("not yet")
        return real(self, url, people)

    monkeypatch.setattr(Hub, "front", front)
    assert demo(cloud, tmp_path).up().hub is not None
    assert len(tries) == 3
    monkeypatch.setattr(Hub, "front", lambda *_: (_ for _ in ()).throw(TemporaryError("never")))
    with pytest.raises(TemporaryError, match="never"):
        demo(cloud, tmp_path).up()


def test_a_head_that_was_made_without_a_way_in_is_said(cloud: MemoryCloud, tmp_path: Path) -> None:
    cluster = demo(cloud, tmp_path)
    cluster.up()
    with pytest.raises(UsageError, match="has no address"):
        cluster._open_door(SPEC, Endpoint("h", 22), None, None)


def test_the_door_stays_shut_while_the_domain_points_elsewhere(
    cloud: MemoryCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ["192.0.2.1"]
    monkeypatch.setattr("vcluster.frontdoor.records", lambda _: tuple(found))
    hub = {"domain": "hub.example.org", "email": "a@example.org"}
    cluster = demo(cloud, tmp_path, ClusterSpec.model_validate({**RAW, "jupyterhub": hub}))
    with pytest.raises(SpecError, match=r"hub\.example\.org points at 192\.0\.2\.1, not at the head's 127\.0\.0\.1"):
        cluster.up()
    assert pretended(cloud).url == ""
    found[:] = ["127.0.0.1"]
    opened = cluster.up()
    assert opened.hub is not None
    assert opened.hub.url == "https://hub.example.org/"


# One call --------------------------------------------------------------------------------------------------------


def answering(stdout: str = "", stderr: str = "", code: int = 0) -> tuple[Hub, list[tuple[str, str]]]:
    asked: list[tuple[str, str]] = []

    def run(command: str, stdin: str, _timeout: float) -> CommandResult:
        asked.append((command, stdin))
        return CommandResult(stdout, stderr, code)

    return Hub(run), asked


def test_secrets_go_to_standard_input() -> None:
    hub, asked = answering('{"class": "x", "admin": null, "method": "shared-password", "own": null}')
    hub.passwords("class", "top secret")
    ((command, stdin),) = asked
    assert command == "sudo -n /usr/local/sbin/vcluster-hub people password"
    assert json.loads(stdin) == {"who": "class", "password": "top secret"}
    assert "top secret" not in repr(hub.passwords("class", "top secret"))


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ({"stdout": '{"error": "no room"}', "code": 1}, PermanentError, "no room"),
        ({"stdout": '{"error": "503", "temporary": true}', "code": 1}, TemporaryError, "503"),
        ({"stderr": "sudo: vcluster-hub: command not found", "code": 1}, UsageError, "no JupyterHub"),
        ({"stderr": "Traceback\nMemoryError", "code": 1}, TemporaryError, "MemoryError"),
        ({}, TemporaryError, "said nothing"),
    ],
)
def test_each_failure_has_its_class(answer: dict[str, Any], kind: type[Exception], said: str) -> None:
    hub, _ = answering(**answer)
    with pytest.raises(kind, match=said):
        hub.ask("probe")


def test_a_hub_that_is_not_back_yet_is_weather() -> None:
    told = {"url": "https://a/", "ready": False, "first": True, "ca": None, "fingerprint": None, "proved": False}
    hub, _ = answering(json.dumps(told))
    with pytest.raises(TemporaryError, match="does not answer at its new address"):
        hub.front("https://a/")


def test_who_could_not_be_turned_out_is_told() -> None:
    told = {"url": "https://a/", "ready": True, "first": False, "ca": None, "fingerprint": None, "proved": True}
    hub, asked = answering(json.dumps({**told, "people": {"problem": "scancel: no answer"}}))
    door, first, proved = hub.front("https://a/", [{"name": "ann", "uid": 10001}])
    assert (door.problem, door.ca, first, proved) == ("scancel: no answer", "", False, True)
    assert json.loads(asked[0][1])["people"] == [{"name": "ann", "uid": 10001}]


def test_a_rehearsal_is_refused_as_a_wrong_command() -> None:
    hub, asked = answering('{"error": "room for 3 more notebooks"}', code=1)
    with pytest.raises(UsageError, match="room for 3"):
        hub.rehearsal_begin(9, seconds=7200.0, force=True)
    assert json.loads(asked[0][1]) == {"users": 9, "seconds": 7200.0, "force": True}
    hub, _ = answering('{"removed": 9, "problem": "x"}')
    assert hub.rehearsal_end() == "x"
