"""Values of a spec that are texts or name files that hold them: public keys, scripts, certificates, disk images.

After this page a spec is self-contained. No message repeats what a file holds, since it may be a secret.
"""

from __future__ import annotations

import base64
import binascii
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from vcluster.spec_checks import RefusedError, Trouble, show, url

__all__ = ["certificates", "image_source", "locate", "public_keys", "read", "script"]

KEY_TYPES = {
    "ssh-ed25519": 2,
    "ssh-rsa": 3,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "sk-ssh-ed25519@openssh.com": 3,
    "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}
"""Type to the number of fields that its binary form has (RFC 4253, RFC 5656, OpenSSH's PROTOCOL.u2f)."""

KEY_FILE_BYTES = 64 * 1024
SCRIPT_BYTES = 16 * 1024
PEM_BYTES = 256 * 1024
RSA_BITS = 2048
SAFE_COMMENT = re.compile(r"[^A-Za-z0-9@._+:/ -]")
# Printable and without what a shell or a quoted string would take for its own.
SAFE_PATH = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\"'\\`$]{1,1024}")
IMAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:()+ -]{0,127}")


def _is_private(text: str) -> bool:
    return "PRIVATE KEY" in text or text.startswith("PuTTY-User-Key-File")


def locate(value: str, folder: Path | None) -> Path:
    """Where a named file is; a ``~`` is the home, a relative path begins at the spec's folder."""
    if _is_private(value):
        raise RefusedError(
            "this is a private key: it must stay with its owner", "give the public one, from the .pub file"
        )
    if not SAFE_PATH.fullmatch(value):
        raise RefusedError(f"must be a file's name or the text itself, got {show(value)}")
    if folder is None:
        raise RefusedError(
            f"names a file, {show(value)}, but this spec came as text alone", "put the text itself here, or load a file"
        )
    try:
        return folder / Path(value).expanduser()
    except RuntimeError:
        raise RefusedError(f"{show(value)}: that user has no home on this machine") from None


def read(path: Path, most: int, remedy: str) -> str:
    """The text of a regular file of at most ``most`` bytes."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise RefusedError(f"{path} is a directory", "name a file")
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(f"{path} is not an ordinary file")
        if status.st_size > most:
            raise RefusedError(f"{path} has {status.st_size} bytes, at most {most} are allowed")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise RefusedError(f"there is no file {path}", remedy) from None
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > most:
        raise RefusedError(f"{path} is larger than {most} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise RefusedError(f"{path} is not UTF-8 text") from None


def public_keys(values: Iterable[object], folder: Path | None) -> tuple[str, ...]:
    """OpenSSH public keys, one line each, in canonical form and each once.

    Args:
        values: keys, or names of files with one or more.
        folder: where relative names begin; None refuses files.

    Raises:
        RefusedError: with the position of every wrong one.
    """
    keys: dict[str, str] = {}
    troubles: list[Trouble] = []
    for index, value in enumerate(values):
        try:
            for line in _key_lines(value, folder):
                key = _key(line)
                keys.setdefault(key.split()[1], key)
        except RefusedError as refusal:
            troubles += (trouble.under((index,)) for trouble in refusal.troubles)
    if troubles:
        raise RefusedError(troubles=troubles)
    return tuple(keys.values())


def _key_lines(value: object, folder: Path | None) -> list[str]:
    if not isinstance(value, str):
        raise RefusedError(
            troubles=[Trouble((), f"must be a public key or a file's name, got {show(value)}", quote=True)]
        )
    text = value.strip()
    # A word that is a key type makes it a key, whatever stands before it: options are refused further on.
    if re.match(r"(ssh|ecdsa|sk)-", text) or (not _is_private(text) and set(text.split()) & KEY_TYPES.keys()):
        return [text]
    path = locate(text, folder)
    others = sorted(path.parent.glob("*.pub")) if path.parent.name == ".ssh" else []
    remedy = f"there is {', '.join(p.name for p in others[:5])}" if others else "make a key: ssh-keygen -t ed25519"
    text = read(path, KEY_FILE_BYTES, f"{remedy}; or leave it out, vcluster has a key of its own")
    if _is_private(text):
        raise RefusedError(
            f"{path} is a private key: it must stay with its owner", f"give the public one, {path.name}.pub"
        )
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise RefusedError(f"{path} holds no key")
    if lines[0].startswith("---- BEGIN SSH2"):
        raise RefusedError(f"{path} is in another format", f"ssh-keygen -i -f {path.name}")
    return lines


def _key(line: str) -> str:
    """``type base64 comment`` of one line; its comment is cut down to harmless characters."""
    words = line.split(None, 2)
    if words[0] not in KEY_TYPES:
        if set(line.split()) & KEY_TYPES.keys():
            raise RefusedError("options before a key (such as command=) are not supported", "begin with the key's type")
        if words[0] in {"ssh-dss", "ssh-dsa"}:
            raise RefusedError("DSA keys are refused by SSH servers", "make a key: ssh-keygen -t ed25519")
        raise RefusedError("is not a public key of a known type", "one of " + ", ".join(KEY_TYPES))
    cut = RefusedError("is not a whole public key: was a part lost in copying?", "copy the whole line of the .pub file")
    if len(words) < 2:
        raise cut
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        raise cut from None
    fields = _fields(blob)
    if fields is None or len(fields) != KEY_TYPES[words[0]] or fields[0] != words[0].encode():
        raise cut
    if words[0] == "ssh-ed25519" and len(fields[1]) != 32:
        raise cut
    if words[0] == "ssh-rsa" and (bits := int.from_bytes(fields[2]).bit_length()) < RSA_BITS:
        raise RefusedError(f"is an RSA key of {bits} bits, at least {RSA_BITS} are needed", "ssh-keygen -t ed25519")
    if words[0].startswith("ecdsa-") and fields[1] != words[0].removeprefix("ecdsa-sha2-").encode():
        raise cut
    comment = " ".join(SAFE_COMMENT.sub("", words[2] if len(words) > 2 else "").split())[:100].strip()
    return " ".join([words[0], base64.b64encode(blob).decode(), comment]).strip()


def _fields(blob: bytes) -> list[bytes] | None:
    """The length-prefixed fields of a key's binary form; None when they do not add up."""
    fields = []
    while blob:
        length = int.from_bytes(blob[:4])
        if len(blob) < 4 + length:
            return None
        fields.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return fields


