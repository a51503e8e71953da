"""Passwords of people's own, at the real Hub: sign-up and first use, long ones, and that hashing holds nobody up."""

from __future__ import annotations

import asyncio
import re
import threading
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub_kit import PASSWORDS, programs, write
from hub_process import Browser, RealHub, held_up, real_hub

pytestmark = pytest.mark.timeout(300)

LONG = "ä" * 40 + "-and-more"
"""More bytes than bcrypt looks at."""


def signed_up(hub: RealHub, name: str, password: str) -> str:
    """What the page says."""
    form = {"username": name, "signup_password": password, "signup_password_confirmation": password}
    answer = hub.browser().form("hub/signup", **form)
    assert answer.status_code == 200, answer.text
    return answer.text


def let_in(admin: Browser, name: str) -> None:
    assert admin.get(f"{admin.url}hub/authorize/{name}", timeout=60).ok


@pytest.mark.slow
def test_native_sign_up_at_the_real_hub(tmp_path: Path) -> None:
    with real_hub(tmp_path, {"method": "native"}) as hub:
        assert "sent to the admin" in signed_up(hub, "ann", LONG)
        assert "Something went wrong" in signed_up(hub, "ann", "another long enough")
        for name, word in [("stranger", LONG), ("rehearsal-001", LONG), ("bob", "short"), ("bob", "123qweasdzxc")]:
            assert "Something went wrong" in signed_up(hub, name, word), name
        early = hub.browser().form("hub/login", username="ann", password=LONG)
        assert (early.status_code, "An admin has to let you in first." in early.text) == (403, True)
        admin = hub.browser()
        assert admin.log_in("boss", PASSWORDS["admin"]) == 302
        let_in(admin, "ann")

        ann = hub.browser()
        page = ann.get(f"{hub.url}hub/login", timeout=60).text
        assert "Sign up" in page
        assert re.search(r'name="_xsrf" value="[^"]{20}', page)
        assert [ann.log_in("ann", word) for word in ("wrong", "x" * 100, "", LONG)] == [403, 403, 403, 302]
        assert ann.who() == "ann"
        changed = ann.form(
            "hub/change-password", old_password=LONG, new_password="b" * 80, new_password_confirmation="b" * 80
        )
        assert "changed successfully" in changed.text
        assert [hub.browser().log_in("ann", word) for word in (LONG, "b" * 80)] == [403, 302]
        assert held_up(hub.browser().log_in("bob", "guess") for _ in count())
        assert hub.browser().log_in("rehearsal-001", PASSWORDS["rehearsal"]) == 302
        assert "Traceback" not in hub.log()


@pytest.mark.slow
def test_first_use_at_the_real_hub(tmp_path: Path) -> None:
    with real_hub(tmp_path, {"method": "firstuse"}) as hub:
        short = hub.browser().form("hub/login", username="ann", password="short")
        assert "at least 12 characters" in short.text
        ann = hub.browser()
        assert [ann.log_in("ann", LONG), hub.browser().log_in("ann", "x" * 100)] == [302, 403]
        assert "success" in ann.form("hub/auth/change-password", password="b" * 80).text
        assert [hub.browser().log_in("ann", word) for word in (LONG, "b" * 80)] == [403, 302]
        assert held_up(hub.browser().log_in("bob", "short") for _ in count())
        # Whoever comes first does not become the admin, nor a teacher.
        for name in ("boss", "teacher"):
            words = ("a first password of mine", PASSWORDS["class"], PASSWORDS["admin"])
            assert [hub.browser().log_in(name, word) for word in words] == [403, 403, 302], name
        assert "Traceback" not in hub.log()


@pytest.mark.filterwarnings("ignore:.*shared database session")
def test_hashing_is_not_done_in_the_hubs_own_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that logs in at the same moment would stop it for half a minute."""
    from jupyterhub import orm
    from jupyterhub.handlers.base import BaseHandler

    write(tmp_path)
    session = orm.new_session_factory("sqlite:///:memory:")()
    with programs(tmp_path, "vcluster_auth", "vcluster_own") as [auth, own]:
        way = auth.authenticator("native")(db=session, minimum_password_length=12)
        threads: list[bool] = []
        real = own.bcrypt.hashpw

        def noted(*given: bytes) -> bytes:
            threads.append(threading.current_thread() is threading.main_thread())
            return bytes(real(*given))

        monkeypatch.setattr(own.bcrypt, "hashpw", noted)
        page = dict(way.get_handlers(None))["/signup"]
        fields = {
            "username": "ann",
            "signup_password": LONG,
            "signup_password_confirmation": LONG,
        }

        async def rendered(self: Any, name: str, **said: Any) -> str:
            return str(said["alert"])

        monkeypatch.setattr(BaseHandler, "render_template", rendered)
        monkeypatch.setattr(page, "authenticator", way)
        monkeypatch.setattr(page, "get_body_argument", lambda _, name, default="", **__: fields.get(name, default))
        told: list[str] = []
        monkeypatch.setattr(page, "finish", lambda _, text: told.append(text))

        async def all_of_it() -> Any:
            await page.post(page.__new__(page))
            way.get_user("ann").is_authorized = True
            handler = SimpleNamespace(request=SimpleNamespace(remote_ip="192.0.2.7"))
            return await way.get_authenticated_user(handler, {"username": "ann", "password": LONG})

        found = asyncio.run(all_of_it())
    session.close()
    assert told == ["alert-info"]
    assert found["name"] == "ann"
    assert threads == [False, False]
    assert way.digests == {}
