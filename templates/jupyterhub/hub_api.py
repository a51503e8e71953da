"""The Hub's own interface, asked on the head with the token of vcluster's service."""

import http.client
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import quote, urlencode, urlsplit

from hub_state import ROOT, SECRETS, Sorry, facts, read, run

PAGE = 200
AT_ONCE = 8
ACTIVE_WITHIN = 900
"""Seconds since somebody's last sign of life within which they count as active."""

TAKING = ("idle", "mixed", "allocated", "completing", "planned")
"""What sinfo says of a worker that takes jobs; a minus after it says that something is planned there."""

JOB_NAME = "jupyter-vcluster"
"""As in hub_queue.py, which loads more than a head in a hurry wants."""

OURS = "vcluster: "
"""Begins the reasons for which vcluster itself has drained a worker, as in vcluster-node."""

OK = (200, 201, 202, 204)


class Down(Sorry):
    """The Hub does not answer."""

    temporary = True


class Silent(Down):
    """It says nothing at all."""


class Hub:
    """The Hub's REST interface.

    Args:
        timeout: seconds for one answer; starting a class's servers keeps the Hub busy for a while.
    """

    def __init__(self, timeout=30):
        known = facts()
        self.address, self.port = known["head"]["address"], known["ports"]["hub"]
        self.capacity = known.get("capacity") or 0
        self.timeout = timeout
        self._token = token()

    def ask(self, method, path, body=None, *, expected=OK, accept="application/json"):
        """The JSON of an answer (None where there is none, its text where it is none), and its status."""
        link = http.client.HTTPConnection(self.address, self.port, timeout=self.timeout)
        headers = {"Authorization": f"token {self._token}", "Accept": accept, "Content-Type": "application/json"}
        try:
            link.request(method, f"/hub/api{path}", json.dumps(body) if body is not None else None, headers)
            answer = link.getresponse()
            text, status = answer.read(), answer.status
        except (OSError, http.client.HTTPException) as error:
            raise Silent(f"the Hub does not answer: {not_started() or error or type(error).__name__}") from error
        finally:
            link.close()
        try:
            told = json.loads(text) if text.strip() else None
        except ValueError:
            told = text.decode(errors="replace")
        if status not in expected:
            why = told.get("message", "") if isinstance(told, dict) else ""
            raise (Down if status >= 500 else Sorry)(f"the Hub says {status} to {method} {path}: {why}")
        return told, status

    def users(self, *, active=True):
        """Every user, or those with a server; the Hub gives them in pages."""
        found, offset = [], 0
        while offset is not None:
            query = {"limit": PAGE, "offset": offset, **({"state": "active"} if active else {})}
            told, _ = self.ask("GET", f"/users?{urlencode(query)}", accept="application/jupyterhub-pagination+json")
            found += told["items"]
            following = told["_pagination"].get("next")
            offset = following["offset"] if following else None
        return found

    def version(self):
        """The Hub's release."""
        return self.ask("GET", "/info")[0].get("version", "")

    def add(self, name):
        """Make a user known; one who is known already is no error."""
        self.ask("POST", f"/users/{quote(name)}", expected=(*OK, 409))

    def why_not(self, name):
        """Why somebody's server did not start, in the Hub's words."""
        told, _ = self.ask("GET", f"/users/{quote(name)}/server/progress", accept="text/event-stream")
        events = [json.loads(line[5:]) for line in str(told or "").splitlines() if line.startswith("data:")]
        return next((event["message"] for event in events if event.get("failed")), "the Hub does not say why")

    def forget(self, name, timeout=60):
        """Stop a user's server, end their sessions and forget them. Not known: no error."""
        end = time.monotonic() + timeout
        while True:
            # 400: the server is starting or stopping, which ends.
            status = self.ask("DELETE", f"/users/{quote(name)}", expected=(*OK, 400, 404))[1]
            if status != 400:
                return
            if time.monotonic() > end:
                raise Sorry(f"the server of {name} did not stop within {timeout} seconds")
            time.sleep(1)

    def forget_all(self, names):
        """As :meth:`forget`, for many at once; for each with whom it did not go, the reason."""
        silent = []

        def why_not(name):
            try:
                # Each would wait for itself until it is sure that nobody answers.
                if silent:
                    raise silent[0]
                self.forget(name)
            except Silent as error:
                silent.append(error)
                return str(error)
            except Sorry as error:
                return str(error)
            return ""

        names = list(names)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return {name: why for name, why in zip(names, pool.map(why_not, names), strict=True) if why}


