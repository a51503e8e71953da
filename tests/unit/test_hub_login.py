"""Log-ins at the real Hub, over HTTP, by an identity provider that is as strict as the real ones."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, repeat
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hub_kit import FACTS, PASSWORDS, PEOPLE, programs, write
from hub_process import CLIENT_SECRET, RealHub, held_up, real_hub
from provider_kit import CLIENT_ID, GROUPS_SCOPE, Provider, provider
from tornado import web
from traitlets.config import Config

from vcluster.rehearsal.client import Account, Door, Pace
from vcluster.rehearsal.run import Script, rehearse

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

UNI = "https://idp.example.edu/shibboleth"
GROUP = "0c1f6d1e-0000-4000-8000-000000000001"
RULED = {"users": False}

Claims = dict[str, Any]


def github(login: str, **more: Any) -> Claims:
    return {"login": login, "id": 1, "email": None, **more}


def cilogon(email: str, **more: Any) -> Claims:
    return {"sub": "1", "idp": UNI, "email": email, **more}


def globus(name: str, **more: Any) -> Claims:
    return {"sub": "1", "preferred_username": name, "email": None, **more}


def oidc(name: str, email: str = "", verified: bool | None = None, **more: Any) -> Claims:
    looked = {} if verified is None else {"email_verified": verified}
    return {"sub": "1", "preferred_username": name, "email": email, **looked, **more}


@dataclass(frozen=True)
class Way:
    """How a Hub is made, and whom it lets in as whom; ``None`` is nobody."""

    method: str
    cases: tuple[tuple[Claims, str | None], ...]
    options: Mapping[str, str] = field(default_factory=dict)
    allow: Mapping[str, Any] = field(default_factory=dict)


# Of the list (hub_kit.py): ann has nothing but her name, bob an e-mail address, cy is octocat there.
WAYS = {
    "github": Way(
        "github",
        (
            (github("ann"), "ann"),
            (github("Octocat"), "cy"),
            (github("cy"), None),
            (github("bob"), None),
            (github("bob2", email="bob@example.org"), None),
            (github("stranger"), None),
            (github("rehearsal-001"), None),
        ),
    ),
    "organization": Way(
        "github",
        (
            (github("octocat"), "cy"),
            (github("ann"), None),
            (github("stranger"), None),
        ),
        allow={**RULED, "organizations": ["lab"]},
    ),
    "organization-of-a-namesake": Way(
        "github", ((github("octocat"), None),), allow={**RULED, "organizations": ["of-cy"]}
    ),
    "cilogon": Way(
        "cilogon",
        (
            (cilogon("BOB@example.org"), "bob"),
            (cilogon("octocat"), "cy"),
            (cilogon("bob@example.org", email_verified=False), None),
            (cilogon("bob@example.org", idp="https://other.example/idp"), None),
            (cilogon("ann@example.org"), None),
            (cilogon("stranger@example.org"), None),
        ),
        options={"idps": UNI},
    ),
    "cilogon-by-eppn": Way(
        "cilogon",
        (
            (cilogon("bob@example.org", eppn="b7@example.edu"), "bob"),
            (cilogon("c@example.org", eppn="octocat"), "cy"),
            (cilogon("x@example.org"), None),
        ),
        options={"idps": UNI, "username_claim": "eppn"},
    ),
    "cilogon-domain": Way(
        "cilogon",
        ((cilogon("bob@example.org"), "bob"), (cilogon("octocat"), None), (cilogon("s@example.org"), None)),
        options={"idps": UNI},
        allow={**RULED, "domains": ["example.org"]},
    ),
    "globus": Way(
        "globus",
        (
            (globus("bob@example.org"), "bob"),
            (globus("octocat"), "cy"),
            (globus("ann"), "ann"),
            # Whoever makes an account somewhere chooses what is before the @.
            (globus("ann@gmail.com"), None),
            (globus("octocat@gmail.com"), None),
            # Globus does not say that it looked.
            (globus("x@gmail.com", email="bob@example.org"), None),
            (globus("stranger@example.org"), None),
        ),
    ),
    "globus-institution": Way(
        "globus",
        (
            (globus("b7@example.org", email="bob@example.org"), "bob"),
            (globus("b7@other.example", email="bob@example.org"), None),
        ),
        options={"identity_provider": "example.org"},
    ),
    "globus-domain": Way(
        "globus",
        (
            (globus("octocat", email="c@example.edu"), "cy"),
            (globus("bob@example.org", email="bob@gmail.com"), None),
            (globus("bob@example.org"), None),
        ),
        allow={**RULED, "domains": ["example.edu"]},
    ),
    "globus-group": Way(
        "globus",
        ((globus("octocat", groups=[GROUP]), "cy"), (globus("octocat"), None), (globus("x@a.b", groups=[GROUP]), None)),
        allow={**RULED, "groups": [GROUP]},
    ),
    "oidc": Way(
        "oidc",
        (
            (oidc("ann"), "ann"),
            (oidc("octocat"), "cy"),
            (oidc("b7", "bob@example.org", True), "bob"),
            (oidc("b7", "bob@example.org", False), None),
            (oidc("b7", "bob@example.org"), None),
            (oidc("bob@example.org", "bob@example.org", False), None),
            (oidc("bob@example.org", "bob@example.org"), None),
            (oidc("bob@example.org"), None),
            (oidc("bob@example.org", "bob@example.org", True), "bob"),
            (oidc("cy", "s@example.org", True), None),
            # A name of one and the address of another: the name is what the provider goes by.
            (oidc("octocat", "bob@example.org", True), "cy"),
            ({"sub": "1", "email": "s@example.org"}, None),
        ),
    ),
    "oidc-by-email": Way(
        "oidc",
        (
            (oidc("x", "bob@example.org", True), "bob"),
            (oidc("x", "bob@example.org"), "bob"),
            (oidc("x", "bob@example.org", False), None),
            (oidc("x", "ann@example.org", True), None),
            (oidc("x", "octocat", True), "cy"),
            (oidc("x", "octocat", False), None),
        ),
        options={"username_claim": "email"},
    ),
    "oidc-domain": Way(
        "oidc",
        (
            (oidc("octocat", "c@example.edu", True), "cy"),
            (oidc("octocat", "c@example.edu", False), None),
            (oidc("octocat", "c@example.com", True), None),
        ),
        allow={**RULED, "domains": ["example.edu"]},
    ),
    "oidc-group": Way(
        "oidc",
        (
            (oidc("octocat", groups=["workshop"]), "cy"),
            (oidc("octocat", groups=["other"]), None),
            (oidc("stranger", groups=["workshop"]), None),
        ),
        allow={**RULED, "groups": ["workshop"]},
    ),
}


@pytest.fixture
def idp() -> Iterator[Provider]:
    with provider() as found:
        yield found


def auth(idp: Provider, way: Way) -> dict[str, Any]:
    options = {"github": {"url": idp.url.rstrip("/")}, "oidc": {"issuer": idp.url}}.get(way.method, {})
    return {
        "method": way.method,
        "client_id": CLIENT_ID,
        "options": {**options, **way.options},
        "allow": way.allow,
    }


def comes_in(hub: RealHub, idp: Provider, claims: Claims) -> str | None:
    """Who somebody is after the provider has sent them back; None for who stays out."""
    idp.who, idp.groups = claims, claims.get("groups", [])
    browser = hub.browser()
    answer = browser.through_provider()
    name = browser.who()
    assert answer.status_code == (200 if name else 403), answer.text
    return name or None


@pytest.mark.parametrize("method", ["github", "cilogon", "globus", "oidc"])
def test_who_comes_in_by_a_provider(tmp_path: Path, idp: Provider, method: str) -> None:
    way = WAYS[method]
    with real_hub(tmp_path, auth(idp, way), more=idp.more(method)) as hub:
        assert [(claims, comes_in(hub, idp, claims)) for claims, _ in way.cases] == list(way.cases)
        for stranger in ("stranger", "bob@provider"):
            assert hub.user(stranger) is None
        assert "Traceback" not in hub.log()
        assert "groups_key" not in hub.log()


class Returned:
    """The Hub's handler of somebody whom the provider sent back."""

    def __init__(self, idp: Provider, way: Any) -> None:
        state = {"state_id": "1", "code_verifier": "v" * 43}
        digest = hashlib.sha256(state["code_verifier"].encode()).digest()
        query = {
            "client_id": way.client_id,
            "redirect_uri": way.get_callback_url(),
            "scope": " ".join(way.scope),
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
            "state": "1",
        }
        self._code = dict(parse_qsl(urlsplit(idp.authorize(query)).query))["code"]
        self._state = base64.urlsafe_b64encode(json.dumps(state).encode()).decode()

    def get_argument(self, _name: str) -> str:
        return self._code

    def get_state_cookie(self) -> str:
        return self._state


