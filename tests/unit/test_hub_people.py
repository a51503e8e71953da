"""The head's list of people: who gets which number, what lies where, and who is turned out."""

from __future__ import annotations

import dbm
import os
import re
import stat
import subprocess
from typing import Any

import pytest
from hub_head_kit import Head, head

__all__ = ["head"]


def student(uid: int, **more: Any) -> dict[str, Any]:
    return {"uid": uid, "kind": "student", "admin": False, "instructor": False, "email": "", "login": "", **more}


def begin(head: Head, **people: dict[str, Any]) -> Any:
    head.write("people.initial.json", {"people": people, "next_uid": 20001})
    module = head.module("hub_people")
    module.init()
    return module


def extra(head: Head, name: str) -> list[str]:
    return (head.root / "var/lib/extrausers" / name).read_text().splitlines()


def test_first_run_makes_accounts_and_homes(head: Head) -> None:
    (head.root / "etc/skel").mkdir()
    (head.root / "etc/skel/.profile").write_text("umask 077\n")
    begin(
        head,
        alice={**student(2001), "kind": "user"},
        ann=student(10001, keys=["ssh-ed25519 AAAA ann"]),
        tom=student(10002, kind="instructor", instructor=True),
    )
    assert extra(head, "passwd") == [
        "ann:*:10001:10001::/home/ann:/bin/bash",
        "tom:*:10002:10002::/home/tom:/bin/bash",
    ]
    assert extra(head, "group") == [
        "notebooks:*:2500:alice,ann,tom",
        "instructors:*:2501:tom",
        "ann:*:10001:",
        "tom:*:10002:",
    ]
    shared = head.root / "home/.vcluster/extrausers"
    assert (shared / "passwd").read_text().splitlines() == extra(head, "passwd")
    assert stat.S_IMODE((shared / "passwd").stat().st_mode) == 0o644
    home = head.root / "home/ann"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert (home / ".profile").exists()
    assert not (head.root / "home/alice").exists()
    keys = head.root / "etc/vcluster/keys"
    assert (keys / "ann").read_text() == "ssh-ed25519 AAAA ann\n"
    assert stat.S_IMODE((keys / "ann").stat().st_mode) == 0o644
    assert [path.name for path in keys.iterdir()] == ["ann"]
    if os.geteuid() == 0:
        assert home.stat().st_uid == (home / ".profile").stat().st_uid == 10001


def test_a_second_run_changes_nothing(head: Head) -> None:
    module = begin(head, ann=student(10001))
    (head.root / "home/ann/work").write_text("mine")
    head.write("people.initial.json", {"people": {"other": student(10001)}, "next_uid": 20001})
    before = (head.root / "var/lib/extrausers/passwd").stat().st_mtime_ns
    module.init()
    assert list(head.read("people.json")["people"]) == ["ann"]
    assert (head.root / "home/ann/work").read_text() == "mine"
    assert (head.root / "var/lib/extrausers/passwd").stat().st_mtime_ns == before


def test_added_people_get_numbers_that_were_nobodys(head: Head) -> None:
    module = begin(head, ann=student(10001))
    module.add([{"name": "bob"}, {"name": "eve", "kind": "instructor", "email": "e@x.org"}])
    module.remove(["bob"])
    module.add([{"name": "carl"}])
    module.add([{"name": "bob"}])
    people = head.read("people.json")["people"]
    assert {name: entry["uid"] for name, entry in people.items()} == {
        "ann": 10001,
        "bob": 20001,
        "eve": 20002,
        "carl": 20003,
    }
    assert people["eve"]["instructor"]
    assert people["eve"]["email"] == "e@x.org"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["Bob"], "no name for an account: 'Bob'"),
        (["root"], "accounts of their own with these names: root"),
        (["ann"], "already there: ann"),
        (["new", "new"], "named twice: new"),
        (["../x", "a b"], "'../x', 'a b'"),
        (["a:b"], "no name"),
        ([], "nobody was named"),
        (["rehearsal-001"], "belong to rehearsals, choose others: rehearsal-001"),
        (["new", "rehearsals"], "belong to rehearsals, choose others: rehearsals"),
    ],
)
def test_refused_names_change_nothing(head: Head, names: list[str], said: str) -> None:
    module = begin(head, ann=student(10001))
    before = head.read("people.json")
    with pytest.raises(module.Sorry, match=re.escape(said)):
        module.add([{"name": name} for name in names])
    assert head.read("people.json") == before


def test_removing_ends_sessions_and_jobs_and_keeps_files(head: Head) -> None:
    module = begin(head, ann=student(10001), bob=student(10002))
    head.hub.users = {"ann": {"servers": {"": {"ready": True}}}}
    head.hub.busy = {"ann": 1}
    answer = module.remove(["ann"])
    assert answer == {"removed": ["ann"], "before": [], "homes": ["/home/ann"], "problem": ""}
    assert head.hub.users == {}
    assert head.called() == ["scancel --quiet --user=ann", "pkill --signal KILL --uid 10001"]
    assert (head.root / "home/ann").is_dir()
    assert [line.split(":")[0] for line in extra(head, "passwd")] == ["bob"]


def test_removing_while_the_hub_is_down_locks_them_out_and_says_so(head: Head) -> None:
    module = begin(head, ann=student(10001))
    head.hub.up = False
    assert "503" in module.remove(["ann"])["problem"]
    assert head.read("people.json")["people"] == {}


