"""The certificate of a Hub on k3s without a domain, signed by the cluster's own authority. The same in every run."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vcluster.k3s_ca import Authority, authority, private_key

if TYPE_CHECKING:
    from vcluster.secrets import Keyring

__all__ = ["fingerprint", "front_authority", "front_certificate"]

PURPOSE = "jupyterhub"


def front_authority(keyring: Keyring) -> Authority:
    """The authority that people may trust, and whose fingerprint they compare."""
    return authority(keyring, PURPOSE)


def fingerprint(pem: str) -> str:
    """SHA-256 of a certificate as browsers show it: pairs of hex digits with colons."""
    digest = x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256()).hex().upper()
    return ":".join(digest[n : n + 2] for n in range(0, len(digest), 2))


def front_certificate(keyring: Keyring, names: Iterable[str]) -> tuple[str, str]:
    """The certificate, with the authority's below it, and its key, both PEM.

    Good as long as the authority is: nothing here says when a cluster was made. Safari alone refuses such a long time,
    and it, too, lets people go on who compared the fingerprint.

    Args:
        names: host names and addresses under which the Hub is reached; the first is the subject.
    """
    every = list(dict.fromkeys(name for name in names if name))
    above = front_authority(keyring)
    issuer = x509.load_pem_x509_certificate(above.certificate.encode())
    signer = private_key(keyring, f"k3s/{PURPOSE}")
    key = private_key(keyring, f"k3s/{PURPOSE}/front")
    # Another serial number for other names: browsers refuse two certificates of one number.
    serial = int.from_bytes(keyring.key(f"k3s/{PURPOSE}/front/{' '.join(every)}", 16)) >> 1 | 1
    begin = issuer.not_valid_before_utc
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, every[0][:64])]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(begin)
        .not_valid_after(issuer.not_valid_after_utc - datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in every]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256(), ecdsa_deterministic=True)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM).decode() + above.certificate
    return chain, private.decode()


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
