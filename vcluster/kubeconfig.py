"""Kubernetes' client configuration: a cluster's own, and its entries among others'. Pure: text in, text out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from vcluster.errors import PermanentError, UsageError

__all__ = ["SERVER_NAME", "Kubeconfig", "merged", "taken"]

SERVER_NAME = "head"
"""By which the server's certificate is checked, under whatever address it is reached."""

_LISTS = ("clusters", "contexts", "users")
_SCALAR, _SEQUENCE, _MAPPING = "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True, slots=True, repr=False)
class Kubeconfig:
    """How a person's programs reach a cluster's Kubernetes as its administrator. It holds a key, so it has no ``repr``.

    Attributes:
        name: the cluster's, and that of its context.
        server: the address, ``https://host:port``.
        authority: the certificate authority, base64 of PEM as all of these.
        certificate: the administrator's.
        key: that one's private key.
        port: the port of this computer at which a tunnel must end; 0 where none is needed.
    """

    name: str
    server: str
    authority: str
    certificate: str
    key: str
    port: int = 0

    def __repr__(self) -> str:
        return f"Kubeconfig({self.name!r}, {self.server!r})"

    @property
    def user(self) -> str:
        """The name of the administrator's entry."""
        return f"{self.name}-admin"

    @property
    def text(self) -> str:
        """The whole file, YAML; the secret part of it is the key."""
        data = {"apiVersion": "v1", "kind": "Config", **self.entries(), "current-context": self.name}
        return yaml.safe_dump(data, sort_keys=False, width=1 << 20)

    def entries(self) -> dict[str, list[dict[str, Any]]]:
        """What it adds to each of a file's three lists."""
        cluster = {
            "server": self.server,
            "tls-server-name": SERVER_NAME,
            "certificate-authority-data": self.authority,
        }
        user = {"client-certificate-data": self.certificate, "client-key-data": self.key}
        context = {"cluster": self.name, "user": self.user}
        return {
            "clusters": [{"name": self.name, "cluster": cluster}],
            "contexts": [{"name": self.name, "context": context}],
            "users": [{"name": self.user, "user": user}],
        }


def taken(text: str, name: str, server: str, port: int = 0) -> Kubeconfig:
    """What k3s' own file, which calls everything ``default`` and the server 127.0.0.1, means from here.

    Raises:
        PermanentError: it is no such file; nothing of it is told.
    """
    try:
        data = yaml.safe_load(text)
        authority = data["clusters"][0]["cluster"]["certificate-authority-data"]
        user = data["users"][0]["user"]
        certificate, key = user["client-certificate-data"], user["client-key-data"]
    except (yaml.YAMLError, LookupError, TypeError):
        # From None: the YAML error quotes the text.
        raise PermanentError("what the head gave is no kubeconfig as k3s writes it") from None
    return Kubeconfig(name, server, str(authority), str(certificate), str(key), port)


def merged(text: str, own: Kubeconfig, *, use: bool = False) -> str:
    """A person's file with this cluster's entries in it, in the place of older ones of the same names.

    All else stays, in order and content: values are taken over as they are written, not as YAML's types, which would
    make a number of a password of digits. Comments go, as with kubectl.

    Args:
        text: the file; empty where there is none.
        use: make it the current context; else it becomes that only where there is none.

    Raises:
        UsageError: the text is no kubeconfig.
    """
    pairs = _read(text)
    for key, entries in own.entries().items():
        _put(pairs, key, _node(entries[0]))
    current = next((value for word, value in pairs if word.value == "current-context"), None)
    if use or current is None or not current.value or current.tag == _NULL:
        _set(pairs, "current-context", yaml.ScalarNode(_SCALAR, own.name))
    written: str = yaml.serialize(yaml.MappingNode(_MAPPING, pairs), width=1 << 20, allow_unicode=True)
    return written


_Pairs = list[tuple[yaml.Node, yaml.Node]]


def _read(text: str) -> _Pairs:
    """The top of a file, as nodes.

    Raises:
        UsageError: it is no kubeconfig.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        # No more of the error: it quotes the text, which may hold keys.
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"is no kubeconfig: it is not YAML{where}") from None
    if root is None or root.tag == _NULL:
        return [(_node("apiVersion"), _node("v1")), (_node("kind"), _node("Config"))]
    if not isinstance(root, yaml.MappingNode):
        raise UsageError("is no kubeconfig: it has no keys")
    if wrong := next(_wrong(root), ""):
        raise UsageError(f"is no kubeconfig: {wrong}")
    return list(root.value)


def _wrong(root: yaml.MappingNode) -> Iterator[str]:
    """What shows that this is another program's file."""
    keys = [key.value for key, _ in root.value if isinstance(key, yaml.ScalarNode)]
    if len(keys) < len(root.value) or len(set(keys)) < len(keys):
        yield "a key stands there twice, or is no word"
    known = {key.value: value for key, value in root.value}
    for key, wanted in (("apiVersion", "v1"), ("kind", "Config")):
        if key in known and known[key].value != wanted:
            yield f"{key} is not {wanted}"
    for key in _LISTS:
        node = known.get(key)
        if node is None or node.tag == _NULL:
            continue
        if not isinstance(node, yaml.SequenceNode) or not all(isinstance(n, yaml.MappingNode) for n in node.value):
            yield f"{key} is no list of entries"
    if not {"apiVersion", "kind", *_LISTS} & known.keys():
        yield "it has none of its keys"


def _put(pairs: _Pairs, key: str, entry: yaml.MappingNode) -> None:
    """An entry in its list, where the first of its name stood, or at the end."""
    old = next((value for word, value in pairs if word.value == key), None)
    before: list[yaml.Node] = list(old.value) if isinstance(old, yaml.SequenceNode) else []
    name, entries = _name(entry), []
    for node in before:
        if _name(node) != name:
            entries.append(node)
        elif entry not in entries:
            entries.append(entry)
    if entry not in entries:
        entries.append(entry)
    # A new list: the old one may be written once and stand in two places.
    flow = old.flow_style if isinstance(old, yaml.SequenceNode) and before else False
    _set(pairs, key, yaml.SequenceNode(_SEQUENCE, entries, flow_style=flow))


def _set(pairs: _Pairs, key: str, value: yaml.Node) -> None:
    for index, (word, _) in enumerate(pairs):
        if word.value == key:
            pairs[index] = (word, value)
            return
    pairs.append((_node(key), value))


def _name(entry: yaml.Node) -> str | None:
    named = (value for key, value in entry.value if key.value == "name" and isinstance(value, yaml.ScalarNode))
    return next((str(value.value) for value in named), None)


def _node(value: Any) -> Any:
    return yaml.compose(yaml.safe_dump(value, sort_keys=False, width=1 << 20), Loader=yaml.SafeLoader)
