"""One random secret a cluster; every symmetric key and host key comes from it by HKDF.

The secret lies in the cluster's folder on the user's disk (0600). ``HKDF(secret, purpose, generation)`` (RFC 5869,
SHA-256) gives the same keys in every run, so any run renders the same machine.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets as random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vcluster.errors import disk_errors

__all__ = ["SECRET_BYTES", "Keyring", "SshKey", "decode", "load_or_create"]

SECRET_BYTES = 32


@dataclass(frozen=True, repr=False)
class SshKey:
    """An ed25519 key pair. ``private`` is OpenSSH PEM text, ``public`` one ``ssh-ed25519 AAAA… comment`` line."""

    private: str
    public: str


class Keyring:
    """Derives a cluster's keys.

    Args:
        secret: the cluster's secret, 32 random bytes.
        generation: raised to make all keys anew.
    """

    def __init__(self, secret: bytes, generation: int = 1) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a cluster's secret has {SECRET_BYTES} bytes, this one has {len(secret)}")
        self._secret = secret
        self._generation = generation

    def __repr__(self) -> str:
        return "Keyring(…)"

    def key(self, purpose: str, length: int = 32) -> bytes:
        """``length`` bytes for one purpose (``"munge"``, ``"ssh-host/head"``, …)."""
        info = f"vcluster/{purpose}/{self._generation}".encode()
        return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info).derive(self._secret)

    def password(self, purpose: str) -> str:
        """A password of 32 hex digits for one purpose."""
        return self.key(purpose, 16).hex()

    def ssh_key(self, purpose: str, comment: str) -> SshKey:
        """The ed25519 key pair for one purpose."""
        key = Ed25519PrivateKey.from_private_bytes(self.key(purpose))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return SshKey(_settled(private.decode(), self.key(f"{purpose}/check", 4)), f"{public.decode()} {comment}")

    @cached_property
    def claim(self) -> str:
        """12 hex digits that tell one secret from another and give nothing of it away; they may be public."""
        return self.key("claim", 6).hex()

    @property
    def secret(self) -> bytes:
        """What all keys come from: for the cluster's folder and the head's own copy, and nowhere else."""
        return self._secret

    @property
    def encoded(self) -> str:
        """The secret as one line of base64."""
        return base64.b64encode(self._secret).decode()

    @cached_property
    def admin(self) -> SshKey:
        """The launcher's own way in as administrator."""
        return self.ssh_key("ssh-admin", "vcluster-admin")

    def host(self, machine: str) -> SshKey:
        """A machine's SSH host key."""
        return self.ssh_key(f"ssh-host/{machine}", machine)


def _settled(pem: str, check: bytes) -> str:
    """The same key with a derived number where OpenSSH's format holds a random one, so that any run renders it alike.

    The number stands twice at the head of the private part, to tell a wrong passphrase (OpenSSH, PROTOCOL.key).
    """
    first, *body, last = pem.splitlines()
    raw = bytearray(base64.b64decode("".join(body)))
    at = len(b"openssh-key-v1\0")
    for _ in ("cipher", "kdf", "kdf options"):
        at += 4 + int.from_bytes(raw[at : at + 4], "big")
    at += 4  # the number of keys, which is one
    at += 4 + int.from_bytes(raw[at : at + 4], "big")  # the public part
    at += 4  # the private part's length
    raw[at : at + 8] = check * 2
    text = base64.b64encode(raw).decode()
    return "\n".join([first, *(text[n : n + 70] for n in range(0, len(text), 70)), last, ""])


def decode(text: str) -> bytes:
    """The secret in what :attr:`Keyring.encoded` gave.

    Raises:
        ValueError: it is no such text; says nothing of its content.
    """
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        raise ValueError("this is not base64") from None
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a cluster's secret has {SECRET_BYTES} bytes, this one has {len(secret)}")
    return secret


def load_or_create(path: Path) -> bytes:
    """The secret in a file, made there (0600, all or nothing) when there is none.

    Two processes that race end with the same secret: the file appears by ``link(2)``, which only one can win.

    Raises:
        QuotaError: the disk is full.
        PermanentError: the folder cannot be written, or the secret not read.
    """
    with disk_errors("cannot keep the cluster's secret"):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _create(path)
        return path.read_bytes()


def _create(path: Path) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.{random.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(random.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
