"""Keys come from the secret alone: the same in every run, another for each purpose, and OpenSSH reads them."""

from __future__ import annotations

import io
import stat
import threading
from pathlib import Path

import pytest
from paramiko import Ed25519Key

from vcluster.secrets import SECRET_BYTES, Keyring, decode, load_or_create

SECRET = bytes(range(SECRET_BYTES))


def test_every_run_makes_the_same_keys_to_the_letter() -> None:
    one, two = Keyring(SECRET), Keyring(SECRET)
    assert one.host("head").private == two.host("head").private
    assert one.admin.public == two.admin.public
    assert one.key("munge", 128) == two.key("munge", 128)


def test_another_purpose_machine_secret_or_generation_makes_another_key() -> None:
    keys = [
        Keyring(SECRET).key("munge"),
        Keyring(SECRET).key("other"),
        Keyring(SECRET, generation=2).key("munge"),
        Keyring(bytes(SECRET_BYTES)).key("munge"),
        Keyring(SECRET).host("head").private,
        Keyring(SECRET).host("cpu-1").private,
    ]
    assert len(set(keys)) == len(keys)


def test_the_private_key_is_the_public_ones() -> None:
    pair = Keyring(SECRET).host("head")
    key = Ed25519Key.from_private_key(io.StringIO(pair.private))
    assert pair.public.split()[:2] == ["ssh-ed25519", key.get_base64()]


def test_a_keyring_shows_nothing() -> None:
    assert SECRET.hex() not in repr(Keyring(SECRET))
    assert "PRIVATE" not in repr(Keyring(SECRET).admin)


def test_two_who_make_a_secret_at_once_have_the_same(tmp_path: Path) -> None:
    path, found = tmp_path / "cluster" / "secret", []
    threads = [threading.Thread(target=lambda: found.append(load_or_create(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


def test_a_claim_tells_secrets_apart_and_nothing_else() -> None:
    claim = Keyring(SECRET).claim
    assert claim == Keyring(SECRET).claim
    assert claim != Keyring(bytes(SECRET_BYTES)).claim
    assert len(claim) == 12
    assert set(claim) <= set("0123456789abcdef")
    # No piece of another key: what is public about one tells nothing of the others.
    assert claim not in Keyring(SECRET).key("munge", 128).hex()


def test_a_secret_survives_its_way_as_text() -> None:
    assert decode(f"{Keyring(SECRET).encoded}\n") == SECRET


@pytest.mark.parametrize("text", ["", "not base64!", "AAAA", Keyring(SECRET).encoded + "AAAA"])
def test_what_is_no_secret_is_refused_without_being_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64|32 bytes") as found:
        decode(text)
    assert not text or text not in str(found.value)
