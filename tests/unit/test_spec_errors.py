"""Everything that can be wrong in a spec file: each with its line, its column, its field and what is said about it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import NamedTuple

import pytest

from vcluster.errors import Problem, SpecError
from vcluster.spec import ClusterSpec

OK = "name: demo\ncloud: local\n"
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA+cMUjwyKSdrRS2OZuaCwOSzyKtJEOXcHGKOlK2HI/O"
SHORT_RSA = (
    "ssh-rsa "
    + base64.b64encode(
        b"".join(len(f).to_bytes(4) + f for f in (b"ssh-rsa", b"\x01\x00\x01", b"\x00" + b"\xff" * 128))
    ).decode()
)
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nSECRETSECRET\n-----END OPENSSH PRIVATE KEY-----\n"
KEY, FROM = "access.ssh_keys[0]", "access.allow_from[0]"
LISTED = "access:\n  ssh_keys:\n  - "
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcde", "bcdef", strict=True)
)


class Bad(NamedTuple):
    id: str
    text: str | bytes
    line: int
    column: int
    where: str
    message: str
    remedy: str = ""


def more(id: str, text: str, line: int, column: int, where: str, message: str, remedy: str = "") -> Bad:  # noqa: A002, PLR0917
    """A spec whose first two lines are right."""
    return Bad(id, OK + text, line, column, where, message, remedy)


YAML = [
    Bad("empty", "", 1, 1, "", "the file is empty", "name: demo"),
    Bad("comments-only", "# nothing\n", 1, 1, "", "the file is empty"),
    Bad("null", "~\n", 1, 1, "", "must be a mapping"),
    Bad("list", "- name: demo\n", 1, 1, "", "must be a mapping of keys"),
    Bad("scalar", "\nhello\n", 2, 1, "", "must be a mapping of keys", "begin with a line such as name: demo"),
    Bad("not-utf8", b"name: demo\n# caf\xe9\n", 2, 6, "", "not UTF-8", "save the file as UTF-8"),
    Bad("utf16", "name: demo".encode("utf-16"), 1, 1, "", "not UTF-8"),
    Bad("nul", "name: demo\ncloud: lo\0cal\n", 2, 10, "", "a character that YAML does not allow"),
    Bad("escape-character", "name: demo\n# \x1b[2J\n", 2, 3, "", "a character that YAML does not allow"),
    more("tab", "head:\n\tflavor: small\n", 4, 1, "", "a tab character", "spaces only"),
    more("tab-in-list", "workers:\n  - name: a\n\t  count: 1\n", 5, 1, "", "a tab character"),
    more("colon-in-text", "packages: a: b\n", 3, 12, "", "a colon where none is expected"),
    more("open-quote", 'packages: ["gcc]\n', 3, 12, "", "a quotation mark without its other half"),
    more("open-bracket", "packages: [gcc\nusers: []\n", 4, 6, "", "not YAML"),
    more("odd-indent", "head:\n  flavor: small\n image: x\n", 5, 2, "", "fits nothing above it", "indent alike"),
    more("key-without-colon", "packages\nusers: []\n", 4, 1, "", "a key without a colon"),
    more("at-sign", "image: @x\n", 3, 8, "", "cannot begin a value", "quotes"),
    more("unknown-alias", "packages: *p\n", 3, 11, "", "an alias (*name) without its anchor"),
    more("recursive-alias", "packages: &p [*p]\n", 3, 11, "", "aliases make this too large or endless"),
    Bad("laughs", LAUGHS, 1, 24, "", "aliases make this too large or endless"),
    more("deep", f"packages: {'[' * 2000}\n", 3, 26, "", "too deeply nested"),
    more("merge-key", "x: &x {flavor: small}\nhead: {<<: *x}\n", 4, 8, "head", "merge keys (<<) are not supported"),
    more("tag", "packages: !!python/object/apply:os.system [ls]\n", 3, 11, "", "tags (!…) are not used"),
    more("second-document", "---\nname: other\n", 3, 1, "", "a second document begins here", "one file is one cluster"),
    more("duplicate", "name: other\n", 3, 1, "name", "given twice, first in line 1", "keep one"),
    more("duplicate-inside", "head:\n  flavor: a\n  flavor: b\n", 5, 3, "head.flavor", "given twice, first in line 4"),
    more("list-as-key", "[a, b]: c\n", 3, 1, "", "a key must be a word"),
    more("octal", "workers: [{count: 010}]\n", 3, 19, "workers[0].count", "different numbers", "write 10 for a number"),
]

SHAPE = [
    Bad("no-cloud", "name: demo\n", 1, 1, "cloud", "is missing", "`local`, or a cloud's name in clouds.yaml"),
    Bad("no-name", "\ncloud: local\n", 2, 1, "name", "is missing", "for example name: demo"),
    Bad("nothing-after-name", "cloud: local\nname:\n", 2, 6, "name", "is missing"),
    more("unknown-key", "wrokers: []\n", 3, 1, "wrokers", "unknown key", "did you mean workers?"),
    more(
        "unknown-hyphen",
        "workers:\n  - max-count: 2\n",
        4,
        5,
        "workers[0].max-count",
        "unknown",
        "did you mean max_count?",
    ),
    more("unknown-far", "head: {zzz: 1}\n", 3, 8, "head.zzz", "unknown key", "known: flavor"),
    more("unknown-tag", "head: {flavor: {<name>: 1}}\n", 3, 17, "head.flavor.'<name>'", "unknown key", "known: cpus"),
    more("unknown-escape", 'head: {"\\e[2J": 1}\n', 3, 8, "head.'\\x1b[2J'", "unknown key"),
    more("workers-mapping", "workers: {name: cpu}\n", 3, 10, "workers", "must be a list of worker groups", "'- '"),
    more("workers-number", "workers: 3\n", 3, 10, "workers", "must be a list of worker groups, got 3"),
    more("group-text", "workers: [cpu]\n", 3, 11, "workers[0]", "must be a mapping of keys to values, got 'cpu'"),
    more("head-text", "head: small\n", 3, 7, "head", "must be a mapping of keys to values, got 'small'", "flavor"),
    more("packages-text", "packages: gfortran\n", 3, 11, "packages", "must be a list of packages", "write [gfortran]"),
    more("package-number", "packages: [7]\n", 3, 12, "packages[0]", "must be text, got 7", 'write "7"'),
    more("users-nothing", "users: [~]\n", 3, 9, "users[0]", "must be a mapping of keys to values, got nothing"),
]

NAMES = [
    Bad("name-on", "name: on\ncloud: local\n", 1, 7, "name", "must be a name, got true", 'write "on"'),
    Bad("name-number", "name: 1e3\ncloud: local\n", 1, 7, "name", "got 1000.0", 'write "1e3"'),
    Bad("name-capitals", "cloud: local\nname: Demo\n", 2, 7, "name", "must be a cluster's name", "lower-case"),
    Bad("name-long", f"name: {'a' * 31}\ncloud: local\n", 1, 7, "name", "must be a cluster's name", "at most 30"),
    Bad("name-newline", 'name: "demo\\n"\ncloud: local\n', 1, 7, "name", r"got 'demo\n'"),
    Bad("cloud-quote", "name: demo\ncloud: 'a\"b'\n", 2, 8, "cloud", "must be a cloud's name", "clouds.yaml"),
    more("scheduler", "scheduler: slrum\n", 3, 12, "scheduler", "must be slurm or k3s, got 'slrum'"),
    more("group-head", "workers: [{name: head}]\n", 3, 18, "workers[0].name", "vcluster or Slurm uses itself"),
    more("group-probe", "workers: [{name: vcluster-probe}]\n", 3, 18, "workers[0].name", "uses itself"),
    more("group-default", "workers: [{name: default}]\n", 3, 18, "workers[0].name", "uses itself"),
    more("group-twice", "workers: [{name: a}, {name: a}]\n", 3, 29, "workers[1].name", "two groups are called 'a'"),
    more("group-twice-unnamed", "workers:\n  - count: 1\n  - count: 2\n", 5, 5, "workers[1].name", "called 'cpu'"),
    more("group-is-machine", "workers: [{name: a}, {name: a-1}]\n", 3, 29, "workers[1].name", "a machine of group 'a'"),
    more("user-root", "users: [{name: root}]\n", 3, 16, "users[0].name", "an account or group of the system"),
    more("user-slurm", "users: [{name: slurm}]\n", 3, 16, "users[0].name", "an account or group of the system"),
    more("user-space", "users: [{name: 'a b'}]\n", 3, 16, "users[0].name", "must be a user's name, got 'a b'"),
    more("user-twice", "users:\n  - name: al\n  - name: al\n", 5, 11, "users[1].name", "two users are called 'al'"),
    more("user-nameless", "users:\n  - sudo: true\n", 4, 5, "users[0].name", "is missing", "name: alice"),
    more(
        "sudo-text", "users: [{name: al, sudo: maybe}]\n", 3, 26, "users[0].sudo", "must be true or false, got 'maybe'"
    ),
    more("package-option", "packages: [-y]\n", 3, 12, "packages[0]", "must be a Debian package's name, got '-y'"),
    more(
        "package-removal", "packages: [openssh-server-]\n", 3, 12, "packages[0]", "package's name", "apt would remove"
    ),
    more("package-version", "packages: [gcc=12]\n", 3, 12, "packages[0]", "package's name", "write gcc alone"),
    more("package-shell", "packages: ['gcc; reboot']\n", 3, 12, "packages[0]", "package's name"),
]

NUMBERS = [
    more("count-word", "workers: [{count: two}]\n", 3, 19, "workers[0].count", "must be a whole number of at least 0"),
    more(
        "count-negative",
        "workers: [{count: -1}]\n",
        3,
        19,
        "workers[0].count",
        "of at least 0 and at most 4000, got -1",
    ),
    more("count-half", "workers: [{count: 1.5}]\n", 3, 19, "workers[0].count", "whole number", ""),
    more("count-true", "workers: [{count: yes}]\n", 3, 19, "workers[0].count", "whole number of at least 0"),
    more("count-quoted", "workers: [{count: '2'}]\n", 3, 19, "workers[0].count", "got '2'"),
    more("count-huge", f"workers: [{{count: {'9' * 5000}}}]\n", 3, 19, "workers[0].count", "must be a whole number"),
    more(
        "min-above", "workers: [{count: 1, min_count: 2}]\n", 3, 33, "workers[0].min_count", "at most count, which is 1"
    ),
    more("max-below", "workers: [{max_count: 1}]\n", 3, 23, "workers[0].max_count", "at least count, which is 2"),
    more(
        "too-many", "workers:\n- {name: a, count: 4000}\n- {name: b, count: 1}\n", 4, 1, "workers", "are 4001 machines"
    ),
    more("no-groups", "workers: []\n", 3, 10, "workers", "must not be empty"),
    more("no-room", "workers: [{count: 0}]\n", 3, 10, "workers", "must have room for one machine"),
    more("cpus-zero", "head: {flavor: {cpus: 0, memory: 1G}}\n", 3, 23, "head.flavor.cpus", "at least 1 and at most"),
    more("memory-missing", "head: {flavor: {cpus: 1}}\n", 3, 16, "head.flavor.memory", "is missing", "memory: 1G"),
    more("memory-small", "head: {flavor: {cpus: 1, memory: 4}}\n", 3, 34, "head.flavor.memory", "256M", "is 4 MiB"),
    more("memory-gb", "head: {flavor: {cpus: 1, memory: 2GB}}\n", 3, 34, "head.flavor.memory", "a size", "write 2G"),
    more("memory-word", "head: {flavor: {cpus: 1, memory: lots}}\n", 3, 34, "head.flavor.memory", "a size such as 1G"),
    more(
        "disk-part", "head: {flavor: {cpus: 1, memory: 1G, disk: 6.5G}}\n", 3, 44, "head.flavor.disk", "GiB", "write 7G"
    ),
    more("disk-small", "head: {flavor: {cpus: 1, memory: 1G, disk: 1}}\n", 3, 44, "head.flavor.disk", "at least 3G"),
    more("flavor-number", "head: {flavor: 3}\n", 3, 16, "head.flavor", "must be a flavor's name, or a size", ""),
    more("flavor-typo", "head: {flavor: {cpu: 1, memory: 1G}}\n", 3, 17, "head.flavor.cpu", "unknown key", "cpus?"),
    more("time-word", "slurm: {max_time: long}\n", 3, 19, "slurm.max_time", "a time as Slurm writes it", "UNLIMITED"),
    more("time-minutes", "slurm: {max_time: 1:75:00}\n", 3, 19, "slurm.max_time", "a time as Slurm writes it"),
    more("time-zero", "slurm: {max_time: 0}\n", 3, 19, "slurm.max_time", "from one minute"),
    more("time-newline", 'slurm: {max_time: "1\\nState=DOWN"}\n', 3, 19, "slurm.max_time", "a time as Slurm"),
    more(
        "default-above",
        "slurm: {max_time: 30}\n",
        3,
        8,
        "slurm.default_time",
        "must be at most max_time, got '1:00:00'",
    ),
    more("memory-per-cpu", "slurm: {memory_per_cpu: 0}\n", 3, 25, "slurm.memory_per_cpu", "at least 1M"),
]

TEXTS = [
    more("network-host", "access: {allow_from: [10.1.2.3/8]}\n", 3, 23, FROM, "inside", "10.0.0.0/8"),
    more("network-word", "access: {allow_from: [home]}\n", 3, 23, FROM, "must be a network such as"),
    more("network-mask", "access: {allow_from: [10.0.0.0/33]}\n", 3, 23, FROM, "must be a network"),
    more("network-scope", "access: {allow_from: ['fe80::1%\"x']}\n", 3, 23, FROM, "must be a network"),
    more("network-none", "access: {allow_from: []}\n", 3, 22, "access.allow_from", "nobody could reach"),
    more("network-text", "access: {allow_from: 10.0.0.0/8}\n", 3, 22, "access.allow_from", "a list of networks"),
    more("key-no-file", "access: {ssh_keys: [no.pub]}\n", 3, 21, KEY, "there is no file", "ssh-keygen"),
    more("key-directory", "access: {ssh_keys: [.]}\n", 3, 21, KEY, "is a directory"),
    more("key-private", "access: {ssh_keys: [id]}\n", 3, 21, KEY, "is a private key", "id.pub"),
    more("key-private-text", f"access: {{ssh_keys: ['{PRIVATE.splitlines()[0]}']}}\n", 3, 21, KEY, "private"),
    more("key-options", f'{LISTED}command="ls" {ED25519}\n', 5, 5, KEY, "options before a key"),
    more("key-cut", f"{LISTED}{ED25519[:-8]}\n", 5, 5, KEY, "is not a whole public key"),
    more("key-other-type", f"{LISTED}{ED25519.replace('ssh-', 'ssh-x', 1)}\n", 5, 5, KEY, "known type"),
    more("key-dsa", "access: {ssh_keys: [ssh-dss AAAA]}\n", 3, 21, KEY, "DSA keys are refused"),
    more("key-rsa-short", f"access: {{ssh_keys: [{SHORT_RSA}]}}\n", 3, 21, KEY, "RSA key of 1024 bits"),
    more("key-empty-file", "users: [{name: al, ssh_keys: [empty]}]\n", 3, 31, "users[0].ssh_keys[0]", "holds no key"),
    more("key-not-a-list", "users: [{name: al, ssh_keys: al.pub}]\n", 3, 30, "users[0].ssh_keys", "a list of public"),
    more("key-number", "access: {ssh_keys: [5]}\n", 3, 21, KEY, "must be a public key or a file's name, got 5"),
    more("script-no-file", "setup: {head: ./no.sh}\n", 3, 15, "setup.head", "there is no file", "relative"),
    more("script-no-shebang", "setup: {head: plain.sh}\n", 3, 15, "setup.head", "must begin with #!", "#!/bin/bash"),
    more("script-windows", "setup: {workers: dos.sh}\n", 3, 18, "setup.workers", "ends of Windows", "dos2unix"),
    more("script-long", "setup: {workers: long.sh}\n", 3, 18, "setup.workers", "at most 16384 are allowed"),
    more("script-binary", "setup: {head: binary}\n", 3, 15, "setup.head", "is not UTF-8 text"),
    more("script-device", "setup: {head: /dev/zero}\n", 3, 15, "setup.head", "is not an ordinary file"),
    more("script-nobody", "setup: {head: ~nobody-here/x.sh}\n", 3, 15, "setup.head", "has no home on this machine"),
    more("ca-nonsense", "mirrors: {ca: plain.sh}\n", 3, 15, "mirrors.ca", "is not a certificate in PEM form"),
    more("ca-private", "mirrors: {ca: id}\n", 3, 15, "mirrors.ca", "holds a private key"),
    more("url-scheme", "mirrors: {apt: ftp://example.org}\n", 3, 16, "mirrors.apt", "must be an http:// or https://"),
    more("url-space", "mirrors: {apt: 'https://a b'}\n", 3, 16, "mirrors.apt", "must be an http:// or"),
    more("url-newline", 'mirrors: {pypi: "https://a\\nx"}\n', 3, 17, "mirrors.pypi", "must be an http://"),
    more("url-password", "mirrors: {apt: 'https://me:pw@a.org'}\n", 3, 16, "mirrors.apt", "without a user or password"),
    more("checksum-word", "image: {source: x, sha256: abc}\n", 3, 28, "image.sha256", "a SHA-256 checksum", "64 hex"),
    more("checksum-alone", f"image: {{sha256: {'a' * 64}}}\n", 3, 17, "image.sha256", "given without a source"),
    more("url-unchecked", "image: {url: 'https://a.org/x.img'}\n", 3, 8, "image.sha256", "is missing", "sha256sum"),
    more("image-quote", "image: {url: 'a\"b'}\n", 3, 14, "image.url", "must be an image's address, path or name"),
    more("image-two", "image: {url: a, path: b}\n", 3, 9, "image.url", "unknown key"),
]  # fmt: skip

TABLE = [*YAML, *SHAPE, *NAMES, *NUMBERS, *TEXTS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the table's specs name."""
    (tmp_path / "id").write_text(PRIVATE)
    (tmp_path / "empty").write_text("# no key\n\n")
    (tmp_path / "plain.sh").write_text("echo hello\n")
    (tmp_path / "dos.sh").write_bytes(b"#!/bin/sh\r\necho\r\n")
    (tmp_path / "long.sh").write_text("#!/bin/sh\n" + "#" * 16384)
    (tmp_path / "binary").write_bytes(b"#!/bin/sh\n\xff\xfe")
    return tmp_path


