#!/usr/bin/python3 -I
"""The first process of a machine of the bed, and its ``systemctl``: runs the units of services as their files say.

systemd itself wants a control group of its own, which a container has only with much ado. What is understood here is
what the units on vcluster's machines use; what keeps a service from others (Protect…, Private…) is not.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

SOCKET = "/run/bed.sock"
LOGS = Path("/var/log/bed")
FOLDERS = (Path("/etc/systemd/system"), Path("/lib/systemd/system"))
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ABSENT = (
    *(
        "chrony",
        "dbus",
        "mariadb",
        "network",
        "nfs-",
        "nftables",
        "remote-fs",
        "rpcbind",
        "slurmdbd",
        "ssh",
        "time-sync",
    ),
    *("vcluster-clock", "vcluster-expire", "vcluster-home", "vcluster-report", "vcluster-route"),
)
"""Units that a bed does not need, by how their names begin: it has one clock, one file system, no firewall."""

Settings = dict[str, list[str]]


def full(name: str) -> str:
    return name if re.search(r"\.(service|socket|timer|mount|target|path)$", name) else f"{name}.service"


def absent(name: str) -> bool:
    return not name.endswith(".service") or name.startswith(ABSENT)


def read(name: str) -> Settings:
    """The [Unit] and [Service] settings of a unit with its drop-ins; an empty value forgets those before.

    Raises:
        FileNotFoundError: there is no such unit.
    """
    main = next((folder / name for folder in FOLDERS if (folder / name).is_file()), None)
    if main is None:
        raise FileNotFoundError(name)
    files = [main, *(file for folder in reversed(FOLDERS) for file in sorted((folder / f"{name}.d").glob("*.conf")))]
    found: Settings = {}
    for file in files:
        for line in file.read_text().replace("\\\n", " ").splitlines():
            key, equal, value = line.strip().partition("=")
            if equal and not key.startswith(("#", ";")):
                found[key] = [*found.get(key, []), value.strip()] if value.strip() else []
    return found


class Unit:
    """A service and the thread that looks after it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.settings: Settings = {}
        self.main: subprocess.Popen[bytes] | None = None
        self.pid = 0
        self.wanted = False
        self.settled = threading.Event()
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self.said = ""

    def last(self, key: str, default: str = "") -> str:
        return (self.settings.get(key) or [default])[-1]

    @property
    def active(self) -> bool:
        once = self.last("Type") == "oneshot" and self.last("RemainAfterExit") in {"yes", "true"}
        return self.wanted and self.settled.is_set() and not self.said if once else bool(self.pid)

    def start(self, wait: bool) -> str:
        with self.lock:
            if not (self.thread and self.thread.is_alive()):
                self.settings = read(self.name)
                self.wanted, self.said = True, ""
                self.settled.clear()
                self.thread = threading.Thread(target=self._look_after, name=self.name, daemon=True)
                self.thread.start()
        for other in self.settings.get("Requires", []) + self.settings.get("Wants", []):
            for word in other.split():
                if not absent(full(word)) and full(word) != self.name:
                    unit(word).start(wait=False)
        if wait:
            self.settled.wait()
        return self.said

    def stop(self) -> None:
        with self.lock:
            self.wanted = False
            whole = self.last("KillMode", "control-group") != "process"
            self.kill(signal.SIGTERM, whole)
            if self.thread:
                self.thread.join(float(re.sub(r"\D", "", self.last("TimeoutStopSec")) or 20))
                self.kill(signal.SIGKILL, whole)
                self.thread.join()

    def kill(self, number: int, whole: bool) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number) if whole and self.main else os.kill(self.pid, number)

    def _look_after(self) -> None:
        again = self.last("Restart", "no")
        while True:
            good = False
            try:
                good = self._once()
            except (OSError, KeyError, subprocess.SubprocessError) as error:
                self.said = f"{self.name}: {error}"
            self.pid = 0
            if not self.wanted or again == "no" or (good and again not in {"always"}):
                if not good:
                    self.said = self.said or f"{self.name} failed, see {LOGS}/{self.name}.log"
                self.settled.set()
                return
            time.sleep(float(re.sub(r"[^\d.]", "", self.last("RestartSec")) or 0.1))

    def _once(self) -> bool:
        self._folders()
        for line in self.settings.get("ExecStartPre", []):
            if self._run(line) and not line.startswith("-"):
                return False
        if self.last("Type") == "oneshot":
            good = all(not self._run(line) or line.startswith("-") for line in self.settings.get("ExecStart", []))
            self.settled.set()
            return good
        self.main = self._popen(self.last("ExecStart"))
        self.pid = self.main.pid
        if self.last("Type") == "forking":
            if self.main.wait():
                return False
            self.main, self.pid = None, int(Path(self.last("PIDFile")).read_text())
        for line in self.settings.get("ExecStartPost", []):
            if self._run(line) and not line.startswith("-"):
                self.said = f"{self.name}: {line} failed"
        self.settled.set()
        if self.main:
            code = self.main.wait()
            if self.last("KillMode") != "process":
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.main.pid, signal.SIGKILL)  # what it left behind
            return code == 0
        while Path(f"/proc/{self.pid}").exists():
            time.sleep(0.2)
        return not self.wanted

    def _run(self, line: str) -> int:
        return self._popen(line).wait()

    def _environment(self) -> dict[str, str]:
        values = {"PATH": PATH, "LANG": "C.UTF-8"}
        user = self.last("User")
        if user:
            entry = pwd.getpwnam(user)
            values |= {"USER": user, "LOGNAME": user, "HOME": entry.pw_dir, "SHELL": entry.pw_shell}
        if self.last("RuntimeDirectory"):
            values["RUNTIME_DIRECTORY"] = f"/run/{self.last('RuntimeDirectory').split()[0]}"
        words = [word for line in self.settings.get("Environment", []) for word in shlex.split(line)]
        for name in self.settings.get("EnvironmentFile", []):
            file = Path(name.removeprefix("-"))
            if file.exists() or not name.startswith("-"):
                lines = (line.strip() for line in file.read_text().splitlines())
                words += [" ".join(shlex.split(line)) for line in lines if line and not line.startswith("#")]
        values.update(word.partition("=")[::2] for word in words)
        return values

    def _popen(self, line: str) -> subprocess.Popen[bytes]:
        signs, command = re.fullmatch(r"([-+!:@]*)(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
        values = self._environment() | {"MAINPID": str(self.pid)}
        words: list[str] = []
        for word in shlex.split(command.replace("%%", "\0").replace("%n", self.name).replace("\0", "%")):
            if re.fullmatch(r"\$\w+", word):
                words += shlex.split(
                    values.get(word[1:], "")
                )  # as systemd does, such a word may become none or several
            else:
                words.append(re.sub(r"\$\{(\w+)\}", lambda m: values.get(m[1], ""), word))
        who = {}
        if self.last("User") and not set(signs) & {"+", "!"}:
            entry = pwd.getpwnam(self.last("User"))
            group = self.last("Group")
            gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
            more = [grp.getgrnam(name).gr_gid for name in self.last("SupplementaryGroups").split()]
            who = {"user": entry.pw_uid, "group": gid, "extra_groups": [*os.getgrouplist(entry.pw_name, gid), *more]}
        limit = self.last("LimitNOFILE")
        if limit.isdigit():  # in a container even root may not have more than what was given
            allowed = min(int(limit), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            words = ["prlimit", f"--nofile={allowed}:{allowed}", *words]
        LOGS.mkdir(exist_ok=True, mode=0o700)
        with (LOGS / f"{self.name}.log").open("ab") as log:
            return subprocess.Popen(
                words,
                env=values,
                cwd=self.last("WorkingDirectory", "/").removeprefix("-"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=int(self.last("UMask", "0022"), 8),
                **who,  # type: ignore[arg-type]
            )

    def _folders(self) -> None:
        for kind, place in (
            ("RuntimeDirectory", "/run"),
            ("StateDirectory", "/var/lib"),
            ("LogsDirectory", "/var/log"),
        ):
            for name in self.last(kind).split():
                folder = Path(place, name)
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(int(self.last(f"{kind}Mode", "0755"), 8))
                if self.last("User"):
                    entry = pwd.getpwnam(self.last("User"))
                    group = self.last("Group")
                    os.chown(folder, entry.pw_uid, grp.getgrnam(group).gr_gid if group else entry.pw_gid)


UNITS: dict[str, Unit] = {}


def unit(name: str) -> Unit:
    return UNITS.setdefault(full(name), Unit(full(name)))


def systemctl(words: list[str]) -> tuple[int, str]:
    """Do what a command line says; its exit status and output."""
    flags = {word for word in words if word.startswith("-")}
    plain = [word for word in words if not word.startswith("-")]
    verb, names = (plain[0], [full(name) for name in plain[1:]]) if plain else ("", [])
    if (
        verb in {"enable", "mask", "disable", "unmask", "daemon-reload", "reset-failed", "preset"}
        and "--now" not in flags
    ):
        return 0, ""
    said, code = [], 0
    for name in names:
        try:
            code, text = _one(verb, name, "--no-block" not in flags, plain)
        except FileNotFoundError:
            code, text = (0 if verb.startswith("try-") else 5), f"there is no unit {name}"
        said += [text] if text and not flags & {"-q", "--quiet"} else []
    return code, "\n".join(said)


def _one(verb: str, name: str, wait: bool, words: list[str]) -> tuple[int, str]:
    if absent(name):
        return 0, "active" if verb == "is-active" else ""
    one = unit(name)
    if verb in {"start", "enable"}:
        text = one.start(wait)
        return int(bool(text)), text
    if verb in {"restart", "try-restart", "reload-or-restart", "reload"}:
        if verb.startswith("try-") and not one.active:
            return 0, ""
        one.stop()
        text = one.start(wait)
        return int(bool(text)), text
    if verb in {"stop", "disable"}:
        one.stop()
    elif verb == "kill":
        number = next((word for word in words if word.startswith(("SIG", "KILL", "TERM"))), "TERM")
        one.kill(getattr(signal, "SIG" + number.removeprefix("SIG")), whole=False)
    elif verb in {"is-active", "is-enabled", "status", "show"}:
        read(name)
        return (0, "active") if one.active else (3, "inactive")
    return 0, ""


def serve() -> None:
    """Answer ``systemctl`` for ever."""
    with socket.socket(socket.AF_UNIX) as listening:
        # Where it is looked for once it listens: whoever finds it there may connect.
        draft = Path(f"{SOCKET}.new")
        listening.bind(str(draft))
        draft.chmod(0o600)
        listening.listen(64)
        draft.rename(SOCKET)
        while True:
            link, _ = listening.accept()
            threading.Thread(target=_answer, args=(link,), daemon=True).start()


def _answer(link: socket.socket) -> None:
    with link, link.makefile("rw") as stream:
        try:
            code, text = systemctl(json.loads(stream.readline()))
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            code, text = 1, f"{type(error).__name__}: {error}"
        stream.write(json.dumps([code, text]) + "\n")


def ask() -> int:
    """``systemctl``: hand the command line over."""
    arguments = list(sys.argv[1:])
    for index, word in enumerate(arguments):
        if word in {"-s", "-p", "-n", "-t"}:
            arguments[index : index + 1] = []  # its value stays, as a plain word behind the names
            break
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(SOCKET)
        except OSError:
            return 0  # while the tree is made nothing runs, and all that is asked for is to enable and disable
        with link.makefile("rw") as stream:
            stream.write(json.dumps(arguments) + "\n")
            stream.flush()
            code, text = json.loads(stream.readline())
    if text:
        print(text, file=sys.stdout if code in {0, 3} else sys.stderr)
    return code


def main() -> int:
    if Path(sys.argv[0]).name == "systemctl":
        return ask()
    # The first process of a machine has all orphans for children, and must not take others' exit statuses from them.
    if os.fork() == 0:
        serve()
    while True:
        with contextlib.suppress(ChildProcessError):
            os.wait()


if __name__ == "__main__":
    sys.exit(main())
