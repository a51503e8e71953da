"""Where the base image's packages come from: the host's own sources for its release, or a mirror. Never a password."""

from __future__ import annotations

import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from vcluster.errors import PermanentError, TemporaryError

__all__ = ["answers", "check_mirror", "host_sources", "mirror_sources"]

KEYRING = re.compile(r"/usr/share/keyrings/(debian|ubuntu)-archive-keyring\.(gpg|pgp)")
PATIENCE = 30.0
"""Seconds for a mirror's answer."""


def host_sources(suite: str, etc: Path = Path("/etc/apt")) -> str:
    """The distribution's own entries for this release, as deb822 stanzas; empty when there are none.

    An entry is the distribution's own when its suite is the release or its updates, it has the component ``main``, and
    it is signed with nothing but the distribution's own keyring. All else is somebody else's: it may need a key, a
    password or a network that machines do not have.
    """
    found: list[str] = []
    folder = etc / "sources.list.d"
    for path in (etc / "sources.list", *sorted(folder.glob("*.list")), *sorted(folder.glob("*.sources"))):
        if path.is_file():
            text = path.read_text(errors="replace")
            entries = _stanzas(text) if path.suffix == ".sources" else _one_liners(text)
            found += [stanza for fields in entries if (stanza := _own(fields, suite))]
    return "\n\n".join(dict.fromkeys(found))


def _own(fields: Mapping[str, str], suite: str) -> str:
    names = {suite, f"{suite}-updates", f"{suite}-security"}
    suites = [name for name in fields.get("suites", "").split() if name.rstrip("/") in names]
    signed = fields.get("signed-by", "").strip()
    uris = [uri for given in fields.get("uris", "").split() for uri in _plain(given)]
    if (
        not suites
        or not uris
        or "deb" not in fields.get("types", "").split()
        or "main" not in fields.get("components", "").split()
        or fields.get("enabled", "yes").strip().lower() in {"no", "false", "0"}
        or (signed and not KEYRING.fullmatch(signed))
    ):
        return ""
    return _stanza(" ".join(uris), " ".join(suites), signed)


def _stanza(uris: str, suites: str, signed: str) -> str:
    lines = ["Types: deb", f"URIs: {uris}", f"Suites: {suites}", "Components: main"]
    return "\n".join(lines + ([f"Signed-By: {signed}"] if signed else []))


def _plain(uri: str) -> Iterator[str]:
    """The addresses that a machine can use: over HTTP and without a password; a list of mirrors is read out."""
    if uri.startswith("mirror+file:"):
        path = Path(urlsplit(uri.removeprefix("mirror+")).path)
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        for line in lines:
            if line.strip() and not line.startswith("#"):
                yield from _plain(line.split()[0])
    elif urlsplit(uri).scheme in {"http", "https"} and "@" not in urlsplit(uri).netloc:
        yield uri


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    for stanza in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        yield {name.lower(): value for name, value in re.findall(r"(?m)^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza)}


def _one_liners(text: str) -> Iterator[dict[str, str]]:
    for options, uri, name, components in re.findall(
        r"(?m)^[ \t]*deb[ \t]+(?:\[(.*?)\][ \t]+)?(\S+)[ \t]+(\S+)[ \t]*([^#\n]*)", text
    ):
        signed = re.search(r"signed-by=(\S+)", options)
        fields = {"types": "deb", "uris": uri, "suites": name, "components": components}
        yield {**fields, "signed-by": signed[1] if signed else ""}


def check_mirror(mirror: str) -> None:
    """Refuse a mirror's address that holds a password.

    Raises:
        PermanentError: it would lie in every machine, for all of its users to read.
    """
    if "@" in urlsplit(mirror).netloc:
        raise PermanentError(
            "mirrors.apt holds a name or a password, which every user of the machines could read",
            remedy="an address without one, on a network where it needs none",
        )


def mirror_sources(suite: str, mirror: str, there: Callable[[str], bool]) -> str:
    """A mirror's stanzas: the release, and its updates and security fixes where the mirror has them.

    Args:
        there: whether an address answers, as :func:`answers`.
    """
    mirror = mirror.rstrip("/")
    keyrings = (Path(f"/usr/share/keyrings/{kind}-archive-keyring.gpg") for kind in ("ubuntu", "debian"))
    updates = f"{suite}-updates"
    security = f"{suite}-security"
    has_updates = there(f"{mirror}/dists/{updates}/InRelease")
    # Debian has its security fixes in an archive beside the other, Ubuntu in the same.
    beside = (base for base in (f"{mirror}-security", mirror) if there(f"{base}/dists/{security}/InRelease"))
    fixes = next(beside, "")
    signed = next((str(path) for path in keyrings if path.is_file()), "")
    stanzas = [_stanza(mirror, f"{suite} {updates}" if has_updates else suite, signed)]
    return "\n\n".join(stanzas + ([_stanza(fixes, security, signed)] if fixes else []))


def answers(address: str, ca: str = "") -> bool:
    """Whether there is a file at an address.

    Args:
        ca: PEM text of an authority to trust beside the host's own, or empty.

    Raises:
        TemporaryError: the server is out of reach or out of order, so that it cannot be told.
    """
    trust = ssl.create_default_context()
    if ca:
        trust.load_verify_locations(cadata=ca)
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE, context=trust):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        error.close()
        if error.code < 500 and error.code != 429:
            return False
        raise TemporaryError(f"{address}: the server says {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        raise TemporaryError(f"{address}: {error}", remedy="check mirrors.apt") from error