@contextmanager
def configured(folder: Path, idp: Provider, way: Way, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The authenticator as the Hub has it, without the Hub around it."""
    write(folder, auth={**FACTS["auth"], **auth(idp, way), "allow": {**FACTS["auth"]["allow"], **way.allow}})
    monkeypatch.setenv("VCLUSTER_CLIENT_SECRET", CLIENT_SECRET)
    config = Config()
    with programs(folder, "hub_login", "hub_facts") as [login, facts]:
        login.login(config, facts.facts(), folder)
        exec(idp.more(way.method), {"c": config})
        config.Authenticator.manage_groups = True
        yield config.JupyterHub.authenticator_class(config=config)


@pytest.mark.parametrize("name", WAYS)
def test_who_comes_in_by_a_rule(tmp_path: Path, idp: Provider, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    way = WAYS[name]
    idp.members = {"lab": {"octocat"}, "of-cy": {"cy"}}

    async def sent_back(authenticator: Any, claims: Claims) -> str | None:
        idp.who, idp.groups = claims, claims.get("groups", [])
        try:
            found = await authenticator.get_authenticated_user(Returned(idp, authenticator), None)
        except web.HTTPError as error:
            return None if error.status_code == 403 else str(error)
        return str(found["name"]) if found else None

    async def all_of_them(authenticator: Any) -> list[tuple[Claims, str | None]]:
        return [(claims, await sent_back(authenticator, claims)) for claims, _ in way.cases]

    with configured(tmp_path, idp, way, monkeypatch) as authenticator:
        assert asyncio.run(all_of_them(authenticator)) == list(way.cases)
    if way.method == "globus":
        groups = [GROUPS_SCOPE] if name == "globus-group" else []
        assert idp.scopes == ["openid", "profile", "email", *groups]
        assert ("v2/groups/my_groups" in " ".join(idp.asked)) == bool(groups)


def test_ranks_removal_and_a_rehearsal_beside_a_provider(tmp_path: Path, idp: Provider) -> None:
    way = WAYS["oidc"]
    with real_hub(tmp_path, auth(idp, way)) as hub:
        people = {**PEOPLE, "teacher": {**PEOPLE["teacher"], "login": "t1"}, "boss": {**PEOPLE["boss"], "login": "b1"}}
        (tmp_path / "people.json").write_text(json.dumps({"people": people, "next_uid": 20001}))
        assert comes_in(hub, idp, oidc("t1")) == "teacher"
        assert comes_in(hub, idp, oidc("b1")) == "boss"
        ranks = [(user["admin"], user["groups"]) for name in ("teacher", "boss") if (user := hub.user(name))]
        assert ranks == [(False, ["instructors"]), (True, ["instructors"])]

        # People come by the provider alone, a rehearsal's accounts by its password alone and while it lasts.
        for name, word in [("boss", "admin"), ("ann", "class"), ("ann", "rehearsal"), ("rehearsal-001", "class")]:
            assert hub.browser().log_in(name, PASSWORDS[word]) == 403
        guest = hub.browser()
        assert guest.log_in("rehearsal-001", PASSWORDS["rehearsal"]) == 302
        assert guest.who() == "rehearsal-001"
        told = rehearse(
            Door(hub.url), (Account("rehearsal-001", PASSWORDS["rehearsal"]),), Script(0.1, Pace(1.0, start=5.0))
        )
        assert "login" in told.visits[0].done
        (tmp_path / "passwords.json").write_text(json.dumps({**PASSWORDS, "rehearsal": None}))
        for word in (PASSWORDS["rehearsal"], "", "None"):
            assert hub.browser().log_in("rehearsal-001", word) == 403

        assert comes_in(hub, idp, oidc("octocat")) == "cy"
        del people["cy"]
        (tmp_path / "people.json").write_text(json.dumps({"people": people, "next_uid": 20001}))
        assert comes_in(hub, idp, oidc("octocat")) is None


def test_a_provider_that_was_never_there_ends_the_hub_with_its_reason(tmp_path: Path, idp: Provider) -> None:
    idp.up = False
    with real_hub(tmp_path, auth(idp, WAYS["oidc"]), fails=True) as hub:
        assert hub.process.returncode
        assert "503" in hub.log()
    problem = tmp_path / "state/problem"
    assert problem.read_text() == f"nobody can log in: {idp.url}: HTTP Error 503: Service Unavailable"
    idp.up = True
    with real_hub(tmp_path, auth(idp, WAYS["oidc"])) as hub:
        assert comes_in(hub, idp, oidc("ann")) == "ann"
    assert not problem.exists()
    idp.up = False
    with real_hub(tmp_path, auth(idp, WAYS["oidc"])):
        pass  # what it said last time is enough to start


def test_the_address_is_the_proxies_word_and_nobody_elses(tmp_path: Path) -> None:
    with real_hub(tmp_path, {"method": "shared-password"}, head={"name": "head", "address": "127.0.0.2"}) as hub:

        def guesses(name: str, source: str, addresses: Iterable[str], header: str = "X_Forwarded_For") -> Iterator[int]:
            return (hub.browser(source, **{header: each}).log_in(name, "wrong") for each in addresses)

        many = [f"192.0.2.{n}" for n in range(6)]
        # A job that asks the Hub itself writes what it likes, and is where it is.
        assert held_up(guesses("ann", "127.0.0.3", cycle(many)))
        assert held_up(guesses("bob", "127.0.0.3", cycle(many), "X_Real_Ip"))
        # The proxies are on the head: theirs holds, and only the one who guesses has to wait.
        assert list(guesses("cy", "127.0.0.1", many)) == [403] * 6
        assert held_up(guesses("teacher", "127.0.0.1", repeat("192.0.2.1, 127.0.0.1")))
        proxied = hub.browser("127.0.0.2", X_Forwarded_For="192.0.2.2, 127.0.0.1")
        assert proxied.log_in("teacher", PASSWORDS["admin"]) == 302
