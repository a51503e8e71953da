"""What a head's ``vcluster-hub`` answers in a cloud without guests."""

from __future__ import annotations

import json
import shlex
from typing import Any

from vcluster.model import CommandResult

__all__ = ["HELPER", "PretendedHub"]

HELPER = "sudo -n /usr/local/sbin/vcluster-hub "


class PretendedHub:
    """A Hub that knows people and an address, and nothing of certificates.

    Attributes:
        down: why it does not answer; empty when it does.
        proofs: how often it was asked to start a server, to prove that it can.
        proved: whether it has since its head booted.
        sick: why it starts no server; empty when it does.
        busy: why it is not asked to start one now; empty when it is.
        people: who was added by hand.
        removed: who was once.
        named: whom the spec named when the launcher last told.
    """

    def __init__(self) -> None:
        self.url = ""
        self.seen = False
        self.down = ""
        self.proofs = 0
        self.proved = False
        self.sick = ""
        self.busy = ""
        self.people: dict[str, dict[str, Any]] = {}
        self.removed: set[str] = set()
        self.named: list[dict[str, Any]] = []
        self.words = {"class": "class-password", "admin": "admin-password"}

    def execute(self, command: str, stdin: str) -> CommandResult:
        """One call; what it does not know is an error, as on a head."""
        words = shlex.split(command.removeprefix(HELPER))
        try:
            told = self._answer(words, json.loads(stdin or "null"))
        except LookupError as error:
            return CommandResult(json.dumps({"error": str(error.args[0])}), "", 1)
        return CommandResult(json.dumps(told), "", 0)

    def _answer(self, words: list[str], given: Any) -> Any:
        match words:
            case ["front"]:
                self.url = given["url"]
                self.named = given.get("people", self.named)
                told = {"url": self.url, "first": not self.seen, "ready": True, "ca": "PEM", "fingerprint": "AB:CD"}
                return {**told, "proved": self.proved}
            case ["probe"]:
                return self._prove()
            case ["status"]:
                up = {"hub": "down" if self.down else "up", "url": self.url, "version": "1", "problem": self.down}
                counts = {"active": 0, "servers": 0, "starting": 0, "room": 8, "capacity": 8}
                return {**up, **counts, "method": "shared-password", "provider": None}
            case ["people", "password"]:
                self.seen = True
                told = {"method": "shared-password", "own": None}
                if (who := (given or {}).get("who")) in self.words:
                    self.words[who] = given.get("password") or f"new-{who}-password"
                elif who:
                    told["own"] = given.get("password") or ("" if self.down else f"new-{who}-password")
                return {**self.words, **told}
            case ["people", verb]:
                return self._people(verb, given)
        raise LookupError(f"usage: {words}")

    def _prove(self) -> Any:
        self.proofs += 1
        if self.sick:
            raise LookupError(self.sick)
        self.proved = not self.busy
        return {"seconds": 7.0, "host": "cpu-1", "skipped": self.busy, "problem": ""}

    def _people(self, verb: str, given: Any) -> Any:
        match verb:
            case "list":
                return {"people": [self.people[name] for name in sorted(self.people)], "problem": self.down}
            case "add":
                names = [each["name"] for each in given]
                if there := [name for name in names if name in self.people]:
                    raise LookupError(f"already there: {', '.join(there)}")
                for each in given:
                    kept = {key: each[key] for key in ("name", "admin", "instructor", "email", "login")}
                    self.people[each["name"]] = {**kept, "uid": 20001, "kind": "student", "server": ""}
                return {"added": names}
            case "remove":
                if strangers := [name for name in given if name not in self.people and name not in self.removed]:
                    raise LookupError(f"not known here: {', '.join(strangers)}")
                before = [name for name in given if name not in self.people]
                for name in given:
                    self.people.pop(name, None)
                self.removed.update(given)
                homes = [f"/home/{name}" for name in given]
                return {"removed": given, "before": before, "homes": homes, "problem": self.down}
        raise LookupError(f"usage: people {verb}")
