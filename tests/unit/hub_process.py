"""The real JupyterHub with the configuration that a head has, as a process of its own; only the proxy pretends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from hub_kit import FACTS, PROGRAMS, write
from loopback import Quiet, listening, reserved
from requests.adapters import HTTPAdapter

SECONDS = 120
CLIENT_SECRET = "the-clients-own-secret"
SERVICE_TOKEN = "the-services-own-token"
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "CONFIGPROXY_AUTH_TOKEN": "x",
    "VCLUSTER_SERVICE_TOKEN": SERVICE_TOKEN,
    "VCLUSTER_CLIENT_SECRET": CLIENT_SECRET,
    "JPY_COOKIE_SECRET": "0" * 64,
    "JUPYTERHUB_CRYPT_KEY": "0" * 64,
    "PYTHONDONTWRITEBYTECODE": "1",
}


class _From(HTTPAdapter):
    """Connects from an address of this computer."""

    def __init__(self, source: str) -> None:
        self._source = source
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more, source_address=(self._source, 0))


class Browser(requests.Session):
    """One person's, with cookies; ``headers`` go with each request, which come from the address ``source``."""

    def __init__(self, url: str, source: str = "", **headers: str) -> None:
        super().__init__()
        self.url, self.trust_env = url, False
        self.headers.update({key.replace("_", "-"): value for key, value in headers.items()})
        if source:
            self.mount("http://", _From(source))

    def form(self, path: str, **fields: str) -> requests.Response:
        """Fill in the form of a page and send it; where it leads is not followed."""
        self.get(self.url + path, timeout=SECONDS)
        token = next((cookie.value for cookie in self.cookies if cookie.name == "_xsrf"), "") or ""
        data = {"_xsrf": token, **fields}
        return self.post(self.url + path, data=data, allow_redirects=False, timeout=SECONDS)

    def log_in(self, name: str, password: str) -> int:
        """The form's status: 302 is in."""
        return self.form("hub/login", username=name, password=password).status_code

    def through_provider(self) -> requests.Response:
        """What is seen after the provider was done."""
        return self.get(self.url + "hub/oauth_login?next=/hub/api/", timeout=SECONDS)

    def who(self) -> str:
        """Who is logged in, by the Hub's own page; empty for nobody."""
        page = self.get(self.url + "hub/home", timeout=SECONDS)
        return page.text.partition('user: "')[2].partition('"')[0] if page.url.endswith("/home") else ""


def held_up(tries: Iterator[int]) -> bool:
    """Whether five wrong guesses are refused, and the next has to wait.

    The wait is a second, and twice as long after each guess that came later than that, as on a busy computer one may.
    """
    wait, last = 1.0, 0.0
    for number, (began, ended, code) in enumerate(_timed(tries)):
        if number >= 5 and code == 429:
            return True
        if code != 403 or (number >= 5 and ended - last < wait):
            return False
        wait *= 2 if number >= 5 else 1
        last = began
    return False


def _timed(tries: Iterator[int]) -> Iterator[tuple[float, float, int]]:
    """At most twelve, each with when it began and ended."""
    for _ in range(12):
        began = time.monotonic()
        code = next(tries)
        yield began, time.monotonic(), code


class RealHub:
    """A Hub that runs."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], url: str) -> None:
        self.folder, self.process, self.url = folder, process, url

    def browser(self, source: str = "", **headers: str) -> Browser:
        return Browser(self.url, source, **headers)

    def user(self, name: str) -> dict[str, Any] | None:
        """What the Hub knows of somebody."""
        headers = {"Authorization": f"token {SERVICE_TOKEN}"}
        answer = Browser(self.url).get(f"{self.url}hub/api/users/{name}", headers=headers, timeout=SECONDS)
        return dict(answer.json()) if answer.ok else None

    def log(self) -> str:
        return (self.folder / "hub.log").read_text()


@contextmanager
def real_hub(
    folder: Path, auth: Mapping[str, Any], *, more: str = "", fails: bool = False, **facts: Any
) -> Iterator[RealHub]:
    """Start a Hub and wait until it answers.

    Args:
        auth: as in hub.json.
        more: Python that is run after the head's configuration.
        fails: wait until it has ended instead.
        facts: of hub.json.
    """
    state = folder / "state"
    state.mkdir(exist_ok=True)
    with pretended_proxy() as api, reserved() as port:
        known = {
            "ports": {"hub": port, "proxy": api, "api": api},
            "state": str(state),
            "idle": {"server": 0, "kernel": 0, "longest": 0},
            "auth": {**FACTS["auth"], **auth, "allow": {**FACTS["auth"]["allow"], **auth.get("allow", {})}},
        }
        write(folder, **{**known, **facts})
        url = f"http://{facts.get('head', FACTS['head'])['address']}:{port}/"
        (folder / "front.json").write_text(json.dumps({"url": url}))
        config = folder / "config.py"
        config.write_text(f"c = get_config()\nload_subconfig({str(PROGRAMS / 'jupyterhub_config.py')!r})\n{more}")
        environment = {**ENVIRONMENT, "VCLUSTER_HUB_FOLDER": str(folder), "HOME": str(state)}
        command = [sys.executable, "-m", "jupyterhub", "--config", str(config)]
        with (folder / "hub.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=state, env=environment, stdout=log, stderr=log)
        hub = RealHub(folder, process, url)
        try:
            _wait(hub, fails)
            yield hub
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(hub: RealHub, fails: bool) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if hub.process.poll() is not None:
            assert fails, hub.log()
            return
        try:
            if not fails and Browser(hub.url).get(f"{hub.url}hub/api/", timeout=60).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.1)
    raise AssertionError(f"the Hub did not {'end' if fails else 'answer'}: {hub.log()}")


@contextmanager
def pretended_proxy() -> Iterator[int]:
    """The proxy's interface, which takes all routes and has no door."""
    routes: dict[str, Any] = {}

    class Handler(Quiet):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.removeprefix("/api/routes")
            if self.command == "POST":
                told = json.loads(body)
                routes[path or "/"] = {"target": told.pop("target"), "data": told}
            elif self.command == "DELETE":
                routes.pop(path or "/", None)
            text = json.dumps(routes).encode() if self.command == "GET" else b""
            self.send_response({"GET": 200, "POST": 201, "DELETE": 204}[self.command])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - named by the library

    with listening(Handler) as port:
        yield port
