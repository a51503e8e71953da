"""A real SSH server on loopback, for what speaks SSH: its accounts are keys, its commands a function."""

from __future__ import annotations

import contextlib
import io
import select
import socket
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import paramiko

from vcluster.model import CommandResult, Endpoint
from vcluster.secrets import SshKey

Commands = Callable[[str, str], CommandResult]
"""Takes a command line and its standard input."""


def nothing(command: str, stdin: str) -> CommandResult:
    """Every command works and says itself."""
    return CommandResult(f"{command}\n", "", 0)


@dataclass
class SshServer:
    """What a server was told and what it saw.

    Attributes:
        admitted: public key lines that may log in, as any user.
        tries: how many keys one connection may offer.
        forwards: whether it is a jump host.
    """

    host: SshKey
    admitted: list[str] = field(default_factory=list)
    commands: Commands = nothing
    tries: int = 10
    forwards: bool = False
    port: int = 0
    users: list[str] = field(default_factory=list)
    offered: list[str] = field(default_factory=list)
    forwarded: list[tuple[str, int]] = field(default_factory=list)

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        return Endpoint("127.0.0.1", self.port)

    def admits(self, key: paramiko.PKey) -> bool:
        """Whether this key may log in."""
        self.offered.append(key.fingerprint)
        return any(b64decode(line.split()[1]) == key.asbytes() for line in self.admitted)


class _Session(paramiko.ServerInterface):
    def __init__(self, server: SshServer, transport: paramiko.Transport) -> None:
        self._server, self._transport, self._tried = server, transport, 0

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        if self._server.admits(key):
            if username not in self._server.users:
                self._server.users.append(username)
            return paramiko.AUTH_SUCCESSFUL
        self._tried += 1
        if self._tried >= self._server.tries:
            self._transport.close()
        return paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._execute, args=(channel, command.decode()), daemon=True).start()
        return True

    def _execute(self, channel: paramiko.Channel, command: str) -> None:
        # To its end in any case: the client sends it when it knows that the command began, so no answer comes too soon.
        stdin = channel.makefile("rb").read()
        result = self._server.commands(command, stdin.decode(errors="surrogateescape"))
        # A client that was interrupted, or has heard enough, is gone by now.
        with contextlib.suppress(EOFError, OSError):
            channel.sendall(result.stdout.encode(errors="surrogateescape"))
            channel.sendall_stderr(result.stderr.encode())
            channel.send_exit_status(result.exit_code)
            channel.close()

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        if not self._server.forwards:
            return paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        self._server.forwarded.append(destination)
        try:
            link = socket.create_connection(destination, timeout=60)
        except OSError:
            return paramiko.OPEN_FAILED_CONNECT_FAILED
        threading.Thread(target=self._relay, args=(link, chanid), daemon=True).start()
        return paramiko.OPEN_SUCCEEDED

    def _relay(self, link: socket.socket, chanid: int) -> None:
        # A command's channel waits there to be accepted, too.
        while (channel := self._transport.accept(60)) is not None and channel.get_id() != chanid:
            pass
        if channel is None:
            link.close()
            return
        ends: list[socket.socket | paramiko.Channel] = [link, channel]
        # Whoever leaves first takes the connection along: paramiko says so when the channel is closed after it.
        with contextlib.suppress(EOFError, OSError), link, channel:
            while True:
                for end in select.select(ends, [], [], 30)[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    (channel if end is link else link).sendall(data)


@contextmanager
def ssh_server(server: SshServer) -> Iterator[SshServer]:
    """Serve until the block ends."""
    transports: list[paramiko.Transport] = []
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(server.host.private))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.port = listener.getsockname()[1]

        def serve() -> None:
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                transport = paramiko.Transport(link)
                transports.append(transport)
                transport.add_server_key(key)
                try:
                    transport.start_server(server=_Session(server, transport))
                except (paramiko.SSHException, EOFError, OSError):
                    transport.close()  # a client that only looked whether somebody is there

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(60)
            for transport in transports:
                transport.close()
