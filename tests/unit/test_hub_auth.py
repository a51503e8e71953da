"""Who gets into the Hub: the ways to log in as a head has them, with the real JupyterHub's classes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub_kit import PASSWORDS, PEOPLE, programs, write
from tornado import web

WAYS = ("shared-password", "native", "firstuse", "github", "cilogon", "globus", "oidc", "pam")


@pytest.fixture
def auth(tmp_path: Path) -> Iterator[Any]:
    write(tmp_path)
    with programs(tmp_path, "vcluster_auth") as [module]:
        yield module


def ask(way: Any, name: str, password: str, address: str = "192.0.2.7") -> dict[str, Any] | None:
    handler = SimpleNamespace(request=SimpleNamespace(remote_ip=address))
    found: dict[str, Any] | None = asyncio.run(
        way.get_authenticated_user(handler, {"username": name, "password": password})
    )
    return found


@pytest.mark.parametrize("name", ["ann", "Ann ", "bob"])
def test_the_class_gets_in_by_its_password(auth: Any, name: str) -> None:
    found = ask(auth.SharedPassword(), name, PASSWORDS["class"])
    assert found is not None
    assert (found["name"], found["admin"], found["groups"]) == (name.strip().lower(), False, [])


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ann", "wrong"),
        ("ann", ""),
        ("ann", "pässwörd"),
        ("ann", PASSWORDS["admin"]),
        ("ann", PASSWORDS["rehearsal"]),
        ("teacher", PASSWORDS["class"]),
        ("boss", PASSWORDS["class"]),
        ("rehearsal-001", PASSWORDS["class"]),
        ("nobody", PASSWORDS["class"]),
        ("root", PASSWORDS["admin"]),
        ("ann/../boss", PASSWORDS["class"]),
        ("", PASSWORDS["class"]),
    ],
)
def test_nobody_else_gets_in(auth: Any, name: str, password: str) -> None:
    assert ask(auth.SharedPassword(), name, password) is None


@pytest.mark.parametrize(("name", "admin"), [("teacher", False), ("boss", True)])
def test_a_rank_has_a_password_of_its_own(auth: Any, name: str, admin: bool) -> None:
    found = ask(auth.SharedPassword(), name, PASSWORDS["admin"])
    assert found is not None
    assert (found["admin"], found["groups"]) == (admin, ["instructors"])


def test_no_password_is_no_password(auth: Any, tmp_path: Path) -> None:
    (tmp_path / "passwords.json").write_text(json.dumps({"class": None, "admin": "", "rehearsal": None}))
    for name in PEOPLE:
        for password in ("", "None", "null"):
            assert ask(auth.SharedPassword(), name, password) is None


def test_who_is_added_and_removed_holds_at_once(auth: Any, tmp_path: Path) -> None:
    way = auth.SharedPassword()
    assert ask(way, "dora", PASSWORDS["class"]) is None
    (tmp_path / "people.json").write_text(json.dumps({"people": {"dora": PEOPLE["ann"]}, "next_uid": 20001}))
    assert ask(way, "dora", PASSWORDS["class"])
    assert ask(way, "ann", PASSWORDS["class"]) is None
    assert asyncio.run(way.refresh_user(SimpleNamespace(name="ann"))) is False
    refreshed = asyncio.run(way.refresh_user(SimpleNamespace(name="dora")))
    assert refreshed == {"name": "dora", "admin": False, "groups": []}


def test_a_file_that_is_half_written_changes_nothing(auth: Any, tmp_path: Path) -> None:
    way = auth.SharedPassword()
    assert ask(way, "ann", PASSWORDS["class"])
    (tmp_path / "people.json").write_text('{"people": {')
    assert ask(way, "ann", PASSWORDS["class"])


def test_guessing_is_slowed_down_and_then_forgiven(auth: Any) -> None:
    now = [0.0]
    throttle = auth.Throttle(lambda: now[0])
    for _ in range(5):
        assert throttle.wait("a", "ann") == 0
        throttle.wrong("a", "ann")
    waits = []
    for _ in range(8):
        waits.append(throttle.wait("a", "ann"))
        now[0] += waits[-1]
        assert throttle.wait("a", "ann") <= 0
        throttle.wrong("a", "ann")
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert throttle.wait("a", "bob") == 0
    assert throttle.wait("b", "ann") <= 0
    throttle.right("a", "ann")
    now[0] += 1000
    throttle.wrong("a", "ann")
    assert throttle.wait("a", "ann") <= 0


def test_guesses_from_elsewhere_hold_up_nobody_who_was_right_before(auth: Any) -> None:
    throttle = auth.Throttle(lambda: 0.0)
    throttle.wrong("room", "ann")
    throttle.right("room", "ann")
    for n in range(25):
        throttle.wrong(f"elsewhere-{n}", "ann")
    assert throttle.wait("room", "ann") == 0
    assert throttle.wait("new", "ann") > 0
    for _ in range(6):
        throttle.wrong("room", "ann")
    assert throttle.wait("room", "ann") > 0


def test_a_guesser_is_told_to_wait_even_with_the_right_password(auth: Any) -> None:
    way = auth.SharedPassword()
    way.throttle = auth.Throttle(lambda: 0.0)
    for _ in range(5):
        assert ask(way, "ann", "wrong") is None
    with pytest.raises(web.HTTPError) as refusal:
        ask(way, "ann", PASSWORDS["class"])
    assert refusal.value.status_code == 429
    assert ask(way, "ann", PASSWORDS["class"], "192.0.2.8")


def test_a_class_behind_one_address_is_not_held_up_by_what_it_mistypes(auth: Any) -> None:
    now = [0.0]
    throttle = auth.Throttle(lambda: now[0], class_size=127)
    people = [f"student-{n:03d}" for n in range(127)]
    for n in range(10 * 127):
        throttle.wrong("hall", people[n % 120])
    # Ten each have mistyped: who was among them waits a little, and the others do not.
    assert [throttle.wait("hall", people[n]) > 0 for n in (0, 119, 120, 126)] == [True, True, False, False]
    throttle.wrong("hall", people[126])
    assert throttle.wait("hall", people[126]) > 0
    # It is forgotten as time goes by, and not only once nobody has been wrong for a quarter of an hour.
    for minute in range(1, 16):
        now[0] = 60.0 * minute
        throttle.wrong("hall", "zoe")
    assert throttle._count("address", ("hall", None), now[0])[0] < 20
    assert auth.Throttle()._free["address"] == 300


def test_who_guesses_many_names_does_not_keep_another_waiting_for_ever(auth: Any) -> None:
    now = [0.0]
    throttle = auth.Throttle(lambda: now[0])
    for n in range(2000):
        throttle.wrong("hall", f"x{n}")
    throttle.wrong("hall", "ann")
    waited = throttle.wait("hall", "ann")
    for n in range(int(waited) + 1):
        throttle.wrong("hall", f"y{n}")
        now[0] += 1
    assert throttle.wait("hall", "ann") <= 0 < waited <= 30


def test_many_guesses_at_once_are_no_more_than_one_after_another(auth: Any) -> None:
    way, looked = auth.SharedPassword(), []

    async def slow(_handler: Any, data: dict[str, str], *_: Any) -> bool:
        looked.append(data["password"])
        await asyncio.sleep(0.01)
        return data["password"] == "right"

    async def burst(words: list[str]) -> list[Any]:
        handler = SimpleNamespace(request=SimpleNamespace(remote_ip="192.0.2.7"))
        asked = (way.get_authenticated_user(handler, {"username": "ann", "password": word}) for word in words)
        return await asyncio.gather(*asked, return_exceptions=True)

    way.way = slow
    answers = asyncio.run(burst([f"guess-{n}" for n in range(200)]))
    assert len(looked) == 5
    assert sum(isinstance(each, web.HTTPError) and each.status_code == 429 for each in answers) == 195


def test_who_is_right_has_not_been_wrong(auth: Any) -> None:
    way = auth.SharedPassword()
    for _ in range(30):
        assert ask(way, "ann", PASSWORDS["class"])
    assert way.throttle._wrong == {}
    assert ask(way, "ann", "wrong") is None
    assert ask(way, "ann", PASSWORDS["class"])
    assert {round(count) for count, _ in way.throttle._wrong.values()} == {1}


@pytest.mark.parametrize("method", WAYS)
def test_each_way_takes_the_people_alone(auth: Any, method: str) -> None:
    chosen = auth.authenticator(method)
    assert chosen.__mro__[1] is auth.People or chosen.__mro__[0] is auth.People
    with pytest.raises(ValueError, match="no way"):
        auth.authenticator(f"{method}x")


@pytest.mark.parametrize("method", ["github", "globus", "oidc"])
@pytest.mark.parametrize(
    ("identity", "name"),
    [
        ("ann", "ann"),
        ("ANN", "ann"),
        ("bob@example.org", "bob"),
        ("octocat", "cy"),
        ("bob", None),
        ("cy", None),
        ("stranger", None),
        ("rehearsal-001", None),
    ],
)
def test_an_identity_is_a_name_only_by_the_list(auth: Any, method: str, identity: str, name: str | None) -> None:
    way = auth.authenticator(method)(client_id="x", client_secret="y", manage_groups=True)
    way.build_access_tokens_request_params = lambda _handler, _data: {}

    async def token(_handler: Any, _params: Any) -> dict[str, Any]:
        return {"access_token": "a", "token_type": "bearer", "scope": "openid", "resource_server": "auth"}

    async def told(_token: Any) -> dict[str, Any]:
        return {way.username_claim: identity, "email": None}

    way.get_token_info, way.token_to_user = token, told
    found = asyncio.run(way.get_authenticated_user(SimpleNamespace(), None))
    assert (found["name"] if found else None) == name


def test_a_domain_lets_in_whom_the_list_has(auth: Any, tmp_path: Path) -> None:
    write(
        tmp_path,
        auth={
            "method": "oidc",
            "allow": {"users": False, "organizations": [], "groups": [], "domains": ["example.org"]},
        },
    )
    way = auth.authenticator("oidc")(client_id="x", client_secret="y")

    def allowed(name: str, **info: Any) -> bool:
        model = {"name": name, "admin": None, "auth_state": {way.user_auth_state_key: info}}
        return bool(asyncio.run(way.check_allowed(name, model)))

    assert allowed("bob", email="bob@example.org")
    assert not allowed("bob", email="bob@example.org", email_verified=False)
    assert not allowed("bob", email="bob@evil.example")
    assert not allowed("bob")
    assert not allowed("stranger", email="s@example.org")


def test_the_first_password_is_kept_and_only_for_the_list(auth: Any, tmp_path: Path) -> None:
    way = auth.authenticator("firstuse")(dbm_path=str(tmp_path / "first"), min_password_length=12)
    assert ask(way, "ann", "short") is None
    assert ask(way, "ann", "a long enough one")
    assert ask(way, "ann", "another long enough") is None
    assert ask(way, "ann", "a long enough one")
    assert ask(way, "stranger", "a long enough one") is None
    assert ask(way, "boss", PASSWORDS["admin"])


def test_a_rehearsal_comes_by_its_own_password_whatever_the_way(auth: Any, tmp_path: Path) -> None:
    for way in (auth.SharedPassword(), auth.authenticator("firstuse")(dbm_path=str(tmp_path / "first"))):
        assert ask(way, "rehearsal-001", PASSWORDS["rehearsal"])
        assert ask(way, "rehearsal-001", "a long enough one") is None
