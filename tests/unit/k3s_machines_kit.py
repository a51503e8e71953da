"""A Kubernetes cluster to render, the programs of its machines to call, and certificates of its authorities."""

from __future__ import annotations

import base64
import datetime
import importlib.machinery
import importlib.util
import ipaddress
import ssl
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from slurm_kit import SECRET, parsed

from vcluster.k3s_ca import AUTHORITIES, Authority, authority
from vcluster.model import ClusterRef, Flavor, Network, Port, Role, Slot
from vcluster.resources import templates
from vcluster.secrets import Keyring
from vcluster.spec import ClusterSpec
from vcluster.stacks.base import Site
from vcluster.stacks.k3s import DATA, K3sStack

KEYS = Keyring(SECRET)
GUARDED = ("10.0.2.0/24", "169.254.169.254", "fec0::2")
ELSEWHERE: dict[str, Any] = {"cloud": "js2", "head": {"flavor": "m3.small"}}
THREE: dict[str, Any] = {"head": {"count": 3}}


def site(*groups: Mapping[str, Any], guarded: tuple[str, ...] = GUARDED, founded: bool = False, **spec: Any) -> Site:
    """A cluster with these worker groups, its servers' addresses first."""
    workers = [dict(group) for group in groups] or [{"name": "cpu", "count": 2}]
    raw = {"name": "demo", "cloud": "local", "scheduler": "k3s", "workers": workers, **spec}
    made = ClusterSpec.model_validate(raw)
    slots = made.slots(lambda name: Flavor(name, 2, 4096, 8))
    first = ipaddress.IPv4Address("10.77.0.10")
    ports = {
        slot.name: Port(f"p{i}", "tag", slot.name, str(first + i), "52:54:00:00:00:01") for i, slot in enumerate(slots)
    }
    ref = ClusterRef("demo", "project", "0")
    network = Network("net", ref.tag(Role.NETWORK), "10.77.0.0/16")
    return Site(ref, made, network, slots, ports, KEYS, guarded, founded=founded)


def slot_of(where: Site, name: str) -> Slot:
    """One place by its name."""
    return next(slot for slot in where.slots if slot.name == name)


def files_of(where: Site, name: str) -> dict[str, dict[str, Any]]:
    """A machine's files by path, as cloud-init reads them."""
    return parsed(K3sStack().user_data(where, slot_of(where, name)))[1]


def text_of(file: Mapping[str, Any]) -> str:
    """A file's content, whichever way it travels."""
    content = str(file["content"])
    return base64.b64decode(content).decode() if file.get("encoding") == "b64" else content


def config_of(where: Site, name: str) -> dict[str, Any]:
    """A machine's k3s configuration."""
    found = yaml.safe_load(text_of(files_of(where, name)["/etc/vcluster/k3s/config.yaml"]))
    assert isinstance(found, dict)
    return found


def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs find the modules that lie beside them on a machine; each test has its own."""
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    for folder in ("machine", "k3s"):
        monkeypatch.syspath_prepend(templates() / folder)
    for name in ("vcluster_reports", "vcluster_kube"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A program of the machines as a module."""
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(templates() / "k3s" / name))
    beside(monkeypatch)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


# Certificates --------------------------------------------------------------------------------------------------------


def leaf(signer: Authority, name: str, *, organization: str = "", addresses: tuple[str, ...] = ()) -> tuple[str, str]:
    """A certificate of an hour from an authority, and its key; PEM texts."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(signer.certificate.encode())
    private = serialization.load_pem_private_key(signer.key.encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    words = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([*words, x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key()),
            critical=False,
        )
    )
    if addresses:
        names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(private, hashes.SHA256())
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), text.decode()


def tls_folder(data: Path) -> Path:
    """What a server has below ``server/tls``: its authorities, and an administrator's certificate."""
    folder = data / "tls"
    for name in AUTHORITIES:
        made = authority(KEYS, name)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.crt").write_text(made.certificate)
        (folder / f"{name}.key").write_text(made.key)
    admin, key = leaf(authority(KEYS, "client-ca"), "system:admin", organization="system:masters")
    (folder / "client-admin.crt").write_text(admin)
    (folder / "client-admin.key").write_text(key)
    return folder


def server_context(folder: Path, keyring: Keyring = KEYS) -> ssl.SSLContext:
    """A Kubernetes server's side of TLS: its own certificate for the loopback, and clients that show theirs."""
    certificate, key = leaf(authority(keyring, "server-ca"), "kube-apiserver", addresses=("127.0.0.1",))
    (folder / "leaf.pem").write_text(certificate + key)
    (folder / "clients.pem").write_text(authority(keyring, "client-ca").certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "leaf.pem")
    context.load_verify_locations(folder / "clients.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


# Secrets -------------------------------------------------------------------------------------------------------------


def forms(secret: bytes | str) -> Iterator[str]:
    """The ways in which a secret could stand in a text; of a key in PEM a line of its bytes would do."""
    raw = secret.encode() if isinstance(secret, str) else secret
    yield raw.hex()
    yield base64.b64encode(raw).decode()
    if isinstance(secret, str):
        yield from (line for line in secret.splitlines() if len(line) >= 16 and not line.startswith("-----"))


def holds(text: str, secret: bytes | str) -> bool:
    """Whether a secret stands in a text in any form."""
    return any(form in text for form in forms(secret))


def certificate_files(where: Site, name: str) -> dict[str, str]:
    """What lies below a machine's ``server/tls``, by its name there."""
    begin = f"{DATA}/server/tls/"
    return {path.removeprefix(begin): text_of(f) for path, f in files_of(where, name).items() if path.startswith(begin)}
