"""YAML with line numbers: a text becomes plain data, and every key and value in it keeps its place.

Only what all YAML readers understand alike is accepted. Where YAML 1.1 and 1.2 disagree the text as written is kept
(``1:00:00`` is a time, not 3600) or refused with the advice to quote it (``010``). Tags and merge keys are refused;
aliases are allowed as far as the whole stays small.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

from vcluster.errors import Problem, SpecError
from vcluster.spec_checks import Path as Place
from vcluster.spec_checks import Trouble

__all__ = ["Origin", "Source", "dump", "plain", "read_bytes", "read_text"]

MOST_BYTES = 1024 * 1024
MOST_NODES = 50_000
MOST_DEPTH = 16

Mark = tuple[int, int]
"""1-based line and column."""


@dataclass
class Source:
    """Where a spec came from.

    Attributes:
        file: the name as the user gave it, or empty.
        folder: where the names of files in it begin; None refuses files.
        problems: what is wrong with the YAML itself, so far.
    """

    file: str = ""
    folder: Path | None = field(default_factory=Path)
    problems: list[Problem] = field(default_factory=list)
    keys: dict[Place, Mark] = field(default_factory=dict)
    values: dict[Place, Mark] = field(default_factory=dict)
    unquoted: dict[Place, str] = field(default_factory=dict)

    def problem(self, trouble: Trouble) -> Problem:
        """A trouble with its place in the file: its own, or that of the nearest thing around it that is there."""
        path = trouble.at
        mark = self.keys.get(path) if trouble.key else self.values.get(path)
        while mark is None and path:
            path = path[:-1]
            mark = self.values.get(path)
        line, column = mark or (0, 0)
        remedy = trouble.remedy
        if trouble.quote and trouble.at in self.unquoted:
            remedy = f'without quotes YAML does not read this as text; write "{self.unquoted[trouble.at]}"'
        return Problem(spell(trouble.at), trouble.message, remedy, self.file, line, column)

    def add(self, place: Place, mark: Mark, message: str, remedy: str = "") -> None:
        """Note a problem of the YAML itself."""
        self.problems.append(Problem(spell(place), message, remedy, self.file, *mark))


@dataclass(frozen=True, eq=False, slots=True)
class Origin:
    """Where a spec came from, kept with it. All are alike: where a spec was written is no part of what it means."""

    source: Source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)

    def __hash__(self) -> int:
        return 0


def spell(place: Place) -> str:
    """A place as a person reads it: ``workers[0].count``. Odd keys are escaped: they may hold anything."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if re.fullmatch(r"[\w.-]{1,64}", part) else ascii(part[:64])
            text += f".{word}" if text else word
    return text


# PyYAML's reader without any idea of what a scalar is: :func:`plain` decides that.
_Loader = yaml.BaseLoader