def test_the_spec_changes_its_own_people_alone(head: Head) -> None:
    module = begin(head, ann=student(10001), bob=student(10002), kim=student(10003))
    module.add([{"name": "eve"}])
    module.remove(["kim"])
    answer = module.apply(
        [
            {"name": "ann", "uid": 10001, "admin": True},
            {"name": "kim", "uid": 10003},  # removed by hand: that holds
            {"name": "zoe", "uid": 10002},  # bob's number is bob's for ever
        ]
    )
    people = head.read("people.json")["people"]
    assert answer == {"added": ["zoe"], "removed": ["bob"], "changed": ["ann"], "problem": ""}
    assert set(people) == {"ann", "eve", "zoe"}
    assert people["ann"]["admin"]
    assert people["zoe"]["uid"] not in {10001, 10002, 10003, people["eve"]["uid"]}
    again = module.apply(
        [{"name": "ann", "uid": 1, "admin": True}, {"name": "bob", "uid": 2}, {"name": "zoe", "uid": 3}]
    )
    assert again["added"] == ["bob"]
    assert head.read("people.json")["people"]["bob"]["uid"] == 10002


def test_a_list_with_what_servers_do(head: Head) -> None:
    module = begin(head, ann=student(10001), bob=student(10002))
    head.hub.users = {n: {"servers": {"": {"ready": n == "ann"}}} for n in ("ann", "bob", "zoe")}
    assert {p["name"]: p["server"] for p in module.listed()["people"]} == {"ann": "running", "bob": "starting"}
    head.hub.up = False
    told = module.listed()
    assert {p["server"] for p in told["people"]} == {""}
    assert "503" in told["problem"]


def passwords(head: Head, method: str = "shared-password", **people: dict[str, Any]) -> Any:
    head.facts(auth={"method": method})
    begin(head, **people)
    return head.module("hub_passwords")


def test_passwords_are_shown_and_changed(head: Head) -> None:
    module = passwords(head)
    shown = {"class": "class-word-1", "admin": "a" * 32, "method": "shared-password", "own": None}
    assert module.password({}) == shown
    new = module.password({"who": "class"})["class"]
    assert re.fullmatch(r"([a-hjkmnp-z2-9]{4}-){3}[a-hjkmnp-z2-9]{4}", new)
    assert module.password({"who": "admin", "password": "b" * 32})["admin"] == "b" * 32
    assert head.read("passwords.json")["class"] == new
    assert stat.S_IMODE((head.folder / "passwords.json").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"who": "class", "password": "short"}, "8 characters"),
        ({"who": "admin", "password": "b" * 11}, "12 characters"),
        ({"who": "class", "password": "pässword-long"}, "ASCII"),
        ({"who": "class", "password": "a" * 32}, "must differ"),
        ({"who": "nobody"}, "not known here: nobody"),
        ({"who": "ann"}, "ann has no password here: people type the class's"),
    ],
)
def test_bad_passwords_change_nothing(head: Head, given: dict[str, str], said: str) -> None:
    module = passwords(head, ann=student(10001))
    with pytest.raises(module.Sorry, match=said):
        module.password(given)
    assert head.read("passwords.json")["class"] == "class-word-1"


def test_no_passwords_are_kept_where_a_provider_has_them(head: Head) -> None:
    module = passwords(head, "github", ann=student(10001))
    with pytest.raises(module.Sorry, match="log in by github"):
        module.password({"who": "class"})
    with pytest.raises(module.Sorry, match="log in by github"):
        module.password({"who": "ann"})
    assert module.password({}) == {"class": None, "admin": "a" * 32, "method": "github", "own": None}


def test_with_pam_people_have_passwords_on_the_head_alone(head: Head) -> None:
    module = passwords(head, "pam", ann=student(10001), bob=student(10002))
    own = module.password({"who": "ann"})["own"]
    assert len(own) == 19
    (line,) = extra(head, "shadow")
    name, digest, *_ = line.split(":")
    assert name == "ann"
    salt = digest.split("$")[2]
    done = subprocess.run(["openssl", "passwd", "-6", "-salt", salt, own], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest
    assert [row.split(":")[1] for row in extra(head, "passwd")] == ["x", "*"]
    shared = head.root / "home/.vcluster/extrausers"
    assert "x" not in {row.split(":")[1] for row in (shared / "passwd").read_text().splitlines()}
    assert not (shared / "shadow").exists()
    assert stat.S_IMODE((head.root / "var/lib/extrausers/shadow").stat().st_mode) == 0o640
    assert module.password({"who": "bob", "password": "my own choice"})["own"] == "my own choice"
    assert len(extra(head, "shadow")) == 2


def test_a_first_password_is_forgotten(head: Head) -> None:
    module = passwords(head, "firstuse", ann=student(10001))
    path = head.root / "var/lib/jupyterhub/first-use.dbm"
    assert module.password({"who": "ann"})["own"] is None  # nobody has typed one yet
    path.parent.mkdir(parents=True)
    with dbm.open(str(path), "c") as known:
        known[b"ann"] = known[b"bob"] = b"hash"
    module.password({"who": "ann"})
    with dbm.open(str(path), "r") as known:
        assert known.keys() == [b"bob"]
    with pytest.raises(module.Sorry, match="forgotten, not set"):
        module.password({"who": "ann", "password": "a long password"})