def problems(folder: Path, text: str | bytes) -> tuple[Problem, ...]:
    file = folder / "spec.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(SpecError) as caught:
        ClusterSpec.load(file)
    assert "SECRETSECRET" not in str(caught.value)
    assert caught.value.__context__ is None or "SECRET" not in str(caught.value.__context__)
    assert caught.value.exit_code == 2
    return caught.value.problems


def test_the_table_is_long() -> None:
    assert len(TABLE) >= 45
    assert len({bad.id for bad in TABLE}) == len(TABLE)


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.id)
def test_bad_spec(folder: Path, bad: Bad) -> None:
    found = problems(folder, bad.text)
    matching = [p for p in found if p.where == bad.where and bad.message in p.message and bad.remedy in p.remedy]
    assert matching, "\n".join(map(str, found))
    problem = matching[0]
    assert (problem.line, problem.column) == (bad.line, bad.column), str(problem)
    assert problem.file == str(folder / "spec.yaml")
    assert str(problem).startswith(f"{problem.file}:{bad.line}:{bad.column}: ")
    assert all(line.isprintable() for line in str(problem).splitlines())


ALONE = [bad for bad in TABLE if bad.id not in {"flavor-typo", "unknown-tag", "image-two", "merge-key"}]


@pytest.mark.parametrize("bad", ALONE, ids=lambda bad: bad.id)
def test_one_mistake_is_one_problem(folder: Path, bad: Bad) -> None:
    assert len(problems(folder, bad.text)) == 1
