"""A cluster's authorities and tokens: the same in every run, nobody else's, and each machine has what it needs."""

from __future__ import annotations

import datetime
import hashlib
import re
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from k3s_machines_kit import (
    KEYS,
    THREE,
    certificate_files,
    config_of,
    files_of,
    holds,
    leaf,
    server_context,
    site,
    text_of,
)
from slurm_kit import SECRET

from vcluster.k3s_ca import AUTHORITIES, agent_token, authority, join_token, server_token
from vcluster.secrets import Keyring
from vcluster.stacks.k3s import DATA

OTHER = Keyring(bytes(32))


def test_every_run_makes_the_same_authorities_to_the_letter() -> None:
    for name in AUTHORITIES:
        one, two = authority(Keyring(SECRET), name), authority(Keyring(SECRET), name)
        assert (one.certificate, one.key) == (two.certificate, two.key)


def test_another_name_cluster_or_generation_makes_another_authority() -> None:
    rings = (KEYS, OTHER, Keyring(SECRET, generation=2))
    made = [authority(keyring, name) for keyring in rings for name in AUTHORITIES]
    read = [x509.load_pem_x509_certificate(each.certificate.encode()) for each in made]
    assert len({each.key for each in made}) == len(made)
    assert len({each.sha256 for each in made}) == len(made)
    assert len({each.serial_number for each in read}) == len(made)
    assert len({each.subject for each in read}) == len(AUTHORITIES)


@pytest.mark.parametrize("name", AUTHORITIES)
def test_an_authority_is_one(name: str) -> None:
    made = authority(KEYS, name)
    certificate = x509.load_pem_x509_certificate(made.certificate.encode())
    private = load_pem_private_key(made.key.encode(), None)
    assert private.public_key() == certificate.public_key()
    assert made.key.startswith("-----BEGIN EC PRIVATE KEY-----\n")  # SEC 1, as k3s writes its own
    certificate.verify_directly_issued_by(certificate)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, None)
    assert (usage.critical, usage.value.key_cert_sign) == (True, True)
    assert 0 < certificate.serial_number < 1 << 127
    # A certificate that an authority signs cannot outlive it, and a machine's clock may be wrong at its first boot.
    assert certificate.not_valid_before_utc == datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
    assert certificate.not_valid_after_utc == datetime.datetime(2055, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize("name", AUTHORITIES)
def test_openssl_believes_what_it_signed_and_not_what_another_cluster_did(name: str, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(authority(KEYS, name).certificate)
    (tmp_path / "mine.pem").write_text(leaf(authority(KEYS, name), "kube-apiserver")[0])
    (tmp_path / "theirs.pem").write_text(leaf(authority(OTHER, name), "kube-apiserver")[0])
    said = {}
    for which in ("ca", "mine", "theirs"):
        command = ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-CAfile", "ca.pem", f"{which}.pem"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        said[which] = (done.returncode, done.stdout.strip())
    assert said["ca"] == (0, "ca.pem: OK")
    assert said["mine"] == (0, "mine.pem: OK")
    assert said["theirs"][0] != 0


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """TLS in memory; the client names the loopback.

    Raises:
        ssl.SSLError: one side does not believe the other.
    """
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname="127.0.0.1"),
        server.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(10):
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
    assert not ends


def test_who_trusts_the_authority_believes_a_server_that_has_its_certificate(tmp_path: Path) -> None:
    mine = ssl.create_default_context(cadata=authority(KEYS, "server-ca").certificate)
    mine.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13, Debian 13's, does by itself
    handshake(server_context(tmp_path), mine)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_context(tmp_path, OTHER), mine)
    clients = ssl.create_default_context(cadata=authority(KEYS, "client-ca").certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_context(tmp_path), clients)


def test_an_authority_keeps_its_key_to_itself() -> None:
    assert "PRIVATE" not in repr(authority(KEYS, "server-ca"))


