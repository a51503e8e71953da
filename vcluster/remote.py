"""The only place that knows fabric: a command, a file, on a machine whose host key is known beforehand."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from vcluster.errors import DeadlineError, PermanentError, TemporaryError
from vcluster.model import CommandResult, Endpoint
from vcluster.secrets import SshKey

if TYPE_CHECKING:
    from fabric import Connection

__all__ = ["Remote", "answers"]

CONNECT_TIMEOUT = 20.0
"""Seconds for a TCP connection and for the SSH banner; an emulated machine under load takes several."""


def answers(endpoint: Endpoint, timeout: float = 3.0) -> bool:
    """Whether an SSH server speaks at this address: QEMU's forward accepts long before the machine does."""
    try:
        with socket.create_connection((endpoint.host, endpoint.port), timeout=timeout) as link:
            link.settimeout(timeout)
            return link.recv(4) == b"SSH-"
    except OSError:
        return False


class Remote:
    """One SSH connection, opened when it is first needed; commands may run side by side on it.

    Args:
        endpoint: where the machine is reached.
        user: the account.
        key: the private key; the user's agent, configuration and ``known_hosts`` play no part.
        host_key: the machine's public key line; any other is refused.
    """

    def __init__(self, endpoint: Endpoint, *, user: str, key: SshKey, host_key: str) -> None:
        self._endpoint, self._user, self._key, self._host_key = endpoint, user, key, host_key
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _connect(self) -> Connection:
        from fabric import Config, Connection
        from paramiko import Ed25519Key, RejectPolicy

        with self._lock:
            if self._connection is None:
                connection = Connection(
                    self._endpoint.host,
                    user=self._user,
                    port=self._endpoint.port,
                    config=Config(overrides={"load_ssh_configs": False}),
                    connect_timeout=int(CONNECT_TIMEOUT),
                    connect_kwargs={
                        "pkey": Ed25519Key.from_private_key(io.StringIO(self._key.private)),
                        "allow_agent": False,
                        "look_for_keys": False,
                        "banner_timeout": CONNECT_TIMEOUT,
                        "auth_timeout": CONNECT_TIMEOUT,
                    },
                )
                connection.client.set_missing_host_key_policy(RejectPolicy())
                connection.client.get_host_keys().clear()
                self._pin(connection)
                self._connection = connection
            if not self._connection.is_connected:
                self._open(self._connection)
            return self._connection

    def _pin(self, connection: Connection) -> None:
        from base64 import b64decode

        from paramiko import Ed25519Key

        kind, blob = self._host_key.split()[:2]
        host, port = self._endpoint.host, self._endpoint.port
        name = host if port == 22 else f"[{host}]:{port}"
        connection.client.get_host_keys().add(name, kind, Ed25519Key(data=b64decode(blob)))

    def _open(self, connection: Connection) -> None:
        from paramiko import AuthenticationException, BadHostKeyException, SSHException

        place = f"{self._endpoint.host}:{self._endpoint.port}"
        try:
            connection.open()
        except BadHostKeyException as error:
            text = f"{place} shows another host key than the machine that we made: not connecting"
            raise PermanentError(text, remedy="find out who answers there before going on") from error
        except AuthenticationException as error:
            # sshd is up before cloud-init has made the account.
            raise TemporaryError(f"{place} does not let {self._user} in yet") from error
        except (SSHException, OSError, EOFError) as error:
            raise TemporaryError(f"no SSH at {place} yet: {type(error).__name__}") from error

    def run(self, command: str, *, stdin: str = "", timeout: float | None = None) -> CommandResult:
        """Run a shell command; a non-zero exit status is a result, not an error.

        Args:
            command: the command line, as the account's shell reads it.
            stdin: what the command reads; secrets go this way and never on the command line.
            timeout: seconds until it is given up.

        Raises:
            TemporaryError: the connection could not be made, or broke.
            DeadlineError: ``timeout`` passed.
            PermanentError: another host key than the known one.
        """
        from invoke.exceptions import CommandTimedOut, ThreadException
        from paramiko import SSHException

        connection = self._connect()
        try:
            done = connection.run(
                command,
                hide=True,
                warn=True,
                in_stream=io.StringIO(stdin),
                timeout=None if timeout is None else max(1, round(timeout)),
            )
        except CommandTimedOut as error:
            raise DeadlineError(f"the command took longer than {timeout:.0f} s: {command[:80]}") from error
        except (SSHException, OSError, EOFError, ThreadException) as error:
            self.close()
            raise TemporaryError(f"the connection broke: {error}") from error
        if done is None:
            raise TemporaryError("the connection gave no answer")
        return CommandResult(done.stdout, done.stderr, done.return_code)

    def put(self, local: Path, remote: str) -> None:
        """Copy a file to the machine.

        Raises:
            TemporaryError: the connection broke.
            PermanentError: it cannot be read here or written there.
        """
        self._transfer(lambda connection: connection.put(str(local), remote), f"cannot copy {local} to {remote}")

    def get(self, remote: str, local: Path) -> None:
        """Copy a file from the machine; raises as :meth:`put`."""
        self._transfer(lambda connection: connection.get(remote, str(local)), f"cannot copy {remote} to {local}")

    def _transfer(self, copy: Callable[[Connection], Any], problem: str) -> None:
        from paramiko import SSHException

        connection = self._connect()
        try:
            copy(connection)
        except (SSHException, EOFError, ConnectionError) as error:
            self.close()
            raise TemporaryError(f"the connection broke: {error}") from error
        except OSError as error:
            raise PermanentError(f"{problem}: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
