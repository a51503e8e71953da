"""The way through a jump host, by the user's own OpenSSH: their configuration, agent and known hosts hold for it.

Only the jump host is the user's; the machine behind it is pinned as everywhere.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import tempfile
from types import TracebackType
from typing import Self

from vcluster.errors import PermanentError, TemporaryError, UsageError, VclusterError
from vcluster.model import Endpoint

__all__ = ["Tunnel", "proxy_command"]

PROGRAM = ("ssh",)
CONNECT_TIMEOUT = 20
_JUMP = re.compile(
    r"(?:(?P<user>[A-Za-z0-9._][^@\s:/]*)@)?"
    r"(?P<host>[A-Za-z0-9._][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.%]+\])"
    r"(?::(?P<port>\d{1,5}))?"
)
_NO_TRUST = ("host key verification failed", "no matching host key", "identification has changed")


def proxy_command(jump: str, target: str, *, batch: bool) -> list[str]:
    """The argv of OpenSSH that makes its own input and output a connection to ``target``.

    Args:
        jump: ``[user@]host[:port]``.
        target: ``host:port`` as the jump host sees it.
        batch: ask nothing, and refuse a jump host that is not in the user's known hosts; else a person may be asked.

    Raises:
        UsageError: ``jump`` is no such text.
    """
    found = _JUMP.fullmatch(jump)
    if found is None:
        raise UsageError(f"{jump!r} is no jump host", remedy="write user@host or user@host:port")
    user, host, port = found["user"], found["host"].strip("[]"), found["port"]
    trust = "yes" if batch else "ask"
    options = ["-o", f"StrictHostKeyChecking={trust}", "-o", f"ConnectTimeout={CONNECT_TIMEOUT}"]
    options += ["-o", "BatchMode=yes"] if batch else []
    options += ["-p", port] if port else []
    options += ["-l", user] if user else []
    return [*PROGRAM, "-a", "-x", *options, "-W", target, "--", host]


class Tunnel:
    """A connection through a jump host, as a socket.

    Args:
        endpoint: where it leads; its ``jump`` is set.

    Raises:
        UsageError: OpenSSH's client is not installed, or ``jump`` is not well formed.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        argv = proxy_command(endpoint.jump, f"{host}:{endpoint.port}", batch=True)
        self._jump = endpoint.jump
        # A file, not a pipe: nobody reads it while the connection lives, and a full pipe would stop ssh.
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the tunnel
        self.socket, theirs = socket.socketpair()
        try:
            # A process group of its own: a first Ctrl-C is for us, and asks for an end in order.
            end = theirs.fileno()
            self._process = subprocess.Popen(argv, stdin=end, stdout=end, stderr=self._words, process_group=0)
        except FileNotFoundError as error:
            self._words.close()
            self.socket.close()
            raise UsageError(
                "a jump host needs the program 'ssh', which is not installed",
                remedy="install OpenSSH's client (Debian, Ubuntu: apt install openssh-client)",
            ) from error
        finally:
            theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def problem(self) -> VclusterError | None:
        """Why there is no connection, if it is the jump host's doing; None while ``ssh`` runs, or ended in peace.

        A jump host that is not trusted or lets nobody in will not do so a moment later; all else may be weather.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        if not self._process.returncode:
            return None
        self._words.seek(0)
        lines = [line.strip() for line in self._words.read().decode(errors="replace").splitlines() if line.strip()]
        said = lines[-1] if lines else f"exit status {self._process.returncode}"
        text = f"the jump host {self._jump}: {said}"
        everything = "\n".join(lines).lower()
        by_hand = f"`ssh ssh://{self._jump}` must work by itself, without a password"
        if any(words in everything for words in _NO_TRUST):
            return PermanentError(text, remedy=f"its host key must be in your known_hosts: {by_hand}")
        if "permission denied" in everything or "too many authentication failures" in everything:
            return PermanentError(text, remedy=by_hand)
        if "could not resolve hostname" in everything and "stdio forwarding" not in everything:
            return PermanentError(text, remedy="access.jump in the spec names it: user@host or user@host:port")
        if "administratively prohibited" in everything:
            return PermanentError(text, remedy="it must allow TCP forwarding (AllowTcpForwarding in its sshd_config)")
        return TemporaryError(text)

    def close(self) -> None:
        """End the connection and the program."""
        self.socket.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._words.close()
