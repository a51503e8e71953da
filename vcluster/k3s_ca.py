"""The certificate authorities of a Kubernetes cluster, made before anything boots, and the tokens that name them.

k3s makes its authorities when its first server starts, unless it finds them (k3s documentation, "k3s certificate",
"Using custom CA certificates"). These come from the cluster's secret, key and signature both (RFC 6979), so that every
run renders the same bytes, and machines that have not booted yet can be told which authority they will meet.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from vcluster.secrets import Keyring

__all__ = ["AUTHORITIES", "Authority", "agent_token", "authority", "join_token", "private_key", "server_token"]

AUTHORITIES = ("server-ca", "client-ca", "request-header-ca", "etcd/server-ca", "etcd/peer-ca")
"""Those that k3s looks for below ``server/tls``, each a ``.crt`` and a ``.key``."""

_BEGIN = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
_END = datetime.datetime(2055, 1, 1, tzinfo=datetime.UTC)
"""Fixed, because nothing says when a cluster was made; k3s' own leaf certificates live for a year."""

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group P-256 (FIPS 186-5; SEC 2, 2.4.2)."""


@dataclass(frozen=True, slots=True, repr=False)
class Authority:
    """A certificate and its key, PEM texts."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        return "Authority(…)"

    @property
    def sha256(self) -> str:
        """What k3s' tokens pin: SHA-256 of the certificate as ``/cacerts`` gives it, 64 hex digits."""
        return hashlib.sha256(self.certificate.encode()).hexdigest()


def private_key(keyring: Keyring, purpose: str) -> ec.EllipticCurvePrivateKey:
    """The P-256 key for one purpose: 48 derived bytes reduced to a scalar, which leaves no bias (FIPS 186-5, A.4.1)."""
    scalar = int.from_bytes(keyring.key(purpose, 48)) % (_ORDER - 1) + 1
    return ec.derive_private_key(scalar, ec.SECP256R1())


def authority(keyring: Keyring, name: str) -> Authority:
    """The authority of this name; the same in every run.

    Args:
        name: one of :data:`AUTHORITIES`, or another purpose.
    """
    key = private_key(keyring, f"k3s/{name}")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"vcluster-k3s-{name.replace('/', '-')}")])
    public = key.public_key()
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(int.from_bytes(keyring.key(f"k3s/{name}/serial", 16)) >> 1 | 1)
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(usage, critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    return Authority(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ).decode(),
    )


def server_token(keyring: Keyring) -> str:
    """With which a server joins: who has it is the cluster's administrator, and can read its encrypted secrets."""
    return keyring.password("k3s-server")


def agent_token(keyring: Keyring) -> str:
    """With which an agent joins, and nothing else."""
    return keyring.password("k3s-agent")


def join_token(keyring: Keyring, *, server: bool) -> str:
    """A token in its full form, which pins the authority: ``K10<sha256>::<user>:<password>``."""
    user, password = ("server", server_token(keyring)) if server else ("node", agent_token(keyring))
    return f"K10{authority(keyring, 'server-ca').sha256}::{user}:{password}"