def not_started():
    """Why the Hub could not start, as it left word (hub_login.py); empty for nothing known."""
    try:
        path = ROOT / facts().get("state", "").lstrip("/") / "problem"
        return " ".join(path.read_text(encoding="utf-8", errors="replace")[:500].split())
    except OSError:
        return ""


def token():
    """The service's token, from the file that root alone reads."""
    try:
        lines = SECRETS.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise Sorry(f"{SECRETS} is not there: this cluster has no JupyterHub") from None
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values["VCLUSTER_SERVICE_TOKEN"].strip().strip('"')


def status():
    """How the Hub is; never an error for a Hub that is down, which is an answer."""
    known = facts()
    answer = {
        "hub": "down",
        "url": (read("front.json") or {}).get("url", ""),
        "version": "",
        "active": 0,
        "servers": 0,
        "starting": 0,
        "capacity": known.get("capacity") or 0,
        "room": 0,
        "front": _accepts(443),
        "proxy": False,
        "method": known.get("auth", {}).get("method", ""),
        "problem": "",
        "provider": provider(known),
    }
    try:
        hub = Hub(timeout=25)
        answer["version"] = hub.version()
        _count(hub.users(), answer)
        answer["proxy"] = through_proxy(known)
    except Down as error:
        answer["problem"] = str(error)
        answer["proxy"] = _accepts(known["ports"]["proxy"])
        return answer
    answer["hub"] = "up"
    try:
        answer["room"], answer["capacity"], wrong = room()
        answer["problem"] = "; ".join(wrong)
    except Sorry as error:
        answer["problem"] = str(error)
    for what, name in (("front", "caddy"), ("proxy", "jupyterhub-proxy")):
        if not answer[what]:
            answer["problem"] = f"{name}.service does not answer"
    return answer


def room():
    """How many more notebooks fit onto the workers that take jobs now, out of how many, and what is wrong with others.

    A worker that Slurm itself has drained looks like any other, takes nothing, and nobody mends it by itself.

    Raises:
        Sorry: Slurm does not say.
    """
    said = run("sinfo", "-h", "-N", "-o", "%N|%T|%E", timeout=20).splitlines()
    states = {name: (state, why) for name, state, why in (line.split("|", 2) for line in said)}
    taking = {name for name, (state, _) in states.items() if state.rstrip("-") in TAKING}
    fits = sum(facts()["fits"].get(name.rpartition("-")[0], 0) for name in taking)
    jobs = run("squeue", "-h", f"--name={JOB_NAME}", "-t", "PD,CF,R", "-o", "%N", timeout=20).splitlines()
    used = sum(not node or node in taking for node in jobs)
    wrong = [
        f"{name} takes no more notebooks (Slurm: {why})"
        for name, (state, why) in sorted(states.items())
        if state.startswith("drain") and not why.startswith(OURS)
    ]
    return max(0, fits - used), fits, wrong


def _count(users, answer):
    now = time.time()
    for user in users:
        servers = (user.get("servers") or {}).values()
        answer["servers"] += sum(bool(server.get("ready")) for server in servers)
        answer["starting"] += sum(not server.get("ready") for server in servers)
        answer["active"] += now - moment(user.get("last_activity")) < ACTIVE_WITHIN


def moment(text):
    """Seconds since the epoch; 0 for nothing."""
    if not text:
        return 0.0
    when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def through_proxy(known, timeout=5):
    """Whether the Hub answers through the proxy, as a browser reaches it."""
    link = http.client.HTTPConnection("127.0.0.1", known["ports"]["proxy"], timeout=timeout)
    try:
        link.request("GET", "/hub/api/")
        return link.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()


def wait_until_up(timeout):
    """Wait for a Hub that was restarted; whether it answers through the proxy."""
    known, end = facts(), time.monotonic() + timeout
    while not through_proxy(known):
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def _accepts(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=3):
            return True
    except OSError:
        return False


PROVIDERS = {
    "github": "https://github.com/",
    "cilogon": "https://cilogon.org/.well-known/openid-configuration",
    "globus": "https://auth.globus.org/.well-known/openid-configuration",
}


def provider(known, timeout=5):
    """Whether the identity provider can be reached from here; None where there is none."""
    auth = known.get("auth", {})
    options = auth.get("options") or {}
    url = PROVIDERS.get(auth.get("method"), "")
    if auth.get("method") == "oidc":
        url = options.get("issuer") or options.get("token_url") or options.get("authorize_url") or ""
    if not url:
        return None
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname, port), timeout=timeout):
            return {"host": parts.hostname, "reachable": True, "problem": ""}
    except (OSError, ValueError) as error:
        return {"host": parts.hostname or url, "reachable": False, "problem": str(error)}