def test_every_server_has_the_same_authorities_and_an_agent_has_none() -> None:
    where = site(**THREE)
    expected = {f"{name}.{kind}" for name in AUTHORITIES for kind in ("crt", "key")}
    head, second, third = (certificate_files(where, name) for name in ("head", "head-2", "head-3"))
    assert set(head) == expected
    assert head == second == third
    assert certificate_files(where, "cpu-1") == {}


def test_an_agents_token_pins_the_file_that_lies_on_the_servers() -> None:
    where = site()
    file = text_of(files_of(where, "head")[f"{DATA}/server/tls/server-ca.crt"])
    digest = hashlib.sha256(file.encode()).hexdigest()
    token = config_of(where, "cpu-1")["token"]
    assert token == f"K10{digest}::node:{agent_token(KEYS)}"
    assert re.fullmatch(r"K10[0-9a-f]{64}::node:[0-9a-f]{32}", token)
    assert join_token(KEYS, server=True) == f"K10{digest}::server:{server_token(KEYS)}"


def test_servers_know_both_tokens_and_they_differ() -> None:
    where = site(**THREE)
    assert len({server_token(KEYS), agent_token(KEYS), server_token(OTHER), agent_token(OTHER)}) == 4
    for name in ("head", "head-2", "head-3"):
        config = config_of(where, name)
        assert (config["token"], config["agent-token"]) == (server_token(KEYS), agent_token(KEYS))


def test_an_agent_gets_only_what_an_agent_needs() -> None:
    where = site(**THREE)
    forbidden: dict[str, bytes | str] = {
        "the cluster's secret": SECRET,
        "the server token": server_token(KEYS),
        "the administrator's key": KEYS.admin.private,
        "a server's host key": KEYS.host("head").private,
        "another agent's host key": KEYS.host("cpu-2").private,
        "a server's node password": KEYS.password("k3s-node/head"),
        "another agent's node password": KEYS.password("k3s-node/cpu-2"),
        **{f"the key of {name}": authority(KEYS, name).key for name in AUTHORITIES},
    }
    files = files_of(where, "cpu-1")
    for path, file in files.items():
        found = [what for what, secret in forbidden.items() if holds(text_of(file), secret)]
        assert not found, path
    # What is looked for would be found: it is where it belongs.
    head = "".join(text_of(file) for file in files_of(where, "head").values())
    for what in ("the cluster's secret", "the server token", "a server's node password", "the key of etcd/peer-ca"):
        assert holds(head, forbidden[what]), what
    assert holds("".join(map(text_of, files.values())), agent_token(KEYS))


def test_only_the_head_has_the_secret_of_all_secrets() -> None:
    where = site(**THREE)
    holders = [
        slot.name
        for slot in where.slots
        if any(holds(text_of(file), SECRET) for file in files_of(where, slot.name).values())
    ]
    assert holders == ["head"]


def test_every_file_with_a_secret_is_roots_alone() -> None:
    where = site(**THREE)
    secrets = [SECRET, server_token(KEYS), agent_token(KEYS), *(authority(KEYS, name).key for name in AUTHORITIES)]
    secrets += [KEYS.password(f"k3s-node/{slot.name}") for slot in where.slots]
    seen = set()
    for slot in where.slots:
        for path, file in files_of(where, slot.name).items():
            if any(holds(text_of(file), secret) for secret in secrets):
                seen.add(path)
                assert int(file["permissions"], 8) & 0o077 == 0, (slot.name, path)
    assert {"/etc/vcluster/k3s/config.yaml", "/etc/rancher/node/password", "/etc/vcluster/secrets/cluster"} <= seen
    assert {f"{DATA}/server/tls/{name}.key" for name in AUTHORITIES} <= seen


def test_a_machine_that_takes_a_dead_ones_name_knows_its_password() -> None:
    one, again = site(), site(founded=True)
    path = "/etc/rancher/node/password"
    found = [text_of(files_of(where, name)[path]) for where in (one, again) for name in ("head", "cpu-1", "cpu-2")]
    assert found[:3] == found[3:]
    assert len(set(found)) == 3
