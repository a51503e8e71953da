"""The front door's certificate and address.

Without a domain the cluster is its own certificate authority: its key is made here and never leaves. The launcher says
under which address people come, and the certificate is made for that and for the head's own names.
"""

import datetime
import hashlib
import ipaddress
import json
import os
import ssl
import time
from urllib.parse import urlsplit

from hub_api import Down, not_started, wait_until_up
from hub_state import ROOT, Sorry, alone, facts, gid, keep, read, run, write

TLS = ROOT / "etc/vcluster/tls"
FRONT = "front.json"

CA_DAYS = 3650
LEAF_DAYS = 397
"""Browsers believe no certificate that is to live longer."""

RENEW_DAYS = 30
BACK = datetime.timedelta(days=1)
"""A person's clock may be behind the head's."""

HUB_SECONDS = 180
"""How long a Hub may take to come back, on an emulated machine."""


def leaf():
    """Make sure that there is a certificate for every name of the front door; whether it was made anew."""
    known = facts()
    if known.get("domain"):
        return False  # Let's Encrypt's matter
    with alone():
        names = _names(known, (read(FRONT) or {}).get("url", ""))
        TLS.mkdir(mode=0o750, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(TLS, 0, gid("caddy"))
        TLS.chmod(0o750)
        if _good(names):
            return False
        _issue(known, names)
        return True


def front(given):
    """Take the address under which people come; restarts what must know it, and only that.

    Args:
        given: ``{"url": "https://127.0.0.1:40443/"}``.
    """
    url = str(given.get("url", ""))
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path != "/" or parts.username or parts.query:
        raise Sorry(f"{url!r} is no address of a front door")
    known = facts()
    old = read(FRONT)
    before = old["url"] if old else _by_domain(known)
    with alone():
        if not old or old["url"] != url:
            keep(FRONT, {"url": url})
    if leaf() or (old is None and known.get("domain")):  # with a domain it waited for this
        run("systemctl", "restart", "caddy.service", timeout=120)
    if before != url:
        # Until the old one is gone, which answers until then and would be taken for the new one.
        run("systemctl", "restart", "jupyterhub.service", timeout=120)
    ready = wait_until_up(HUB_SECONDS)
    if not ready and (why := not_started()):
        raise Down(f"the Hub does not start: {why}")
    return {"url": url, "first": read("shown.json") is None, "ready": ready, **authority()}


def authority():
    """The cluster's own certificate authority, to be trusted: PEM text and fingerprint; both None with a domain."""
    if facts().get("domain"):
        return {"ca": None, "fingerprint": None}
    try:
        pem = (TLS / "ca.pem").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Sorry("the certificate authority is not made yet") from None
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
    return {"ca": pem, "fingerprint": ":".join(digest[n : n + 2] for n in range(0, len(digest), 2))}


def _by_domain(known):
    return f"https://{known['domain']}/" if known.get("domain") else ""


def _names(known, url):
    """What the certificate is for, in an order that stays."""
    names = ["localhost", "127.0.0.1", known["head"]["name"], known["head"]["address"]]
    host = urlsplit(url).hostname
    return [*names, *([host] if host and host not in names else [])]


def _good(names):
    """Whether the certificate that is there will do; without loading what could read it, which takes long."""
    try:
        told = json.loads((TLS / "leaf.json").read_text(encoding="utf-8"))
        digest = hashlib.sha256((TLS / "cert.pem").read_bytes() + (TLS / "ca.pem").read_bytes()).hexdigest()
        whole = (TLS / "key.pem").stat().st_size and (TLS / "ca-key.pem").stat().st_size
    except (OSError, ValueError):
        return False
    return bool(
        whole
        and told["digest"] == digest
        and set(names) <= set(told["names"])
        and told["until"] - time.time() > RENEW_DAYS * 86400
    )


def _issue(known, names):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    ca_key, ca = _authority(known)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    until = min(now - BACK + datetime.timedelta(days=LEAF_DAYS), ca.not_valid_after_utc)
    alternatives = [_alternative(x509, name) for name in names]
    cert = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"JupyterHub of {known['cluster']}"[:64])]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACK)
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(x509, digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    chain = _pem(cert) + _pem(ca)
    # The key first and the note last: whoever is killed in between begins anew.
    (TLS / "leaf.json").unlink(missing_ok=True)
    write(TLS / "key.pem", _key_text(key), 0o640, "caddy")
    write(TLS / "cert.pem", chain, 0o644, "caddy")
    digest = hashlib.sha256(chain.encode() + _pem(ca).encode()).hexdigest()
    note = {"names": names, "until": until.timestamp(), "digest": digest}
    write(TLS / "leaf.json", json.dumps(note) + "\n", 0o600)


def _authority(known):
    """The authority's key and certificate; made when they are not both there."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    try:
        key = serialization.load_pem_private_key((TLS / "ca-key.pem").read_bytes(), password=None)
        ca = x509.load_pem_x509_certificate((TLS / "ca.pem").read_bytes())
        if ca.public_key() == key.public_key() and ca.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > BACK:
            return key, ca
    except (OSError, ValueError):
        pass  # not there, or a half of it: nobody can have trusted it for long
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"vcluster {known['cluster']}"[:64])])
    ca = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACK)
        .not_valid_after(now + datetime.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(x509, key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write(TLS / "ca-key.pem", _key_text(key), 0o600)
    write(TLS / "ca.pem", _pem(ca), 0o644, "caddy")
    return key, ca


def _alternative(x509, name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(x509, **given):
    words = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{word: given.get(word, False) for word in words})


def _pem(cert):
    from cryptography.hazmat.primitives.serialization import Encoding

    return cert.public_bytes(Encoding.PEM).decode()


def _key_text(key):
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