def read_bytes(path: Path) -> bytes:
    """A spec file's bytes.

    Raises:
        SpecError: there is none, or it cannot be read, or it is far too large.
    """

    def fail(message: str, remedy: str = "") -> SpecError:
        return SpecError([Problem("", message, remedy, str(path))])

    try:
        if path.is_dir():
            raise fail("is a directory, not a spec", "name the YAML file in it")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise fail("there is no such file", "the smallest spec holds two lines: name: demo, cloud: local") from None
    except (OSError, ValueError) as error:
        raise fail(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MOST_BYTES:
        raise fail(f"is larger than {MOST_BYTES // 1024} KiB: is it a spec at all?")
    return data


def read_text(data: bytes | str, source: Source) -> dict[str, Any] | None:
    """The mapping that a YAML text holds; problems go to ``source``, None when nothing is left to look at."""
    text = _decode(data, source) if isinstance(data, bytes) else data
    if text is None:
        return None
    if len(text) > MOST_BYTES:
        source.add((), (1, 1), f"is larger than {MOST_BYTES // 1024} KiB: is it a spec at all?")
        return None
    try:
        root = _Loader(text).get_single_node() if _bounded(text, source) else None
    except ReaderError as error:
        place = _mark_at(text, error.position if isinstance(error.position, int) else 0)
        source.add((), place, "a character that YAML does not allow", "remove it; is this a text file?")
    except yaml.MarkedYAMLError as error:
        _syntax(error, text, source)
    if source.problems:
        return None
    if isinstance(root, MappingNode):
        walk = _Walk(source)
        value: dict[str, Any] = walk.value(root, (), 0)
        return None if walk.full else value
    if root is None:
        source.add((), (1, 1), "the file is empty", "the smallest spec holds two lines: name: demo, cloud: local")
    else:
        source.add((), _mark(root), "must be a mapping of keys to values", "begin with a line such as name: demo")
    return None


def _decode(data: bytes, source: Source) -> str | None:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", errors="replace").removeprefix("\ufeff")
        source.add((), _mark_at(before, len(before)), "is not UTF-8 text", "save the file as UTF-8")
        return None


def _mark_at(text: str, index: int) -> Mark:
    before = text[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1


def _mark(node: Node) -> Mark:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _bounded(text: str, source: Source) -> bool:
    """Look at the events before anything is built: depth, number, tags, documents."""
    depth = documents = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        start = event.start_mark
        mark = (start.line + 1, start.column + 1) if start else (1, 1)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH or count > MOST_NODES:
            source.add((), mark, "too deeply nested or too large for a spec")
            return False
        if documents > 1:
            source.add((), mark, "a second document begins here", "one file is one cluster: remove the line ---")
            return False
        if getattr(event, "tag", None) is not None:
            source.add((), mark, "YAML tags (!…) are not used in a spec", "remove the tag; quotes make a text")
            return False
    return True


_ADVICE = (
    ("'\\t'", "a tab character", "YAML is indented with spaces only"),
    (
        "mapping values are not allowed",
        "a colon where none is expected",
        "indent alike; quote a text that has ': ' in it",
    ),
    ("could not find expected ':'", "a key without a colon", "write it as key: value"),
    (
        "but found '<block mapping start>'",
        "an indentation that fits nothing above it",
        "indent alike what belongs together",
    ),
    ("did not find expected key", "something that is not a key", "indent alike what belongs together"),
    ("expected <block end>", "something that does not fit here", "indent alike what belongs together"),
    ("while scanning a quoted scalar", "a quotation mark without its other half", "close the quotation"),
    ("cannot start any token", "a character that cannot begin a value", "put the value in quotes"),
    ("undefined alias", "an alias (*name) without its anchor (&name)", "define the anchor above it, or quote the text"),
    ("duplicate anchor", "an anchor defined twice", "give each anchor its own name"),
    ("recursive", "an anchor inside itself", "write it out"),
)


def _syntax(error: yaml.MarkedYAMLError, text: str, source: Source) -> None:
    words = f"{error.context or ''} {error.problem or ''}"
    mark = error.problem_mark or error.context_mark
    place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    if "quoted scalar" in words and error.context_mark:
        place = (error.context_mark.line + 1, error.context_mark.column + 1)
    lines = text.splitlines()
    line = lines[place[0] - 1] if place[0] <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        # PyYAML says many different things about one and the same mistake.
        source.add((), (place[0], line.index("\t") + 1), f"not YAML: {_ADVICE[0][1]}", _ADVICE[0][2])
        return
    for part, message, remedy in _ADVICE:
        if part in words:
            source.add((), place, f"not YAML: {message}", remedy)
            return
    source.add((), place, f"not YAML: {error.problem or error.context or 'it cannot be read'}")


_OCTAL = re.compile(r"[-+]?0[0-9_]+")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
    **dict.fromkeys(("null", "~", ""), None),
}


def plain(text: str) -> str | int | float | bool | None:
    """What a scalar without quotes means: the meaning that it has for all YAML readers, else the text itself."""
    word = text if text in {text.lower(), text.upper(), text.capitalize()} else ""
    if word.lower() in _WORDS and (word or not text):
        return _WORDS[word.lower()]
    if _INT.fullmatch(text):
        return int(text)
    if len(text) <= 100 and _FLOAT.fullmatch(text):
        return float(text)
    return text


class _Walk:
    """From nodes to plain data, noting every place on the way."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.nodes = 0
        self.full = False

    def value(self, node: Node, place: Place, depth: int) -> Any:
        # A node that aliases repeat counts each time: that is what a "bomb" is made of.
        self.nodes += 1
        mark = _mark(node)
        self.source.values[place] = mark
        if self.nodes > MOST_NODES or depth > MOST_DEPTH:
            if not self.full:
                self.source.add((), mark, "aliases make this too large or endless", "write it out")
            self.full = True
            return None
        if isinstance(node, MappingNode):
            return self.mapping(node, place, depth)
        if isinstance(node, SequenceNode):
            items = []
            for index, child in enumerate(node.value):
                if self.full:
                    break
                items.append(self.value(child, (*place, index), depth + 1))
            return items
        return self.scalar(node, place, mark)

    def scalar(self, node: Node, place: Place, mark: Mark) -> Any:
        text: str = node.value
        if not isinstance(node, ScalarNode) or node.style is not None:
            return text
        if _OCTAL.fullmatch(text):
            # Eight for some readers, ten for others.
            digits = text.replace("_", "").lstrip("+-0") or "0"
            self.source.add(
                place,
                mark,
                f"{text[:40]} means different numbers to different YAML readers",
                f'write {digits[:40]} for a number, "{text[:40]}" for a text',
            )
            return text
        value = plain(text)
        if not isinstance(value, str) and value is not None:
            self.source.unquoted[place] = text
        return value

    def mapping(self, node: MappingNode, place: Place, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, child in node.value:
            if self.full:
                break
            mark = _mark(key_node)
            if not isinstance(key_node, ScalarNode):
                self.source.add(place, mark, "a key must be a word", "quote a text that begins with [ or {")
                continue
            key = key_node.value
            path = (*place, key)
            if key == "<<" and key_node.style is None:
                self.source.add(place, mark, "merge keys (<<) are not supported", "write the keys out")
                continue
            if key in result:
                first = self.source.keys[path][0]
                self.source.add(path, mark, f"given twice, first in line {first}", "keep one of the two")
                continue
            self.source.keys[path] = mark
            result[key] = self.value(child, path, depth + 1)
        return result


class _Dumper(yaml.SafeDumper):
    """Writes texts so that :func:`read_text` reads the same again."""


def _text(dumper: yaml.SafeDumper, value: str) -> ScalarNode:
    bare = isinstance(plain(value), str) and not _OCTAL.fullmatch(value)
    style = "|" if "\n" in value else None if bare else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dump(data: dict[str, Any]) -> str:
    """Plain data as YAML, keys in their order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
