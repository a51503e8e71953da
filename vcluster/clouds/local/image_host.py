"""How this host reaches package servers, for the time in which an image is built: never a part of the image.

What pip and npm are told by the host's files and environment (an index of the site's own, a proxy, an authority) holds
in the tree by files in its ``/tmp``, of which nothing gets into an image.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping
from pathlib import Path
from shlex import quote

__all__ = ["lend", "lent"]

SYSTEM = Path("/etc/ssl/certs/ca-certificates.crt")
TREE = "/tmp/vcluster"  # noqa: S108 - in the tree, whose /tmp is nobody else's
CA, PIP, NPM = "ca.pem", "pip.conf", "npmrc"

_PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries")
_NPM_LINE = re.compile(
    r"\s*(registry|proxy|https-proxy|noproxy|strict-ssl|fetch-[a-z-]+|@[^:=\s]+:registry|//[^=\s]+)\s*="
)
_NOT_THERE = re.compile(
    r"(?i)PIP_|NPM_CONFIG_|(SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|NODE_EXTRA_CA_CERTS|GIT_SSL_CAINFO)\Z"
)
"""Variables that may name files of the host."""


def lend(work: Path, ca: str, environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> None:
    """Write the files into a folder that is nobody else's.

    Args:
        ca: PEM text of a further authority, or empty.
        root: before each of the host's paths.
    """
    home = root / Path.home().relative_to("/")
    system = root / SYSTEM.relative_to("/")
    own = system.read_text() if system.is_file() else ""
    files = {
        CA: f"{own}\n{ca}",
        PIP: _pip([root / "etc/pip.conf", home / ".pip/pip.conf", home / ".config/pip/pip.conf"], environment),
        NPM: _npm([root / "etc/npmrc", home / ".npmrc"], environment),
    }
    for name, text in files.items():
        (work / name).write_text(text)
        (work / name).chmod(0o600)


def lent(work: Path, environment: Mapping[str, str] = os.environ) -> tuple[list[str], str]:
    """The hooks that bring the files into the tree, and the words before a command that shall see them."""
    names = (CA, PIP, NPM)
    hooks = ['mkdir -p "$1/tmp"', *(f"upload {quote(str(work / name))} {TREE}-{name}" for name in names)]
    # apt reads the authority's as nobody in particular; an index may be one with a password.
    hooks.append(f'chmod 0600 "$1"{TREE}-{PIP} "$1"{TREE}-{NPM}; chmod 0644 "$1"{TREE}-{CA}')
    words = [f"--unset={quote(name)}" for name in sorted(environment) if _NOT_THERE.match(name)]
    words += [f"PIP_CONFIG_FILE={TREE}-{PIP}", f"NPM_CONFIG_USERCONFIG={TREE}-{NPM}"]
    words += [f"{name}={TREE}-{CA}" for name in ("PIP_CERT", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE")]
    return hooks, " ".join(["env", *words])


def _pip(paths: list[Path], environment: Mapping[str, str]) -> str:
    found: dict[str, str] = {}
    if given := environment.get("PIP_CONFIG_FILE"):
        paths = [*paths, Path(given)]
    for path in paths:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(path)
        except (OSError, configparser.Error):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                found.update({key: value for key, value in parser.items(section) if key in _PIP_KEYS})
    for key in _PIP_KEYS:
        if value := environment.get(f"PIP_{key.replace('-', '_').upper()}"):
            found[key] = value
    # A folder of the host is not in the tree.
    remote = {
        key: " ".join(word for word in value.split() if "index-url" not in key or word.startswith(("http:", "https:")))
        for key, value in found.items()
    }
    lines = [f"{key} = {value}" for key, value in sorted(remote.items()) if value]
    return "\n".join(["[global]", *lines, ""])


def _npm(paths: list[Path], environment: Mapping[str, str]) -> str:
    lines: list[str] = []
    for path in paths:
        if path.is_file():
            lines += [line for line in path.read_text(errors="replace").splitlines() if _NPM_LINE.match(line)]
    for name, value in environment.items():
        if name.lower() == "npm_config_registry":
            lines.append(f"registry={value}")
    return "".join(f"{line}\n" for line in lines)