def script(value: str, folder: Path | None) -> str:
    """A script's text, from the text itself (``#!`` first) or a file's name; empty for none."""
    if not value:
        return ""
    named = not value.startswith("#!")
    text = read(locate(value, folder), SCRIPT_BYTES, "name it relative to the spec's folder") if named else value
    # Only a file may be named in the message; an inline text is where the mark points anyway.
    which = f"{value} " if named else ""
    if not text.startswith("#!"):
        raise RefusedError(f"{which}must begin with #! and an interpreter", "make its first line #!/bin/bash")
    if "\r" in text:
        raise RefusedError(
            f"{which}has the line ends of Windows", f"dos2unix {value}" if named else "use plain line ends"
        )
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text):
        raise RefusedError(f"{which}holds control characters: it is not a text")
    if len(text.encode(errors="replace")) > SCRIPT_BYTES:
        raise RefusedError(f"is longer than {SCRIPT_BYTES} bytes", "let a short script fetch what is long")
    if text.encode(errors="replace") != text.encode(errors="surrogatepass"):
        raise RefusedError(f"{which}is not UTF-8 text")
    return text


def certificates(value: str, folder: Path | None) -> str:
    """Certificates as PEM and nothing else, from PEM text or a file's name; empty for none."""
    if not value:
        return ""
    # Heavy, and hardly any spec needs it.
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    inline = value.lstrip().startswith("-----BEGIN")
    text = value if inline else read(locate(value, folder), PEM_BYTES, "name it relative to the spec's folder")
    if _is_private(text):
        raise RefusedError(
            "holds a private key: a certificate authority's must stay with it", "give the certificate alone"
        )
    try:
        found = x509.load_pem_x509_certificates(text.encode())
    except (ValueError, UnicodeEncodeError):
        raise RefusedError(
            "is not a certificate in PEM form", "-----BEGIN CERTIFICATE-----; openssl x509 -inform der converts"
        ) from None
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in found)


def image_source(value: str, folder: Path | None) -> str:
    """A disk image: an http or https address, a file's absolute path, or the cloud's own name for it."""
    if not value or re.match(r"https?://", value):
        return url(value)
    if "/" in value or value.startswith("~") or value.endswith((".qcow2", ".img", ".raw")):
        # Whether it exists is the cloud's question: a cluster's spec is also read where the image is not.
        return str(locate(value, folder).absolute())
    if not IMAGE_NAME.fullmatch(value):
        raise RefusedError(f"must be an image's address, path or name, got {show(value)}")
    return value
