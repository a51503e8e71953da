"""Turning people out: however far it came, what is left is done the next time, and nobody comes back meanwhile."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hub_head_kit import Head, head
from test_hub_people import begin, extra, student

__all__ = ["head"]


def accounts(head: Head) -> list[str]:
    return [line.split(":")[0] for line in extra(head, "passwd")]


def scancel(head: Head, status: int, said: str = "") -> None:
    script = head.root / "bin/scancel"
    script.write_text(f'#!/bin/sh\necho "scancel $*" >> {head.calls}\necho "{said}" >&2\nexit {status}\n')


def rehearsing(head: Head, users: int, **more: Any) -> Any:
    head.module("hub_people").init()
    head.module("hub_front").leaf()
    module = head.module("hub_rehearsal")
    module.begin({"users": users, **more})
    return module


# People --------------------------------------------------------------------------------------------------------------


def test_one_server_that_does_not_stop_keeps_nobody_else(head: Head) -> None:
    module = begin(head, ann=student(10001), bob=student(10002))
    head.hub.users = {name: {"servers": {"": {"ready": True}}} for name in ("ann", "bob")}
    head.hub.broken = {"ann"}
    answer = module.remove(["ann", "bob"])
    assert "the server did not stop" in answer["problem"]
    assert list(head.hub.users) == ["ann"]
    assert head.called() == [
        "scancel --quiet --user=ann",
        "scancel --quiet --user=bob",
        "pkill --signal KILL --uid 10001,10002",
    ]
    # By whose name Slurm and the Hub's helper are told until all of it has ended.
    assert accounts(head) == ["ann"]
    assert head.read("people.json")["people"] == {}


@pytest.mark.parametrize("what", ["hub", "slurm"])
def test_what_was_left_is_done_the_next_time(head: Head, what: str) -> None:
    module = begin(head, ann=student(10001), bob=student(10002))
    head.hub.users = {"ann": {"servers": {"": {"ready": True}}}}
    if what == "hub":
        head.hub.up = False
    else:
        scancel(head, 1, "Unable to contact slurm controller")
    assert module.remove(["ann"])["problem"]
    module.init()
    assert accounts(head) == ["ann", "bob"]
    head.hub.up = True
    scancel(head, 0)
    head.calls.unlink()
    answer = module.remove(["ann"])
    assert answer == {"removed": ["ann"], "before": ["ann"], "homes": ["/home/ann"], "problem": ""}
    assert "scancel --quiet --user=ann" in head.called()
    assert head.hub.users == {}
    assert accounts(head) == ["bob"]
    # And once more, when nothing is left: that is told, and no error.
    head.calls.unlink()
    assert module.remove(["ann"])["before"] == ["ann"]
    assert head.called() == []
    with pytest.raises(module.Sorry, match="not known here: zoe"):
        module.remove(["ann", "zoe"])


def test_a_hub_that_says_nothing_is_asked_for_one(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    module = begin(head, **{f"p{n}": student(10001 + n) for n in range(40)})
    head.facts(ports={"hub": 1, "proxy": 1, "api": 1})
    asked: list[str] = []
    api = head.module("hub_api")
    real = api.Hub.forget
    monkeypatch.setattr(api.Hub, "forget", lambda hub, name: asked.append(name) or real(hub, name))
    answer = module.remove([f"p{n}" for n in range(40)])
    assert answer["problem"].count("does not answer") == 1
    assert len(asked) <= api.AT_ONCE
    assert len(accounts(head)) == 40


def test_whoever_is_leaving_is_held_to_roots_keys_and_has_none(head: Head) -> None:
    """In the group notebooks, by which sshd knows whose keys are root's matter."""
    module = begin(head, ann=student(10001, keys=["ssh-ed25519 AAAA ann"], instructor=True), bob=student(10002))
    head.hub.up = False
    module.remove(["ann"])
    assert extra(head, "group")[:2] == ["notebooks:*:2500:ann,bob", "instructors:*:2501:"]
    assert not (head.root / "etc/vcluster/keys/ann").exists()


def test_keys_change_with_the_list_and_go_with_their_owner(head: Head) -> None:
    keys = head.root / "etc/vcluster/keys"
    keys.mkdir(parents=True)
    (keys / "alice").write_text("the spec's\n")
    (keys / "vcluster").write_text("the administrator's\n")
    module = begin(head, alice={**student(2001), "kind": "user"}, ann=student(10001, keys=["ssh-ed25519 OLD"]))
    entry = {"name": "ann", "uid": 10001, "keys": ["ssh-ed25519 NEW", "ssh-rsa MORE"]}
    alice = {"name": "alice", "uid": 2001, "kind": "user"}
    assert module.apply([alice, entry])["changed"] == ["ann"]
    assert (keys / "ann").read_text() == "ssh-ed25519 NEW\nssh-rsa MORE\n"
    module.apply([alice, {**entry, "keys": []}])
    assert not (keys / "ann").exists()
    module.apply([alice, entry])
    module.remove(["ann", "alice"])
    assert sorted(path.name for path in keys.iterdir()) == ["alice", "vcluster"]
    assert (keys / "alice").read_text() == "the spec's\n"


# Rehearsals ----------------------------------------------------------------------------------------------------------


def test_a_rehearsal_that_could_not_end_ends_the_next_time(head: Head) -> None:
    module = rehearsing(head, 3)
    names = [f"rehearsal-00{n}" for n in (1, 2, 3)]
    head.hub.users = {name: {"servers": {"": {"ready": True}}} for name in names}
    head.hub.broken = {"rehearsal-002"}
    told = module.end()
    assert told["removed"] == 2
    assert "did not stop" in told["problem"]
    assert list(head.read("people.json")["people"]) == accounts(head) == ["rehearsal-002"]
    assert head.read("passwords.json")["rehearsal"] is None
    head.hub.broken = set()
    assert module.end() == {"removed": 1, "problem": ""}
    assert head.hub.users == {}
    assert accounts(head) == []
    assert not list((head.root / "home/.rehearsal").iterdir())


def test_the_next_rehearsal_does_not_wait_for_one_that_could_not_end(head: Head) -> None:
    module = rehearsing(head, 2)
    head.hub.up = False
    module.end()
    head.hub.up = True
    module.begin({"users": 1})
    assert list(head.read("people.json")["people"]) == ["rehearsal-001"]


def test_homes_that_a_rehearsal_left_are_swept(head: Head) -> None:
    left = head.root / "home/.rehearsal/rehearsal-077"
    left.mkdir(parents=True)
    (left / "notebook.ipynb").touch()
    module = rehearsing(head, 1)
    module.end()
    assert not left.exists()


def test_a_long_rehearsal_is_not_taken_for_a_dead_one(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    module = rehearsing(head, 1, seconds=7200)
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 7300)
    with pytest.raises(module.Sorry, match="another rehearsal is going on"):
        module.begin({"users": 1})
    monkeypatch.setattr(module.time, "time", lambda: now + 7200 + module.LATE + 1)
    module.begin({"users": 1})
