"""An identity provider on the loopback that is as strict as the real ones: GitHub, CILogon, Globus and plain OIDC."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from hub_process import CLIENT_SECRET
from loopback import Quiet, listening

CLIENT_ID = "the-hub"
GROUPS_SCOPE = "urn:globus:auth:scope:groups.api.globus.org:view_my_groups_and_memberships"


class Provider:
    """Whoever asks it is ``who``, and everybody may.

    Attributes:
        who: the claims of the person at the browser.
        members: members of organizations, by GitHub's login; ``groups``: of Globus' groups.
        asked: each path that was asked, with the scopes for the first of a log-in.
        up: whether it answers at all.
    """

    def __init__(self) -> None:
        self.url = ""
        self.who: dict[str, Any] = {}
        self.members: dict[str, set[str]] = {}
        self.groups: list[str] = []
        self.asked: list[str] = []
        self.scopes: list[str] = []
        self.up = True
        self._codes: dict[str, dict[str, str]] = {}
        self._tokens: dict[str, tuple[dict[str, Any], list[str]]] = {}

    def more(self, method: str) -> str:
        """The configuration that leads a Hub here where only the real provider's address is known."""
        if method not in {"cilogon", "globus"}:
            return ""
        own = f"c.{method.capitalize()}"
        paths = {"authorize_url": "authorize", "token_url": "token", "userdata_url": "userinfo"}
        if method == "globus":
            paths["globus_groups_url"] = "v2/groups/my_groups"
        return "".join(f"{own}.{key} = {self.url + path!r}\n" for key, path in paths.items())

    def discovery(self) -> dict[str, str]:
        """What it says of itself."""
        return {
            "issuer": self.url.rstrip("/"),
            "authorization_endpoint": f"{self.url}authorize",
            "token_endpoint": f"{self.url}token",
            "userinfo_endpoint": f"{self.url}userinfo",
        }

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser goes."""
        assert query["client_id"] == CLIENT_ID
        assert query["code_challenge_method"] == "S256"
        code = secrets.token_hex(8)
        self.scopes = query.get("scope", "").split()
        self._codes[code] = {**query, "who": json.dumps(self.who)}
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str]) -> dict[str, Any]:
        """For a code, once."""
        began = self._codes.pop(form["code"])
        digest = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode().rstrip("=")
        assert (form["client_id"], form["client_secret"]) == (CLIENT_ID, CLIENT_SECRET)
        assert (form["redirect_uri"], digest) == (began["redirect_uri"], began["code_challenge"])
        who, scopes = json.loads(began["who"]), began.get("scope", "").split()
        found = {"resource_server": "auth.globus.org", **self._issue(who, scopes)}
        if "openid" in scopes:
            claims = {"iss": self.url, "aud": CLIENT_ID, "sub": who.get("sub", "1")}
            found["id_token"] = jwt.encode(claims, "k" * 32, algorithm="HS256")
        other = {"resource_server": "groups.api.globus.org", **self._issue({}, [])}
        return {**found, "other_tokens": [other] if GROUPS_SCOPE in scopes else []}

    def _issue(self, who: dict[str, Any], scopes: list[str]) -> dict[str, Any]:
        word = secrets.token_hex(8)
        self._tokens[word] = (who, scopes)
        return {"access_token": word, "token_type": "bearer", "scope": " ".join(scopes), "expires_in": 600}

    def of(self, token: str) -> dict[str, Any]:
        """The claims that a token's scopes give."""
        who, scopes = self._tokens[token]
        hidden = set() if "email" in scopes or "login" in who else {"email", "email_verified"}
        return {key: value for key, value in who.items() if key not in hidden}

    def answer(self, method: str, target: str, body: str, token: str) -> tuple[int, Any]:  # noqa: PLR0911 - a table
        """Status, and JSON or where it leads."""
        parts = urlsplit(target)
        query, path = dict(parse_qsl(parts.query)), parts.path.removeprefix("/api/v3")
        self.asked.append(path)
        if not self.up:
            return 503, {}
        match method, path.strip("/").split("/"):
            case "GET", [".well-known", "openid-configuration"]:
                return 200, self.discovery()
            case "GET", [*_, "authorize"]:
                return 302, self.authorize(query)
            case "POST", [*_, "token" | "access_token"]:
                return 200, self.token(dict(parse_qsl(body)))
            case "GET", ["userinfo" | "user"]:
                return 200, self.of(token)
            case "GET", ["orgs", organization, "members", login]:
                return (204 if login in self.members.get(organization, set()) else 404), {}
            case "GET", ["v2", "groups", "my_groups"]:
                assert token in self._tokens
                return 200, [{"id": group} for group in self.groups]
        return 404, {}


@contextmanager
def provider() -> Iterator[Provider]:
    """One that runs."""
    found = Provider()

    class Handler(Quiet):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            token = (self.headers.get("Authorization") or "").partition(" ")[2]
            status, told = found.answer(self.command, self.path, body, token)
            text = b"" if status in {204, 302} else json.dumps(told).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", told)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = answer  # noqa: N815 - named by the library

    with listening(Handler) as port:
        found.url = f"http://127.0.0.1:{port}/"
        yield found
