"""A cluster's JupyterHub, asked through the head's ``vcluster-hub``: JSON in, JSON out, over SSH."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from vcluster.errors import PermanentError, TemporaryError, UsageError
from vcluster.model import CommandResult

__all__ = [
    "Hub",
    "HubDoor",
    "HubPasswords",
    "HubPerson",
    "HubProof",
    "HubProvider",
    "HubStatus",
    "NewPerson",
    "Removed",
]

HELPER = "/usr/local/sbin/vcluster-hub"
TIMEOUT = 120.0
FRONT_TIMEOUT = 400.0
"""Seconds for a Hub that is restarted because its address changed, on an emulated machine."""
PROOF_MORE = 420.0
"""Seconds for a proof beside the server's start: another proof that is under way, and the server's end."""

Run = Callable[[str, str, float], CommandResult]
"""Runs a command line on the head with a standard input, for so many seconds at most."""


@dataclass(frozen=True, slots=True)
class HubPasswords:
    """What people type where they have no identity provider.

    Attributes:
        method: how people log in, as ``jupyterhub.auth.method``.
        shared: the class's; empty where people have their own.
        admin: the admins' and instructors'.
        own: what one person's was changed to; empty where they choose it at their next login.
    """

    method: str
    shared: str = field(repr=False)
    admin: str = field(repr=False)
    own: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class HubDoor:
    """Where people come in.

    Attributes:
        url: what they type.
        fingerprint: SHA-256 of the cluster's own certificate authority; empty with a domain.
        ca: that authority's certificate, PEM; empty with a domain.
        passwords: told until somebody has seen them, and None ever after.
        problem: what could not be done with the people whom the spec does not name any more, or empty.
    """

    url: str
    fingerprint: str = ""
    ca: str = field(default="", repr=False)
    passwords: HubPasswords | None = field(default=None, repr=False)
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the passwords: what is printed as JSON is often kept."""
        return {"url": self.url, "fingerprint": self.fingerprint, "ca": self.ca}


class HubFront(NamedTuple):
    """What a Hub says to its address: whether nobody has seen its passwords yet, and whether it has ``proved`` itself
    by starting a server since the head's boot.
    """

    door: HubDoor
    first: bool
    proved: bool


@dataclass(frozen=True, slots=True)
class HubProof:
    """What came of trying whether the Hub starts servers.

    Attributes:
        seconds: from the request until the server was ready.
        host: the worker that it ran on.
        skipped: why none was started; empty when one was.
        problem: what is left of it, or empty.
    """

    seconds: float = 0.0
    host: str = ""
    skipped: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class HubProvider:
    """The identity provider that people log in with, as the head reaches it."""

    host: str
    reachable: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class HubStatus:
    """How the Hub is.

    Attributes:
        active: people with a running server who did something in the last quarter of an hour.
        servers: how many run; ``starting`` are on their way.
        room: how many more fit onto the workers that take jobs now, out of ``capacity``.
        problem: what is wrong, or empty.
    """

    up: bool
    url: str = ""
    version: str = ""
    active: int = 0
    servers: int = 0
    starting: int = 0
    room: int = 0
    capacity: int = 0
    method: str = ""
    problem: str = ""
    provider: HubProvider | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class HubPerson:
    """Somebody who may use the Hub. ``server`` is ``running``, ``starting`` or empty."""

    name: str
    uid: int
    kind: str
    admin: bool
    instructor: bool
    email: str
    login: str
    server: str


@dataclass(frozen=True, slots=True)
class NewPerson:
    """Somebody to let in.

    Attributes:
        name: the account's.
        email, login: how an identity provider calls them.
        keys: public SSH keys.
    """

    name: str
    instructor: bool = False
    admin: bool = False
    email: str = ""
    login: str = ""
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Removed:
    """Who was turned out, and where their files still are.

    Attributes:
        problem: what could not be done, or empty; to remove them again does what is left.
        before: who of them had been removed already.
    """

    names: tuple[str, ...]
    homes: tuple[str, ...]
    problem: str = ""
    before: tuple[str, ...] = ()


