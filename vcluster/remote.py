"""The only place that knows fabric: a command, a file, on a machine whose host key is known beforehand."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from vcluster.errors import DeadlineError, PermanentError, TemporaryError
from vcluster.jump import Tunnel
from vcluster.model import CommandResult, Endpoint
from vcluster.secrets import SshKey
from vcluster.streams import flow

if TYPE_CHECKING:
    from fabric import Connection
    from paramiko import AgentKey, Channel, PKey, Transport

__all__ = ["KEY_VARIABLE", "NotAdmittedError", "Remote", "answers"]

# Without a handler of the program's own, Python would print what paramiko logs of a machine that is not up yet.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

CONNECT_TIMEOUT = 20.0
"""Seconds for a TCP connection and for the SSH banner; an emulated machine under load takes several."""

KEY_VARIABLE = "VCLUSTER_SSH_KEY"
"""The environment variable that names the one private key to use where the person's own are asked for."""
USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


class NotAdmittedError(TemporaryError):
    """The machine answers and lets this account's keys in not yet, or never: sshd is up before the account is made.

    Args:
        tried: the keys that were refused, and those that could not be read, in words.
    """

    def __init__(self, message: str, *, tried: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.tried = tried


def answers(endpoint: Endpoint, timeout: float = 15.0) -> bool:
    """Whether an SSH server speaks at this address: QEMU's forward accepts long before the machine does.

    It waits long for the first word: a machine that is slow to answer is made slower still by who hangs up and asks
    anew.

    Behind a jump host only a connection can tell; what this would cost there is the same, so the answer is True.
    """
    if endpoint.jump:
        return True
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
        key: the private key; the user's agent, configuration and ``known_hosts`` play no part. None: the user's own
            keys, which are the one that ``VCLUSTER_SSH_KEY`` names, or the agent's and the usual files in ``~/.ssh``.
        host_key: the machine's public key line; any other is refused.
        via: a connection to the machine that this one is reached through.
    """

    def __init__(
        self, endpoint: Endpoint, *, user: str, key: SshKey | None, host_key: str, via: Remote | None = None
    ) -> None:
        self._endpoint, self._user, self._key, self._host_key = endpoint, user, key, host_key
        self._via = via
        self._connection: Connection | None = None
        self._tunnel: Tunnel | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _connect(self) -> Connection:
        with self._lock:
            if self._connection is None or not self._connection.is_connected:
                self._drop()
                self._open()
            if self._connection is None:
                raise TemporaryError("the connection broke")
            return self._connection

    def _new(self) -> Connection:
        from fabric import Config, Connection
        from paramiko import RejectPolicy

        keys: dict[str, Any]
        if self._key is None:
            keys = {"auth_strategy": _own_keys(self._user)}
        else:
            keys = {"pkey": _loaded(self._key), "allow_agent": False, "look_for_keys": False}
        if self._via is not None:
            keys["sock"] = self._via.channel(self._endpoint)
        elif self._endpoint.jump:
            self._tunnel = Tunnel(self._endpoint)
            keys["sock"] = self._tunnel.socket
        connection = Connection(
            self._endpoint.host,
            user=self._user,
            port=self._endpoint.port,
            config=Config(overrides={"load_ssh_configs": False}),
            connect_timeout=int(CONNECT_TIMEOUT),
            connect_kwargs={**keys, "banner_timeout": CONNECT_TIMEOUT, "auth_timeout": CONNECT_TIMEOUT},
        )
        connection.client.set_missing_host_key_policy(RejectPolicy())
        connection.client.get_host_keys().clear()
        self._pin(connection)
        return connection

    def _pin(self, connection: Connection) -> None:
        from base64 import b64decode

        from paramiko import Ed25519Key

        kind, blob = self._host_key.split()[:2]
        host, port = self._endpoint.host, self._endpoint.port
        name = host if port == 22 else f"[{host}]:{port}"
        connection.client.get_host_keys().add(name, kind, Ed25519Key(data=b64decode(blob)))

    def _open(self) -> None:
        from paramiko import AuthenticationException, BadHostKeyException, SSHException

        place = f"{self._endpoint.host}:{self._endpoint.port}"
        connection = self._new()
        try:
            connection.open()
        except BadHostKeyException as error:
            self._drop()
            text = f"{place} shows another host key than the machine that we made: not connecting"
            raise PermanentError(text, remedy="find out who answers there before going on") from error
        except AuthenticationException as error:
            self._drop()
            raise NotAdmittedError(
                f"{place} does not let {self._user} in yet", tried=getattr(error, "tried", ())
            ) from error
        except (SSHException, OSError, EOFError) as error:
            problem = self._tunnel.problem() if self._tunnel else None
            connection.close()
            self._drop()
            raise problem or TemporaryError(f"no SSH at {place} yet: {type(error).__name__}") from error
        self._connection = connection

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

    def stream(
        self,
        command: str,
        *,
        source: BinaryIO | None = None,
        sink: BinaryIO | None = None,
        timeout: float,
        cancel: threading.Event | None = None,
    ) -> CommandResult:
        """Run a shell command that reads or writes much, or what is no text, or takes long; as :meth:`run` else.

        Args:
            source: what the command reads, piece by piece.
            sink: takes its standard output, of which the result then has nothing.
            cancel: set it from another thread to stop listening; what runs there goes on or ends by itself.

        Raises:
            CancelledError: ``cancel`` was set.
        """
        from paramiko import SSHException

        connection = self._connect()
        try:
            channel = connection.transport.open_session(timeout=CONNECT_TIMEOUT)
            with contextlib.closing(channel):
                channel.exec_command(command)
                return flow(channel, source, sink, timeout=timeout, cancel=cancel, what=command)
        except (SSHException, OSError, EOFError) as error:
            self.close()
            raise TemporaryError(f"the connection broke: {error}") from error

    def channel(self, endpoint: Endpoint) -> Channel:
        """A way through this machine to another one.

        Raises:
            TemporaryError: nobody answers there, or the connection broke.
        """
        from paramiko import SSHException

        try:
            to = (endpoint.host, endpoint.port)
            transport: Transport = self._connect().transport
            return transport.open_channel("direct-tcpip", to, ("127.0.0.1", 0), timeout=CONNECT_TIMEOUT)
        except (SSHException, OSError, EOFError) as error:
            raise TemporaryError(f"no way to {endpoint.host} yet: {error}") from error

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
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._tunnel is not None:
            self._tunnel.close()
            self._tunnel = None


def _loaded(key: SshKey) -> PKey:
    from paramiko import Ed25519Key

    return Ed25519Key.from_private_key(io.StringIO(key.private))


def _own_keys(user: str) -> Any:
    """The user's own keys, tried one after the other on one connection, as paramiko wants that."""
    from paramiko import AuthenticationException
    from paramiko.auth_strategy import AuthSource, AuthStrategy
    from paramiko.config import SSHConfig

    class Refused(AuthenticationException):
        def __init__(self, tried: tuple[str, ...]) -> None:
            super().__init__("no key was accepted")
            self.tried = tried

    class OwnKeys(AuthStrategy):
        def get_sources(self) -> Iterator[AuthSource]:
            return iter(())

        def authenticate(self, transport: Transport) -> list[Any]:
            tried: list[str] = []
            with contextlib.closing(_identities()) as identities:
                for name, key in identities:
                    if key is None:
                        tried.append(name)
                    elif not transport.is_active():
                        tried.append(f"{name} (not tried: the machine had enough of the others)")
                    elif _accepted(transport, user, key):
                        return []
                    else:
                        tried.append(name)
            raise Refused(tuple(tried))

    return OwnKeys(SSHConfig())


def _accepted(transport: Transport, user: str, key: PKey) -> bool:
    from paramiko import SSHException

    try:
        transport.auth_publickey(user, key)
    except (SSHException, EOFError):
        return False
    return True


def _identities() -> Generator[tuple[str, PKey | None]]:
    """The keys that a person has, each with its name for people; None where one cannot be used, and the name says why.

    A key file with a passphrase is used through the agent, or not at all: nothing here asks a person.
    """
    from paramiko import Agent, SSHException

    named = os.environ.get(KEY_VARIABLE, "")
    folder = Path.home() / ".ssh"
    files = [Path(named).expanduser()] if named else [file for name in USUAL_KEYS if (file := folder / name).exists()]
    with contextlib.ExitStack() as stack:
        agents: Sequence[AgentKey] = ()
        with contextlib.suppress(SSHException, OSError):  # then there is no agent, for all that matters here
            agents = stack.enter_context(contextlib.closing(Agent())).get_keys()
        if named:
            agents = [key for key in agents if key.asbytes() == _public(files[0])]
        for key in agents:
            yield f"{key.comment or key.fingerprint} (agent)", key
        known = {key.asbytes() for key in agents}
        for file in files:
            if _public(file) not in known:
                yield _from_file(file)


def _from_file(file: Path) -> tuple[str, PKey | None]:
    from paramiko import PKey, SSHException
    from paramiko.pkey import UnknownKeyType

    try:
        return str(file), PKey.from_path(str(file))
    except OSError as error:
        return f"{file} (not read: {error.strerror})", None
    except TypeError:
        return f"{file} (not used: it has a passphrase; `ssh-add {file}` first)", None
    except (ValueError, SSHException, UnknownKeyType):
        return f"{file} (not used: no private key that can be read)", None


def _public(file: Path) -> bytes:
    """What is public of a private key's file, from the file beside it; empty when there is none."""
    from base64 import b64decode

    try:
        return b64decode(file.with_name(f"{file.name}.pub").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return b""