class Hub:
    """The Hub of a running cluster.

    All calls raise :class:`~vcluster.errors.TemporaryError` when the head or the Hub does not answer, and
    :class:`~vcluster.errors.PermanentError` for what will not go better another time.

    Args:
        run: runs a command on the head.

    Attributes:
        warning: what the last call did not do although it did what it was asked for; or empty.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.warning = ""

    def ask(self, *words: str, given: object = None, timeout: float = TIMEOUT) -> Any:
        """One call of ``vcluster-hub``.

        Args:
            words: its arguments; never a secret.
            given: what it reads, JSON-ready.
            timeout: seconds.
        """
        stdin = "" if given is None else json.dumps(given)
        done = self._run(f"sudo -n {HELPER} {shlex.join(words)}", stdin, timeout)
        try:
            told = json.loads(done.stdout)
        except ValueError:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            if done.exit_code == 127 or "command not found" in last or "No such file" in last:
                raise UsageError(
                    "this cluster has no JupyterHub", remedy="`jupyterhub:` in the spec of a new cluster makes one"
                ) from None
            raise TemporaryError(f"the head's {words[0]} of the Hub: {last[-300:]}") from None
        if done.exit_code == 0:
            return told
        message = str(told.get("error", "no reason given"))
        raise (TemporaryError if told.get("temporary") else PermanentError)(message)

    def front(self, url: str, people: Sequence[Mapping[str, Any]] = ()) -> HubFront:
        """Tell the Hub under which address people come.

        Args:
            people: everybody whom the spec names, each with ``name`` and ``uid``: who is new there comes in, who is not
                there any more goes, and who was added or removed by hand stays so. None of them leaves all as it is.

        Raises:
            TemporaryError: it was restarted for that, and is not up yet.
        """
        given = {"url": url, **({"people": list(people)} if people else {})}
        told = self.ask("front", given=given, timeout=FRONT_TIMEOUT)
        if not told["ready"]:
            raise TemporaryError(
                "the Hub does not answer at its new address yet",
                remedy="`vcluster ssh NAME -- sudo journalctl -u jupyterhub` says why",
            )
        problem = (told.get("people") or {}).get("problem", "")
        door = HubDoor(told["url"], told["fingerprint"] or "", told["ca"] or "", problem=problem)
        return HubFront(door, bool(told["first"]), bool(told["proved"]))

    def probe(self, seconds: float) -> HubProof:
        """Have the Hub start a server and stop it, once for each boot of the head.

        Args:
            seconds: how long the server may take to be ready.

        Raises:
            PermanentError: it did not start; the message says why.
        """
        return HubProof(**self.ask("probe", given={"seconds": round(seconds)}, timeout=seconds + PROOF_MORE))

    def status(self) -> HubStatus:
        """How it is; a Hub that is down is an answer, not an error."""
        told = self.ask("status", timeout=120.0)
        provider = told.get("provider")
        return HubStatus(
            up=told["hub"] == "up",
            provider=HubProvider(**provider) if provider else None,
            **{key: told[key] for key in _STATUS},
        )

    def people(self) -> tuple[tuple[HubPerson, ...], str]:
        """Everybody in the order of their names; and why nothing is known of their servers, if so."""
        told = self.ask("people", "list")
        return tuple(HubPerson(**each) for each in told["people"]), str(told["problem"])

    def add(self, people: Sequence[NewPerson]) -> tuple[str, ...]:
        """Let people in, all or none; gives their names.

        Raises:
            UsageError: one of the names is taken, or no name.
        """
        told = self._people("add", [asdict(person) for person in people])
        self.warning = str(told.get("problem", ""))
        return tuple(told["added"])

    def remove(self, names: Sequence[str]) -> Removed:
        """Let people in no more and end what they run; their files stay. What was left the last time is done as well.

        Raises:
            UsageError: somebody is not known.
        """
        told = self._people("remove", list(names), timeout=300.0)
        return Removed(tuple(told["removed"]), tuple(told["homes"]), told["problem"], tuple(told.get("before", ())))

    def passwords(self, who: str = "", password: str = "") -> HubPasswords:
        """The passwords, after one was changed.

        Args:
            who: ``class``, ``admin`` or a person's name to change that one; empty only shows them.
            password: the new one; empty makes one.

        Raises:
            UsageError: there is no such password here, or it is too short.
        """
        given = {key: value for key, value in (("who", who), ("password", password)) if value}
        told = self._people("password", given)
        return HubPasswords(told["method"], told["class"] or "", told["admin"] or "", told["own"] or "")

    def rehearsal_begin(self, users: int, *, seconds: float = 0.0, force: bool = False) -> Mapping[str, Any]:
        """Make accounts for a rehearsal; gives ``users``, ``password``, ``url``, ``ca``, ``fingerprint``, ``capacity``.

        Args:
            seconds: how long it is planned to last: until then no other rehearsal takes it for one that was forgotten.

        Raises:
            UsageError: there is no room, or another rehearsal is going on and ``force`` is not set.
        """
        given = {"users": users, "seconds": seconds, "force": force}
        told: Mapping[str, Any] = self._refused(lambda: self.ask("rehearsal", "begin", given=given, timeout=300.0))
        return told

    def rehearsal_end(self) -> str:
        """Take everything of a rehearsal away; gives what could not be done, or an empty text."""
        return str(self.ask("rehearsal", "end", timeout=600.0)["problem"])

    def _people(self, verb: str, given: object, timeout: float = TIMEOUT) -> Mapping[str, Any]:
        told: Mapping[str, Any] = self._refused(lambda: self.ask("people", verb, given=given, timeout=timeout))
        return told

    def _refused(self, ask: Callable[[], Any]) -> Any:
        """What the head refuses here does not fit what is there: the command is wrong, not the cloud."""
        try:
            return ask()
        except PermanentError as error:
            raise UsageError(error.message, remedy=error.remedy) from error


_STATUS = ("url", "version", "active", "servers", "starting", "room", "capacity", "method", "problem")
